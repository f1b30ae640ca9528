"""A server of this machine alone, for the page.

gradio's own `launch` can share a page, asks its makers for news, and listens
where it is told. This server takes the page alone, on 127.0.0.1, and answers
nobody but a browser that names this machine.
"""
from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import socket
import threading
import urllib.parse

from video_diffusion.errors import UserError
from video_diffusion.web import forms

HOST = '127.0.0.1'
NAMES = ('127.0.0.1', 'localhost')
# The page takes everything from here. gradio needs what is called unsafe.
POLICY = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b'content-security-policy', POLICY.encode()),
    (b'referrer-policy', b'no-referrer'),
    (b'x-content-type-options', b'nosniff'),
]
# Routes of gradio that fetch what else an address names.
_FETCHES = re.compile(r'/(file|proxy|stream)=\s*[a-z][a-z0-9+.-]*:', re.I)


def prepare_environment(folder: pathlib.Path) -> None:
  """Sets gradio's variables; before it is imported.

  Args:
    folder: where it may keep files.
  """
  os.environ.update(
      GRADIO_ANALYTICS_ENABLED='False',
      GRADIO_RUN_HISTORY='False',
      GRADIO_TEMP_DIR=str(folder / 'page'),
      GRADIO_EXAMPLES_CACHE=str(folder / 'examples'),
      HF_HUB_DISABLE_TELEMETRY='1',
  )


def listen(port: int) -> socket.socket:
  """A socket of this machine alone.

  Args:
    port: 0 takes a free one.

  Raises:
    UserError: the port is taken, or not allowed.
  """
  listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listener.bind((HOST, port))
  except OSError as error:
    listener.close()
    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
      raise
    raise UserError(
        f'--port is {port}, which cannot be used ({error.strerror}); pass '
        'another one, or 0 for a free one.'
    ) from error
  return listener


@contextlib.contextmanager
def serving(
    page, listener: socket.socket, limits: forms.Limits = forms.LIMITS, **looks
) -> Iterator[threading.Thread]:
  """Serves a page while the block runs.

  Args:
    page: gradio's Blocks.
    listener: from `listen`.
    limits: what a visitor may ask for.
    **looks: theme and css, of gradio's `mount_gradio_app`.

  Yields:
    The thread that serves.
  """
  import fastapi
  import gradio
  import uvicorn

  app = fastapi.FastAPI(openapi_url=None)
  gradio.mount_gradio_app(
      app, page, path='/', server_name=HOST,
      server_port=listener.getsockname()[1], allowed_paths=[],
      max_file_size=limits.upload_bytes, ssr_mode=False, pwa=False,
      mcp_server=False, enable_monitoring=False, footer_links=[], **looks,
  )
  # gradio checks where a file lies that a request names as uploaded only in a
  # page that its own `launch` has started.
  page.has_launched = page.is_running = True
  server = uvicorn.Server(uvicorn.Config(
      _Guard(app), log_level='warning', access_log=False, lifespan='on',
      timeout_graceful_shutdown=1, server_header=False, proxy_headers=False,
  ))
  # Not the main thread: there uvicorn would take over the signals.
  thread = threading.Thread(
      target=server.run, kwargs={'sockets': [listener]}, daemon=True
  )
  thread.start()
  try:
    yield thread
  finally:
    server.should_exit = True
    thread.join()


class _Guard:
  """Refuses what no browser on this machine asks for, and adds headers."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send):
    if scope['type'] != 'http':
      if scope['type'] == 'lifespan':
        await self._app(scope, receive, send)
      return  # the page needs no websocket
    if not _is_own(scope):
      await _refuse(send)
      return

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        message = message | {'headers': [*message['headers'], *_HEADERS]}
      await send(message)

    await self._app(scope, receive, send_with_headers)


def _is_own(scope) -> bool:
  """Whether a request comes from the page, and asks for what is here.

  A site that lets its own name lead to this machine is known by the Host of
  its requests, and any other site by their Origin.
  """
  headers = {name: value.decode('latin-1') for name, value in scope['headers']}
  origin = headers.get(b'origin')
  named = [f'//{headers.get(b"host", "")}', *([origin] if origin else ())]
  try:
    good = all(urllib.parse.urlsplit(n).hostname in NAMES for n in named)
  except ValueError:
    good = False
  return good and not _FETCHES.search(urllib.parse.unquote(scope['path']))


async def _refuse(send):
  await send({
      'type': 'http.response.start', 'status': 403,
      'headers': [(b'content-type', b'text/plain'), *_HEADERS],
  })
  await send({
      'type': 'http.response.body',
      'body': b'This page is for a browser on its own machine.\n',
  })
