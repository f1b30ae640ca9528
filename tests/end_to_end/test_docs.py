"""What the pages show works: every command and every block of Python.

Each command is either run, with shrunk fields, or tried dry: its flags are
parsed and its config is checked, as main does it, so that a misspelt flag,
field, config or variant fails. The output (-rP) counts them.
"""
import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect as inspect_lib
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from tests.conftest import FIRST
from tests.conftest import TINY
from tests.support import docs
from tests.support import t5_files
from tests.support.paths import ROOT
import video_diffusion
from video_diffusion import evaluate
from video_diffusion import inspect
from video_diffusion import main
from video_diffusion import media
from video_diffusion.config import config_files
from video_diffusion.config import distill_config
from video_diffusion.config import fields
from video_diffusion.config import flags as our_flags
from video_diffusion.config import saved_config
from video_diffusion.config import validate
from video_diffusion.data import datasets
from video_diffusion.evaluation import evaluators
from video_diffusion.evaluation import score_options
from video_diffusion.text import tokenizer as tokenizer_lib

# Pages of which cheap commands of main are run; all others are tried dry.
RUN = ('README.md', 'docs/own_videos.md')
# Text in a command of these pages -> why it is tried dry all the same.
DRY = {
    "('scores',)": 'the network of FVD takes minutes on two cores',
    '--samples=': 'the network of FVD takes minutes on two cores',
    '--mode=serve': 'it waits for visitors',
    '--config=video_folder --': 'its network takes minutes on two cores',
    '--config=video_folder:demo': 'its network takes minutes on two cores',
}
# Commands that are neither run nor parsed -> why.
NOT_TRIED = {
    r'python3 -m venv .*': 'tests/end_to_end/test_install.py installs',
    r'gcloud .*': 'it needs the network',
    r'mkdocs .*': 'test_the_site_builds_without_warnings runs it',
    r'launch/SCRIPT\.sh .*': 'it is the form of the other commands',
    r'python -m apache_beam\..*': 'Apache Beam has an environment of its own',
    r'python -': 'its Python is a block of its own',
}
# A page whose blocks are files; test_extending tries it.
EXTENDING = 'docs/extending.md'
# Benchmarks that need no argument; another one without is only mentioned.
WITHOUT_ARGUMENTS = (
    'benchmarks.conditional', 'benchmarks.i3d', 'benchmarks.precision',
)
# Pages with output of the program in their blocks.
OUTPUTS = ('docs/reliability.md',)
# Text in a block of Python -> what stands for it, so that the block is cheap.
SHRUNK = {
    'config.train.steps = 2000': 'config.train.steps = 2',
    'model.channel_mults = (1, 2)': 'model.channel_mults = (1,)',
    'model.attention_resolutions = (8,)': 'model.attention_resolutions = ()',
    'model.num_blocks = 1': 'model.num_blocks = 0',
    'config.train.steps = 500': 'config.train.steps = 2',
    'config.sample.num_steps = 24': 'config.sample.num_steps = 2',
    "'t5_1_1_small/checkpoint_1000000'": "'t5_1_1_small/checkpoint'",
}
# Name of a config -> what makes it tiny, where the command does not say it.
TINY_VIDEOS = {
    name: value for name, value in TINY.items()
    if name not in ('data.radius', 'model.cond_dim')
}
TINY_RUNS = {
    # The fixture `finished` but for its frames: all steps are done.
    'moving_shapes': TINY | {'data.frames': 4},
    'moving_shapes:text': TINY | {'model.cond_dim': 8, 'train.steps': 2},
    'video_folder:laptop': TINY_VIDEOS | {
        'train.steps': 2, 'data.clip_frames': 8, 'eval.num_clips': 8,
    },
}


