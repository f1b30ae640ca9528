"""The page of --mode=serve: a browser on this machine samples from a run."""
import json
import re
import signal
import threading
from unittest import mock
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.conftest import TINY
from tests.support import chromium
from tests.support import models
from tests.support.optional import optional
from tests.support.waiting import until
from video_diffusion import media
from video_diffusion import serve
from video_diffusion.config import config_files

BUTTON = 'document.querySelector("#{}").click()'
MESSAGE = 'document.querySelector("#message").innerText'
# Collects the percentages that the page tells.
COLLECT = '''
  window.told = []
  new MutationObserver(() => {
    const found = document.body.innerText.match(/Removing noise - ([0-9.]+)%/)
    if (found) window.told.push(Number(found[1]))
  }).observe(document.body, {subtree: true, childList: true,
                             characterData: true})
'''
SOURCE = '(document.querySelector("#result video") || {}).src || ""'


@pytest.fixture(scope='module')
def run(once):
  """The folder of an exported model of captions, whose weights are random."""

  def make(folder):
    config = config_files.get_config('moving_shapes:text')
    config.update_from_flattened_dict(
        TINY | {'model.cond_dim': 8, 'data.frames': 4}
    )
    models.write_random(folder, config)

  return once('serve', make)


class Site:
  """A server of a run's page.

  Attributes:
    process: a Popen of main.
    url: of the page.
    folder: where it keeps files.
  """

  def __init__(self, process, folder):
    self.process, self.folder, self._lines = process, folder, []
    threading.Thread(target=self._read, daemon=True).start()
    until(lambda: 'Open http' in self.output, process)
    self.url = re.search(r'http://\S+', self.output)[0]

  def _read(self):
    self._lines.extend(iter(self.process.stdout.readline, ''))

  @property
  def output(self):
    return ''.join(self._lines)

  def status(self, path, data=None):
    request = urllib.request.Request(
        self.url + path, data, {'Content-Type': 'application/json'}
    )
    try:
      with urllib.request.urlopen(request) as answer:
        return answer.status, answer.read().decode(errors='replace')
    except urllib.error.HTTPError as error:
      return error.code, error.read().decode(errors='replace')


def start(start_main, run, folder):
  folder.mkdir()
  return Site(
      start_main(
          '--mode=serve', '--port=0', f'--workdir={run}', tiny=False,
          TMPDIR=str(folder), PYTHONUNBUFFERED='1',
      ), folder,
  )


@pytest.fixture(scope='module')
def site(start_main, run, tmp_path_factory):
  optional('gradio')
  site = start(start_main, run, tmp_path_factory.mktemp('site') / 'files')
  yield site
  site.process.kill()
  site.process.wait()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  if not chromium.PROGRAM:
    pytest.skip('there is no Chromium')
  with chromium.page(tmp_path_factory.mktemp('browser')) as page:
    yield page


@pytest.fixture
def page(browser, site):
  """A visitor's tab."""
  tab = browser.another()
  visit(tab, site)
  yield tab
  tab.close()


def visit(tab, site):
  tab.visit(site.url)
  tab.wait('!!document.querySelector("#prompt textarea")')
  # The settings that are folded away are there once they are unfolded.
  fold = (
      '[...document.querySelectorAll("button")]'
      '.find(b => b.innerText.includes("More settings"))'
  )
  tab.wait(f'!!{fold} && !!document.querySelector("#make")')
  tab.value(f'{fold}.click()')
  tab.wait('!!document.querySelector("#num_steps input")')


def press(tab, name='make'):
  tab.value(BUTTON.format(name))


def choose(tab, task):
  tab.value(f'document.querySelector("#task input[value={task}]").click()')
  tab.wait('!!document.querySelector("#clip input[type=file]")')


def give(tab, path):
  tab.upload('#clip input[type=file]', path)
  tab.wait(
      f'document.querySelector("#clip").innerText.includes({path.stem!r})'
  )


def video(tab):
  """Waits for a result; its address."""
  tab.wait(f'{MESSAGE}.startsWith("Done") && {SOURCE} != ""')
  return tab.value(SOURCE)


def frames(tab, folder):
  """The frames and the description of a result, as the page has it."""
  av = optional('av')
  path = folder / 'result.mp4'
  with urllib.request.urlopen(video(tab)) as answer:
    path.write_bytes(answer.read())
  with av.open(str(path)) as container:
    comment = container.metadata.get('comment', '')
    return [f.to_ndarray(format='rgb24') for f in container.decode()], comment


