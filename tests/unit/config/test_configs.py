import importlib.util
import json

import jax
import pytest

from tests.support.paths import ROOT
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import demo
from video_diffusion.config import init_from
from video_diffusion.config import inputs
from video_diffusion.config import sizes
from video_diffusion.config import validate
from video_diffusion.training import state as state_lib

CONFIGS = ROOT / 'configs'
VARIANTS = {
    'moving_shapes': (
        'laptop', 'accelerator', 'text', 'text_accelerator', 'text_small',
        'demo', 'cascade_base', 'cascade_refine',
    ),
    'video_folder': ('laptop', 'accelerator', 'demo'),
    'moving_mnist': ('accelerator', 'laptop', 'original'),
    'ucf101': ('paper', 'smoke'),
    'bair': ('paper', 'smoke'),
    'kinetics': ('paper', 'smoke'),
    'text_64_small': ('paper', 'smoke'),
    'text_64': ('frameskip_1', 'frameskip_4', 'smoke'),
    'text_128': ('paper', 'smoke'),
}


def load(name, *variant):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*variant)


_counted = {}


def parameters(config):
  """Millions of parameters, by shape alone; each network is traced once."""
  sizes = (3, 6, 8) * 2 if config.model.cond_dim else ()
  model = build.make_model(config, sizes)
  shapes = build.batch_shapes(config, model)
  key = repr((model, shapes, config.data.images))
  if key not in _counted:
    abstract = jax.eval_shape(
        lambda: state_lib.init_params(
            model, shapes, num_images=config.data.images, seed=0
        )
    )
    _counted[key] = state_lib.tree_size(abstract) / 1e6
  return _counted[key]


def test_every_config_is_listed():
  # configs/distill.py goes with a mode of its own (tests/end_to_end).
  names = {path.stem for path in CONFIGS.glob('*.py')} - {'distill'}
  assert names == set(VARIANTS)


@pytest.mark.parametrize(
    'name, variant', [(n, v) for n in VARIANTS for v in VARIANTS[n]]
)
def test_every_variant_passes_the_checks_and_documents_itself(name, variant):
  config = load(name, variant)
  if config.text.encoder == 't5':
    with pytest.raises(ValueError, match="'t5', but text.path is empty"):
      validate.check(config)
    validate.check(config, 'inspect')
    config.text.path = 'T5'
  validate.check(config)
  # Or a resumed run would not log the same means.
  assert config.checkpoint.every % config.log.every == 0
  text = (CONFIGS / f'{name}.py').read_text()
  assert f'--config={name}' in text
  with pytest.raises(ValueError, match='nosuch'):
    load(name, 'nosuch')


@pytest.mark.parametrize(
    'name, variant, low, high',
    [
        ('kinetics', 'paper', 1140, 1240),
        ('ucf101', 'paper', 1140, 1240),
        ('bair', 'paper', 138, 159),
        ('moving_shapes', 'accelerator', 20, 28),
        ('moving_shapes', 'laptop', 0.1, 1),
        ('moving_shapes', 'text_accelerator', 20, 28),
        ('moving_shapes', 'text', 0.1, 1),
        ('moving_shapes', 'text_small', 20, 28),
        ('moving_shapes', 'cascade_base', 6, 8),
        ('moving_shapes', 'cascade_refine', 6, 8),
        ('moving_mnist', 'accelerator', 28, 30),
        ('text_64_small', 'paper', 290, 330),
        ('text_64', 'frameskip_1', 1140, 1240),
        ('text_64', 'frameskip_4', 1140, 1240),
        ('text_128', 'paper', 1140, 1240),
    ],
)
def test_parameter_counts(name, variant, low, high):
  config = load(name, variant)
  count = parameters(config)
  assert low <= count <= high
  # Counted by hand, without a trace.
  assert sizes.parameters(config) / 1e6 == pytest.approx(count, rel=0.25)


def test_full_convolutions_have_three_times_the_parameters():
  config = load('bair', 'paper')
  plain = parameters(config)
  config.model.conv = 'full_3d'
  count = parameters(config)
  assert 1.5 * plain < count < 3 * plain
  assert sizes.parameters(config) / 1e6 == pytest.approx(count, rel=0.25)


@pytest.mark.parametrize('name, variant', [
    ('moving_shapes', 'laptop'), ('moving_shapes', 'demo'), ('bair', 'paper'),
])
def test_networks_of_a_context_are_small(name, variant):
  config = load(name, variant)
  plain = parameters(config)
  config.extension.context = 'aligned'
  assert plain < parameters(config) < 1.02 * plain


