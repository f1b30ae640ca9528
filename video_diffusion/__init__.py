"""Video Diffusion Models (Ho et al. 2022, arXiv 2204.03458) in JAX.

  import video_diffusion
  model = video_diffusion.load('runs/moving_shapes')
  video_diffusion.write_video('four.mp4', model.sample(num_videos=4))

Names are imported when they are first used: the package itself imports nothing.
"""
import importlib

# Name -> the module that defines it. `train` is a module that can be called.
_PUBLIC = {
    'load': 'api.load',
    'Model': 'api.model',
    'cascade': 'api.cascade',
    'get_config': 'config.config_files',
    'write_video': 'media',
}

__all__ = [*_PUBLIC, 'train']


def __getattr__(name: str):
  if name == 'train':
    return importlib.import_module('video_diffusion.train')
  if name in _PUBLIC:
    module = importlib.import_module(f'video_diffusion.{_PUBLIC[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