class Counts(dict):
  """How many commands were found, run, tried dry and not tried."""

  def add(self, what, page):
    self.setdefault(page, dict.fromkeys(
        ('commands', 'run', 'dry', 'not tried', 'python'), 0
    ))[what] += 1

  def show(self):
    for page, counts in self.items():
      print(page, ', '.join(f'{n} {what}' for what, n in counts.items()))
    print('in all', {
        what: sum(counts[what] for counts in self.values())
        for what in next(iter(self.values()), {})
    })


def names_of(config: str) -> str:
  """'configs/moving_shapes.py:text' -> 'moving_shapes:text'."""
  path, _, variant = config.partition(':')
  name = pathlib.Path(path).stem
  return f'{name}:{variant}' if variant else name


def value_of(argv, flag, default=''):
  """The value of --FLAG=VALUE in argv."""
  found = [word.partition('=')[2] for word in argv
           if word.startswith(f'--{flag}=')]
  return found[-1] if found else default


def stand_in(folder: pathlib.Path, name: str) -> None:
  """Makes the folder of a run of a config that has not begun to train."""
  if not (folder / 'config.json').exists():
    folder.mkdir(parents=True, exist_ok=True)
    config = saved_config.to_json(config_files.get_config(name))
    (folder / 'config.json').write_text(json.dumps(config))


def config_of_run(workdir: str) -> str:
  """'runs/moving_shapes-text_small' -> 'moving_shapes:text_small'."""
  names = sorted(p.stem for p in (ROOT / 'configs').glob('*.py'))
  for name in sorted(names, key=len, reverse=True):
    run = pathlib.Path(workdir).name
    if run == name or run.startswith(f'{name}-'):
      return f'{name}:{run[len(name) + 1:]}'.rstrip(':')
  return 'moving_shapes:text_small'


def check_config(command: our_flags.Command) -> None:
  """The checks of a mode before it touches data or compiles."""
  config, mode = command.config, command.mode
  if mode == 'evaluate' and command.samples:
    # A folder is scored without a network.
    options = evaluators.options_of(config)
    score_options.check(options, options.frames or evaluate.FOLDER_FRAMES)
    return
  if mode == 'distill':
    mode = 'train'
    config = distill_config.of_round(config, config.distill.teacher, 4)
  validate.check(config, 'sample' if mode == 'serve' else mode)
  shared = {*config_files.get_config().data} - {
      *datasets.options_of('moving_shapes')
  }
  datasets.check(
      config.data.name, {*config.data} - shared, frames=config.data.frames
  )
  for field in ('eval.evaluators', 'log.scores'):
    for name in validate.field(config, field):
      validate.require(name in evaluators.EVALUATORS, f'{field}: {name!r}')
      if name == 'scores':
        # Files of weights, and packages of extras, need not be here.
        score_options.check(evaluators.options_of(config), config.data.frames)
  if run := config.sample.refine_workdir:
    config_files.get_config(config_of_run(run))


@contextlib.contextmanager
def parsed_only():
  """Any main of a benchmark ends with SystemExit('parsed') after its parser."""
  original = argparse.ArgumentParser.parse_args

  def parse(self, *args, **kwargs):
    original(self, *args, **kwargs)
    raise SystemExit('parsed')

  with mock.patch.object(argparse.ArgumentParser, 'parse_args', parse):
    yield


