"""--mode=prepare: both splits, and a table of what they hold."""
import re

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.unit.config import test_configs
from video_diffusion import prepare
from video_diffusion.errors import UserError

image = pytest.importorskip('PIL.Image')


@pytest.fixture(name='config')
def folder_config(tmp_path):
  config = test_configs.load('video_folder', 'laptop')
  config.data.path = str(tmp_path / 'videos')
  config.data.dir = str(tmp_path / 'records')
  (tmp_path / 'videos').mkdir()
  for i in range(3):
    frames = [
        image.fromarray(np.full((12, 16), 40 * i + j, np.uint8))
        for j in range(20)
    ]
    frames[0].save(
        tmp_path / 'videos' / f'{i}.gif', save_all=True,
        append_images=frames[1:], duration=5000,
    )
  (tmp_path / 'videos' / 'broken.mp4').touch()
  return config


def test_a_folder_is_prepared_and_told(config, tmp_path, caplog):
  pytest.importorskip('tensorflow_datasets')
  with caplog.at_level('INFO'):
    prepare.prepare(config, str(tmp_path / 'run'))
  rows = [line.split() for line in caplog.messages if ' (video_' in line]
  assert rows == [
      ['data,', split, '(video_folder)', '100.0%', videos, 'windows', videos,
       frames, '300.0', '16', 'x', '16', '1', '0']
      for split, videos, frames in (('train', '2', '40'), ('test', '1', '20'))
  ]
  assert not (tmp_path / 'run').exists()
  assert len(list(tmp_path.glob('records/video_folder/*/*'))) == 1


def test_drawn_data_need_no_preparation(run_main_here, tmp_path):
  code, output = run_main_here(
      '--mode=prepare', f'--workdir={tmp_path / "run"}'
  )
  assert code == 0, output
  assert 'nothing to prepare' in output
  assert not (tmp_path / 'run').exists()


def test_bad_data_are_one_sentence(run_main_here, tmp_path):
  code, output = run_main_here(
      '--mode=prepare', '--config=configs/video_folder.py:laptop',
      f'--config.data.path={tmp_path / "none"}', tiny=False,
  )
  assert code == 1 and 'Traceback' not in output
  assert output.strip().splitlines()[-1].endswith(
      f'data.path, {tmp_path}/none, is missing; give a folder of video files.'
  )


def test_calls_that_share_the_files_and_one_that_packs(
    config, tmp_path, caplog
):
  pytest.importorskip('tensorflow_datasets')
  for task in range(2):
    config.prepare.tasks, config.prepare.task = 2, task
    with caplog.at_level('INFO'):
      prepare.prepare(config, str(tmp_path / 'run'))
  told = [line for line in caplog.messages if line.startswith('Task ')]
  assert [line.partition(' decoded')[0] for line in told] == [
      'Task 0 of 2', 'Task 1 of 2'
  ]
  decoded = [int(line.split()[5]) for line in told]
  assert sum(decoded) == 4
  assert not (tmp_path / 'records' / 'video_folder').exists()
  assert len(list(tmp_path.glob('records/decoded/??/*.json'))) == 4
  config.prepare.tasks = config.prepare.task = 0
  prepare.prepare(config, str(tmp_path / 'run'))
  assert len(list(tmp_path.glob('records/video_folder/*/*'))) == 1


@pytest.mark.parametrize('fields, sentence', [
    (dict(tasks=2, task=2), r'prepare\.task is 2; .* the 2 of prepare\.tasks'),
    (dict(task=1), r'prepare\.task is 1; .* the 0 of prepare\.tasks'),
    (dict(runner='spark'), r"prepare\.runner is 'spark'; it must be one of"),
    (dict(runner='beam', tasks=2), r'prepare\.tasks is 2, but'),
    (dict(beam_options='--x'), r'prepare\.beam_options is set, but'),
    (dict(runner='beam', bucket='b'), r"prepare\.bucket is 'b'; it must be /F"),
    (dict(bucket='/m=gs://b'), r'prepare\.bucket is set, but prepare\.runner'),
])
def test_fields_that_contradict_each_other(config, fields, sentence):
  config.prepare.update(fields)
  with pytest.raises(UserError, match=sentence):
    prepare.prepare(config, '')


def test_an_error_of_the_disk_in_a_task_names_the_field(config, tmp_path):
  config.prepare.tasks = 2
  (tmp_path / 'records').mkdir()
  (tmp_path / 'records' / 'decoded').write_text('no folder')
  with pytest.raises(UserError, match=r'^data\.dir cannot be written \(.*File'):
    prepare.prepare(config, '')


def options_on_the_page():
  """The options of Beam that docs/data.md gives for Flink."""
  page = (ROOT / 'docs' / 'data.md').read_text()
  (options,) = re.findall(r"'(--runner=FlinkRunner [^']*)'", page)
  return options


def test_the_options_on_the_page_reach_the_engine(
    config, run_main_here, tmp_path, monkeypatch
):
  """Flink's runner is asked to run, and does nothing; no network is used."""
  pytest.importorskip('tensorflow_datasets')
  beam_options = pytest.importorskip('apache_beam.options.pipeline_options')
  flink = pytest.importorskip('apache_beam.runners.portability.flink_runner')
  asked = []

  class Finished:
    wait_until_finish = staticmethod(lambda: 'DONE')
    metrics = staticmethod(lambda: Finished)
    query = staticmethod(lambda _: {'string_sets': []})

  def run(self, pipeline, options):
    asked.append(options)
    return Finished

  monkeypatch.setattr(flink.FlinkRunner, 'run_pipeline', run)
  code, output = run_main_here(
      '--mode=prepare', '--config=configs/video_folder.py:laptop',
      f'--config.data.path={config.data.path}',
      f'--config.data.dir={config.data.dir}', '--config.prepare.runner=beam',
      f'--config.prepare.beam_options={options_on_the_page()}', tiny=False,
  )
  assert code == 0, output
  options, shards = asked
  assert shards.get_all_options() == options.get_all_options()
  view = options.view_as(beam_options.FlinkRunnerOptions)
  assert view.flink_master == 'HOST:8081'
  view = options.view_as(beam_options.PortableOptions)
  assert view.environment_type == 'EXTERNAL'
  assert view.environment_config == 'localhost:50000'
  # What the engine has neither decoded nor packed, this call has.
  assert len(list(tmp_path.glob('records/video_folder/*/*'))) == 1


def test_dataflow_is_refused_in_one_sentence(config, run_main_here):
  pytest.importorskip('apache_beam')
  code, output = run_main_here(
      '--mode=prepare', '--config=configs/video_folder.py:laptop',
      f'--config.data.path={config.data.path}',
      f'--config.data.dir={config.data.dir}', '--config.prepare.runner=beam',
      '--config.prepare.beam_options=--runner=DataflowRunner --region=REGION',
      tiny=False,
  )
  assert code == 1 and 'Traceback' not in output, output
  assert output.strip().splitlines()[-1].endswith(
      'prepare.beam_options has the runner DataflowRunner, whose workers share '
      'no folder with this machine; mount the bucket of the videos and of '
      'data.dir here by gcsfuse and set prepare.bucket=/FOLDER=gs://BUCKET, or '
      'use a runner whose workers see both, such as FlinkRunner or SparkRunner.'
  )
