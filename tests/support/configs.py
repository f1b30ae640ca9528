"""Configs for tests."""
from video_diffusion.config import defaults


def config(**fields):
  """The default config with other values of top fields."""
  c = defaults.get_config()
  for name, value in fields.items():
    c[name] = value
  return c


def mixed(**fields):
  """The default config, to which a folder of videos is mixed."""
  c = config()
  c.data.mixture.more = dict(
      name='video_folder', path='/a', dir='/b', clip_frames=9
  )
  c.data.mixture.more.update(fields)
  return c
