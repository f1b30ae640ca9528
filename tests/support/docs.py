"""What the pages show: their blocks, and the commands and Python in these."""
import ast
import pathlib
import re
import shlex
from typing import NamedTuple

from tests.support.paths import ROOT

# A name on the pages -> what stands for it when a command is tried. Longer
# names come first.
PLACEHOLDERS = {
    '--config=...': '--config=moving_shapes',
    '--config=FILE': '--config=moving_shapes',
    '--config=PATH.py': '--config=moving_shapes',
    '--config=NAME:VARIANT': '--config=moving_shapes:laptop',
    '--config=NAME': '--config=moving_shapes',
    '--workdir=RUN': '--workdir=runs/run',
    'WORKDIR': 'runs/moving_shapes',
    'VARIANT': 'laptop',
    'CAPTIONS': 'captions.txt',
    'VIDEO': 'video.mp4',
    'FILE': 'captions.txt',
    'HOST:PORT': 'localhost:1234',
    'SEED': '1',
    'ZONE': 'zone',
    'DIR': 'videos',
    'T5': 't5',
    'OUT': 'out',
    'N': '2',
    'K': '4',
    'I': '0',
}
# Placeholders that are parts of names: gs://BUCKET/RUN stays as it is.
_NAME = re.compile('|'.join(
    rf'(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])'
    for name in PLACEHOLDERS
))
_COMMAND = re.compile(
    r'(\S*/)?(python3?|pip|mkdocs|gcloud) |launch/\w+\.sh |--config\.'
)


class Block(NamedTuple):
  """A block of code on a page.

  Attributes:
    page: path below the root of the checkout.
    line: number of its first line.
    language: of a fence; '' where it is indented.
    text: its lines.
  """

  page: str
  line: int
  language: str
  text: str


class Command(NamedTuple):
  """A command on a page.

  Attributes:
    where: 'README.md:32'.
    text: as it is on the page, in one line.
    argv: its words, with values for placeholders.
  """

  where: str
  text: str
  argv: tuple[str, ...]

  @property
  def page(self) -> str:
    """'README.md'."""
    return self.where.rpartition(':')[0]

  @property
  def module(self) -> str:
    """'video_diffusion.main' for `python -m video_diffusion.main ...`."""
    name = pathlib.PurePath(self.argv[0]).name
    if name in ('python', 'python3') and self.argv[1] == '-m':
      return self.argv[2]
    return ''


def pages(root: pathlib.Path = ROOT) -> list[str]:
  """The pages of a checkout."""
  found = [
      'README.md', 'CONTRIBUTING.md', 'launch/README.md',
      *(str(p.relative_to(root)) for folder, suffix in (
          ('docs', 'md'), ('configs', 'py'),
      ) for p in sorted((root / folder).glob(f'*.{suffix}'))),
  ]
  return [page for page in found if (root / page).exists()]


def read(page: str, root: pathlib.Path = ROOT) -> str:
  """The text of a page; of a Python file, its docstring."""
  text = (root / page).read_text()
  if page.endswith('.py'):
    return ast.get_docstring(ast.parse(text), clean=False) or ''
  return text


def blocks(page: str, root: pathlib.Path = ROOT) -> list[Block]:
  """The blocks of code of a page, in order."""
  indent = 2 if page.endswith('.py') else 4
  found, lines, i = [], read(page, root).splitlines(), 0
  while i < len(lines):
    start, line = i, lines[i]
    i += 1
    if fence := re.fullmatch(r'( *)```(\w*)', line):
      while lines[i].strip() != '```':  # a page that lacks it fails here
        i += 1
      text = [part.removeprefix(fence[1]) for part in lines[start + 1 : i]]
      i += 1
      found.append(Block(page, start + 2, fence[2] or 'none', '\n'.join(text)))
    elif (
        line.startswith(' ' * indent)
        and (not start or not lines[start - 1].strip())
    ):
      while i < len(lines) and (
          lines[i].startswith(' ' * indent)
          or (not lines[i].strip() and lines[i + 1 : i + 2]
              and lines[i + 1].startswith(' ' * indent))
      ):
        i += 1
      text = '\n'.join(part[indent:] for part in lines[start:i])
      found.append(Block(page, start + 1, '', text))
  return found


def inline(page: str, root: pathlib.Path = ROOT) -> list[tuple[int, str]]:
  """(line, text) of the code within sentences."""
  text = read(page, root)
  # Blocks of other kinds would pair their quotes with those of sentences.
  text = re.sub(
      r'^( *)```.*?^ *```$',
      lambda m: re.sub('[^\n]', ' ', m[0]), text, flags=re.DOTALL | re.MULTILINE
  )
  return [
      (text[: m.start()].count('\n') + 1, ' '.join(m[1].split()))
      for m in re.finditer(r'`([^`]+)`', text)
  ]


def commands(page: str, root: pathlib.Path = ROOT) -> list[Command]:
  """The commands of a page: of its blocks, and `python -m` in its sentences."""
  found = []
  for block in blocks(page, root):
    if block.language in ('', 'sh', 'bash'):
      lines = re.sub(r'<<(\w+)\n.*?^\1$', '', block.text + '\n',
                     flags=re.DOTALL | re.MULTILINE)
      lines = re.sub(r'\\\n\s*', '', lines).splitlines()
      lines = [re.sub(r' +', ' ', line).strip() for line in lines]
      for line in filter(None, lines):
        if not line.startswith('#') and _COMMAND.match(line):
          found += _parts(f'{page}:{block.line}', line)
  for number, text in inline(page, root):
    if re.match(r'(python -m|pip install) ', text):
      found += _parts(f'{page}:{number}', text)
  return found


def unknown(page: str, root: pathlib.Path = ROOT) -> list[str]:
  """'PAGE:LINE: TEXT' of blocks that hold a line which is no command.

  Lines of output are among them, and misspelt commands.
  """
  found = []
  for block in blocks(page, root):
    if block.language in ('', 'sh', 'bash'):
      text = re.sub(r'\\\n', '', block.text)
      text = re.sub(r'<<(\w+)\n.*?^\1$', '', text + '\n',
                    flags=re.DOTALL | re.MULTILINE)
      lines = [line for line in text.splitlines() if line.strip()]
      found += [
          f'{page}:{block.line}: {line.strip()}' for line in lines
          if not _COMMAND.match(line.strip()) and not line.startswith('#')
      ]
    elif block.language not in ('python', 'diff', 'json', 'yaml', 'text'):
      found.append(f'{page}:{block.line}: a block of {block.language!r}')
  return found


def heredocs(page: str, root: pathlib.Path = ROOT) -> list[Block]:
  """The Python that shell blocks give to `python -`."""
  return [
      Block(page, block.line, 'python', text)
      for block in blocks(page, root)
      for _, text in re.findall(
          r'python - <<(\w+)\n(.*?)^\1$', block.text + '\n',
          re.DOTALL | re.MULTILINE,
      )
  ]


def _parts(where, line):
  """The commands of a line; [--optional 3] is taken as given."""
  line = re.sub(r'\[(--[^\]]*)\]', r'\1', line)
  for text in re.split(r' && ', line):
    argv = shlex.split(text, comments=True)
    while argv and re.match(r'[A-Z_]+=', argv[0]):  # of the environment
      argv.pop(0)
    argv = [_NAME.sub(lambda m: PLACEHOLDERS[m[0]], word) for word in argv]
    yield Command(where, text, tuple(argv))
