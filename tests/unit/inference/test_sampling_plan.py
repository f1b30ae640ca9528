from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion import media
from video_diffusion import sample
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import inputs
from video_diffusion.errors import UserError
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.parallel import sharding


class Net:
  """Stands in for the network: a wave of z that mixes the frames."""

  encoder = None

  def apply(self, variables, z, logsnr, condition=None):
    wave = jnp.sin(z + z.mean(axis=1, keepdims=True))
    return 0.5 * wave * variables['params']


def make(**fields):
  config = defaults_lib.get_config()
  config.data.frames, config.data.height, config.data.width = 4, 8, 8
  config.diffusion.prediction = 'v'
  config.sample.num_clips = config.sample.batch_size = jax.device_count()
  config.sample.num_steps = 3
  for name, value in fields.items():
    config.sample[name] = value
  return config


def run(config, folder, init=None, sampler=None):
  """(uint8 videos, sampler, plan) of one stage."""
  mesh = sharding.make_mesh()
  plan = sampling_plan.make_plan(config, init)
  sampler = sampler or sample.make_sampler(
      config, Net(), mesh, frames=len(plan.blocks[0].frames),
      upscale=config.sample.upscale,
  )
  stages = [rollout.Stage(config, sampler, jnp.float32(1.0), None)]
  video = rollout.draw(
      plan, stages, init=init, mesh=mesh, folder=epath.Path(folder)
  )
  return video, sampler, plan


def clip(frames, side=8):
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (frames, side, side, 3), np.uint8)
  return video.astype(np.float32) / 127.5 - 1.0


def test_an_extension_compiles_two_programs_from_noise_and_one_from_a_clip(
    tmp_path,
):
  video, sampler, plan = run(make(frames=13), tmp_path / 'a')
  assert video.shape[1] == 13 and len(plan.blocks) == 6
  assert video.dtype == np.uint8 and np.all(video.std((0, 2, 3, 4)) > 0)
  assert sampler._cache_size() == 2
  config = make(frames=13, init_video='given')
  video, sampler, plan = run(config, tmp_path / 'b', clip(3))
  assert len(plan.blocks) == 5 and sampler._cache_size() == 1


@pytest.mark.parametrize(
    'fields, places',
    [
        (dict(frames=9), range(3)),
        (dict(frames=9, task='extend_backwards'), range(6, 9)),
        (dict(task='interpolate', factor=3), (0, 3, 6)),
    ],
)
def test_given_frames_come_back_exactly(tmp_path, fields, places):
  given = clip(3)
  video, _, plan = run(
      make(init_video='given', **fields), tmp_path, given
  )
  assert plan.given == tuple(places)
  for one in video:
    np.testing.assert_array_equal(one[list(places)], media.to_uint8(given))


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_frames_that_are_no_numbers_are_told_and_not_kept(tmp_path, value):
  mesh, config = sharding.make_mesh(), make()
  plan = sampling_plan.make_plan(config, None)

  def sampler(*args, **inputs):
    x = np.zeros((config.sample.batch_size, 4, 8, 8, 3), np.float32)
    x[-1, 2, 3, 4, 1] = value
    return jax.device_put(x, sharding.batch_sharding(mesh))

  stage = rollout.Stage(config, sampler, {}, None)
  with pytest.raises(rollout.NotFiniteError, match='frames that are no numb'):
    rollout.draw(plan, [stage], mesh=mesh, folder=epath.Path(tmp_path))
  assert not list(tmp_path.rglob('*.npy'))


def test_super_resolution_has_the_large_size(tmp_path):
  config = make(init_video='given', upscale=2)
  video, sampler, _ = run(config, tmp_path, clip(7, side=4))
  assert video.shape[1:] == (7, 8, 8, 3)
  assert sampler._cache_size() == 2


def cascade(folder, **fields):
  """(videos, the base's canvas, samplers): 4 frames of 8x8, then 3 of 16x16."""
  base, fine = make(stride=4, **fields), make()
  fine.data.frames, fine.data.height, fine.data.width = 3, 16, 16
  fine.sample.super_resolution_weight = 30.0
  mesh = sharding.make_mesh()
  plan = sampling_plan.make_plan(base, None, fine)
  seen, stages = [], []
  for config, frames, upscale in ((base, 4, 1), (fine, 3, 2)):
    sampler = sample.make_sampler(
        config, Net(), mesh, frames=frames, upscale=upscale
    )

    def watched(*args, sampler=sampler, **inputs):
      seen.append(inputs)
      return sampler(*args, **inputs)

    stages.append(rollout.Stage(config, watched, jnp.float32(1.0), None))
    stages[-1].sampler.jitted = sampler
  video = rollout.draw(plan, stages, mesh=mesh, folder=epath.Path(folder))
  return video, plan, seen, [stage.sampler.jitted for stage in stages]


