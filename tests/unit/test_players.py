"""Our MP4s as other programs show them: tags decide, not the size."""
import http.server
import json
import queue
import shutil
import subprocess
import threading

import numpy as np
import pytest

from tests.support.waiting import LIMIT
from video_diffusion import media
from video_diffusion.data import colour
from video_diffusion.data import video as video_lib

av = pytest.importorskip('av')

SIZES = [(64, 128), (720, 1280)]  # rows, columns: SD and HD
COLOURS = np.array([
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)],
    [(0, 0, 0), (128, 128, 128), (200, 100, 50), (30, 180, 220)],
], np.uint8)
PAGE = """<!doctype html><video id=v muted src=a.mp4></video><script>
const report = x => fetch('done', {method: 'POST', body: JSON.stringify(x)});
v.onerror = () => report(v.error.message);
v.onloadeddata = () => { v.onseeked = () => requestAnimationFrame(() => {
  const c = document.createElement('canvas');
  [c.width, c.height] = [v.videoWidth, v.videoHeight];
  const g = c.getContext('2d'); g.drawImage(v, 0, 0);
  const found = [];
  for (let y = 0; y < 2; y++) for (let x = 0; x < 4; x++)
    found.push([...g.getImageData(c.width * (2 * x + 1) / 8,
                                  c.height * (2 * y + 1) / 4, 1, 1).data]);
  report(found);
}); v.currentTime = 0.3; };
</script>"""


@pytest.fixture(name='written', params=SIZES, ids=['SD', 'HD'])
def mp4_of_flat_patches(request, tmp_path):
  height, width = request.param
  picture = COLOURS.repeat(height // 2, 0).repeat(width // 4, 1)
  media.write_mp4(
      tmp_path / 'a.mp4', np.repeat(picture[None], 4, axis=0), fps=8)
  return tmp_path / 'a.mp4', height, width


def patches(frame):
  h, w = frame.shape[0] // 4, frame.shape[1] // 8
  return frame[h::2 * h, w::2 * w][:2, :4, :3]


def test_the_rule_is_that_of_the_reader():
  assert media.HD_WIDTH == colour.HD_WIDTH
  assert media.HD_HEIGHT == colour.HD_HEIGHT


def check(found):
  worst = np.abs(found.astype(int) - COLOURS).max()
  print('largest difference:', worst)
  assert worst <= 3


def test_tags_and_our_own_reader(written):
  path, height, width = written
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    context = stream.codec_context
    matrix = 1 if height >= 720 else 6
    assert (context.colorspace, context.color_primaries, context.color_trc,
            context.color_range) == (matrix, 1, 1, 1)
    assert container.metadata['description'] == media.MARK
    frame = next(container.decode(stream))
    check(patches(frame.to_ndarray(format='rgb24')))
    # A player that looks at the size alone.
    guessed = frame.reformat(
        format='rgb24', src_colorspace=1 if height >= 720 else 5,
        src_color_range=1)
  check(patches(guessed.to_ndarray()))
  frames = list(video_lib.read_frames(path))
  assert len(frames) == 4 and frames[0].shape == (height, width, 3)
  check(patches(frames[0]))


@pytest.mark.skipif(not shutil.which('ffmpeg'), reason='there is no ffmpeg')
def test_ffmpeg_with_its_defaults(written):
  path, height, width = written
  raw = subprocess.run(
      ['ffmpeg', '-v', 'error', '-i', path, '-frames:v', '1', '-f', 'rawvideo',
       '-pix_fmt', 'rgb24', '-'], check=True, stdout=subprocess.PIPE).stdout
  check(patches(np.frombuffer(raw, np.uint8).reshape(height, width, 3)))


CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium')
def test_chromium(written, tmp_path):
  path, _, _ = written
  answers = queue.Queue()

  class Handler(http.server.SimpleHTTPRequestHandler):

    def do_GET(self):
      body = path.read_bytes() if 'a.mp4' in self.path else PAGE.encode()
      self.send_response(200)
      kind = 'video/mp4' if 'a.mp4' in self.path else 'text/html'
      self.send_header('Content-Type', kind)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    def do_POST(self):
      length = int(self.headers['Content-Length'])
      answers.put(json.loads(self.rfile.read(length)))
      self.send_response(204)
      self.end_headers()

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  browser = subprocess.Popen(
      # A GPU's shaders, as people have them, here by software: Chromium's other
      # way, without any, shows the blue of each video of BT.709 as 243.
      [CHROMIUM, '--headless', '--no-sandbox', '--use-angle=swiftshader',
       '--enable-unsafe-swiftshader', '--no-first-run',
       f'--user-data-dir={tmp_path / "profile"}', f'http://127.0.0.1:{server.server_address[1]}/'],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  try:
    found = answers.get(timeout=LIMIT)
  finally:
    browser.kill()
    browser.wait()
    server.shutdown()
    server.server_close()
  assert isinstance(found, list), found
  check(np.array(found)[:, :3].reshape(2, 4, 3))
