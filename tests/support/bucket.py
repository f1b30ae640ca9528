"""A bucket that is a local folder, for all that reads gs:// here.

TensorFlow's file system stands behind `epath`; what it is asked for is looked
up in the folder. ArrayRecord has a client of its own, which a server of this
process answers.
"""
import contextlib
import http.server
import pathlib
import threading
import urllib.parse

from etils.epath import backend


class Folder(backend._OsPathBackend):
  """Finds gs://NAME in a folder."""

  def __init__(self, folder):
    self._folder = folder

  def _local(self, path):
    return str(path).replace('gs:/', f'{self._folder}', 1).replace('//', '/')

  def open(self, path, mode):
    return super().open(self._local(path), mode)

  def exists(self, path):
    return super().exists(self._local(path))

  def isdir(self, path):
    return super().isdir(self._local(path))

  def listdir(self, path):
    return super().listdir(self._local(path))

  def glob(self, path):
    found = super().glob(self._local(path))
    return [name.replace(str(self._folder), 'gs:/', 1) for name in found]

  def stat(self, path):
    return super().stat(self._local(path))


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers what the client of Google's storage asks for an object."""

  protocol_version = 'HTTP/1.1'
  folder: pathlib.Path
  requests: list[str]

  def do_GET(self):  # noqa: N802
    path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
    _, _, name = path.partition('/b/')
    file = self.folder / name.replace('/o/', '/', 1)
    self.requests.append(name)
    content = file.read_bytes() if file.is_file() else b''
    status, first, last = (200 if file.is_file() else 404), 0, len(content)
    asked = self.headers.get('Range', '')
    if asked and content:
      begin, _, end = asked.removeprefix('bytes=').partition('-')
      first = int(begin or max(0, last - int(end)))
      last = min(int(end) + 1, last) if begin and end else last
      status = 206
    self.send_response(status)
    if status == 206:
      span = f'bytes {first}-{last - 1}/{len(content)}'
      self.send_header('Content-Range', span)
    self.send_header('Content-Length', str(last - first))
    self.send_header('x-goog-generation', '1')
    self.end_headers()
    with contextlib.suppress(OSError):  # who has read enough closes
      self.wfile.write(content[first:last])

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve(folder, monkeypatch):
  """The folders in `folder` are buckets; yields the list of objects read."""
  handler = type(
      'Handler', (_Handler,), {'folder': pathlib.Path(folder), 'requests': []}
  )
  server = http.server.ThreadingHTTPServer(('localhost', 0), handler)
  server.handle_error = lambda *_: None  # the client resets its connections
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  monkeypatch.setattr(backend, 'tf_backend', Folder(folder))
  monkeypatch.setenv(
      'CLOUD_STORAGE_EMULATOR_ENDPOINT',
      f'http://localhost:{server.server_port}',
  )
  for name in ('http_proxy', 'HTTP_PROXY'):
    monkeypatch.delenv(name, raising=False)
  try:
    yield handler.requests
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
