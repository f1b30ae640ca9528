import numpy as np
import pytest

from video_diffusion import media
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import given_video
from video_diffusion.errors import UserError


def make(**fields):
  config = defaults_lib.get_config()
  config.data.frames, config.data.height, config.data.width = 4, 8, 8
  for name, value in fields.items():
    config.sample[name] = value
  return config


@pytest.mark.parametrize(
    'fields, sentence',
    [
        (dict(upscale=2), 'there is no sample.video to enlarge'),
        (dict(video='nowhere.mp4'), 'sample.video nowhere.mp4 is not a file'),
        (dict(video='x', upscale=3), 'must divide data.height, 8'),
    ],
)
def test_what_cannot_be_read_is_one_sentence(fields, sentence):
  with pytest.raises(UserError) as error:
    given_video.read(make(**fields))
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_a_clip_is_read_at_the_size_of_the_model(tmp_path):
  pytest.importorskip('av')
  media.write_mp4(
      tmp_path / 'a.mp4', np.full((5, 48, 64, 3), 200, np.uint8), fps=8
  )
  config = make(video=str(tmp_path / 'a.mp4'))
  video = given_video.read(config)
  assert video.shape == (5, 8, 8, 3) and video.dtype == np.uint8
  np.testing.assert_allclose(video.astype(int), 200, atol=2)
  config.sample.upscale = 2
  assert given_video.read(config).shape == (5, 4, 4, 3)


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
  return np.rint(video[:, 0, 0, 0] / 8).astype(int).tolist()


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
  config = make(video=str(tmp_path / 'a.mkv'), **fields)
  config.data.frameskips = frameskips
  config.data.fps = fps
  assert numbers(given_video.read(config)) == taken


@pytest.mark.parametrize('suffix, write', [
    ('.gif', media.write_gif), ('.mp4', media.write_mp4)])
def test_of_our_own_clips_all_frames_are_taken(tmp_path, suffix, write):
  path = tmp_path / f'a{suffix}'
  levels = np.arange(0, 180, 20, dtype=np.uint8)
  write(path, np.broadcast_to(levels[:, None, None, None], (9, 32, 32, 3)),
        fps=8)
  config = make(video=str(path), task='interpolate', factor=2)
  config.data.frameskips, config.data.fps = (4,), 2.0
  assert len(given_video.read(config)) == 9
  config.sample.init_every = 4
  assert len(given_video.read(config)) == 3


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
  config = make(video=str(tmp_path / 'a.mkv'), **fields)
  config.data.frameskips, config.data.fps = frameskips, fps
  with pytest.raises(UserError, match='sample.video .*a.mkv') as error:
    given_video.read(config)
  assert sentence in str(error.value)


def test_all_frames_that_there_are_may_be_asked_for(tmp_path):
  foreign_clip(tmp_path / 'a.mkv', frames=2)
  config = make(video=str(tmp_path / 'a.mkv'), init_every=2)
  assert numbers(given_video.read(config)) == [1]
  config.sample.init_every, config.sample.task = 1, 'interpolate'
  with pytest.raises(
      UserError, match='number 2, and 3 are needed; give a longer video.$'
  ):
    given_video.read(config)


def test_an_image_may_be_continued(tmp_path):
  image = pytest.importorskip('PIL.Image')
  image.new('RGB', (16, 16), (8, 8, 8)).save(tmp_path / 'a.png')
  config = make(video=str(tmp_path / 'a.png'))
  config.data.frameskips = (4,)
  assert numbers(given_video.read(config)) == [1]


def test_a_given_clip_has_limits_and_is_a_video(tmp_path):
  foreign_clip(tmp_path / 'a.mkv')
  (tmp_path / 'play.mp4').write_text('ffconcat version 1.0\nfile a.mkv\n')
  config = make(video=str(tmp_path / 'a.mkv'))
  config.data.max_frames = 20
  with pytest.raises(UserError, match='a.mkv: .* above data.max_frames, 20'):
    given_video.read(config)
  config.sample.video = str(tmp_path / 'play.mp4')
  with pytest.raises(UserError, match='play.mp4: Invalid data'):
    given_video.read(config)
