"""Runs with captions, through main: train, resume, sample, and bad prompts."""
import json
import shutil

import numpy as np
import pytest

from benchmarks import read_samples
from video_diffusion import sample
from video_diffusion.config import build
from video_diffusion.data import shapes
from video_diffusion.text import tokenizer as tokenizer_lib

CONFIG = '--config=configs/moving_shapes.py:text'
PROMPTS = (
    '--prompt=a red circle moves right', '--prompt=a cyan square moves up'
)


@pytest.fixture(scope='session')
def tiny(tiny_flags):
  """The flags of a tiny run with captions."""
  return [CONFIG, *tiny_flags, '--config.model.cond_dim=8']


@pytest.fixture(scope='session')
def resumed(once, run_main_here, tiny):
  """The workdir of a run after two steps, and a third one by resuming."""

  def make(folder):
    for steps in (2, 3):
      code, output = run_main_here(
          *tiny, f'--workdir={folder}', f'--config.train.steps={steps}',
          tiny=False,
      )
      assert code == 0, output
    assert 'from step 2' in output

  return once('text', make)


@pytest.fixture
def finished(resumed, tmp_path):
  """A copy of that run."""
  return shutil.copytree(resumed, tmp_path / 'finished')


def losses(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_a_resumed_run_has_the_losses_of_a_whole_one(
    finished, run_main_here, tiny, tmp_path
):
  whole = tmp_path / 'whole'
  code, output = run_main_here(
      *tiny, f'--workdir={whole}', '--config.train.steps=3',
      '--config.data.loader=tf', tiny=False,
  )
  assert code == 0, output
  assert losses(whole) == losses(finished)
  assert len(losses(whole)) == 3
  for name in ('tokenizer.model', 'samples/step_3.gif'):
    assert (whole / name).stat().st_size > 100
  assert (whole / 'tokenizer.model').read_bytes() == (
      finished / 'tokenizer.model'
  ).read_bytes()


def test_a_run_takes_over_the_words_and_weights_of_another(
    finished, run_main_here, tiny, tmp_path
):
  # A tokenizer that the captions alone would not have given.
  words = [*shapes.MovingShapes(
      split='train', seed=0, num_examples=1, num_frames=2, height=8, width=8
  ).captions(), 'a dog']
  other = tokenizer_lib.train_tokenizer(words)
  (finished / 'tokenizer.model').write_bytes(other)
  call = (
      *tiny, f'--workdir={tmp_path}', f'--config.train.init_from={finished}',
      '--config.checkpoint.keep=9',
  )
  for steps in (1, 2):
    code, output = run_main_here(*call, f'--config.train.steps={steps}',
                                 tiny=False)
    assert code == 0, output
    if steps == 1:
      assert 'EMA weights of step 3' in output and 'start fresh' not in output
      shutil.rmtree(finished / 'checkpoints')  # it is not needed to continue
  assert 'from step 1' in output
  assert (tmp_path / 'tokenizer.model').read_bytes() == other
  assert sorted(losses(tmp_path)) == [1, 2]
  assert (tmp_path / 'checkpoints' / '0').exists()


def test_prompts_are_drawn_written_and_kept(finished, run_main_here, tmp_path):
  av = pytest.importorskip('av')
  workdir = finished
  file = tmp_path / 'prompts.txt'
  # As Windows' editors write it, and as people write sentences.
  file.write_bytes(b'\xef\xbb\xbfA Blue circle moves down.\r\n\r\n')
  code, output = run_main_here(
      CONFIG, f'--workdir={workdir}', '--mode=sample', *PROMPTS,
      f'--prompt_file={file}', '--config.sample.guidance_weight=2',
      tiny=False,
  )
  assert code == 0, output
  folder = workdir / 'samples' / 'step_3_seed_0'
  with np.load(folder / 'samples.npz') as arrays:
    assert arrays['video'].shape == (3, 2, 8, 8, 3)
    kept = arrays['captions'].tolist()
  assert kept == [
      'a red circle moves right', 'a cyan square moves up',
      'A Blue circle moves down.',
  ]
  assert 'Classifier-free guidance: w = 2 (1 + w = 3).' in output
  for i, caption in enumerate(kept):
    with av.open(str(folder / f'clip_{i:04d}.mp4')) as container:
      assert container.metadata['comment'] == caption
  with av.open(str(folder / 'grid.mp4')) as container:
    assert container.metadata['comment'].splitlines() == kept


def test_what_a_model_takes_from_captions(finished, capsys):
  from benchmarks import caption_use

  rows = caption_use.main([str(finished), '--clips=4', '--logsnr=-8,0'])
  assert [row['logsnr'] for row in rows] == [-8.0, 0.0]
  for row in rows:
    assert 0 < row['error'] < 4
    assert all(np.isfinite(row[word]) for word in caption_use.WORDS)
  assert 'weights_sha256' in capsys.readouterr().out


@pytest.mark.parametrize('flags, words', [
    ((), 'nowhere holds no run'),
    (('--clips=0',), '--clips: is 0; at least 1'),
    (('--logsnr=low',), '--logsnr: invalid numbers value'),
])
def test_the_readers_of_runs_refuse_by_one_sentence(
    tmp_path, capsys, flags, words
):
  from benchmarks import caption_use

  with pytest.raises(SystemExit):
    caption_use.main([str(tmp_path / 'nowhere'), *flags])
  assert words in capsys.readouterr().err


def test_alignment_is_a_table_by_weight_and_pairs(finished, tmp_path):
  from benchmarks import alignment

  rows = alignment.main([
      str(finished), str(tmp_path), '--weights=0,3', '--clips=8', '--steps=2',
      '--sampler=dpmpp_2m',
  ])
  assert [(row['pairs'], row['weight']) for row in rows] == [
      (pairs, w) for pairs in ('seen', 'heldout') for w in (None, 0.0, 3.0)
  ]
  for real, *drawn in (rows[:3], rows[3:]):
    for row in drawn:
      assert all(0 <= row[c] <= 1 for c in alignment.COLUMNS[:5])
      # What is as good as noise is further away than other real frames are.
      assert row['frames'] > real['frames']
  # The most that a reader can say of eight pixels.
  assert rows[0]['colour'] == rows[0]['palette'] == 1.0
  report = json.loads((tmp_path / 'alignment.json').read_text())
  assert len(report['protocol']['weights_sha256']) == 64
  assert report['rows'] == rows
  assert (tmp_path / 'w_3.gif').stat().st_size > 100


def test_alignment_is_an_evaluator_of_a_text_run(finished, run_main_here):
  code, output = run_main_here(
      CONFIG, f'--workdir={finished}', '--mode=evaluate',
      "--config.eval.evaluators=('alignment',)", tiny=False,
  )
  assert code == 0, output
  report = json.loads((finished / 'evaluation.json').read_text())
  assert 'losses' not in report and report['step'] == 3
  found = report['alignment']
  for pairs in ('seen', 'heldout'):
    assert 0 <= found[f'{pairs}_all'] <= found[f'{pairs}_colour'] <= 1
    assert found[f'{pairs}_frames'] > found[f'{pairs}_real_frames'] > 0
  assert 'heldout_motion' in output


def test_samples_are_read_by_their_captions(finished, run_main_here):
  code, output = run_main_here(
      CONFIG, f'--workdir={finished}', '--mode=sample', *PROMPTS,
      '--config.sample.seed=7', tiny=False,
  )
  assert code == 0, output
  folder = finished / 'samples' / 'step_3_seed_7'
  (row,) = read_samples.read(str(folder))
  assert row['part'] == 'all frames' and row['clips'] == len(PROMPTS)
  assert 0 <= row['all'] <= row['colour'] <= 1
  assert row['all'] < 1  # three steps have not taught it
  assert (folder / 'alignment.json').exists()
  with pytest.raises(ValueError, match='does not exist'):
    read_samples.read(str(finished))


def test_a_cascade_hands_its_captions_on(finished, run_main_here, tmp_path):
  # The network has no array of the size of its frames.
  fine = shutil.copytree(finished, tmp_path / 'fine')
  config = json.loads((fine / 'config.json').read_text())
  config['data'] |= dict(height=16, width=16)
  (fine / 'config.json').write_text(json.dumps(config))
  code, output = run_main_here(
      CONFIG, f'--workdir={finished}', '--mode=sample', *PROMPTS,
      f'--config.sample.refine_workdir={fine}', '--config.sample.stride=1',
      '--config.sample.seed=8', tiny=False,
  )
  assert code == 0, output
  with np.load(finished / 'samples/step_3_seed_8/samples.npz') as arrays:
    assert arrays['video'].shape == (2, 2, 16, 16, 3)
    assert arrays['captions'].tolist() == [p.split('=')[1] for p in PROMPTS]
  # A config that is not that of the weights.
  config['text']['encoder'] = ''
  (fine / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match='fine holds weights without a table'):
    sample.sample(
        {'sample.refine_workdir': str(fine), 'sample.stride': 1}, str(finished)
    )


@pytest.mark.parametrize(
    'fields, sentence',
    [
        (dict(prompts=('',)), "a prompt is ''; it must describe"),
        (dict(prompts=('a red circle ' * 6,)), 'has more than 15 tokens'),
        (
            dict(prompts=('a pink elephant moves up',)),
            "holds 'pink', 'elephant', unknown to this run; it knows a and",
        ),
        (
            dict(prompts=('caf\udce9',)),
            r"sample.prompts is 'caf\\udce9'; it must be text in UTF-8",
        ),
        (dict(labels=((0,),)), 'sample.labels must not be given: the model t'),
        (dict(prompts=('a', 'a'), num_videos=1), 'the number of prompts'),
    ],
)
def test_a_bad_prompt_is_one_sentence(finished, fields, sentence, monkeypatch):
  monkeypatch.setattr(build, 'restore_ema', None)  # nothing comes so far
  overrides = {f'sample.{name}': value for name, value in fields.items()}
  with pytest.raises(ValueError, match=sentence) as error:
    sample.sample(overrides, str(finished))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'flags, sentence',
    [
        ([PROMPTS[0], '--mode=train'], '--prompt_file go with --mode=sample'),
        (['--mode=sample', '--prompt_file=/none'], '_file /none cannot be'),
        (['--mode=sample', '--prompt=a elk'], "the prompt 'a elk' holds 'elk'"),
    ],
)
def test_a_bad_flag_is_one_sentence(finished, run_main_here, flags, sentence):
  code, output = run_main_here(
      CONFIG, f'--workdir={finished}', *flags, tiny=False
  )
  last = output.strip().splitlines()[-1]
  assert code == 1 and sentence in last, output
  assert last.startswith('video_diffusion: ') and 'Traceback' not in output


