"""The peer's arguments and DDIM without torch; with torch, whole calls."""
import functools
import json

import numpy as np
import pytest

from benchmarks import peer
from benchmarks import peer_model
from benchmarks import peer_quality
from tests.support.optional import optional
from video_diffusion.data import packing
from video_diffusion.errors import UserError
from video_diffusion.evaluation import folder_clips

QUALITY = ('--what=quality', '--clips=RECORDS', '--out=DIR', '--modes=eager')

FLAGS = (
    '--what=quality', '--modes=eager', '--dim=8', '--frames=9', '--size=16',
    '--batch=2',
)


def signals(num_times=1000):
  """alpha_bar of the cosine schedule of the peer, and 1 for time -1."""
  angle = (np.arange(num_times + 1) / num_times + 0.008) / 1.008
  kept = np.cos(0.5 * np.pi * angle) ** 2
  return np.append(np.cumprod(np.maximum(kept[1:] / kept[:-1], 1e-4)), 1.0)


def ddim(eps_fn, z, num_steps):
  signal, times = signals(), peer_quality.ddim_times(num_steps, 1000)
  for t, s in zip(times[:-1], times[1:], strict=True):
    z = peer_quality.ddim_step(z, eps_fn(z, signal[t]), signal[t], signal[s])
  return z


def test_arguments_of_quality():
  args = peer.parse([*QUALITY, '--minutes=0.5'])
  assert (args.batch, args.samples, args.sampling_steps) == (16, 1024, 64)
  assert args.minutes == 0.5 and args.modes == ['eager']
  assert peer.parse([]).what == ['train', 'sample']


@pytest.mark.parametrize('flags, sentence', [
    (QUALITY[:3], 'goes alone, with one of --modes'),
    ((*QUALITY, '--what=train,quality'), 'goes alone, with one of --modes'),
    (QUALITY[:2] + QUALITY[3:], 'needs --clips and --out'),
    ((*QUALITY, '--sampling_steps=1001'), '--sampling_steps must be 1 to 1000'),
    ((*QUALITY, '--minutes=0'), '--minutes and --samples must be above 0'),
    (('--what=fvd',), "'fvd' is none of train, sample, quality"),
])
def test_arguments_that_do_not_fit_are_a_sentence(flags, sentence, capsys):
  with pytest.raises(SystemExit):
    peer.parse([*flags])
  assert sentence in capsys.readouterr().err


def test_times_of_ddim_begin_at_the_noisiest_and_end_without_noise():
  np.testing.assert_array_equal(
      peer_quality.ddim_times(1000, 1000), np.arange(999, -2, -1)
  )
  for num_steps in (1, 7, 64):
    times = peer_quality.ddim_times(num_steps, 1000)
    assert (len(times), times[0], times[-1]) == (num_steps + 1, 999, -1)
    steps = -np.diff(times)
    assert steps.max() - steps.min() <= 1


def test_ddim_of_a_gaussian_is_its_flow():
  """Where x ~ N(0, v), the exact network moves z to z sqrt(v) at the end."""
  variance = 0.01  # so that no x is clipped

  def eps_fn(z, signal):
    return (1 - signal) ** 0.5 * z / (signal * variance + 1 - signal)

  z = np.linspace(-2, 2, 9)
  errors = [
      np.abs(ddim(eps_fn, z, n) - variance**0.5 * z).max() for n in (64, 1000)
  ]
  assert errors[1] < 0.002 and errors[1] < errors[0] / 5 < 0.01


def test_ddim_of_one_clip_ends_at_that_clip():
  clip = np.linspace(-1, 1, 5)
  eps_fn = lambda z, signal: (z - signal**0.5 * clip) / (1 - signal) ** 0.5
  found = ddim(eps_fn, np.random.default_rng(0).standard_normal(5), 10)
  np.testing.assert_allclose(found, clip, atol=1e-9)


