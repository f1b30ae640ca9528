"""What does not fit into a device is one sentence, and nothing else is."""
import functools
import json
import types

import jax
import numpy as np
import pytest

from benchmarks import cases
from video_diffusion import train
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import inputs
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import heldout_loss
from video_diffusion.parallel import memory
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import state as state_lib

GIB = 2**30


@pytest.fixture
def device(monkeypatch):
  """device(limit, in_use): such is the memory of the only device."""

  def fake(limit=None, in_use=0):
    stats = limit and {'bytes_limit': limit, 'bytes_in_use': in_use}
    one = types.SimpleNamespace(
        device_kind='NVIDIA L4', memory_stats=lambda: stats
    )
    monkeypatch.setattr(memory, '_device', lambda: one)

  return fake


def error(message, code='RESOURCE_EXHAUSTED'):
  return jax.errors.JaxRuntimeError(f'{code}: {message}')


@pytest.mark.parametrize('message, asked, there', [
    ('Out of memory while trying to allocate 4294967296 bytes.', 6, 8),
    ('Out of memory while trying to allocate 4.00GiB.', 6, 8),
    ('Error allocating device buffer: Attempting to allocate 4.00G. That was '
     'not possible. There are 1.00G free.', 6, 8),
    ('Attempting to reserve 4.00G at the bottom of memory. That was not '
     'possible.', 6, 8),
    ('XLA:TPU compile permanent error. Ran out of memory in memory space hbm. '
     'Used 63.80G of 30.75G hbm. Exceeded hbm capacity by 33.05G.', 63.8,
     30.75),
    ('CUDA_ERROR_OUT_OF_MEMORY: out of memory', None, 8),
])
def test_what_xla_says(device, message, asked, there):
  device(8 * GIB, in_use=2 * GIB)
  need = memory.refused(error(message))
  assert need.asked == (asked and int(asked * GIB))
  assert need.there == int(there * GIB)


def test_a_refusal_of_this_machine_is_understood():
  with pytest.raises(UserError, match='takes about 256 GiB of each'):
    with memory.explained(lambda need: UserError(memory.misfit('it', need))):
      np.asarray(jax.jit(lambda: jax.numpy.zeros(2**36))())


@pytest.mark.parametrize('other', [
    error('Shared memory size limit exceeded: requested 131072, available 1'),
    error('received message larger than max'),
    error('Out of memory while trying to allocate 4 bytes.', 'INTERNAL'),
    RuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
    MemoryError('out of memory'),
])
def test_other_errors_pass(other):
  assert memory.refused(other) is None
  with pytest.raises(type(other)) as raised:
    with memory.explained(lambda need: UserError('a sentence')):
      raise other
  assert raised.value is other


def test_the_largest_batch_leaves_room_for_what_is_fixed():
  need = memory.Need(10 * GIB, 7 * GIB, fixed=2 * GIB)
  largest = lambda need: memory.largest(64, need, range(8, 64, 8))
  assert largest(need) == 32  # less than 5 / 8 of it
  assert memory.largest(64, need, range(64)) == 37
  assert largest(need._replace(there=GIB)) == 0
  # Room in pieces: nothing can be said.
  assert largest(need._replace(there=11 * GIB)) is None
  assert largest(memory.Need(None, GIB)) is None


@pytest.fixture(scope='module')
def run():
  """(config, abstract state, mesh) of a tiny network."""
  config = cases.case_config('smoke', batch=8)
  model = build.make_model(config)
  _, optimizer = build_step.make_optimizer(config)
  mesh = build.make_mesh(config)
  shapes = build.batch_shapes(config, model)
  _, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  return config, abstract, mesh


def test_what_a_program_needs():
  x = jax.ShapeDtypeStruct((1000,), jax.numpy.float32)
  both = jax.jit(lambda x, y: (x + y, x - y)).lower(x, x).compile()
  assert 16000 <= memory.program_bytes(both) < 17000
  # A result in place of a donated argument takes no room of its own.
  donated = jax.jit(lambda x, y: x + y, donate_argnums=0).lower(x, x).compile()
  assert 8000 <= memory.program_bytes(donated) < 9000


