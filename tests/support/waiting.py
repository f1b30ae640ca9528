"""How tests wait: for what must come to pass, never for a clock.

On a machine at many times its load everything takes many times as long, and
nothing else changes. A test that would fail for that tells nothing.
"""
import time

# Seconds after which a test hangs rather than waits. No healthy machine comes
# near it.
LIMIT = 3600


def until(condition, process=None):
  """Waits until condition(); fails where `process` (a Popen) ends before."""
  end = time.monotonic() + LIMIT
  while not condition():
    if process is not None and process.poll() is not None and not condition():
      said = [s.read() for s in (process.stdout, process.stderr) if s]
      raise AssertionError(f'exit code {process.returncode}: {said}')
    assert time.monotonic() < end, 'it did not happen'
    time.sleep(0.005)