def test_a_prompt_becomes_a_video_that_plays(page, site, tmp_path):
  begin = len(page.events)
  page.type('#prompt textarea', 'a red circle moves right')
  page.wait('document.querySelector("#prompt textarea").value.length > 9')
  press(page)
  assert video(page).endswith('/a_red_circle_moves_right_seed_0.mp4')
  element = 'document.querySelector("#result video")'
  page.wait(f'{element}.currentTime > 0 && !{element}.paused')
  assert page.value(f'[{element}.loop, {element}.videoWidth]') == [True, 256]
  shown, comment = frames(page, tmp_path)
  assert len(shown) == 4 and comment == 'a red circle moves right'
  # Everything comes from the server, and the browser complains of nothing.
  asked = [
      params['request']['url'] for method, params in page.events
      if method == 'Network.requestWillBeSent'
  ]
  assert len(asked) > 10
  assert all(u.startswith((site.url, 'data:', 'blob:', 'about:'))
             for u in asked)
  assert not [
      params for method, params in page.events[begin:]
      if method == 'Runtime.exceptionThrown'
      or method == 'Log.entryAdded' and params['entry']['level'] == 'error'
  ]


def test_an_uploaded_clip_is_extended_and_interpolated(
    page, site, tmp_path
):
  clip = tmp_path / 'mine.mp4'
  media.write_video(clip, np.full((5, 8, 8, 3), 200, np.uint8))
  for task, field, value, length in (
      ('extend', 'new_frames', 3, 8), ('interpolate', 'factor', 3, 13)
  ):
    visit(page, site)
    page.type('#prompt textarea', 'a blue square moves up')
    choose(page, task)
    give(page, clip)
    page.wait(f'!!document.querySelector("#{field} input")')
    page.type(f'#{field} input', str(value))
    press(page)
    shown, _ = frames(page, tmp_path)
    assert len(shown) == length
    # The given frames are there, at their places.
    given = shown[:5] if task == 'extend' else shown[::3]
    assert all(abs(f.mean() - 200) < 3 for f in given)


def test_what_is_wrong_is_said_in_one_sentence(page, site, tmp_path):
  text = tmp_path / 'text.mp4'
  text.write_text('This is no video.\n' * 100)
  hour = tmp_path / 'hour.mp4'  # a picture a minute
  media.write_mp4(hour, np.zeros((60, 8, 8, 3), np.uint8), fps=1 / 60)

  def refused(sentence):
    press(page)
    page.wait(f'{MESSAGE}.includes({sentence!r})')
    assert page.value(f'{MESSAGE}.trim().split("\\n").length') == 1
    assert page.value(SOURCE) == ''

  samplers = site.output.count('Classifier-free')  # each says it once
  refused('"Prompt" is empty; say in words what the video shall show.')
  page.type('#prompt textarea', 'a zebra')
  refused("holds 'zebra', unknown to this run")
  page.type('#prompt textarea', '<b>bold</b>')
  refused("'<b>bold</b>'")  # shown as it was written
  page.type('#prompt textarea', 'a red circle moves right')
  page.type('#num_steps input', '10000')
  refused('"Steps" is 10000; it must be a whole number from 1 to 1000.')
  page.type('#num_steps input', '2')
  page.type('#frames input', '2.5')
  refused('"Frames" is 2.5; it must be a whole number from 1 to 256.')
  page.type('#frames input', '4')
  choose(page, 'extend')
  refused('"Clip" is empty; upload the video to start from.')
  give(page, text)
  refused('The clip text.mp4 cannot be used: Invalid data')
  visit(page, site)
  page.type('#prompt textarea', 'a red circle moves right')
  choose(page, 'extend')
  give(page, hour)
  refused('The clip hour.mp4 cannot be used: it lasts 3600 s or more, above '
          'the limit of this page, 60.')
  assert samplers == site.output.count('Classifier-free')


def test_two_visitors_get_their_own_videos(page, browser, site):
  other = browser.another()
  visit(other, site)
  tabs = {'a red circle moves right': page, 'a blue square moves up': other}
  for prompt, tab in tabs.items():
    tab.type('#prompt textarea', prompt)
    tab.type('#num_steps input', '300')
    tab.type('#seed input', '5')
    tab.value(f'{{{COLLECT}}}')
  page.type('#frames input', '8')
  for tab in tabs.values():
    press(tab)
  for prompt, tab in tabs.items():
    assert video(tab).endswith(f'/{prompt.replace(" ", "_")}_seed_5.mp4')
  other.close()
  # The page tells steps: three blocks alone would be told by thirds of 100.
  told = [n * 3 / 100 for n in page.value('window.told')]
  assert any(abs(n - round(n)) > 0.05 for n in told), told


