"""Runs with captions, through main: train, resume, sample, and what is wrong."""
import json
import shutil

import numpy as np
import pytest

CONFIG = '--config=configs/moving_shapes.py:text'
PROMPTS = ('--prompt=a red circle moves right', '--prompt=a cyan square moves up')


@pytest.fixture(scope='module')
def tiny(tiny_flags):
  """The flags of a tiny run with captions."""
  return [CONFIG, *tiny_flags, '--config.model.cond_dim=8']


@pytest.fixture(scope='module')
def finished(run_main, tiny, tmp_path_factory):
  """A workdir after two steps, then a third by resuming."""
  workdir = tmp_path_factory.mktemp('runs') / 'text'
  for steps in (2, 3):
    code, output = run_main(
        *tiny, f'--workdir={workdir}', f'--config.train.steps={steps}',
        tiny=False,
    )
    assert code == 0, output
  assert 'from step 2' in output
  return workdir


def losses(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_a_resumed_run_has_the_losses_of_a_whole_one(
    finished, run_main, tiny, tmp_path
):
  code, output = run_main(
      *tiny, f'--workdir={tmp_path}', '--config.train.steps=3',
      '--config.data.loader=threads', tiny=False,
  )
  assert code == 0, output
  assert losses(tmp_path) == losses(finished)
  assert len(losses(tmp_path)) == 3
  for name in ('tokenizer.model', 'samples/step_3.gif'):
    assert (tmp_path / name).stat().st_size > 100
  assert (tmp_path / 'tokenizer.model').read_bytes() == (
      finished / 'tokenizer.model'
  ).read_bytes()


def test_prompts_are_drawn_written_and_kept(finished, run_main, tmp_path):
  av = pytest.importorskip('av')
  workdir = finished
  file = tmp_path / 'prompts.txt'
  file.write_text('a blue circle moves down\n\n')
  code, output = run_main(
      CONFIG, f'--workdir={workdir}', '--mode=sample', *PROMPTS,
      f'--prompt_file={file}', '--config.sample.guidance_weight=2',
      tiny=False,
  )
  assert code == 0, output
  folder = workdir / 'samples' / 'step_3_seed_0'
  with np.load(folder / 'samples.npz') as arrays:
    assert arrays['video'].shape == (3, 2, 8, 8, 3)
    captions = arrays['captions'].tolist()
  assert captions == [
      'a red circle moves right', 'a cyan square moves up',
      'a blue circle moves down',
  ]
  for i, caption in enumerate(captions):
    with av.open(str(folder / f'clip_{i:04d}.mp4')) as container:
      assert container.metadata['comment'] == caption
  with av.open(str(folder / 'grid.mp4')) as container:
    assert container.metadata['comment'].splitlines() == captions


@pytest.mark.parametrize(
    'flags, sentence',
    [
        (['--prompt='], "a prompt is ''; it must describe"),
        (['--prompt=' + 'a red circle ' * 6], 'has more than 15 tokens'),
        (
            ['--prompt=a pink elephant moves up'],
            "holds 'pink', 'elephant', unknown to this run; it knows a and",
        ),
        ([PROMPTS[0], '--config.sample.labels=((0,),)'], 'sample.labels is'),
        ([*PROMPTS, '--config.sample.num_clips=1'], 'there are 2 prompts'),
        (['--prompt_file=/none'], "--prompt_file '/none' cannot be read"),
        ([PROMPTS[0], '--mode=train'], '--prompt_file go with --mode=sample'),
    ],
)
def test_a_bad_prompt_is_one_sentence(finished, run_main, flags, sentence):
  workdir = finished
  code, output = run_main(
      CONFIG, f'--workdir={workdir}', '--mode=sample', *flags, tiny=False
  )
  last = output.strip().splitlines()[-1]
  assert code == 1 and sentence in last, output
  assert last.startswith('video_diffusion: ')
  assert 'Traceback' not in output


def test_another_size_and_a_lost_or_other_tokenizer(
    finished, run_main, tmp_path
):
  workdir = finished

  def answer(change):
    copy = tmp_path / 'copy'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)
    change(copy)
    code, output = run_main(
        CONFIG, f'--workdir={copy}', '--mode=sample', PROMPTS[0], tiny=False
    )
    assert code == 1, output
    return output

  def shrink(copy):
    path = copy / 'config.json'
    path.write_text(path.read_text().replace('"dim": 64', '"dim": 32'))

  assert 'does not hold the model of' in answer(shrink)
  lost = lambda copy: (copy / 'tokenizer.model').unlink()
  assert 'has no tokenizer.model; copy it' in answer(lost)

  def other(copy):
    from video_diffusion.data import captions

    words = ['a red circle moves right', 'a cyan square moves up']
    model = captions.train_tokenizer(words)
    (copy / 'tokenizer.model').write_bytes(model)

  assert 'was trained with another tokenizer' in answer(other)


def test_a_run_without_text_refuses_prompts(run_main, tmp_path):
  code, output = run_main(f'--workdir={tmp_path}', '--config.train.steps=1')
  assert code == 0, output
  code, output = run_main(
      f'--workdir={tmp_path}', '--mode=sample', PROMPTS[0], tiny=False
  )
  assert code == 1 and 'the model knows no text' in output
