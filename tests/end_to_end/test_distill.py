"""A trained run is distilled into runs of fewer steps."""
import json
import shutil

import jax
import numpy as np
import pytest

import video_diffusion
from video_diffusion import errors
from video_diffusion.config import distill_config


def losses(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return {m['step']: m['loss'] for m in map(json.loads, lines) if 'loss' in m}


@pytest.fixture(scope='module')
def flags(finished):
  """Rounds of 4 and of 2 steps, of three updates each."""
  return [
      '--mode=distill', f'--config.distill.teacher={finished[0]}',
      '--config.distill.rounds=(4, 2)', '--config.train.steps=3',
      '--config.optim.decay_steps=3', '--config.log.every=1',
      '--config.checkpoint.every=1',
  ]


@pytest.fixture(scope='module')
def students(flags, run_main_here, tmp_path_factory):
  folder = tmp_path_factory.mktemp('students')
  code, output = run_main_here(f'--workdir={folder}', *flags, tiny=False)
  assert code == 0, output
  return folder


def test_each_student_learns_from_the_one_before(finished, students):
  four, two = students / 'steps_4', students / 'steps_2'
  for folder, teacher, steps in ((four, finished[0], 4), (two, four, 2)):
    config = json.loads((folder / 'config.json').read_text())
    assert config['train']['init_from'] == str(teacher)
    assert config['distill']['num_steps'] == steps
    assert len(losses(folder)) == 3
    teacher_model, model = map(video_diffusion.load, (teacher, folder))
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), teacher_model.params, model.params
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.1
    videos = model.sample(num_videos=2)  # by its own steps
    assert videos.shape[0] == 2


@pytest.mark.parametrize(
    'given, sentence',
    [
        (dict(num_steps=8), 'distilled for 4 steps'),
        (dict(sampler='ancestral'), "the steps of 'ddim' with eta 0"),
        (dict(eta=0.5), "the steps of 'ddim' with eta 0"),
    ],
)
def test_other_steps_are_a_sentence(students, given, sentence):
  model = video_diffusion.load(students / 'steps_4')
  with pytest.raises(errors.UserError, match=sentence):
    model.sample(num_videos=1, **given)