def test_a_lost_tokenizer_and_another_one(finished, tmp_path):

  def answer(change):
    copy = tmp_path / 'copy'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(finished, copy)
    change(copy)
    with pytest.raises(ValueError) as error:
      sample.sample({'sample.prompts': ('a red circle',)}, str(copy))
    return str(error.value)

  lost = lambda copy: (copy / 'tokenizer.model').unlink()
  assert 'has no tokenizer.model; copy it' in answer(lost)

  def other(copy):
    words = ['a red circle moves right', 'a cyan square moves up']
    model = tokenizer_lib.train_tokenizer(words)
    (copy / 'tokenizer.model').write_bytes(model)

  assert 'was trained with another tokenizer' in answer(other)


def test_a_checkpoint_of_another_size_is_said(
    finished, run_main_here, tmp_path
):
  copy = tmp_path / 'copy'
  shutil.copytree(finished, copy)
  config = (copy / 'config.json').read_text()
  (copy / 'config.json').write_text(config.replace('"dim": 64', '"dim": 32'))
  code, output = run_main_here(
      CONFIG, f'--workdir={copy}', '--mode=sample', PROMPTS[0], tiny=False
  )
  assert code == 1 and 'Compiled' not in output
  assert 'step 3' in output and 'not hold the model of' in output