def test_a_cascade_refines_what_the_first_model_drew(tmp_path):
  """16 frames in blocks of 3 that overlap by 1, every fourth from the base."""
  video, plan, seen, samplers = cascade(tmp_path)
  assert video.shape[1:] == (16, 16, 16, 3)
  assert [block.model for block in plan.blocks] == [0] + [1] * 9
  # One program of the base, two of the refiner: its first block and the others.
  assert [sampler._cache_size() for sampler in samplers] == [1, 2]
  assert not seen[0] and 'known' not in seen[1]
  small = np.load(tmp_path / 'blocks_0' / 'batch_0_block_0.npy')
  for block, given in zip(plan.blocks[1:], seen[1:], strict=True):
    sparse = [f % 4 == 0 for f in block.frames]
    np.testing.assert_array_equal(given['low_res_mask'], [sparse])
    for i, frame in enumerate(block.frames):
      if sparse[i]:
        np.testing.assert_array_equal(
            given['low_res'][:, i], small[:, frame // 4]
        )
  # What is known of a block is what the block before drew: its first frame
  # where the same frames are drawn again, else its last. (The last block moves
  # back to end with the video.)
  for i, given in enumerate(seen[2:-1], start=2):
    before = np.load(tmp_path / 'blocks_0' / f'batch_0_block_{i - 1}.npy')
    np.testing.assert_array_equal(
        given['known'][:, 0], before[:, 0 if i == 2 else -1]
    )
  last = np.load(tmp_path / 'blocks_0' / 'batch_0_block_2.npy')
  np.testing.assert_array_equal(video[:, :3], media.to_uint8(last))


def test_a_cascade_reaches_only_so_far(tmp_path):
  with pytest.raises(
      ValueError, match='4 at stride 4 reach from 13 to 16'
  ) as error:
    cascade(tmp_path, frames=17)
  fields = 'sample.frames, sample.stride, sample.overlap: '
  assert str(error.value).startswith(fields)


def test_blocks_of_a_cascade_overlap_as_its_second_run_says():
  base, fine = make(stride=4, overlap=3), make(overlap=2)
  fine.data.frames = 5
  plan = sampling_plan.make_plan(base, None, fine)
  assert [sum(block.known) for block in plan.blocks[:4]] == [0, 0, 1, 2]


def test_an_interrupted_plan_continues_and_another_call_starts_anew(tmp_path):
  config = make(frames=10)
  whole, sampler, plan = run(config, tmp_path / 'whole')
  calls = []

  def failing(*args, **inputs):
    calls.append(1)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return sampler(*args, **inputs)

  with pytest.raises(KeyboardInterrupt):
    run(config, tmp_path / 'cut', sampler=failing)
  calls[:] = [1] * 5
  again, _, _ = run(config, tmp_path / 'cut', sampler=failing)
  assert len(calls) == 5 + len(plan.blocks) - 2
  np.testing.assert_array_equal(again, whole)
  calls[:] = [1] * 5
  config.sample.seed = 1
  other, _, _ = run(config, tmp_path / 'cut', sampler=failing)
  assert len(calls) == 5 + len(plan.blocks) and np.any(other != whole)


def test_blocks_of_another_clip_model_or_condition_are_not_taken(tmp_path):
  """Each change, at the same step, begins the call anew."""
  given, drawn = clip(3), []

  def attempt(
      folder, init=given, params=1.0, labels=0, fields=(), **options
  ):
    """(number of blocks drawn, number of blocks) of a call."""
    config = make(init_video='given', frames=9, **options)
    for name, value in fields:
      with config.unlocked():
        config.diffusion[name] = value
    mesh = sharding.make_mesh()
    plan = sampling_plan.make_plan(config, init)
    n = config.sample.num_clips

    def sampler(params, key, condition, **inputs):
      drawn.append(1)
      if len(drawn) == 2:
        raise KeyboardInterrupt
      return jnp.zeros((n, 4, 8, 8, 3))

    condition = {'labels': np.full((n, 1, 1), labels, np.int32)}
    stage = rollout.Stage(config, sampler, jnp.float32(params), condition)
    rollout.draw(
        plan, [stage], init=init, mesh=mesh, folder=epath.Path(folder),
        steps=[7],
    )
    return len(drawn), len(plan.blocks)

  for i, change in enumerate((
      {},
      dict(init=given[:, :, ::-1]),
      dict(init=given[::-1]),
      dict(params=np.nextafter(np.float32(1), np.float32(2))),
      dict(labels=1),
      dict(fields=[('prediction', 'eps')]),
      dict(guidance_weight=3.0),
  )):
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
      attempt(tmp_path / str(i))  # after its first block
    drawn.clear()
    drawn.extend([1] * 2)
    number, blocks = attempt(tmp_path / str(i), **change)
    assert number == 2 + blocks - (not change), change


def test_batches_are_cut_to_the_clips_and_take_their_labels(tmp_path):
  config = make()
  size = config.sample.batch_size
  config.sample.num_clips = n = size + 1
  mesh = sharding.make_mesh()
  plan = sampling_plan.make_plan(config, None)
  condition = {'labels': np.arange(n, dtype=np.int32)[:, None, None]}
  seen = []

  def sampler(params, key, condition):
    seen.append(condition['labels'].ravel().tolist())
    return jnp.zeros((size, 4, 8, 8, 3))

  stage = rollout.Stage(config, sampler, None, condition)
  assert rollout.draw(plan, [stage], mesh=mesh).shape[0] == n
  assert sum(seen, []) == [i % n for i in range(2 * size)]
  assert rollout.own_clips(config, mesh).tolist() == list(range(n))


def test_guidance_weights_matter(tmp_path):
  given = clip(3)
  videos = [
      run(
          make(init_video='given', frames=6, reconstruction_weight=w),
          tmp_path / str(w), given,
      )[0]
      for w in (0.0, 9.0)
  ]
  assert np.any(videos[0] != videos[1])


@pytest.mark.parametrize(
    'fields, init, sentence',
    [
        (dict(upscale=2), None, 'no sample.init_video'),
        (dict(init_video='nowhere.mp4'), None, 'is not a file'),
        (dict(init_video='x', upscale=3), None, 'must divide data.height, 8'),
        (dict(task='interpolate'), None, 'needs a sample.init_video'),
        (dict(frames=9, overlap=4), None, 'below the 4 frames'),
        (dict(frames=3, init_video='x'), clip(3), 'nothing left to draw'),
        (dict(task='interpolate', factor=9), clip(3), 'at most 2 fit'),
    ],
)
def test_what_does_not_fit_is_one_sentence(fields, init, sentence):
  config = make(**fields)
  with pytest.raises(ValueError) as error:
    if init is None:
      init = sampling_plan.read_init(config)
    sampling_plan.make_plan(config, init)
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_a_clip_is_read_at_the_size_of_the_model(tmp_path):
  pytest.importorskip('av')
  media.write_mp4(
      tmp_path / 'a.mp4', np.full((5, 48, 64, 3), 200, np.uint8), fps=8
  )
  config = make(init_video=str(tmp_path / 'a.mp4'))
  video = sampling_plan.read_init(config)
  assert video.shape == (5, 8, 8, 3) and video.dtype == np.float32
  np.testing.assert_allclose(video, 200 / 127.5 - 1, atol=0.02)
  config.sample.upscale = 2
  assert sampling_plan.read_init(config).shape == (5, 4, 4, 3)
  assert inputs.label_sizes(None) == ()


def foreign_clip(path, frames=30, fps=30):
  """A video of another program: frame i is grey of level 8 i."""
  av = pytest.importorskip('av')
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('ffv1', rate=fps)
    stream.width, stream.height, stream.pix_fmt = 16, 16, 'gray'
    for i in range(frames):
      picture = np.full((16, 16), 8 * i, np.uint8)
      container.mux(stream.encode(
          av.VideoFrame.from_ndarray(picture, format='gray')))
    container.mux(stream.encode())


def numbers(video):
  """Which frames of `foreign_clip` they are."""
  return np.rint((video[:, 0, 0, 0] + 1) * 127.5 / 8).astype(int).tolist()


@pytest.mark.parametrize(
    'fps, frameskips, fields, taken',
    [
        # At the run's rate, by time.
        (4.0, (1,), {}, [0, 7, 15, 22]),
        (30.0, (1,), {}, list(range(30))),
        # At its distance: an extension goes on behind the file's last frame.
        (0.0, (4,), {}, [1, 5, 9, 13, 17, 21, 25, 29]),
        (0.0, (4, 1), {}, [1, 5, 9, 13, 17, 21, 25, 29]),
        (0.0, (4,), dict(task='extend_backwards'), list(range(0, 30, 4))),
        (10.0, (3,), {}, [0, 9, 18, 27]),
        # Frames between are made.
        (0.0, (2,), dict(task='interpolate', factor=3), list(range(0, 30, 6))),
        (10.0, (1,), dict(task='interpolate', factor=2),
         list(range(0, 30, 6))),
        # These files are there, but they are small.
        (0.0, (4,), dict(upscale=2), list(range(0, 30, 4))),
        # As it is.
        (4.0, (4,), dict(init_every=1), list(range(30))),
        (4.0, (4,), dict(init_every=7), [1, 8, 15, 22, 29]),
    ],
)
def test_frames_are_taken_at_the_rate_and_distance_of_the_run(
    tmp_path, fps, frameskips, fields, taken
):
  foreign_clip(tmp_path / 'a.mkv')
  config = make(init_video=str(tmp_path / 'a.mkv'), **fields)
  config.data.frameskips = frameskips
  config.data.fps = fps
  assert numbers(sampling_plan.read_init(config)) == taken


@pytest.mark.parametrize('suffix, write', [
    ('.gif', media.write_gif), ('.mp4', media.write_mp4)])
def test_of_our_own_clips_all_frames_are_taken(tmp_path, suffix, write):
  path = tmp_path / f'a{suffix}'
  levels = np.arange(0, 180, 20, dtype=np.uint8)
  write(path, np.broadcast_to(levels[:, None, None, None], (9, 32, 32, 3)),
        fps=8)
  config = make(init_video=str(path), task='interpolate', factor=2)
  config.data.frameskips, config.data.fps = (4,), 2.0
  assert len(sampling_plan.read_init(config)) == 9
  config.sample.init_every = 4
  assert len(sampling_plan.read_init(config)) == 3


@pytest.mark.parametrize('fps, frameskips, fields, sentence', [
    (0.5, (1,), {}, 'is too short: it lasts 1 s, in which the frames 2 s '
     'apart, as in the clips of the run, number 1, and 2 are needed; give a '
     'longer video, or set sample.init_every=1 to take all its frames.'),
    (0.0, (40,), {}, '40 apart in the file, as in the clips of the run, number '
     '1, and 2 are needed'),
    (0.0, (8,), dict(task='interpolate', factor=2), '16 apart in the file, as '
     'in the clips of the run, number 2, and 3 are needed'),
    (0.0, (15,), dict(upscale=2), 'number 2, and 4 are needed'),
])
def test_a_clip_that_is_too_short_is_one_sentence(
    tmp_path, fps, frameskips, fields, sentence
):
  foreign_clip(tmp_path / 'a.mkv')
  config = make(init_video=str(tmp_path / 'a.mkv'), **fields)
  config.data.frameskips, config.data.fps = frameskips, fps
  with pytest.raises(UserError, match='sample.init_video .*a.mkv') as error:
    sampling_plan.read_init(config)
  assert sentence in str(error.value)


def test_all_frames_that_there_are_may_be_asked_for(tmp_path):
  foreign_clip(tmp_path / 'a.mkv', frames=2)
  config = make(init_video=str(tmp_path / 'a.mkv'), init_every=2)
  assert numbers(sampling_plan.read_init(config)) == [1]
  config.sample.init_every, config.sample.task = 1, 'interpolate'
  with pytest.raises(
      UserError, match='number 2, and 3 are needed; give a longer video.$'
  ):
    sampling_plan.read_init(config)


def test_an_image_may_be_continued(tmp_path):
  image = pytest.importorskip('PIL.Image')
  image.new('RGB', (16, 16), (8, 8, 8)).save(tmp_path / 'a.png')
  config = make(init_video=str(tmp_path / 'a.png'))
  config.data.frameskips = (4,)
  assert numbers(sampling_plan.read_init(config)) == [1]


def test_a_given_clip_has_limits_and_is_a_video(tmp_path):
  foreign_clip(tmp_path / 'a.mkv')
  (tmp_path / 'play.mp4').write_text('ffconcat version 1.0\nfile a.mkv\n')
  config = make(init_video=str(tmp_path / 'a.mkv'))
  config.data.max_frames = 20
  with pytest.raises(UserError, match='a.mkv: .* above data.max_frames, 20'):
    sampling_plan.read_init(config)
  config.sample.init_video = str(tmp_path / 'play.mp4')
  with pytest.raises(UserError, match='play.mp4: Invalid data'):
    sampling_plan.read_init(config)
