import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import models
from video_diffusion import media
from video_diffusion.api import cascade as cascade_lib
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import schedules
from video_diffusion.errors import ArgumentError

DEVICES = jax.device_count()


def clip(frames, side=8):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (frames, side, side, 3), np.uint8)


def test_one_seed_gives_the_same_videos_and_another_gives_others():
  model = models.make()
  videos = model.sample(num_videos=2)
  assert videos.shape == (2, 4, 8, 8, 3) and videos.dtype == np.uint8
  np.testing.assert_array_equal(model.sample(num_videos=2), videos)
  assert np.any(model.sample(num_videos=2, seed=1) != videos)
  # A video does not depend on how many are sampled beside it.
  np.testing.assert_array_equal(model.sample(num_videos=1), videos[:1])


def test_none_takes_the_setting_of_the_run():
  run = dict(sampler='ddim', eta=0.5, num_steps=5)
  videos = models.make(**run).sample()
  assert len(videos) == DEVICES
  other = models.make()
  for arguments in (run, dict(sampler=samplers.DDIM(0.5), num_steps=5)):
    np.testing.assert_array_equal(other.sample(**arguments), videos)
  assert np.any(other.sample(sampler='ddim', num_steps=5) != videos)


def test_an_extension_compiles_two_programs_from_noise_and_one_from_a_clip():
  model = models.make()
  video = model.sample(frames=13)
  assert video.shape[1] == 13 and np.all(video.std((0, 2, 3, 4)) > 0)
  assert models.programs(model) == [2]
  model = models.make()
  assert model.extend(clip(3), frames=13).shape == (1, 13, 8, 8, 3)
  assert models.programs(model) == [1]


@pytest.mark.parametrize(
    'method, arguments, places',
    [
        ('extend', dict(frames=9), range(3)),
        ('extend', dict(frames=9, backwards=True), range(6, 9)),
        ('interpolate', dict(factor=3), (0, 3, 6)),
    ],
)
def test_given_frames_come_back_exactly(method, arguments, places):
  given, places = clip(3), list(places)
  model = models.make()
  videos = getattr(model, method)(given, num_videos=2, **arguments)
  assert len(videos) == 2 and np.any(videos[0] != videos[1])
  for video in videos:
    np.testing.assert_array_equal(video[places], given)
  # Of several videos, each goes on by itself.
  both = np.stack([given, given[::-1]])
  videos = getattr(model, method)(both, **arguments)
  np.testing.assert_array_equal(videos[:, places], both)


def test_super_resolution_has_the_large_size_and_follows_the_small_video():
  model = models.make()
  small = clip(7, side=4)
  video = model.upscale(small, factor=2)
  assert video.shape == (1, 7, 8, 8, 3) and models.programs(model) == [2]
  with_none, with_much = (
      model.upscale(small, factor=2, super_resolution_weight=w)
      for w in (0.0, 30.0)
  )
  error = lambda video: np.abs(
      video.reshape(1, 7, 4, 2, 4, 2, 3).mean((3, 5)) - small
  ).mean()
  assert error(with_much) < error(with_none)


def test_guidance_by_known_frames_matters():
  model, given = models.make(), clip(3)
  videos = [
      model.extend(given, frames=6, reconstruction_weight=w) for w in (0.0, 9.0)
  ]
  assert np.any(videos[0] != videos[1])


def test_progress_counts_the_blocks_of_all_batches():
  seen = []
  models.make(batch_size=DEVICES).sample(
      num_videos=2 * DEVICES, frames=6, progress=lambda *n: seen.append(n)
  )
  assert seen == [(i + 1, 4) for i in range(4)]


def test_conditions():
  model = models.make(label_sizes=(3, 4), num_videos=5)
  held_out = model.conditions().arrays['labels']
  assert held_out.shape == (5, 1, 2) and held_out.dtype == np.int32
  np.testing.assert_array_equal(held_out[4, 0], [4 % 3, 0])
  given = model.conditions(num_videos=3, labels=[(2, -1), (0, 1)])
  np.testing.assert_array_equal(
      given.arrays['labels'][:, 0], [[2, -1], [0, 1], [2, -1]]
  )
  assert model.conditions(labels=[(0, 0)] * 2).num_videos == 2
  videos = model.sample(labels=[(0, 0)] * DEVICES)
  assert np.any(model.sample(labels=[(2, 0)] * DEVICES) != videos)


