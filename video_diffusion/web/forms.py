"""What a visitor of the page has filled in, checked before anything runs."""
from collections.abc import Callable, Sequence
import copy
import dataclasses
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.config import given_video
from video_diffusion.config import next_frames
from video_diffusion.data import limits as limits_lib
from video_diffusion.errors import UserError
from video_diffusion.errors import naming

NOISE, EXTEND, INTERPOLATE = 'noise', 'extend', 'interpolate'
# Arguments of the API -> the titles of the controls.
TITLES = {
    'prompts': 'Prompt',
    'labels': 'Labels',
    'guidance_weight': 'Guidance weight',
    'sampler': 'Sampler',
    'num_steps': 'Steps',
    'frames': 'Frames',
    'new_frames': 'New frames',
    'factor': 'Factor',
    'seed': 'Seed',
    'video': 'Clip',
}


class Limits(NamedTuple):
  """Largest values that a visitor may ask for.

  Attributes:
    frames: frames of a result.
    pixels: pixels of all frames of a result together.
    steps: sampling steps of a block.
    weight: guidance weight.
    factor: new frames for each old one, when interpolating.
    prompt: characters.
    upload_bytes: size of an uploaded file.
    upload: further limits of an uploaded file.
  """

  frames: int = 256
  pixels: int = 2**26
  steps: int = 1000
  weight: float = 100.0
  factor: int = 16
  prompt: int = 1000
  upload_bytes: int = 2**26
  upload: limits_lib.Limits = limits_lib.Limits(
      pixels=2**23, frames=5000, seconds=60.0
  )


LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class Form:
  """The values of the controls, as they come from the browser.

  Attributes:
    task: NOISE, EXTEND or INTERPOLATE.
    clip: path of an uploaded file, or None.
    every_frame: whether all frames of the file are taken, and not those that
      lie as far apart as those of the run's clips.
    prompt: for a model that takes text.
    labels: one for each label, for a model that takes labels.
    guidance_weight: for a model that takes either.
    sampler: a name.
    steps: sampling steps.
    frames: frames of a video from noise.
    new_frames: frames that are added to an uploaded clip.
    factor: of interpolation.
    seed: of all randomness.
  """

  task: str = NOISE
  clip: str | None = None
  every_frame: bool = False
  prompt: str | None = None
  labels: Sequence[Any] = ()
  guidance_weight: Any = 0.0
  sampler: str = 'ancestral'
  steps: Any = 64
  frames: Any = 16
  new_frames: Any = 8
  factor: Any = 2
  seed: Any = 0


def prepare(
    model: model_lib.Model, form: Form, limits: Limits = LIMITS
) -> Callable[..., np.ndarray]:
  """The call that a form asks for, checked.

  Nothing is compiled, and no file is read before all numbers are right.

  Args:
    model: what is sampled from.
    form: what the visitor has filled in.
    limits: what a visitor may ask for.

  Returns:
    (on_step) -> uint8 [1, frames, height, width, 3]; see `Model.sample`. Its
    errors, inside `titled`, name controls of the page.

  Raises:
    UserError: a value is absent or out of range, or the file cannot be used.
  """
  options = {
      'sampler': form.sampler,
      'num_steps': _whole('num_steps', form.steps, 1, limits.steps),
      'seed': _whole('seed', form.seed, 0, 2**31 - 1),
      **_condition(model, form, limits),
  }
  with titled():
    model.with_settings(
        sampler=form.sampler, num_steps=options['num_steps'],
        guidance_weight=options.get('guidance_weight'),
    )
  if form.task == NOISE:
    frames = _whole('frames', form.frames, 1, limits.frames)
    _check_size(model, frames, 'frames', limits)
    with titled():
      model.check(frames=frames, num_videos=1)
    return lambda **more: model.sample(frames=frames, **options, **more)
  if form.task == EXTEND:
    new = _whole('new_frames', form.new_frames, 1, limits.frames)
    video = read_clip(model, form, limits)
    frames = len(video) + new
    # Frame by frame, there is no block to be filled.
    least = 2 if next_frames.context_frames(model.config) else model.frames
    if not least <= frames <= limits.frames:
      raise UserError(
          f'"New frames" is {new}, and the clip has {len(video)} frames; '
          f'together there must be from {least} to {limits.frames}.'
      )
    _check_size(model, frames, 'new_frames', limits)
    return lambda **more: model.extend(video, frames=frames, **options, **more)
  if form.task == INTERPOLATE:
    most = min(limits.factor, model.frames - 1)
    factor = _whole('factor', form.factor, 2, most)
    video = read_clip(model, form, limits)
    frames = (len(video) - 1) * factor + 1
    if frames > limits.frames:
      raise UserError(
          f'"Factor" is {factor}, which makes {frames} frames of the '
          f'{len(video)} of the clip; there may be {limits.frames}.'
      )
    _check_size(model, frames, 'factor', limits)
    return lambda **more: model.interpolate(
        video, factor=factor, **options, **more
    )
  raise UserError(f'there is no task {form.task!r}.')


