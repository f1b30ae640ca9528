"""Video Diffusion Models (Ho et al. 2022, arXiv 2204.03458) in JAX.

  import video_diffusion
  model = video_diffusion.load('runs/moving_shapes')
  video_diffusion.write_video('four.mp4', model.sample(num_videos=4))

Names are imported when they are first used: the package itself imports nothing.
"""
import importlib

# Modules that can be called as functions; see `callable_module`.
_MODULES = ('train', 'distill', 'evaluate')
# Name -> the module that defines it.
_PUBLIC = {
    'load': 'api.load',
    'Model': 'api.model',
    'cascade': 'api.cascade',
    'get_config': 'config.config_files',
    'write_video': 'media',
    'show_log': 'config.startup',
}

__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str):
  if name in _MODULES:
    return importlib.import_module(f'video_diffusion.{name}')
  if name in _PUBLIC:
    module = importlib.import_module(f'video_diffusion.{_PUBLIC[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