@pytest.mark.parametrize(
    'method, arguments, sentence',
    [
        ('sample', dict(num_steps=0), 'num_steps is 0; it must be at least 1'),
        ('sample', dict(sampler='euler'), "sampler is 'euler'; it must be one"),
        ('sample', dict(gamma=2), 'gamma is 2; it must be from 0 to 1'),
        ('sample', dict(gama=0), 'gama is not an argument of sampling; there'),
        ('sample', dict(clip='hard'), "clip is 'hard'; it must be one of"),
        ('sample', dict(labels=[1]), 'labels must not be given: the model'),
        ('sample', dict(prompts='a dog'), 'takes no condition'),
        ('sample', dict(num_videos=0), 'num_videos is 0; it must be at least'),
        ('sample', dict(frames=9, overlap=4), 'overlap is 4; it must be at le'),
        ('extend', dict(video=clip(3), frames=3), 'frames is 3, but 3 frames'),
        ('extend', dict(video=clip(3, 4)), 'it must be uint8 [frames, 8, 8, 3'),
        ('extend', dict(video=clip(3) / 255), 'video is float64 [3, 8, 8, 3]'),
        ('upscale', dict(video=clip(4), factor=3), 'factor is 3; it must div'),
        ('upscale', dict(video=clip(3, 4), factor=2), 'frames is 3; an exten'),
        ('interpolate', dict(video=clip(3), factor=9), 'at most 2 frames? fit'),
        ('interpolate', dict(video=clip(1), factor=2), 'video is 1; so many'),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(
    method, arguments, sentence
):
  model = models.make()
  with pytest.raises(ArgumentError) as error:
    getattr(model, method)(**arguments)
  sentence = sentence.replace(' frames? fit', ' fit')
  assert sentence in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('method, arguments, sentence', [
    ('sample', dict(frames=9, overlap=2), 'overlap is 2, but this model was'),
    ('extend', dict(video=clip(3), overlap=1), 'overlap is 1, but this model'),
    (
        'extend', dict(video=clip(3), backwards=True),
        'backwards asks for frames before the given ones, but this model was',
    ),
])
def test_a_model_that_extends_frame_by_frame_has_no_blocks(
    method, arguments, sentence
):
  model = models.make(fields=[('extension', 'context', 'aligned')], overlap=3)
  with pytest.raises(ArgumentError) as error:
    getattr(model, method)(**arguments)
  assert sentence in str(error.value) and '\n' not in str(error.value)
  # The run's own is of what has blocks, and refuses nothing.
  for frames in (4, 9):
    model.check(frames=frames)


def test_a_batch_must_divide_by_the_devices():
  model = models.make()
  if DEVICES > 1:
    with pytest.raises(ArgumentError, match='batch_size is 1; it must divide'):
      model.sample(batch_size=1)
  assert model.batches(1, 4 * DEVICES).size == DEVICES
  assert model.batches(9 * DEVICES, 4 * DEVICES).size == 4 * DEVICES


def test_a_cascade_refines_what_the_first_model_sampled():
  base = models.make(fields=[('data', 'frameskips', (4,))])
  fine = models.make(frames=3, side=16, super_resolution_weight=30.0)
  cascade = cascade_lib.cascade(base, fine)
  video = cascade.sample()
  assert video.shape == (DEVICES, 16, 16, 16, 3)
  assert models.programs(base) == [1] and models.programs(fine) == [2]
  np.testing.assert_array_equal(cascade.sample(), video)
  with pytest.raises(ArgumentError, match='frames is 17; 4 frames at stride 4'):
    cascade.sample(frames=17)


def test_a_cascade_of_models_that_do_not_fit_is_one_sentence():
  base = models.make(fields=[('data', 'frameskips', (4,))])
  fine = models.make(side=12)
  with pytest.raises(ArgumentError, match='12x12, no whole multiple of 8x8'):
    cascade_lib.cascade(base, fine)
  with pytest.raises(ArgumentError, match='stride is 2, but the first model'):
    cascade_lib.cascade(base, models.make(side=16), 2)
  fine = models.make(side=16, label_sizes=(3,))
  with pytest.raises(ArgumentError, match='takes labels, and the base takes n'):
    cascade_lib.cascade(base, fine)


def test_the_network_is_there_for_samplers_of_others():
  model = models.make()
  z = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
  x = model.denoise_fn()(z, np.zeros(2, np.float32))
  wave = 0.5 * np.sin(z + z.mean(1, keepdims=True))  # v
  np.testing.assert_allclose(x, np.sqrt(0.5) * (z - wave), atol=1e-5)


@pytest.mark.parametrize('suffix', ['.gif', '.mp4'])
def test_a_video_is_written(tmp_path, suffix):
  media.write_video(tmp_path / f'a{suffix}', clip(3))
  media.write_video(tmp_path / f'b{suffix}', clip(6).reshape(2, 3, 8, 8, 3))
  assert all((tmp_path / f'{n}{suffix}').stat().st_size for n in 'ab')
  with pytest.raises(ArgumentError, match='it must end in .mp4 or .gif'):
    media.write_video(tmp_path / 'a.avi', clip(3))
  with pytest.raises(ArgumentError, match='video is float64'):
    media.write_video(tmp_path / 'a.mp4', clip(3) / 255)


GUIDED = ('distill', 'max_guidance_weight', 4.0)


def test_a_distilled_network_takes_the_weight_itself():
  """By one call of the network, where guidance makes two."""
  options = dict(labels=[1, 2], sampler='ddim', guidance_weight=3.0)
  two = models.make(label_sizes=(3,))
  one = models.make(label_sizes=(3,), fields=[GUIDED])
  videos = one.sample(**options).astype(int)
  # The stand-in gives exactly what guidance gives; the sums round otherwise.
  np.testing.assert_allclose(videos, two.sample(**options), atol=1)
  unguided = one.sample(**options | {'guidance_weight': 0.0})
  assert np.abs(videos - unguided).max() > 10


def test_a_distilled_network_sees_known_frames_and_is_not_guided():
  learned = [('distill', 'reconstruction_weight', 9.0)]
  model, seen = models.make(fields=learned), []
  apply = model.network.apply

  def watched(variables, z, logsnr, **more):
    jax.debug.callback(lambda *x: seen.append(x), z, logsnr)
    return apply(variables, z, logsnr, **more)

  model.network.apply = watched
  # One block of four frames, of which the first two are known.
  model.extend(clip(2), frames=4, sampler='ddim', num_steps=2)
  jax.effects_barrier()
  assert len(seen) == 2  # one call for a step, and no gradient
  largest = schedules.cosine_logsnr(jnp.float32(0.0))
  for z, logsnr in seen:
    known = np.broadcast_to(clip(2) / 127.5 - 1, (len(z), 2, 8, 8, 3))
    np.testing.assert_allclose(z[:, :2], known, atol=1e-6)
    np.testing.assert_array_equal(logsnr[:, :2], largest)
    assert np.all(logsnr[:, 2:] == logsnr[0, 2]) and logsnr[0, 2] < largest
    assert np.abs(z[:, 2:]).max() > 1
  with pytest.raises(ArgumentError, match='for the weight 9, and takes no'):
    model.extend(clip(3), reconstruction_weight=2.0)
  with pytest.raises(ArgumentError, match="replacement is 'joint'; this model"):
    model.extend(clip(3), replacement='joint')


@pytest.mark.parametrize('weight', [-0.5, 4.5])
def test_a_weight_that_was_not_distilled_is_a_sentence(weight):
  model = models.make(label_sizes=(3,), fields=[GUIDED])
  with pytest.raises(ArgumentError, match='guidance_weight.* from 0 to 4'):
    model.sample(labels=[1], guidance_weight=weight)
