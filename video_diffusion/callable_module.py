"""Modules that can be called, as the function of their own name in them.

`video_diffusion.train(config, run_dir)` calls a function, and `import
video_diffusion.train` binds the module to that very name of the package. So the
name is the module, and calling it calls the function.
"""
import sys
import types


class _CallableModule(types.ModuleType):

  def __call__(self, *args, **kwargs):
    function = getattr(self, self.__name__.rpartition('.')[2])
    return function(*args, **kwargs)


def make(name: str) -> None:
  """Makes a module callable.

  Args:
    name: its __name__; it has a function of the last part of that.
  """
  sys.modules[name].__class__ = _CallableModule
