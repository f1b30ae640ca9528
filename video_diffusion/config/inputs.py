"""From a config to its data sets: sources of clips, and their batches."""
from collections.abc import Callable, Iterator
import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import source_checks
from video_diffusion.config import validate
from video_diffusion.data import datasets
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.data.builders import file_plans
from video_diffusion.errors import naming
from video_diffusion.inference import conditioning


def data_sets(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Where in the config a data set stands -> its name, weight and own fields.

  'data' first, then 'data.mixture.NAME' and 'data.image_mixture.NAME', each in
  the order of their names.
  """
  shared = {*defaults_lib.get_config().data} - {'name', 'weight'}
  own = {k: v for k, v in config.data.items() if k not in shared}
  mixed = validate.mixed(config)
  return {'data': own} | {
      prefix: {'weight': 1.0, **fields} for prefix, fields in mixed.items()
  }


def video_names(config: ml_collections.ConfigDict) -> list[str]:
  """The names of the data sets that the videos come from; not of images."""
  return [
      fields['name']
      for prefix, fields in data_sets(config).items()
      if not prefix.startswith('data.image_mixture.')
  ]


def synthetic(config: ml_collections.ConfigDict) -> bool:
  """Whether all clips are made on the fly: there is nothing to prepare."""
  names = {fields['name'] for fields in data_sets(config).values()}
  return all(
      name in datasets.NAMES and datasets.DATA_SETS[name].synthetic
      for name in names
  )


def all_moving_shapes(config: ml_collections.ConfigDict) -> bool:
  """Whether all clips are moving_shapes."""
  names = {fields['name'] for fields in data_sets(config).values()}
  return names == {'moving_shapes'}


def _fields_of(prefix):
  """Names arguments of a data set as the fields of its place in the config."""
  shared = {*defaults_lib.get_config().data} - {'name'}
  return naming(lambda name: f'{"data" if name in shared else prefix}.{name}')


def _asked(config, split) -> dict[str, dict[str, Any]]:
  """Where a data set stands -> arguments of `datasets.make_source`.

  Raises:
    UserError: names a field that is wrong, of any data set.
  """
  data, asked = config.data, {}
  for prefix, fields in data_sets(config).items():
    del fields['weight']
    image = prefix.startswith('data.image_mixture.')
    frames = 1 if image else data.frames
    with _fields_of(prefix):
      datasets.check(
          fields['name'], fields.keys() - {'name'}, frames=frames
      )
    asked[prefix] = dict(
        split=split,
        seed=config.seed,
        frames=frames,
        frameskips=(1,) if image else tuple(data.frameskips),
        height=data.height,
        width=data.width,
        limits=limits_lib.from_fields(data),
        **fields,
    )
  return asked


def _own(arguments) -> str:
  """The fields of a data set itself, by which two of them are one source."""
  own = arguments.keys() - {'frames', 'frameskips'}  # others are the same
  return repr([(name, arguments[name]) for name in sorted(own)])


def for_each_plan(
    config: ml_collections.ConfigDict, work: Callable[[file_plans.Plan], None]
) -> int:
  """Calls `work` for what is to be made of each folder of files of a config.

  Returns:
    The number of calls; folders whose records are there need none.

  Raises:
    UserError: names the field.
  """
  found = {}
  for prefix, arguments in _asked(config, 'train').items():
    with _fields_of(prefix):
      if _own(arguments) not in found:
        found[_own(arguments)] = prefix, datasets.plan(**arguments)
  todo = [(prefix, plan) for prefix, plan in found.values() if plan]
  for prefix, plan in todo:
    with _fields_of(prefix):
      work(plan)
  return len(todo)


def make_source(
    config: ml_collections.ConfigDict, split: str
) -> mixture_lib.Source | mixture_lib.Mixture:
  """The source of videos; prepares records on first use.

  A mixture where the config has further data sets. Data sets with the same
  fields are one source: images then avoid the video of their clip.

  Raises:
    UserError: names the field, of all data sets before any is prepared; or
      `source_checks.check` refuses what was prepared.
  """
  asked = _asked(config, split)
  weights = {p: fields['weight'] for p, fields in data_sets(config).items()}
  image_sets = [p for p in asked if p.startswith('data.image_mixture.')]
  made, sources = {}, {}
  for prefix, arguments in asked.items():
    key = _own(arguments)
    if key not in made:
      with _fields_of(prefix):
        made[key] = datasets.make_source(**arguments)
    sources[prefix] = made[key]
  source_checks.check(config, sources, split=split)
  if len(sources) == 1:
    return sources['data']

  def mixture(prefixes, images=None):
    return mixture_lib.Mixture(
        [sources[p] for p in prefixes], [weights[p] for p in prefixes], images
    )

  images = mixture(image_sets) if image_sets else None
  return mixture([p for p in asked if p not in image_sets], images)


def make_batches(
    config: ml_collections.ConfigDict,
    source: mixture_lib.Source,
    *,
    start: int,
    stop: int,
    encode: pipeline.Encode | None = None,
):
  """This host's training batches of steps start .. stop - 1.

  Args:
    config: of the run.
    source: of clips.
    start: first step.
    stop: one past the last.
    encode: of the captions of a run with text, from `text_inputs.open_text`.
  """
  with naming({'batch_size': 'batch_size', 'loader': 'data.loader'}.get):
    return pipeline.batches(
        source,
        batch_size=config.batch_size,
        num_frames=config.data.frames,
        num_images=config.data.images,
        seed=config.seed,
        start=start,
        stop=stop,
        flip=config.data.flip,
        frameskips=config.data.frameskips,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        loader=config.data.loader,
        encode=encode,
    )


def batch_clips(
    config: ml_collections.ConfigDict, source, step: int
) -> list[tuple[int, int, int]]:
  """(source, video, its first frame), of all rows of the batch of step `step`.

  The rows are those of the global batch.
  """
  mixture = mixture_lib.as_mixture(source)
  first, clips = (step - 1) * config.batch_size, []
  for row in range(config.batch_size):
    i, _, window, _ = pipeline.window_at(
        mixture, first + row, num_frames=config.data.frames, seed=config.seed,
        frameskips=config.data.frameskips,
    )
    clips.append((i, window.video, int(window.frames[0])))
  return clips


def label_sizes(source: mixture_lib.Source) -> tuple[int, ...]:
  """The number of values of each label slot of a source, () without labels."""
  return tuple(getattr(source, 'label_sizes', ()))


def heldout_batches(
    config: ml_collections.ConfigDict,
    source,
    encode: pipeline.Encode | None = None,
):
  """Global batches of eval.num_clips windows, the same at every call.

  A window of each held-out example in turn; further windows of them where
  there are fewer.
  """
  with naming({'batch_size': 'eval.batch_size', 'loader': 'data.loader'}.get):
    return pipeline.batches(
        source,
        batch_size=config.eval.batch_size,
        num_frames=config.data.frames,
        num_images=0,
        seed=0,
        stop=config.eval.num_clips // config.eval.batch_size,
        shuffle=False,
        frameskips=config.data.frameskips,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        loader=config.data.loader,
        encode=encode,
    )


def heldout_examples(
    config: ml_collections.ConfigDict,
    source: mixture_lib.Source,
    count: int,
    *,
    frames: int | None = None,
) -> Iterator[dict[str, Any]]:
  """`count` held-out examples, one after another, from the first again.

  Args:
    config: of the run.
    source: its held-out clips.
    count: number of examples.
    frames: of each; None takes T of the run.
  """
  rng = np.random.default_rng(0)
  for i in range(count):
    yield source.example(
        i % source.num_examples, rng, frames or config.data.frames,
        config.data.frameskips,
    )


def require_arrays(
    config: ml_collections.ConfigDict, model, source: mixture_lib.Source
) -> None:
  """Requires that all clips have the arrays that condition the network.

  Captions and labels have checks of their own.

  Args:
    config: config of the run.
    model: from `build.make_model`.
    source: clips.

  Raises:
    UserError: names the array.
  """
  if config.text.encoder:
    return
  mixture = mixture_lib.as_mixture(source)
  lacking = model.arrays().keys() - mixture_lib.shared_fields(mixture)
  validate.require(
      not lacking,
      f'model.conditioning is {config.model.conditioning!r}, but clips of '
      f'data.name {config.data.name!r}, or of a data set mixed with it, have '
      f'no {", ".join(sorted(lacking))}.',
  )
  sizes = getattr(model.encoder, 'sizes', ())
  validate.require(
      not sizes or sizes == label_sizes(source),
      f'the labels of the data have {label_sizes(source)} values, but the '
      f'network was trained with {sizes}.',
  )


def make_conditioner(
    config: ml_collections.ConfigDict, model, source: mixture_lib.Source, text
) -> conditioning.Conditioner:
  """The conditioner of a run that is trained here.

  Args:
    config: of the run.
    model: from `build.make_model`.
    source: held-out clips.
    text: captions -> the arrays of the text encoder; None without text.
  """
  encode = None
  if text is not None:
    encode = lambda captions, prompts=(): text(captions)
  kind = validate.conditioning_kind(config)
  return conditioning.Conditioner(
      functools.partial(heldout_examples, config, source),
      encode=encode,
      label_sizes=label_sizes(source) if kind == 'labels' else (),
      arrays=model.arrays(),
  )