def test_a_killed_distillation_continues_bit_for_bit(
    flags, students, start_main, run_main_here, tmp_path
):
  """SIGKILL before the second update of the second round."""
  before = """
import os, signal
from video_diffusion.training import writers
scalars = writers.Writer.scalars
def killed(self, step, values):
  scalars(self, step, values)
  if step == 1 and 'steps_2' in str(self._path):
    os.kill(os.getpid(), signal.SIGKILL)
writers.Writer.scalars = killed
"""
  process = start_main(
      f'--workdir={tmp_path}', *flags, tiny=False, before=before
  )
  process.communicate()
  assert process.returncode == -9
  code, output = run_main_here(f'--workdir={tmp_path}', *flags, tiny=False)
  assert code == 0, output
  for name in ('steps_4', 'steps_2'):
    assert losses(tmp_path / name) == losses(students / name)
    one, other = (
        video_diffusion.load(folder / name).params
        for folder in (tmp_path, students)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    'flag, sentence',
    [
        ('--config.distill.rounds=(8, 2)', 'must be half of the one before'),
        ('--config.model.emb_dim=24', 'a student has what its teacher has'),
        ('--config.diffusion.prediction=eps', 'a student has what its teacher'),
        ('--config.sample.num_steps=8', '--mode=distill decides how'),
        ('--config.sample.sampler=dpmpp_2m', '--mode=distill decides how'),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    flags, run_main_here, tmp_path, flag, sentence
):
  code, output = run_main_here(
      f'--workdir={tmp_path}', *flags, flag, tiny=False
  )
  assert code == 1 and sentence in output, output


def test_a_student_is_a_teacher_of_half_its_steps(students):
  config = distill_config.get_config(students / 'steps_4')
  config.distill.rounds = (4, 2)
  with pytest.raises(errors.UserError, match='half of the steps'):
    video_diffusion.distill(config, students / 'further')
  assert not (students / 'further').exists()


@pytest.fixture(scope='module')
def guided(run_main_here, tmp_path_factory):
  """A teacher in eps, and its students: of guidance, then of four steps."""
  teacher = tmp_path_factory.mktemp('eps')
  folder = tmp_path_factory.mktemp('guided')
  code, output = run_main_here(
      f'--workdir={teacher}', '--config.diffusion.prediction=eps',
      '--config.train.steps=1',
  )
  assert code == 0, output
  command = [
      f'--workdir={folder}', '--mode=distill',
      f'--config.distill.teacher={teacher}', '--config.distill.rounds=(4,)',
      '--config.distill.max_guidance_weight=3',
      '--config.distill.reconstruction_weight=2', '--config.train.steps=2',
      '--config.checkpoint.every=1', '--config.optim.lr=0.1',
      '--config.optim.ema_decay=0',
  ]
  code, output = run_main_here(*command, tiny=False)
  assert code == 0, output
  assert 'The teacher predicts eps' in output
  return folder, command


def test_guidance_is_distilled_into_one_network(guided, run_main_here):
  folder, command = guided
  first, four = (
      video_diffusion.load(folder / name) for name in ('steps_any', 'steps_4')
  )
  labels = [(0,) * 6] * 2
  for model in (first, four):
    assert model.config.diffusion.prediction == 'v'
    with pytest.raises(errors.UserError, match='from 0 to 3'):
      model.sample(labels=labels, guidance_weight=3.5)
  assert first.sample(labels=labels, num_steps=3, sampler='dpmpp_2m').any()
  unguided, most = (
      four.sample(labels=labels, guidance_weight=w) for w in (0.0, 3.0)
  )
  assert np.any(most != unguided)

  # What comes next depends on the known frames, which are seen.
  clip = most[0]
  next_frame, other = (
      four.extend(given, frames=3, labels=labels[:1])[0, 2]
      for given in (clip, 255 - clip)
  )
  assert np.any(next_frame != other)
  with pytest.raises(errors.UserError, match='for the weight 2, and'):
    four.extend(clip, reconstruction_weight=9.0)

  # Exported, it is the same.
  four.save(folder / 'exported', dtype='float32')
  exported = video_diffusion.load(folder / 'exported')
  np.testing.assert_array_equal(
      exported.sample(labels=labels, guidance_weight=3.0), most
  )

  # Without its last checkpoint it continues, to the same weights.
  shutil.rmtree(folder / 'steps_4' / 'checkpoints' / '2')
  code, output = run_main_here(*command, tiny=False)
  assert code == 0 and 'from step 1' in output, output
  again = video_diffusion.load(folder / 'steps_4')
  jax.tree.map(np.testing.assert_array_equal, again.params, four.params)

  # Where a later student learned other guidance, no student begins.
  (folder / 'steps_any').rename(folder / 'elsewhere')
  code, output = run_main_here(
      *command, '--config.distill.max_guidance_weight=2', tiny=False
  )
  assert code == 1, output
  assert 'steps_4 holds a run with another distill.max_guidance' in output
  assert not (folder / 'steps_any').exists()
  (folder / 'elsewhere').rename(folder / 'steps_any')

  # Its own students take the same weights, and no others.
  config = distill_config.get_config(folder / 'steps_4')
  assert config.distill.max_guidance_weight == 3.0
  config.distill.rounds = (2,)
  students = distill_config.students(config, folder)
  assert [path.name for path, _ in students] == ['steps_2']
  with config.unlocked():
    config.sample.guidance_weight = 3.5
  with pytest.raises(errors.UserError, match='sample.guidance_weight is 3.5'):
    distill_config.check(config)
  config.distill.max_guidance_weight = 4.0
  with pytest.raises(errors.UserError, match='but 3 in the teacher'):
    distill_config.check(config)


def test_the_teacher_must_be_named(run_main_here, tmp_path):
  code, output = run_main_here('--mode=distill', f'--workdir={tmp_path}',
                               tiny=False)
  assert code == 1 and '--config.distill.teacher' in output
