"""Reports as programs, browsers and people read them."""
import html.parser
import json
import math
import re

import numpy as np
import pytest

from tests.support import chromium
from video_diffusion import media
from video_diffusion.data import shapes
from video_diffusion.errors import ArgumentError
from video_diffusion.evaluation import report as report_lib
from video_diffusion.evaluation import report_page

NASTY = '<script>alert(1)</script>'
VOID = {'meta', 'link'}


def clip(index):
  source = shapes.MovingShapes(
      split='train', seed=0, num_examples=9, num_frames=8, height=32, width=32
  )
  return source.example(index, np.random.default_rng(0), 8)['video']


def make_report():
  return report_lib.Report(
      title=f'Model "{NASTY}" & others',
      scores=[
          report_lib.Score('FVD', np.float32(118.25), 109.5, 128.0, NASTY),
          report_lib.Score('KVD', math.nan, note='lower is better'),
          report_lib.Score('PSNR', math.inf, None, 3),
      ],
      protocol={
          'frames': 16, 'known frames': np.bool_(False), 'weight': 0.25,
          NASTY: f'file://{NASTY}', 'hash': 'f' * 64, 'none': None,
      },
      tables=[
          report_lib.Table(
              'Controls', ['Compared', 'FVD'],
              [['floor', 12.0], ['noise', np.nan], [NASTY, np.int64(123456)]],
          ),
          report_lib.Table('Skipped', ['file'], [['b\udcff\x00.mp4']], NASTY),
          report_lib.Table('Broken', ['file', 'reason'], []),
      ],
      curves=[
          report_lib.Curve(
              NASTY, 'step', 'FVD', {
                  'EMA': [(1, 3.0, 2.5, 3.5), (10, 2.0, 1.5, 2.5)],
                  NASTY: [(1, 3.0), (2, math.nan), (0, 1.0), (100, 2.0)],
              }, log_x=True, note=NASTY,
          ),
          report_lib.Curve('Empty', 'step', 'FVD', {'none': [(1, None)]}),
      ],
      clips=[
          report_lib.Clips('Side by side', [
              {'real': clip(0), NASTY: clip(1)}, {'sample': clip(2)},
          ]),
          report_lib.Clips('Nearest training clips', [
              {'sample': clip(2), 'nearest': clip(3), 'second': clip(4)},
          ]),
      ],
  )


@pytest.fixture(name='folder', scope='module')
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp('report') / 'made'
  report_page.write(folder, make_report(), fps=8)
  return folder


def no_constant(name):
  raise AssertionError(f'{name} is not JSON')


def test_json_is_strict_and_holds_all_but_pixels(folder):
  found = json.loads(
      (folder / 'report.json').read_bytes().decode(),
      parse_constant=no_constant,
  )
  assert list(found) == [
      'title', 'scores', 'protocol', 'tables', 'curves', 'clips'
  ]
  assert found['scores'] == [
      dict(name='FVD', value=118.25, low=109.5, high=128.0, note=NASTY),
      dict(
          name='KVD', value=None, low=None, high=None, note='lower is better'
      ),
      dict(name='PSNR', value=None, low=None, high=3, note=''),
  ]
  assert list(found['protocol'].items()) == [
      ('frames', 16), ('known frames', False), ('weight', 0.25),
      (NASTY, f'file://{NASTY}'), ('hash', 'f' * 64), ('none', None),
  ]
  assert found['tables'][0]['rows'] == [
      ['floor', 12.0], ['noise', None], [NASTY, 123456]
  ]
  assert found['curves'][0]['series'] == {
      'EMA': [[1, 3.0, 2.5, 3.5], [10, 2.0, 1.5, 2.5]],
      NASTY: [[1, 3.0], [2, None], [0, 1.0], [100, 2.0]],
  }
  assert found['curves'][0]['log_x'] is True
  assert [c['groups'] for c in found['clips']] == [
      [['real', NASTY], ['sample']], [['sample', 'nearest', 'second']]
  ]
  # A report made of the numbers has the same ones again.
  again = report_lib.Report(
      title=found['title'],
      scores=[report_lib.Score(**score) for score in found['scores']],
      protocol=found['protocol'],
      tables=[report_lib.Table(**table) for table in found['tables']],
      curves=[report_lib.Curve(**curve) for curve in found['curves']],
  )
  assert json.loads(report_lib.as_json(again)) == {**found, 'clips': []}


def test_what_json_cannot_hold_is_an_error():
  report = report_lib.Report('', protocol={'net': object()})
  with pytest.raises(TypeError, match='A report holds no object'):
    report_lib.as_json(report)


class Reader(html.parser.HTMLParser):
  """The elements of a page; fails where they are not closed in order."""

  def __init__(self, page):
    super().__init__()
    self.open, self.tags, self.texts = [], [], []
    self.feed(page)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    assert len(dict(attrs)) == len(attrs)
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    assert 'svg' in self.open, tag
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append((self.open[-1] if self.open else '', data))


