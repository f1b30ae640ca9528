"""The tables of `benchmarks.tables`, and the models that they need."""
from typing import Any, NamedTuple

from benchmarks import cases as cases_lib
from benchmarks import table_rows
import video_diffusion
from video_diffusion.config import data_options
from video_diffusion.config import validate
from video_diffusion.errors import UserError

REAL = 'real clips'  # the first row of every table
# Fields of all models; a call may set them otherwise.
REFERENCE = {
    'eval.evaluators': (),
    'log.eval_every': 0,
    'log.sample_every': 0,
    'checkpoint.every': 500,
    'checkpoint.keep': 1,
    'sample.sampler': 'ancestral',
    'sample.num_steps': 64,
    'sample.batch_size': 256,
}
# Fields of the single sample that a training ends with.
PICTURE = {
    'sample.num_videos': 1, 'sample.batch_size': 1, 'sample.num_steps': 1,
}
MODELS = {
    **{f'k_{k}': {'data.images': k} for k in (0, 4, 8)},
    'free': {
        'data.images': 4,
        'data.bounce': True,
        'data.heldout_pairs': (),
        'text.encoder': '',
        'model.cond_dim': 0,
        # The shift and the pure noise of models of captions are for their
        # directions. Reconstruction guidance over-corrects under such a shift.
        'diffusion.logsnr_shift': -2.0,
        'diffusion.pure_noise': 0.0,
    },
}
# What docs/summary.md compares with the paper's models, by name.
VARIANTS = {
    'x': {'diffusion.prediction': 'x'},
    'heads': {'model.heads': 'separate'},
    # At this width moving_shapes:demo has as many parameters as otherwise.
    'conv': {
        'model.conv': 'full_3d',
        'model.base_channels': 18,
        'model.head_dim': 18,
    },
    'output': {'text.injection': 'output'},
    'aligned': {'extension.context': 'aligned'},
}
MODELS |= {
    f'{model}_{name}': MODELS[model] | fields
    for model in ('k_4', 'free')
    for name, fields in VARIANTS.items()
    if (model, name) != ('free', 'output')  # without captions
}

LANGEVIN = {'sampler': 'annealed_langevin'}


class Row(NamedTuple):
  """A row of a table: a name of MODELS, and arguments of `measure`."""

  model: str
  settings: dict[str, Any]


class Table(NamedTuple):
  """A table.

  Attributes:
    title: says what it compares.
    measure: class of `table_rows` that measures a row.
    samples: number of samples of a row, unless a call says another.
    columns: figures that the report shows.
    rows: by name; that of REAL comes before them.
  """

  title: str
  measure: type
  samples: int
  columns: tuple[str, ...]
  rows: dict[str, Row]


_CAPTIONS = ('fvd', 'frames', 'palette', 'colour', 'shape', 'motion', 'all')
_LAST = ('one_last', 'two_last')
_SIZE_AND_LOSS = ('parameters_m', 'heldout_loss', 'heldout_x')
_FVD = tuple(f'fvd_{i + 1}' for i in range(table_rows.BLOCKS))
TABLES = {
    'joint': Table(
        'Joint training on K image frames (table 4)',
        table_rows.Captions, 1024, _CAPTIONS,
        {f'K = {k}': Row(f'k_{k}', {'weight': 0.0}) for k in (0, 4, 8)},
    ),
    'guidance': Table(
        'Weight w of classifier-free guidance, K = 4 (table 5)',
        table_rows.Captions, 1024, _CAPTIONS,
        {f'w = {w:g}': Row('k_4', {'weight': w}) for w in (0.0, 1.0, 2.0, 5.0)},
    ),
    'extension': Table(
        'Extension, FVD by block (table 6)',
        table_rows.Extension, 512,
        (*_FVD, 'change_within', 'change_at_seams', 'palette', *_LAST),
        {'guidance': Row('free', {}),
         'replacement': Row('free', {'reconstruction_weight': 0.0})},
    ),
    'summary': Table(
        "The summary's mechanisms, with captions (docs/summary.md)",
        table_rows.Variant, 1024, (*_SIZE_AND_LOSS, *_CAPTIONS),
        {
            'the paper': Row('k_4', {'weight': 0.0}),
            **{name: Row(f'k_4_{name}', {'weight': 0.0}) for name in VARIANTS},
            **{
                f'annealed Langevin, {steps} steps': Row('k_4', {
                    'weight': 0.0, **LANGEVIN, 'num_steps': steps,
                })
                for steps in (64, 256)
            },
        },
    ),
    'summary_extension': Table(
        "The summary's mechanisms, extended to 64 frames (docs/summary.md)",
        table_rows.VariantExtension, 512,
        (*_SIZE_AND_LOSS, 'heldout_next', *_FVD, 'frame_seconds', 'palette',
         *_LAST),
        {
            'the paper': Row('free', {}),
            **{
                name: Row(f'free_{name}', {})
                for name in VARIANTS if f'free_{name}' in MODELS
            },
            'annealed Langevin, 64 steps': Row('free', {
                **LANGEVIN, 'num_steps': 64,
            }),
        },
    ),
    'prediction': Table(
        'Prediction from known frames, by calls of the network (tables 2, 3)',
        table_rows.Prediction, 512, ('fvd', 'palette', *_LAST),
        {
            f'{known} known, {2 * n} calls, {name}': Row('free', {
                'known': known, 'num_steps': steps, 'corrector_delta': delta,
            })
            for known in (1, 5)
            for n in (16, 32, 64)
            for name, steps, delta in (
                ('ancestral', 2 * n, 0.0), ('Langevin', n, 0.1),
            )
        },
    ),
}


def rows(table: str) -> tuple[str, ...]:
  """The names of all rows of a table, in order."""
  return REAL, *TABLES[table].rows


def readers(model: str) -> list[str]:
  """The tables that need a model."""
  return [
      name for name, table in TABLES.items()
      if any(row.model == model for row in table.rows.values())
  ]


def own_fields(seed: int, steps: int) -> dict[str, Any]:
  """Fields that the arguments decide.

  Args:
    seed: of the training and of the samples.
    steps: of the training.
  """
  return {
      'seed': seed,
      'sample.seed': seed,
      'train.steps': steps,
      'optim.decay_steps': steps,
      'optim.warmup_steps': max(1, steps // 20),
  }


def make_config(
    model: str, *, config: str, fields: list[str], seed: int, steps: int
):
  """The config of a model.

  Args:
    model: name in MODELS.
    config: name of the config that all models are made of.
    fields: '--config.FIELD=VALUE's for all models.
    seed: see `own_fields`.
    steps: see `own_fields`.

  Raises:
    UserError: config is no config of moving_shapes with captions, or a field
      does not exist or does not fit.
  """
  name, config = config, video_diffusion.get_config(config)
  if config.data.name != 'moving_shapes' or not config.text.encoder:
    raise UserError(
        f'--config is {name!r}; it must be a variant of moving_shapes '
        'with captions, as moving_shapes:demo.'
    )
  config.update_from_flattened_dict(REFERENCE)
  cases_lib.set_fields(config, fields)
  config.update_from_flattened_dict(MODELS[model])
  config.update_from_flattened_dict(own_fields(seed, steps))
  validate.check(data_options.complete(config))
  return config
