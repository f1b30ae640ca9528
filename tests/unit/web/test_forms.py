"""Forms of the page: what each kind of model takes, and what is refused."""
import numpy as np
import pytest

from tests.support import models
from video_diffusion import media
from video_diffusion.data import limits as limits_lib
from video_diffusion.errors import UserError
from video_diffusion.web import forms
from video_diffusion.web import work


def form(**more):
  return forms.Form(**{'steps': 2, 'frames': 4} | more)


def refusal(model, form, limits=forms.LIMITS):
  with pytest.raises(UserError) as error, forms.titled():
    forms.prepare(model, form, limits)
  assert not model._samplers  # nothing was compiled
  return str(error.value)


def test_a_form_makes_what_the_api_makes(tmp_path):
  for model, given, options in (
      (models.make(), {}, {'num_videos': 1}),
      (models.make(label_sizes=(3, 2)), {'labels': [2.0, -1]},
       {'labels': [(2, -1)], 'guidance_weight': 0.0}),
  ):
    call = forms.prepare(model, form(frames=6, seed=3, **given))
    np.testing.assert_array_equal(call(), model.sample(
        frames=6, seed=3, num_steps=2, sampler='ancestral', **options
    ))


def test_a_worker_writes_and_stops(tmp_path):
  worker = work.Worker(models.make(), tmp_path)
  told = []
  path = worker.run('me', form(), lambda *step: told.append(step))
  assert path.name == 'noise_seed_0.mp4' and path.stat().st_size
  assert told[0] == (0, 2) and told[-1] == (2, 2)
  assert not worker.stop('me')
  with pytest.raises(work.Stopped):
    worker.run('me', form(), lambda *_: worker.stop('me'))
  assert worker.run('me', form(), lambda *_: worker.stop('other')) != path


@pytest.mark.parametrize('wrong, sentence', [
    ({'steps': 10_000},
     '"Steps" is 10000; it must be a whole number from 1 to 1000.'),
    ({'steps': None}, '"Steps" is empty'),
    ({'steps': float('nan')}, '"Steps" is nan'),
    ({'frames': 0}, '"Frames" is 0'),
    ({'frames': 257}, '"Frames" is 257'),
    ({'seed': -1}, '"Seed" is -1'),
    ({'sampler': 'best'}, '"Sampler" is \'best\'; it must be one of'),
    ({'labels': [3]}, '"Label 1" is 3; it must be a whole number from -1 to 2'),
    ({'guidance_weight': 1e9}, '"Guidance weight" is 1000000000.0'),
    ({'task': 'extend'}, '"Clip" is empty'),
    ({'task': 'extend', 'new_frames': 0}, '"New frames" is 0'),
    ({'task': 'interpolate', 'factor': 4}, '"Factor" is 4'),
    ({'task': 'x'}, "there is no task 'x'"),
])
def test_refusals(wrong, sentence):
  model = models.make(label_sizes=(3,))
  assert refusal(model, form(**{'labels': [1]} | wrong)).startswith(sentence)


def test_a_distilled_model_refuses_what_it_has_not_learned():
  model = models.make(label_sizes=(3,), fields=[
      ('distill', 'max_guidance_weight', 4.0), ('distill', 'num_steps', 4),
  ])
  given = dict(labels=[1], sampler='ddim', steps=4)
  assert '"Guidance weight" is 5; this model was distilled for' in refusal(
      model, form(guidance_weight=5, **given)
  )
  assert '"Steps" is 3; this model was distilled for 4' in refusal(
      model, form(**given | {'steps': 3})
  )


def test_a_clip_may_be_extended_by_one_frame_where_that_is_no_block(tmp_path):
  clip = tmp_path / 'clip.mp4'
  media.write_video(clip, np.zeros((2, 8, 8, 3), np.uint8))
  given = form(task='extend', clip=str(clip), new_frames=1)
  assert 'there must be from 4 to' in refusal(models.make(), given)
  aligned = models.make(fields=[('extension', 'context', 'aligned')])
  assert callable(forms.prepare(aligned, given))


def test_refusals_of_clips_name_no_folder(tmp_path):
  model = models.make()
  text, clip = tmp_path / 'text.mp4', tmp_path / 'clip.mp4'
  text.write_text('no video')
  media.write_video(clip, np.zeros((5, 8, 8, 3), np.uint8))
  small = forms.Limits(frames=7, pixels=7 * 64, upload_bytes=10)
  pixels = forms.Limits(upload=limits_lib.Limits(pixels=100))
  for path, more, limits, sentence in (
      (text, {}, forms.LIMITS, 'the clip text.mp4 cannot be used: Invalid'),
      (clip, {'new_frames': 3}, small,
       'the clip clip.mp4 has 0 MiB; an upload may have 0 MiB.'),
      (clip, {}, pixels, 'the clip clip.mp4 cannot be used: its frames have '
       '128 x 128 pixels, more than the limit of this page, 100.'),
      (clip, {'new_frames': 252}, forms.LIMITS, '"New frames" is 252, and'),
      (clip, {'new_frames': 3}, small._replace(upload_bytes=2**20),
       '"New frames" is 3, and the clip has 5 frames; together there must be '
       'from 4 to 7.'),
      (clip, {}, forms.Limits(pixels=100), '"New frames" makes a video of'),
      (clip, {'task': 'interpolate', 'factor': 3},
       small._replace(upload_bytes=2**20), '"Factor" is 3, which makes 13'),
  ):
    wrong = form(**{'task': 'extend', 'clip': str(path)} | more)
    said = refusal(model, wrong, limits)
    assert said.startswith(sentence) and str(tmp_path) not in said