class Trial:
  """Tries the commands and blocks of a page, in order, in one folder."""

  def __init__(self, run_main_here, folder, counts):
    self._main, self._folder, self._counts = run_main_here, folder, counts

  def command(self, command: docs.Command, dry: bool) -> None:
    """Runs a command, or tries it dry; fails with its place on the page."""
    page = command.page
    self._counts.add('commands', page)
    if any(re.fullmatch(form, command.text) for form in NOT_TRIED):
      self._counts.add('not tried', page)
      return
    try:
      ran = self._try(command, dry)
    except (Exception, SystemExit) as error:
      pytest.fail(f'{command.where}: {command.text}\n{error}')
    self._counts.add('run' if ran else 'dry', page)

  def _try(self, command, dry):
    """Whether the command was run, not only tried dry."""
    argv, module = command.argv, command.module
    if argv[0].startswith('--config.'):
      # Flags that go with any command: of a model of 16 frames.
      self._main_dry(('--config=moving_shapes:text_small', *argv))
    elif module == 'video_diffusion.main' and dry:
      self._main_dry(argv[3:])
    elif module == 'video_diffusion.main':
      self._main_run(argv[3:])
      return True
    elif module.startswith('benchmarks.'):
      self._benchmark(module, list(argv[3:]))
    elif module == 'pytest':
      for word in argv[3:]:
        assert not word.endswith('.py') or (ROOT / word).exists(), word
    elif module == 'tests.support.fuzz':
      fuzz = importlib.import_module(module)
      with parsed_only(), mock.patch.object(sys, 'argv', [module, *argv[3:]]):
        with pytest.raises(SystemExit, match='parsed'):
          fuzz.main()
    elif pathlib.PurePath(argv[0]).name == 'pip':
      self._pip(argv)
    elif argv[0].startswith('launch/'):
      self._launch(argv)
    else:
      raise AssertionError('nothing tries this command')
    return False

  def _main_dry(self, argv):
    """Parses the flags as main does, and checks the config."""
    if value_of(argv, 'mode', 'train') in our_flags.FROM_RUN:
      config = value_of(argv, 'config')
      workdir = value_of(
          argv, 'workdir',
          config_files.default_workdir(config or config_files.DEFAULT),
      )
      name = names_of(config) if config else config_of_run(workdir)
      stand_in(self._folder / workdir, name)
    if teacher := value_of(argv, 'config.distill.teacher'):
      stand_in(self._folder / teacher, 'moving_shapes')
    with mock.patch.object(main, 'run', check_config):
      code, output = self._main(*argv, tiny=False)
    assert code == 0, output

  def _main_run(self, argv):
    given = {word.partition('=')[0] for word in argv}
    config = names_of(value_of(argv, 'config', config_files.DEFAULT))
    tiny = []
    if value_of(argv, 'mode', 'train') not in our_flags.FROM_RUN:
      tiny = [f'--config.{k}={v}' for k, v in TINY_RUNS[config].items()
              if f'--config.{k}' not in given]
    with mock.patch.object(inspect, 'SECONDS', 0.1):
      code, output = self._main(*argv, *tiny, tiny=False)
    assert code == 0, output

  def _benchmark(self, name, argv):
    if not argv and name not in WITHOUT_ARGUMENTS:
      assert importlib.util.find_spec(name)
      return
    module = importlib.import_module(name)
    if name == 'benchmarks.compile_for_topology':
      args, rest = module.parse(argv)
      module.make_config(args.config, rest)
      for topology in args.topology:
        module.lowering.chip_of(topology)
    elif name == 'benchmarks.causes':
      args = module.parse(argv)
      for case in args.cases:
        module.make_config(case, args)
    elif name == 'benchmarks.tables':
      module.Runner(module.parse(argv))  # checks the configs of all models
    elif name in (
        'benchmarks.distillation', 'benchmarks.input', 'benchmarks.scores'
    ):
      module.parse(argv)
    elif 'argparse' not in vars(module):
      assert not argv and not inspect_lib.signature(module.main).parameters
    else:
      with parsed_only(), mock.patch.object(sys, 'argv', [name, *argv]):
        with pytest.raises(SystemExit, match='parsed'):
          module.main()

  def _pip(self, argv):
    with mock.patch('setuptools.setup') as setup:
      runpy.run_path(str(ROOT / 'setup.py'))
    extras = setup.call_args.kwargs['extras_require']
    for word in argv[2:]:
      if found := re.fullmatch(r'\.\[(.*)\]', word):
        assert {*found[1].split(',')} <= extras.keys(), word
      else:
        assert word in ('-e', '.'), word

  def _launch(self, argv):
    """Runs a script of launch/ dry, and tries the flags of its training."""
    script, verb, *rest = argv
    done = subprocess.run(
        ['bash', str(ROOT / script), verb, '--dry_run', *rest],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    training = rest[rest.index('--') + 1:] if '--' in rest else []
    known = [w for w in rest if re.match(r'--(config|workdir)=', w)]
    # Buckets and folders of other machines.
    self._main_dry([
        re.sub(r'=(gs:/)?/.*', '=runs/pod', w) for w in (*known, *training)
    ])

  def python(self, block: docs.Block, names: dict) -> None:
    """Executes a block of Python."""
    self._counts.add('python', block.page)
    text = block.text
    for old, new in SHRUNK.items():
      text = text.replace(old, new)
    # Lines of a traceback are those of the page.
    code = compile('\n' * (block.line - 1) + text, block.page, 'exec')
    exec(code, names)


def is_dry(command: docs.Command) -> bool:
  """Whether a command of main is tried dry only."""
  return command.page not in RUN or any(t in command.text for t in DRY)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The working directory, with the files that the pages name."""
  (tmp_path / 'captions.txt').write_text('a red circle moves right\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path


@pytest.fixture
def counts():
  counts = Counts()
  yield counts
  counts.show()


def steps(page, root=ROOT):
  """The commands of a page and its blocks of Python, in order."""
  python = [b for b in docs.blocks(page, root) if b.language == 'python']
  lines = {b: b.line for b in (*python, *docs.heredocs(page, root))} | {
      command: int(command.where.rpartition(':')[2])
      for command in docs.commands(page, root)
  }
  return sorted(lines, key=lines.get)


def try_page(page, trial, root=ROOT):
  """Tries all of a page in order."""
  names = {}
  for step in steps(page, root):
    if isinstance(step, docs.Block):
      trial.python(step, names)
    else:
      trial.command(step, is_dry(step))


def change(run, **data):
  """Gives the clips of a run other sizes, which no array depends on."""
  config = json.loads((run / 'config.json').read_text())
  config['data'] |= data
  (run / 'config.json').write_text(json.dumps(config))


@pytest.fixture
def prepared(folder, make_t5, monkeypatch, request):
  """Page -> makes what it does not make itself."""

  def cascade(trial):
    """Trained runs of labels and of text, and two of other sizes."""
    finished, _ = request.getfixturevalue('finished')
    change(
        shutil.copytree(finished, folder / 'runs' / 'moving_shapes'),
        frames=4,
    )
    trial._main_run(['--config=moving_shapes:text'])
    for name, data in (
        ('base', dict(frameskips=[2])),
        ('refine', dict(frames=3, height=16, width=16)),
    ):
      run = folder / 'runs' / f'moving_shapes-cascade_{name}'
      shutil.copytree(folder / 'runs' / 'moving_shapes-text', run)
      change(run, **data)

    def get_config(name):
      config = config_files.get_config(name)
      config.update_from_flattened_dict(TINY_RUNS[name])
      return config

    monkeypatch.setattr(
        video_diffusion, 'get_config', get_config, raising=False
    )

  def t5(trial):
    del trial
    model = tokenizer_lib.train_tokenizer(['An astronaut riding a horse.'])
    (folder / 'sentencepiece.model').write_bytes(model)
    (folder / 't5_1_1_small').mkdir()
    t5_files.write_msgpack(
        folder / 't5_1_1_small' / 'checkpoint',
        make_t5(dataclasses.replace(t5_files.GATED, vocab_size=64)),
    )

  def videos(trial):
    del trial
    (folder / 'videos').mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
      video = np.full((12, 24, 24, 3), rng.integers(256, size=3), np.uint8)
      video[:, :, : 2 + i // 2] = rng.integers(256, size=3)
      media.write_mp4(folder / 'videos' / f'{i}.mp4', video, fps=8)
    shutil.copy(folder / 'videos' / '0.mp4', folder / 'video.mp4')

  return {'README.md': cascade, 'docs/text.md': t5,
          'docs/own_videos.md': videos}


@pytest.mark.parametrize(
    'page', [page for page in docs.pages() if page != EXTENDING]
)
def test_page(page, run_main_here, folder, prepared, counts):
  trial = Trial(run_main_here, folder, counts)
  if page in prepared:
    prepared[page](trial)
  try_page(page, trial)


def apply(block, folder):
  """Makes the file of a block in a copy, or the change; None if it has none."""
  first, _, rest = block.text.partition('\n')
  if block.language == 'diff':
    path = folder / first.removeprefix('--- ')
    lines = rest.splitlines()
    old, new = (
        '\n'.join(line[1:] for line in lines if line[:1] != sign) + '\n'
        for sign in '+-'
    )
    text = path.read_text()
    assert text.count(old) == 1, f'{block.page}:{block.line}: {path} has {old}'
    path.write_text(text.replace(old, new))
  elif found := re.fullmatch(r'# ((video_diffusion|configs)/.*\.py)', first):
    path = folder / found[1]
    assert not path.exists()
    for long, short in SHRUNK.items():
      rest = rest.replace(long, short)
    path.write_text(rest + '\n')
  else:
    return None
  return path


def test_extending(folder, counts):
  """The page is applied to a copy of the package, whose last block is run."""
  for name in ('video_diffusion', 'configs'):
    shutil.copytree(
        ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__')
    )
  shutil.copy(ROOT / 'pyproject.toml', folder)
  changed, run = set(), []
  for block in docs.blocks(EXTENDING):
    counts.add('python', EXTENDING)
    path = apply(block, folder)
    if path is None:
      run.append(block.text)
    else:
      changed.add(path)
  assert len(changed) >= 7 and len(run) == 1
  ruff = shutil.which('ruff', path=os.path.dirname(sys.executable))
  if ruff:
    subprocess.run([ruff, 'check', *changed], check=True)
  done = subprocess.run(
      [sys.executable, '-c', f'{FIRST}\n{run[0]}'], cwd=folder, text=True,
      capture_output=True, env={**os.environ, 'PYTHONPATH': str(folder)},
  )
  assert done.returncode == 0, done.stderr
  assert '(2, 8, 16, 16, 3)' in done.stdout
  curves = (folder / 'runs' / 'bars' / 'metrics.jsonl').read_text()
  assert 'brightness_samples/ema' in curves


def test_every_line_of_a_block_is_a_command_or_output():
  for page in docs.pages():
    if page not in OUTPUTS:
      assert not docs.unknown(page)


def test_every_command_is_tried_but_for_a_few():
  """Only those in NOT_TRIED are left out, and each entry is of use."""
  found = [c for page in docs.pages() for c in docs.commands(page)]
  left = [c for c in found if any(re.fullmatch(f, c.text) for f in NOT_TRIED)]
  print(len(found), 'commands, of which', len(left), 'are not tried:')
  for command in left:
    print(' ', command.where, command.text)
  assert len(found) > 80 and len(left) < 20
  for form in NOT_TRIED:
    assert any(re.fullmatch(form, c.text) for c in left), form
  for text in DRY:
    assert any(text in c.text for c in found if c.page in RUN), text


def test_flags_and_fields_within_sentences():
  """`--config.GROUP.FIELD=VALUE`, `--FLAG` and `group.field` exist."""
  known = fields.types()
  groups = {name for name, value in known.items() if isinstance(value, dict)}
  # --clips and the like are of the benchmark that the sentence is about.
  flags = {*our_flags.flags.FLAGS} | {'config', 'help', 'clips'}
  wrong = []
  for page in docs.pages():
    for line, text in docs.inline(page):
      if page == 'launch/README.md' or not text:
        continue
      names = [
          name for group, name in re.findall(r'--config\.(\w+)\.?(\w*)', text)
          for name in [f'{group}.{name}'.rstrip('.')]
      ]
      if re.fullmatch(r'\w+\.\w+( = .*)?', text):
        name = text.split(' ')[0]
        if name.split('.')[0] in groups and not re.search(
            r'\.(py|md|safetensors)$', name
        ):
          names.append(name)
      for name in names:
        group, _, field = name.partition('.')
        if group not in known or (field and field not in known[group]):
          wrong.append(f'{page}:{line}: {name}')
      if text.startswith('--'):
        for flag in re.findall(r'(?:^| )--(\w+)', text):
          if flag not in flags:
            wrong.append(f'{page}:{line}: --{flag}')
  assert not wrong


@pytest.mark.parametrize('good, bad, message', [
    ('--config.sample.num_videos=16', '--config.sample.num_video=16',
     "no field 'num_video'"),
    ('--config=moving_shapes:text\n', '--config=moving_shapes:txt\n',
     "no variant 'txt'"),
    ('--mode=evaluate\n', '--mode=evaluated\n', "'evaluated'"),
    ('--config=video_folder ', '--config=video_folders ', 'no such file'),
    ('benchmarks.alignment WORKDIR OUT', 'benchmarks.alignment WORKDIR',
     'unrecognized|required|2'),
    ('".[eval]"', '".[evaluation]"', 'evaluation'),
    ('--config.data.path=DIR\n', '--config.data.path=DIR \\\n      --fast\n',
     'fast'),
])
def test_a_broken_command_fails(
    run_main_here, folder, counts, good, bad, message
):
  text = (ROOT / 'README.md').read_text()
  assert good in text
  copy = folder / 'copy'
  copy.mkdir()
  (copy / 'README.md').write_text(text.replace(good, bad, 1))
  trial = Trial(run_main_here, folder, counts)
  before = {command.text for command in docs.commands('README.md')}
  broken = [c for c in docs.commands('README.md', copy) if c.text not in before]
  assert len(broken) == 1
  with pytest.raises(pytest.fail.Exception, match=message) as error:
    trial.command(broken[0], dry=True)
  assert str(error.value).startswith(broken[0].where)


def test_a_misspelt_program_fails(folder):
  text = (ROOT / 'README.md').read_text()
  (folder / 'README.md').write_text(
      text.replace('    python -m video', '    pyhton -m video', 1)
  )
  (unknown,) = docs.unknown('README.md', folder)
  assert 'pyhton' in unknown


def test_links_within_the_repository_lead_to_files():
  for page in docs.pages():
    if page.endswith('.md'):
      text = docs.read(page)
      for target in re.findall(r'\]\(([^)\s#]+)[^)]*\)', text):
        if not re.match(r'\w+:', target):
          path = (ROOT / page).parent / target
          assert path.exists(), f'{page} links to {target}'


def test_the_site_builds_without_warnings(tmp_path):
  """One source for each page: links are rewritten by docs/site_pages.py."""
  program = shutil.which('mkdocs', path=os.pathsep.join(
      (os.path.dirname(sys.executable), os.environ.get('PATH', ''))
  ))
  if program is None:
    pytest.skip('mkdocs is not installed; pip install -e ".[docs]" installs it')
  done = subprocess.run(
      [program, 'build', '--strict', f'--site-dir={tmp_path / "site"}'],
      cwd=ROOT, capture_output=True, text=True,
  )
  assert done.returncode == 0, done.stderr
  # Extensions of Material print a banner that is no warning of the pages.
  assert 'WARNING -' not in done.stderr
  for page in docs.pages():
    if page.startswith('docs/'):
      name = page.removeprefix('docs/').replace('.md', '.html')
      assert (tmp_path / 'site' / name).exists(), name
  index = (tmp_path / 'site' / 'index.html').read_text()
  assert 'fonts.googleapis' not in index and 'analytics' not in index.lower()