PAPER = {  # appendix A, row by row
    'ucf101': dict(
        batch=128, base=256, mults=(1, 2, 4, 8), blocks=2, emb_layers=4,
        prediction='eps', betas=(0.9, 0.99), lr=3e-4, decay=0.0, steps=60_000,
        ema=0.9999, gamma=0.1, flip=False,
    ),
    'bair': dict(
        batch=128, base=128, mults=(1, 2, 3, 4), blocks=3, emb_layers=2,
        prediction='v', betas=(0.9, 0.999), lr=2e-4, decay=0.01,
        steps=660_000, ema=0.999, gamma=0.0, flip=True,
    ),
    'kinetics': dict(
        batch=256, base=256, mults=(1, 2, 4, 8), blocks=2, emb_layers=2,
        prediction='v', betas=(0.9, 0.99), lr=2e-4, decay=0.0, steps=220_000,
        ema=0.9999, gamma=0.0, flip=False,
    ),
    'text_64_small': dict(
        batch=128, base=128, mults=(1, 2, 4, 8), blocks=2, emb_layers=4,
        prediction='eps', betas=(0.9, 0.99), lr=3e-4, decay=0.0,
        steps=200_000, ema=0.9999, gamma=0.3, flip=False,
    ),
    'text_64': dict(
        batch=128, base=256, mults=(1, 2, 4, 8), blocks=2, emb_layers=4,
        prediction='eps', betas=(0.9, 0.99), lr=3e-4, decay=0.0,
        steps=700_000, ema=0.9999, gamma=0.3, flip=False,
    ),
    'text_128': dict(
        batch=128, base=128, mults=(1, 2, 4, 8, 16), blocks=2, emb_layers=4,
        prediction='eps', betas=(0.9, 0.99), lr=2e-4, decay=0.0,
        steps=800_000, ema=0.9999, gamma=0.3, flip=False,
    ),
}


@pytest.mark.parametrize('name', PAPER)
def test_hyper_parameters_are_the_papers(name):
  c = load(name)
  m, o = c.model, c.optim
  got = dict(
      batch=c.batch_size, base=m.base_channels, mults=m.channel_mults,
      blocks=m.num_blocks, emb_layers=m.emb_layers,
      prediction=c.diffusion.prediction, betas=(o.beta1, o.beta2), lr=o.lr,
      decay=o.weight_decay, steps=c.train.steps, ema=o.ema_decay,
      gamma=c.sample.gamma, flip=c.data.flip,
  )
  assert got == PAPER[name]
  large, text = name == 'text_128', name.startswith('text')
  assert (c.data.frames, c.data.images) == ((9, 7) if large else (16, 8))
  assert (c.data.height, c.data.width) == ((128,) * 2 if large else (64,) * 2)
  assert m.attention_resolutions == (8, 16, 32)
  assert (m.head_dim, m.emb_dim) == (128 if large else 64, 1024)
  assert m.dropout == (0.0 if text else 0.1)
  assert c.diffusion.cond_drop == 0.1 and c.sample.num_steps == (
      128 if name == 'kinetics' else 256
  )
  assert (m.cond_dim, c.text.encoder) == ((1024, 't5') if text else (0, ''))
  assert m.injection == 'add' and o.ema_rule == 'constant'
  assert (m.position, m.position_stddev) == ('bias', 0.0)
  assert (c.diffusion.logsnr_shift, c.diffusion.pure_noise) == (0.0, 0.0)
  assert o.schedule == 'constant' and o.clip_norm == 1.0
  assert (o.warmup_steps, o.eps) == (1000, 1e-8)
  assert (c.diffusion.logsnr_min, c.diffusion.logsnr_max) == (-20, 20)
  if text:
    assert (c.text.length, c.text.dim) == (64, 1024)
    s = c.sample
    assert (s.sampler, s.corrector_delta) == ('ancestral', 0.0)
    assert (s.guidance_weight, s.reconstruction_weight) == (0.0, 9.0)
    assert s.overlap == (1 if large else 0)  # 0 is half of the frames


def test_the_large_text_models_differ_in_their_frame_rate():
  assert load('text_64').data.frameskips == (1,)
  assert load('text_64', 'frameskip_4').data.frameskips == (4,)


@pytest.mark.parametrize('name', ['kinetics', 'video_folder', 'text_128'])
def test_missing_data_is_one_sentence_that_says_what_to_get(name):
  with pytest.raises(ValueError, match='^data.path is empty; set ') as error:
    inputs.make_source(load(name), 'train')
  assert '\n' not in str(error.value)


def test_the_model_in_the_package_fits_the_variant_that_begins_from_it(
    tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  config = load('video_folder', 'demo')
  _, optimizer = build_step.make_optimizer(config)
  network = build.make_model(config, ())
  mesh = build.make_mesh(config)
  _, state = build_step.abstract_state(
      config, network, optimizer, build.batch_shapes(config, network), mesh
  )
  taken = init_from.take(config, state.params, mesh)
  assert taken.keys() == state_lib.flatten(state.params).keys()
  # It is a run in the working directory, as for the command line.
  theirs = json.loads((tmp_path / demo.FOLDER / 'config.json').read_text())
  for name in ('frames', 'height', 'width'):
    assert config.data[name] == theirs['data'][name]
  for name in ('prediction', 'logsnr_shift', 'logsnr_min', 'logsnr_max'):
    assert config.diffusion[name] == theirs['diffusion'][name]
  for name in {*theirs['model']} - {'cond_dim', 'dtype'}:
    value = config.model[name]
    assert theirs['model'][name] == (
        [*value] if isinstance(value, tuple) else value
    ), name