@pytest.mark.parametrize('how', ['button', 'tab'])
def test_stopping_ends_the_work(browser, site, how):
  tab = browser.another()
  visit(tab, site)
  tab.type('#prompt textarea', 'a red circle moves right')
  tab.type('#num_steps input', '1000')
  tab.type('#frames input', '256')  # 127 blocks
  before = site.output.count('Stopped after')
  press(tab)
  tab.wait('document.body.innerText.includes("Removing noise")')
  if how == 'button':
    press(tab, 'stop')
    tab.wait(f'{MESSAGE}.includes("Stopped.")')
  tab.close()
  until(lambda: site.output.count('Stopped after') > before, site.process)
  done, total = re.findall(r'after (\d+) of (\d+)', site.output)[-1]
  assert int(done) < int(total) / 2


def test_no_file_of_the_machine_is_given_away(site):
  for path in (
      '/etc/passwd', '../../etc/passwd', '../../../../../../etc/passwd',
      '%2e%2e/%2e%2e/etc/passwd', '/proc/self/environ', 'README.md',
      'http://example.com/', 'file:///etc/passwd',
  ):
    code, text = site.status(f'/gradio_api/file={path}')
    assert code == 403 and 'root:' not in text, path
  assert site.status('/static/../../../../../etc/passwd')[0] in (403, 404)
  # A path in the place of an uploaded file.
  _, text = site.status('/config')
  config = json.loads(text)
  (number,) = [d['id'] for d in config['dependencies'] if len(d['inputs']) > 5]
  kinds = {c['id']: c['type'] for c in config['components']}
  inputs = next(
      d['inputs'] for d in config['dependencies'] if d['id'] == number
  )
  for path in ('/etc/passwd', str(site.folder), 'http://127.0.0.1:1/x.mp4'):
    data = [
        {'path': path, 'meta': {'_type': 'gradio.FileData'}}
        if kinds[i] == 'file' else None for i in inputs
    ]
    body = json.dumps({
        'data': data, 'fn_index': number, 'session_hash': 'x', 'event_data': {},
    })
    code, text = site.status('/gradio_api/queue/join', body.encode())
    if code == 200:
      with urllib.request.urlopen(
          f'{site.url}/gradio_api/queue/data?session_hash=x'
      ) as answer:
        text = answer.read().decode()
    assert '"success":false' in text.replace(' ', '') or code >= 400, (
        path, text
    )
    assert 'root:' not in text
  # Another site, by its own name or as the origin of a request.
  for header in ({'Host': 'evil.example'}, {'Origin': 'http://evil.example'}):
    request = urllib.request.Request(site.url, headers=header)
    with pytest.raises(urllib.error.HTTPError, match='403'):
      urllib.request.urlopen(request)


def test_ctrl_c_ends_the_server_and_deletes_its_files(
    start_main, run, run_main_here, tmp_path
):
  optional('gradio')
  site = start(start_main, run, tmp_path / 'files')
  assert [p.name[:22] for p in site.folder.iterdir()] == [
      'video_diffusion_serve_'
  ]
  # Its port is taken.
  port = site.url.rpartition(':')[2]
  code, output = run_main_here(
      '--mode=serve', f'--port={port}', f'--workdir={run}', tiny=False
  )
  assert code == 1 and f'--port is {port}, which cannot be used' in output
  assert site.status('/')[0] == 200
  site.process.send_signal(signal.SIGINT)
  assert site.process.wait() == 130
  until(lambda: 'the videos of the page are deleted' in site.output)
  assert not list(site.folder.iterdir())


def test_without_gradio_there_is_one_sentence(run, run_main_here):
  with mock.patch.object(serve.importlib.util, 'find_spec', lambda name: None):
    code, output = run_main_here(
        '--mode=serve', f'--workdir={run}', tiny=False
    )
  assert code == 1
  assert "pip install 'video_diffusion[demo]'" in output
  assert len(output.strip().splitlines()) == 1


def test_the_port_goes_with_the_mode(run_main_here, tmp_path):
  code, output = run_main_here('--port=1', f'--workdir={tmp_path}')
  assert code == 1 and '--port goes with --mode=serve.' in output
