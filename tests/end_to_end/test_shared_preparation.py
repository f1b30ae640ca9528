"""Training on records that several tasks have prepared, by one and by two."""
import json
import shutil

import numpy as np
import pytest

from tests.end_to_end import test_pod

for module in ['av', 'tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)
image = pytest.importorskip('PIL.Image')

TASKS = 3


@pytest.fixture(name='flags', scope='module')
def flags_of_prepared_data(
    tmp_path_factory, run_main_here, tiny_video_flags
):
  """{who has prepared them: flags of a run on the same eight videos}."""
  folder = tmp_path_factory.mktemp('videos')
  rng = np.random.default_rng(0)
  for i in range(8):
    frames = [
        image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        for _ in range(12 + i)
    ]
    frames[0].save(
        folder / f'{i}.gif', save_all=True, append_images=frames[1:],
        duration=100,
    )
  (folder / 'broken.gif').write_bytes(b'GIF89a but no more')
  flags = {}
  for name, tasks in (('one', []), ('tasks', range(TASKS))):
    data_dir = tmp_path_factory.mktemp(name)
    flags[name] = [
        '--config=configs/video_folder.py:laptop', *tiny_video_flags,
        f'--config.data.path={folder}', f'--config.data.dir={data_dir}',
        '--config.checkpoint.every=2',
    ]
    shares = [
        (f'--config.prepare.tasks={TASKS}', f'--config.prepare.task={task}')
        for task in tasks
    ]
    for share in (*shares, ()):
      code, output = run_main_here(
          '--mode=prepare', *flags[name], *share, tiny=False
      )
      assert code == 0, output
  return flags


def losses_of(workdir):
  losses = test_pod.every_loss(workdir)
  assert {step for step, *_ in losses} == {1, 2, 3, 4}
  return losses


def test_training_begins_on_what_is_decoded_and_resumes_when_all_is(
    flags, run_main_here, tmp_path
):
  """On half of the files, a share of two, before and after the other half."""

  def call(name, *more):
    code, output = run_main_here(
        *flags[name], f'--workdir={tmp_path / name}', *more, tiny=False
    )
    assert code == 0, output
    return output

  half = '--config.data.fraction=0.5'
  early = f'--config.data.dir={tmp_path / "early"}'
  call('one', half, '--config.train.steps=4')
  call('tasks', early, '--mode=prepare', '--config.prepare.tasks=2')
  output = call('tasks', early, half, '--config.train.steps=2')
  assert 'Prepared video_folder: 4 of ' in output
  call('tasks', early, '--mode=prepare')
  output = call('tasks', early, half, '--config.train.steps=4')
  assert test_pod.continued_from(output) == 2
  assert losses_of(tmp_path / 'tasks') == losses_of(tmp_path / 'one')
  # A copy of the records alone is the same data, without the flag.
  files = {
      file: json.loads(file.read_text())['files']
      for file in (tmp_path / 'early').rglob('report.json')
  }
  copy = shutil.copytree(min(files, key=files.get).parent, tmp_path / 'copy')
  code, output = run_main_here(
      *flags['tasks'], f'--workdir={tmp_path / "tasks"}', '--mode=prepare',
      f'--config.data.path={copy}', half, tiny=False,
  )
  assert code and output.startswith('video_diffusion: data.fraction is 0.5')
  output = call('tasks', f'--config.data.path={copy}', '--config.train.steps=4')
  assert test_pod.continued_from(output) == 4


def test_two_processes_train_as_with_records_of_one_call(
    flags, start_main, tmp_path
):
  for name in ('one', 'tasks'):
    for code, output in test_pod.finish(test_pod.start_pod(
        start_main, *flags[name], f'--workdir={tmp_path / name}',
        '--config.train.steps=4', devices=1, tiny=False,
    )):
      assert code == 0, output
  assert losses_of(tmp_path / 'tasks') == losses_of(tmp_path / 'one')
