"""What process 0 finds is what every process finds."""
import jax
from jax.experimental import multihost_utils
import pytest

from video_diffusion.errors import UserError
from video_diffusion.parallel import distributed


@pytest.fixture
def by_both(monkeypatch):
  """fn -> what `by_first` does with it in process 0, and in process 1."""
  sent = []
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
      multihost_utils, 'broadcast_one_to_all',
      lambda x: sent.append(x) or sent[0],
  )

  def run(fn):
    results = []
    for index in (0, 1):
      monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
      try:
        results.append(distributed.by_first(fn))
      except (UserError, OSError) as error:
        results.append(error)
    sent.clear()
    return results

  return run


def test_an_answer_reaches_every_process(by_both):
  assert by_both(lambda: True) == [True, True]
  assert by_both(lambda: None) == [False, False]


@pytest.mark.parametrize('sentence', [
    'runs/a is in use.',
    'runs/caf\udce9 is in use.',  # a path of bytes that are not UTF-8
    'é' * 5000,
])
def test_an_error_reaches_every_process(by_both, sentence):
  for kind in (UserError, OSError):

    def fail(kind=kind):
      raise kind(sentence)

    first, second = by_both(fail)
    assert type(first) is kind and str(first) == sentence
    assert type(second) is UserError
    assert str(second) == sentence[:1000].replace('\udce9', '?')