def test_the_page_is_well_formed_and_everything_is_escaped(folder):
  page = (folder / 'report.html').read_bytes().decode()
  assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
  reader = Reader(page)
  tags = [tag for tag, _ in reader.tags]
  assert not {'script', 'iframe', 'object', 'embed', 'base', 'form'} & {*tags}
  for name in ('html', 'head', 'body', 'h1', 'main', 'style'):
    assert tags.count(name) == 1
  assert ('title', f'Model "{NASTY}" & others') in reader.texts
  assert ('figcaption', NASTY) in reader.texts
  for element in ('h3', 'bdi', 'p', 'span', 'dt', 'th', 'title'):
    assert any(
        tag == element and NASTY in text for tag, text in reader.texts
    ), element
  assert ('th', 'b\\udcff\ufffd.mp4') in reader.texts
  titles = [text for tag, text in reader.texts if tag == 'h2']
  assert titles == [
      'Scores', 'Protocol', 'Controls', 'Skipped', 'Broken', 'Curves',
      'Side by side', 'Nearest training clips',
  ]
  ids = [attrs['id'] for _, attrs in reader.tags if 'id' in attrs]
  assert len(ids) == len(set(ids)) == 8
  for tag, attrs in reader.tags:
    assert not any(name.startswith('on') or name == 'style' for name in attrs)
    if tag == 'video':
      assert attrs['aria-label'] and attrs.keys() >= {
          'autoplay', 'loop', 'muted', 'playsinline', 'width', 'height'
      }
    if tag == 'svg':
      assert attrs.get('aria-hidden') or attrs['aria-label']
    if tag == 'a':
      assert attrs['href'][1:] in ids
  assert tags.count('video') == 6


def test_the_page_names_no_other_place(folder):
  page = (folder / 'report.html').read_text()
  reader = Reader(page)
  for tag, attrs in reader.tags:
    for name in ('src', 'href', 'srcset', 'poster', 'action', 'xlink:href'):
      if name in attrs:
        assert attrs[name].startswith(('data:', '#')), (tag, attrs[name][:40])
  rest = re.sub(r'base64,[A-Za-z0-9+/=]*', '', page)
  assert not re.search(r'https?:|url\(|@import|//(?!&lt;script)', rest)
  policy = next(
      attrs['content'] for _, attrs in reader.tags
      if attrs.get('http-equiv') == 'Content-Security-Policy'
  )
  assert policy.startswith("default-src 'none'; style-src 'sha256-")
  assert 'unsafe' not in policy


@pytest.mark.parametrize('value, shown, short', [
    (None, '–', '–'), (math.nan, '–', '–'), (True, 'yes', 'yes'),
    (0.0, '0', '0'), (2048, '2048', '2048'), (400000, '400,000', '400,000'),
    (np.float32(0.1), '0.1000', '0.1'), (123.456, '123.5', '123.5'),
    (9.9999, '10.00', '10'), (12345.6, '12,346', '12,346'),
    (-0.012344, '−0.01234', '−0.01234'), (1e-5, '1.000 × 10⁻⁵', '1 × 10⁻⁵'),
    (-math.inf, '−∞', '−∞'), ('a-b', 'a-b', 'a-b'),
])
def test_numbers(value, shown, short):
  assert report_lib.number(value) == shown
  assert report_lib.number(value, zeros=False) == short


@pytest.mark.parametrize('video', [
    np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8),
    np.zeros((0, 8, 8, 3), np.uint8),
])
def test_no_file_is_written_for_a_clip_of_another_kind(tmp_path, video):
  report = report_lib.Report('', clips=[report_lib.Clips('', [{'a': video}])])
  with pytest.raises(ArgumentError, match="^report holds a clip 'a' that is "):
    report_page.write(tmp_path / 'new', report, fps=8)
  assert not (tmp_path / 'new').exists()


def test_an_old_report_stays_whole_where_writing_fails(tmp_path, monkeypatch):
  report_page.write(tmp_path, report_lib.Report('old'), fps=8)
  monkeypatch.setattr(media, 'write_mp4', lambda *a, **k: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    report_page.write(tmp_path, make_report(), fps=8)
  assert '<h1>old</h1>' in (tmp_path / 'report.html').read_text()
  assert {path.name for path in tmp_path.iterdir()} == {
      'report.html', 'report.json'
  }


def test_clips_are_gifs_where_pyav_is_absent(tmp_path, monkeypatch):
  monkeypatch.setattr(report_page.importlib.util, 'find_spec', lambda _: None)
  report_page.write(tmp_path, make_report(), fps=8)
  page = (tmp_path / 'report.html').read_text()
  assert page.count('src="data:image/gif;base64,') == 6 and '<video' not in page


@pytest.mark.skipif(not chromium.PROGRAM, reason='there is no Chromium')
def test_chromium_plays_every_clip_and_asks_for_nothing(folder, tmp_path):
  path = folder / 'report.html'
  with chromium.page(tmp_path) as page:
    page.open(path, width=1200, height=900)
    # Browsers let muted videos play as soon as they are in view.
    page.size(1200, page.value('document.documentElement.scrollHeight'))
    page.wait(
        '[...document.querySelectorAll("video")]'
        '.every(v => v.readyState >= 2 && v.currentTime > 0 && !v.paused)'
    )
    assert page.value('document.querySelectorAll("video").length') == 6
    assert page.value('document.title') == f'Model "{NASTY}" & others'
    # The style passes the policy, which is of its digest.
    style = 'getComputedStyle(document.querySelector("nav ul")).display'
    assert page.value(style) == 'flex'
    sizes = '[...document.querySelectorAll("video")].map(v => v.clientWidth)'
    assert page.value(sizes) == [192] * 6
    # Nothing but tables, within their own frame, is wider than a phone.
    page.size(360, 740)
    assert page.value('document.documentElement.scrollWidth') == 360
    events = page.events
  asked = {
      params['request']['url'] for method, params in events
      if method == 'Network.requestWillBeSent'
  }
  assert path.as_uri() in asked
  assert all(url.startswith('data:') for url in asked - {path.as_uri()}), asked
  assert not [
      event for event in events
      if event[0] in (
          'Log.entryAdded', 'Runtime.consoleAPICalled',
          'Runtime.exceptionThrown', 'Page.javascriptDialogOpening',
          'Network.webSocketCreated',
      )
  ]