def test_a_batch_that_does_not_fit_is_refused_before_it_runs(run, device):
  config, abstract, mesh = run
  state = memory.tree_bytes(abstract)
  fixed = state + memory.tree_bytes(abstract.params)
  analysis = types.SimpleNamespace(
      argument_size_in_bytes=state, output_size_in_bytes=state,
      alias_size_in_bytes=state, temp_size_in_bytes=fixed - state + 8 * GIB,
  )
  compiled = types.SimpleNamespace(memory_analysis=lambda: analysis)
  too_large = functools.partial(
      build_step.batch_too_large, config, abstract, mesh
  )
  check = lambda: compile_lib.check_batch(compiled, too_large)
  check()  # of no device that tells
  device(fixed + 8 * GIB)
  check()
  device(7 * GIB)
  with pytest.raises(UserError) as raised:
    check()
  assert str(raised.value) == (
      'batch_size=8 does not fit: it takes about 8 GiB of each device, and '
      'NVIDIA L4 has 7 GiB for it; set batch_size=6, about the largest that '
      'fits, or train.accumulate=2 to take it in parts, or model.remat=(16,) '
      'to recompute activations instead of keeping them.'
  )
  compiled.memory_analysis = lambda: None
  check()  # nor of a backend that does not tell
  compiled.memory_analysis = lambda: analysis
  device(GIB // 2)
  with pytest.raises(UserError, match='too little for even batch_size=1; set '
                     'model.remat='):
    check()


def test_a_compiler_that_refuses_is_heard(run, monkeypatch):
  config, abstract, mesh = run

  def refuse():
    raise error(
        'XLA:TPU compile permanent error. Ran out of memory in memory space '
        'hbm. Used 20.00G of 15.00G hbm. Exceeded hbm capacity by 5.00G.'
    )

  lowered = types.SimpleNamespace(
      compile=refuse, cost_analysis=lambda: {'flops': 1.0}
  )
  monkeypatch.setattr(compile_lib, 'lower_step', lambda *_: lowered)
  too_large = functools.partial(
      build_step.batch_too_large, config, abstract, mesh
  )
  with pytest.raises(UserError, match='about 20 GiB of .* has 15 GiB .*set '
                     'batch_size=5, about'):
    compile_lib.compile_step(
        None, abstract, None, mesh, counted=None, too_large=too_large
    )


def test_a_state_that_does_not_fit_is_refused(run, device):
  config, abstract, _ = run
  size = memory.tree_bytes(abstract)
  assert size >= 16 * state_lib.tree_size(abstract.params)
  device(size)
  too_large = functools.partial(build_step.state_too_large, config)
  compile_lib.check_state(abstract, too_large)
  device(size - 1)
  with pytest.raises(UserError, match='^the train state takes about .* GiB of '
                     'each device, and NVIDIA L4 has .*mesh.fsdp'):
    compile_lib.check_state(abstract, too_large)


def test_evaluation_names_its_own_batch(run, device):
  config, mesh = cases.load_config('moving_shapes'), run[2]
  config.eval.batch_size = config.eval.num_clips = 8
  batches = inputs.heldout_batches(config, inputs.make_source(config, 'test'))
  device(8 * GIB, in_use=2 * GIB)

  def eval_step(*_):
    raise error('Out of memory while trying to allocate 12884901888 bytes.')

  with pytest.raises(UserError) as raised:
    with naming(lambda name: f'eval.{name}'):
      heldout_loss.mean_losses(
          eval_step, None, batches, batch_size=8, num_clips=8, mesh=mesh
      )
  assert str(raised.value) == (
      'eval.batch_size=8 does not fit: it takes about 14 GiB of each device, '
      'and NVIDIA L4 has 8 GiB for it; set eval.batch_size=2, about the '
      'largest that fits.'
  )


def test_what_was_refused_may_be_tried_otherwise_in_the_same_folder(
    device, tmp_path
):
  config = cases.load_config('moving_shapes')
  for size in (8, 4):
    config.batch_size = size
    device(2**10)
    with pytest.raises(UserError, match='^the train state takes about'):
      train(config, tmp_path)  # the module itself
    saved = json.loads((tmp_path / 'config.json').read_text())
    assert saved['batch_size'] == size
