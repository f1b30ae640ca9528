"""A headless Chromium that a test asks by the DevTools protocol.

The protocol goes through two pipes, so that neither a library nor a port is
needed, and the page that is looked at holds nothing of the test's.
"""
import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

from tests.support.waiting import LIMIT

PROGRAM = shutil.which('chromium') or shutil.which('google-chrome')


class _Pipes:
  """The connection to a browser, which all its tabs share."""

  def __init__(self, to_browser: int, from_browser: int):
    self.events = []
    self._to, self._from, self._buffer = to_browser, from_browser, b''
    self._number = 0

  def call(self, method: str, params, session):
    self._number += 1
    message = {
        'id': self._number, 'method': method, 'params': params, **session
    }
    os.write(self._to, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._read()
      if answer.get('id') == self._number:
        assert 'error' not in answer, (method, answer['error'])
        return answer['result']
      self.events.append((answer['method'], answer['params']))

  def _read(self):
    end = time.monotonic() + LIMIT
    while b'\0' not in self._buffer:
      left = end - time.monotonic()
      assert left > 0 and select.select([self._from], [], [], left)[0]
      piece = os.read(self._from, 1 << 20)
      assert piece, 'Chromium has ended'
      self._buffer += piece
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)


class Page:
  """A tab.

  Attributes:
    events: (method, params) of all that the browser has reported so far, of all
      its tabs.
  """

  def __init__(self, pipes: _Pipes):
    self._pipes, self._session = pipes, {}
    self.events = pipes.events
    self._target = self.call('Target.createTarget', url='about:blank')
    self._session = {'sessionId': self.call(
        'Target.attachToTarget', **self._target, flatten=True
    )['sessionId']}
    for domain in ('Page', 'Runtime', 'Network', 'Log'):
      self.call(f'{domain}.enable')

  def call(self, method: str, **params):
    """Returns the browser's answer; fails where it is an error."""
    return self._pipes.call(method, params, self._session)

  def another(self) -> 'Page':
    """Another tab of the same browser."""
    return Page(self._pipes)

  def close(self):
    """Closes the tab."""
    self._session = {}
    self.call('Target.closeTarget', **self._target)

  def visit(self, url: str, *, width: int = 1100, height: int = 900):
    """Shows a page of a server in a window of a size."""
    self.size(width, height)
    self.call('Page.navigate', url=url)

  def type(self, selector: str, text: str):
    """Writes a text in the place of what a field holds, and leaves the field.
    """
    self.value(f'document.querySelector({selector!r}).select()')
    self.value(f'document.querySelector({selector!r}).focus()')
    self.call('Input.insertText', text=text)
    self.value(f'document.querySelector({selector!r}).blur()')

  def upload(self, selector: str, path: pathlib.Path):
    """Gives a file to a control that takes one."""
    root = self.call('DOM.getDocument')['root']['nodeId']
    node = self.call('DOM.querySelector', nodeId=root, selector=selector)
    self.call('DOM.setFileInputFiles', files=[str(path)], **node)

  def screenshot(self) -> bytes:
    """What the window shows, as PNG."""
    return base64.b64decode(self.call('Page.captureScreenshot')['data'])

  def open(self, path: pathlib.Path, *, width: int, height: int):
    """Shows a local page in a window of a size, and waits until it is loaded.
    """
    self.size(width, height)
    self.call('Page.navigate', url=path.as_uri())
    self.wait(
        'document.readyState == "complete" && location.protocol == "file:"'
    )

  def size(self, width: int, height: int):
    self.call(
        'Emulation.setDeviceMetricsOverride', width=width, height=height,
        deviceScaleFactor=1, mobile=width < 600,
    )

  def value(self, expression: str):
    """Returns the value of an expression of JavaScript."""
    answer = self.call(
        'Runtime.evaluate', expression=expression, returnByValue=True,
        awaitPromise=True,
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def wait(self, expression: str):
    """Waits until an expression of JavaScript is true."""
    end = time.monotonic() + LIMIT
    while not self.value(expression):
      assert time.monotonic() < end, expression
      time.sleep(0.05)


@contextlib.contextmanager
def page(profile: pathlib.Path):
  """Yields a Page; the browser ends with the block.

  Args:
    profile: an empty folder for the browser.
  """
  child_reads, we_write = os.pipe()
  we_read, child_writes = os.pipe()

  def set_pipes():  # the browser reads from 3 and writes to 4
    first, second = os.dup(child_reads), os.dup(child_writes)
    # Neither may be what the other is put over.
    while first in (3, 4):
      first = os.dup(first)
    while second in (3, 4):
      second = os.dup(second)
    os.dup2(first, 3)
    os.dup2(second, 4)

  browser = subprocess.Popen(
      [PROGRAM, '--headless', '--no-sandbox', '--use-angle=swiftshader',
       '--enable-unsafe-swiftshader', '--no-first-run',
       '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank'],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
      preexec_fn=set_pipes)
  os.close(child_reads)
  os.close(child_writes)
  try:
    yield Page(_Pipes(we_write, we_read))
  finally:
    browser.kill()
    browser.wait()
    os.close(we_write)
    os.close(we_read)