def test_ddim_clips_x_and_keeps_the_rest_as_noise():
  z, eps = np.array([2.0]), np.array([-1.0])
  # x would be (2 + 0.6) / 0.8; of z = 0.8 + 0.6 * 2, the noise is 2.
  found = peer_quality.ddim_step(z, eps, 0.64, 0.36)
  np.testing.assert_allclose(found, 0.6 * 1.0 + 0.8 * 2.0)


@pytest.fixture(name='clips')
def clips_of_records(tmp_path):
  for name in ('tensorflow_datasets', 'array_record'):
    optional(name)
  video = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)
  clips = [
      packing.Clip(lambda: video, video_id=i, name=f'{i}.gif', start=0)
      for i in range(3)
  ]
  return packing.pack(
      {'train': packing.Split(clips, 3), 'test': packing.Split(clips[:1], 1)},
      data_dir=tmp_path, name='set', key='', height=16, width=16, min_frames=9,
      report={},
  )


def arguments(clips, *flags):
  return peer.parse([*FLAGS, f'--clips={clips}', '--out=DIR', *flags])


def test_clips_of_another_size_are_refused(clips):
  assert peer_quality.open_clips(arguments(clips)).num_videos == 3
  with pytest.raises(UserError, match='16x16, but the peer takes 8x8'):
    peer_quality.open_clips(arguments(clips, '--size=8'))


def test_a_network_is_trained_once_and_sampled_by_both_samplers(
    clips, tmp_path, monkeypatch
):
  torch = optional('torch')
  optional('video_diffusion_pytorch')
  torch.set_num_threads(1)  # of a busy machine, two wait for each other
  module, out = peer_model.load_peer(), tmp_path / 'out'
  # The peer's own sampler takes as many steps as there are times.
  monkeypatch.setattr(peer_quality, 'TIMES', 4)
  monkeypatch.setattr(module, 'GaussianDiffusion', functools.partial(
      module.GaussianDiffusion, timesteps=4
  ))
  call = lambda steps, *flags: peer_quality.run(module, arguments(
      clips, f'--out={out}', '--minutes=0.001', '--samples=3',
      f'--sampling_steps={steps}', *flags,
  ))
  call(3)
  content = json.loads((out / 'quality.json').read_text())
  training = content['training']
  assert training['steps'] == 10 == 10 * len(training['losses'])
  assert 0.2 < training['losses'][0] < 2 and training['seconds'] > 0.06
  found = folder_clips.FolderClips(out / 'samples_3', 'SAMPLES', frames=9)
  assert len(found) == 4 and found.size == (16, 16)  # whole batches
  first = found.read(0, 4)
  assert len({clip.tobytes() for clip in first}) == 4
  # What is there is kept, and what is lost is sampled as before.
  (out / 'samples_3' / 'samples_0001.npz').unlink()
  kept = out / 'samples_3' / 'samples_0000.npz'
  when = kept.stat().st_mtime_ns
  call(3)
  assert kept.stat().st_mtime_ns == when
  again = folder_clips.FolderClips(out / 'samples_3', 'SAMPLES', frames=9)
  assert np.abs(again.read(0, 4) - first.astype(int)).max() <= 1
  call(4)
  after = json.loads((out / 'quality.json').read_text())
  assert after['training'] == training
  assert {n: of['sampler'] for n, of in after['sampling'].items()} == {
      'samples_3': 'DDIM', 'samples_4': 'its own',
  }
  # Before the EMA begins, it has copied the weights of the first step.
  call(3, '--weights=raw')
  raw = folder_clips.FolderClips(out / 'samples_3_raw', 'SAMPLES', frames=9)
  assert (raw.read(0, 4) != first).any()
  own = folder_clips.FolderClips(out / 'samples_4', 'SAMPLES', frames=9)
  assert len(own) == 4 and own.read(0, 4).std() > 0
  with pytest.raises(SystemExit, match="with {'seed': 0}; give another"):
    call(3, '--seed=1')
