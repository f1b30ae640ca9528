import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.support import bugs
from video_diffusion.checkpoints import checkpoint
from video_diffusion.checkpoints import digests
from video_diffusion.errors import UserError
from video_diffusion.parallel import sharding
from video_diffusion.training import state as state_lib


def make_state(value):
  params = {'a': jnp.full((4, 2), value), 'b': {'c': jnp.arange(3.0)}}
  state = state_lib.init_state(params, optax.adam(1e-3))
  return state.replace(
      step=jnp.int32(value), ema_params=jax.tree.map(lambda p: p + 1, params)
  )


def abstract():
  return sharding.abstract(
      jax.eval_shape(lambda: make_state(0)), sharding.make_mesh()
  )


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_save_restore_latest_keep(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
  assert checkpoints.latest_step() is None
  for step in (3, 5, 8):
    checkpoints.save(step, make_state(step), {'seed': step})
  checkpoints.close()
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
  assert checkpoints.latest_step() == 8
  equal(checkpoints.restore(8, abstract()), make_state(8))
  equal(checkpoints.restore(5, abstract()), make_state(5))
  with pytest.raises(FileNotFoundError):
    checkpoints.restore(3, abstract())
  checkpoints.close()


def test_the_ema_alone_can_be_read(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(4), {})
  target = state_lib.TrainState(None, None, abstract().ema_params, None)
  got = checkpoints.restore(1, target)
  assert got.params is None
  equal(got.ema_params, make_state(4).ema_params)
  checkpoints.close()


def test_an_unfinished_checkpoint_is_not_the_latest(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.close()
  # What a killed save leaves: a directory under a temporary name.
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step() == 1
  equal(checkpoints.restore(1, abstract()), make_state(1))
  checkpoints.close()


def flip(path, place):
  """Flips one bit of a file."""
  data = bytearray(path.read_bytes())
  data[place] ^= 8
  path.write_bytes(data)


def array_files(directory, step):
  """The files that hold the values of arrays, the largest first."""
  found = (directory / str(step)).glob('*/ocdbt.process_0/d/*')
  return sorted(found, key=lambda p: -p.stat().st_size)


def make_large_state(value):
  """Of arrays that do not fit into an index, which has its own check."""
  rng = np.random.default_rng(value)
  a = jnp.asarray(rng.standard_normal((64, 33)), jnp.float32)
  params = {'a': a, 'b': {'c': a.astype(jnp.bfloat16)}}
  state = state_lib.init_state(params, optax.adam(1e-3))
  return state.replace(ema_params=jax.tree.map(lambda p: p + 1, params))


def test_a_changed_byte_is_found_and_an_older_checkpoint_serves(tmp_path):
  target = sharding.abstract(
      jax.eval_shape(lambda: make_large_state(0)), sharding.make_mesh()
  )
  checkpoints = checkpoint.Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(step, make_large_state(step), {})
  checkpoints.close()
  found, files = 0, array_files(tmp_path, 2)[:2]
  rng = np.random.default_rng(0)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  for path in files:
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 20):
      flip(path, place)
      try:
        # One that does no harm must give what was saved.
        equal(checkpoints.restore(2, target), make_large_state(2))
      except Exception:  # of many kinds
        found += 1
      path.write_bytes(whole)
  assert found > 30
  flip(files[0], len(whole) // 2)
  with pytest.raises(checkpoint.DamagedError, match='not what was saved'):
    checkpoints.restore(2, target)
  state, step = checkpoints.restore_latest(target)
  assert step == 1
  equal(state, make_large_state(1))
  checkpoints.close()
  assert (tmp_path / '2.damaged').is_dir()


def test_a_device_too_small_damages_no_checkpoint(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.save(2, make_state(2), {})

  def refuse(*_):
    raise jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 64 bytes.'
    )

  monkeypatch.setattr(checkpoints, 'restore', refuse)
  with pytest.raises(jax.errors.JaxRuntimeError):
    checkpoints.restore_latest(abstract())
  checkpoints.close()
  assert not list(tmp_path.glob('*.damaged')) and (tmp_path / '2').is_dir()


def test_a_changed_digest_does_not_switch_the_check_off(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.wait()
  path = tmp_path / '1' / 'digests' / 'metadata'
  text = path.read_text()
  assert '"state"' in text and '"params/a"' in text
  for old, new in (('"state"', '"stave"'), ('"params/a"', '"params/c"')):
    path.write_text(text.replace(old, new))
    with pytest.raises(checkpoint.DamagedError):
      checkpoints.restore(1, abstract())
  path.write_text(text)
  equal(checkpoints.restore(1, abstract()), make_state(1))
  checkpoints.close()


def test_a_checkpoint_without_digests_is_read(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.close()
  shutil.rmtree(tmp_path / '1' / 'digests')
  checkpoints = checkpoint.Checkpoints(tmp_path)
  equal(checkpoints.restore(1, abstract()), make_state(1))
  checkpoints.close()


def test_a_save_that_fails_is_said_and_leaves_nothing(tmp_path, caplog):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_large_state(1), {})
  checkpoints.wait()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # as if it were full
  try:
    checkpoints.save(2, make_large_state(2), {})
    with pytest.raises(ValueError, match='step 2 could not be written'):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert [p.name for p in tmp_path.iterdir()] == ['1']
  said = [r.getMessage() for r in caplog.records if 'absl' in r.name]
  said = [text for text in said if 'could not be written' in text]
  assert len(said) == 1 and 'on disk is that of step 1: make' in said[0]
  # With room, the next save succeeds.
  checkpoints.save(3, make_large_state(3), {})
  checkpoints.close()
  assert checkpoint.Checkpoints(tmp_path).latest_step() == 3


def test_a_bug_of_ours_in_a_save_keeps_its_traceback(
    tmp_path, caplog, monkeypatch
):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  monkeypatch.setattr(digests, 'digests', bugs.bug_in(digests))
  checkpoints.save(1, make_state(1), {})
  with pytest.raises(UserError, match='could not be written.+zip') as error:
    checkpoints.close()
  assert 'make room' not in str(error.value)
  assert any(
      record.exc_info and 'zip' in str(record.exc_info[1])
      for record in caplog.records
  )


def test_a_file_cut_in_half_is_one_line_that_names_it(tmp_path, capfd, caplog):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(step, make_state(step), {})
  checkpoints.close()
  [path] = (tmp_path / '2' / 'state' / 'd').iterdir()
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  checkpoints = checkpoint.Checkpoints(tmp_path)
  state, step = checkpoints.restore_latest(abstract(), set_aside=False)
  assert step == 1 and (tmp_path / '2').exists()
  equal(state, make_state(1))
  assert checkpoints.restore_latest(abstract())[1] == 1
  assert (tmp_path / '2.damaged').is_dir() and not (tmp_path / '2').exists()
  checkpoints.close()
  said = [r.getMessage() for r in caplog.records]
  said = [text for text in said if 'cannot be read' in text]
  assert len(said) == 2 and 'step 2' in said[0] and path.name in said[0]
  time.sleep(0.2)  # for threads that would still print
  assert 'Event loop' not in capfd.readouterr().err


def test_what_killed_saves_left_goes_with_the_next_training(tmp_path):
  left = tmp_path / '2.orbax-checkpoint-tmp'
  (left / 'state').mkdir(parents=True)
  checkpoint.Checkpoints(tmp_path).close()  # sampling, beside a training
  assert left.exists()
  checkpoint.Checkpoints(tmp_path, clean=True).close()
  assert not left.exists()


def said_in(caplog):
  return [r.getMessage() for r in caplog.records if 'absl' in r.name]


@pytest.mark.parametrize('what', ['folder', 'newest', 'both steps', 'workdir'])
def test_what_somebody_deletes_is_said_and_one_is_written(
    tmp_path, caplog, what
):
  folder = tmp_path / 'run' / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(folder, keep=2)
  for step in (1, 2):
    checkpoints.save(step, make_state(step), {})
  checkpoints.wait()
  gone = {
      'folder': [folder],
      'newest': [folder / '2'],
      'both steps': [folder / '1', folder / '2'],
      'workdir': [folder.parent],
  }[what]
  for path in gone:
    shutil.rmtree(path)
  assert checkpoints.latest_step() == (1 if what == 'newest' else None)
  checkpoints.save(3, make_state(3), {})
  checkpoints.close()
  [text] = [text for text in said_in(caplog) if 'deleted' in text]
  left = 'is that of step 1' if what == 'newest' else 'no checkpoint is on disk'
  assert left in text and 'Step 3 is saved now' in text
  checkpoints = checkpoint.Checkpoints(folder, keep=2)
  equal(checkpoints.restore_latest(abstract())[0], make_state(3))
  checkpoints.close()


def test_a_deleted_step_is_written_again(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.wait()
  shutil.rmtree(tmp_path / '1')
  checkpoints.save(1, make_state(1), {})
  checkpoints.close()
  assert (tmp_path / '1').is_dir()


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path):
  folder = tmp_path / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(folder)
  checkpoints.save(1, make_state(1), {})
  checkpoints.wait()
  shutil.rmtree(folder)
  folder.write_text('in the way')
  for step in (2, 3):
    checkpoints.save(step, make_state(step), {})
    with pytest.raises(UserError, match=f'step {step} could not be .+; no che'):
      checkpoints.wait()
  with pytest.raises(UserError, match='move away what is there'):
    checkpoint.Checkpoints(folder)
  folder.unlink()
  checkpoints.save(4, make_state(4), {})
  checkpoints.close()
  assert checkpoint.Checkpoints(folder).latest_step() == 4