def titled():
  """Names arguments of the API by the titles of the controls."""
  return naming(lambda name: f'"{TITLES.get(name, name)}"')


def read_clip(
    model: model_lib.Model, form: Form, limits: Limits = LIMITS
) -> np.ndarray:
  """The frames of an uploaded clip, uint8 [f, height, width, 3].

  Raises:
    UserError: there is no file, or it cannot be used; the sentence has its
      name, but not its folder.
  """
  if not form.clip:
    raise UserError(
        f'"{TITLES["video"]}" is empty; upload the video to start from.'
    )
  path = pathlib.Path(form.clip)
  if not path.is_file():
    raise UserError(f'the clip {path.name} is there no more; upload it again.')
  if path.stat().st_size > limits.upload_bytes:
    raise UserError(
        f'the clip {path.name} has {path.stat().st_size >> 20} MiB; an upload '
        f'may have {limits.upload_bytes >> 20} MiB.'
    )
  config = copy.deepcopy(model.config)
  with config.unlocked(), config.ignore_type():
    config.sample.update(
        video=str(path), task=form.task, upscale=1, factor=form.factor,
        init_every=int(form.every_frame),
    )
    for name, most in limits.upload._asdict().items():
      config.data[f'max_{name}'] = min(config.data[f'max_{name}'], most)
  try:
    return given_video.read(config, f'the clip {path.name}')
  except limits_lib.VideoError as error:
    reason = re.sub(r'data\.max_\w+, ', 'the limit of this page, ',
                    error.reason)
    raise UserError(
        f'the clip {path.name} cannot be used: {reason}.'
    ) from error


def _condition(model, form, limits):
  """The arguments that condition a video, and the weight of guidance."""
  kind = model.conditioner.takes
  if not kind:
    return {'num_videos': 1}
  weight = form.guidance_weight
  if not isinstance(weight, (int, float)) or not -1 <= weight <= limits.weight:
    raise UserError(
        f'"Guidance weight" is {_shown(weight)}; it must be from -1 to '
        f'{limits.weight:g}.'
    )
  if kind == 'text':
    prompt = (form.prompt or '').strip()
    if not prompt:
      raise UserError(
          '"Prompt" is empty; say in words what the video shall show.'
      )
    if len(prompt) > limits.prompt:
      raise UserError(
          f'"Prompt" has {len(prompt)} characters; it may have '
          f'{limits.prompt}.'
      )
    condition = {'prompts': (prompt,)}
  else:
    condition = {'labels': (tuple(
        _whole(f'Label {i + 1}', label, -1, size - 1)
        for i, (label, size) in enumerate(
            zip(form.labels, model.conditioner.label_sizes, strict=True)
        )
    ),)}
  with titled():
    model.conditions(**condition)
  return condition | {'guidance_weight': float(weight)}


def _whole(name, value, least, most) -> int:
  """A whole number from least to most."""
  whole = isinstance(value, (int, float)) and value == value // 1
  if not whole or not least <= value <= most:
    raise UserError(
        f'"{TITLES.get(name, name)}" is {_shown(value)}; it must be a whole '
        f'number from {least} to {most}.'
    )
  return int(value)


def _shown(value) -> str:
  return 'empty' if value is None or value == '' else str(value)[:40]


def _check_size(model, frames, name, limits):
  pixels = frames * model.size[0] * model.size[1]
  if pixels > limits.pixels:
    raise UserError(
        f'"{TITLES[name]}" makes a video of {pixels} pixels; it may have '
        f'{limits.pixels}.'
    )
