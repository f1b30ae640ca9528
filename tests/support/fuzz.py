"""Damages files of every kind that a person may be sent, and reads them.

  python -m tests.support.fuzz --seconds=600 [--kind=config] [--first=0]

Each try has a number, by which it can be repeated, and must end in the right
result or in one sentence, within CPU_SECONDS and ROOM bytes of memory. The
last line is a JSON object: tries, results and refusals by kind, and failures.
"""
import argparse
from collections.abc import Callable
import csv
import io
import json
import logging
import pathlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tests.support import colour_clips
from tests.support import damaged
from tests.support import t5_files
from video_diffusion import media
from video_diffusion.checkpoints import t5_weights
from video_diffusion.checkpoints import weights
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import saved_config
from video_diffusion.config import validate
from video_diffusion.data import limits
from video_diffusion.data import video
from video_diffusion.data.builders import caption_files
from video_diffusion.errors import UserError
from video_diffusion.models import t5
from video_diffusion.text import tokenizer as tokenizer_lib

CPU_SECONDS = 20
ROOM = 2**31  # bytes that the tries may take, beyond those of the program
HOSTILE = (
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63),
    10**12, 10**30, 0.5, -0.5, 1e300, 1e-300, '', 'x', '8', '/etc/passwd',
    '../..', 's3://a/b', '\x1b[2J\n', '\ud800', 'é' * 5000, [], [[]], [1, 'a'],
    [0] * 5000, [[1] * 99] * 99, {}, {'a': {}}, {'name': 'x'}, float('nan'),
    float('inf'),
)


def damage_tree(tree: Any, rng: random.Random) -> Any:
  """A JSON tree with some of its nodes replaced, lost, moved or nested."""
  tree = json.loads(json.dumps(tree))
  for _ in range(rng.randint(1, 4)):
    holder = tree
    while True:
      keys = list(holder) if isinstance(holder, dict) else range(len(holder))
      if not keys:
        break
      key = rng.choice(list(keys))
      if isinstance(holder[key], (dict, list)) and rng.random() < 0.75:
        holder = holder[key]
        continue
      action = rng.choice(['replace', 'replace', 'lose', 'name', 'nest'])
      if action == 'replace':
        holder[key] = rng.choice(HOSTILE)
      elif action == 'lose':
        del holder[key]
      elif action == 'nest':
        for _ in range(rng.choice([1, 20, 200])):
          holder[key] = rng.choice([[holder[key]], {'a': holder[key]}])
      elif isinstance(holder, dict):
        holder[rng.choice([f'{key}s', 'x', '', '\x1b', 'a.b'])] = holder[key]
      break
  return tree


def damage_json(tree: Any, rng: random.Random) -> bytes:
  """The text of a tree, with damage to the tree, to the text or to both."""
  if rng.random() < 0.7:
    tree = damage_tree(tree, rng)
  content = json.dumps(tree).encode()
  if rng.random() < 0.4 and content:
    content = damaged.any_bytes(content, rng)
  return content


class Config:
  """config.json of a run, read to sample from it."""

  def __init__(self, folder):
    self._path = folder / 'config.json'
    config = defaults_lib.get_config()
    config.data.mixture.more = dict(name='video_folder', path='/a', dir='/b')
    config.sample.prompts = ('a', 'b')
    self._tree = saved_config.to_json(config)

  def __call__(self, rng):
    self._path.write_bytes(damage_json(self._tree, rng))
    config = saved_config.load({}, self._path.parent, ('sample',))
    validate.check(config, 'sample')
    assert saved_config.places(config) == {}


class Safetensors:
  """An export of weights: what is read is what was exported."""

  def __init__(self, folder):
    self._folder = folder / 'weights'
    rng = np.random.default_rng(0)
    self._params = {
        'a': rng.standard_normal((8, 9)).astype(np.float32),
        'b': {f'c{i}': np.full(3 + i, i, np.float32) for i in range(6)},
    }
    weights.save(self._params, self._folder, step=3, dtype=jnp.float32)
    self._sound = {p: p.read_bytes() for p in self._folder.iterdir()}

  def __call__(self, rng):
    for path, content in self._sound.items():
      path.write_bytes(content)
    path = rng.choice(sorted(self._sound))
    content = self._sound[path]
    size = int.from_bytes(content[:8], 'little')
    if rng.random() < 0.6:
      header = damage_json(json.loads(content[8 : 8 + size]), rng)
      known = size if rng.random() < 0.2 else len(header)
      content = known.to_bytes(8, 'little') + header + content[8 + size :]
    else:
      content = damaged.any_bytes(content, rng)
    path.write_bytes(content)
    # An array that changed is told by the digest, which the other files hold.
    got, step = weights.load(self._folder, self._params)
    assert step == 3
    assert weights.digest(got) == weights.digest(self._params)


class Captions:
  """captions.csv and tokenizer_lib.jsonl."""

  def __init__(self, folder):
    self._folder = folder
    rows = {
        'v0.mp4': 'a red circle, left', 'v1.mp4': 'she said "no"',
        'deep/v2.mp4': 'two\nlines', 'ü.mov': 'ein Schloß am Fluß',
    }
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerows([('file', 'caption'), *rows.items()])
    lines = [json.dumps({'file': f, 'caption': c}) for f, c in rows.items()]
    self._sound = {
        'captions.csv': (buffer.getvalue().encode(), damaged.CSV),
        'captions.jsonl': ('\n'.join(lines).encode(), damaged.JSONL),
    }

  def __call__(self, rng):
    name = rng.choice(sorted(self._sound))
    content, damages = self._sound[name]
    damage = rng.choice([*damages, damaged.any_bytes])
    (self._folder / name).write_bytes(damage(content, rng))
    for caption in caption_files.read(self._folder / name):
      assert caption is not None


class Video:
  """Containers of video and images, most damage in their headers."""

  def __init__(self, folder):
    self._folder = folder
    clip = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    media.write_mp4(folder / 'a.mp4', clip, fps=8)
    media.write_gif(folder / 'a.gif', clip, fps=8)
    import PIL.Image

    for name in ('a.png', 'a.jpg', 'a.webp', 'a.bmp', 'a.tiff'):
      PIL.Image.fromarray(clip[0]).save(folder / name)
    for name, codec in (
        ('a.mkv', 'ffv1'), ('a.avi', 'mpeg4'), ('a.webm', 'libvpx-vp9'),
        ('a.ts', 'mpeg2video'), ('a.mov', 'mjpeg'),
    ):
      picture = colour_clips.planes(clip[0], matrix=6, full=False, bits=8)
      colour_clips.write(
          folder / name,
          [colour_clips.frame(picture, bits=8) for _ in range(4)],
          codec=codec, rate=25, matrix=6, full=codec == 'mjpeg',
      )
    self._sound = {p: p.read_bytes() for p in folder.glob('a.*')}
    self._limits = limits.Limits(pixels=2**20, frames=1000, seconds=100.0)

  def __call__(self, rng):
    path = rng.choice(sorted(self._sound))
    content = bytearray(self._sound[path])
    reach = rng.choice([64, 256, len(content)])
    for _ in range(rng.choice([1, 1, 2, 8])):
      at = rng.randrange(min(reach, len(content)))
      big = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
      content[at : at + rng.choice([0, 1, 2, 4])] = bytes([big])
    if rng.random() < 0.2:
      content = content[: rng.randrange(len(content))]
    other = self._folder / f'b{path.suffix}'
    other.write_bytes(content)
    frames = 0
    for frame in video.read_timed(other, limits=self._limits):
      assert frame.pixels.dtype == np.uint8 and frame.pixels.shape[2] == 3
      frames += 1
    assert frames


class T5:
  """The encoders of text, in all formats, and a tokenizer."""

  def __init__(self, folder):
    rng = np.random.default_rng(0)
    import jax

    abstract = jax.eval_shape(
        t5.T5Encoder(t5_files.GATED).init, jax.random.key(0),
        np.zeros((1, 2), np.int32), np.ones((1, 2), bool),
    )['params']
    params = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(np.float32), abstract
    )
    hugging_face = t5_files.write_hugging_face(
        folder / 'hf', t5_files.GATED, params, shards=2
    )
    tokenizer = folder / 'spiece.model'
    tokenizer.write_bytes(tokenizer_lib.train_tokenizer(
        ['a red circle', 'a blue square'], max_pieces=30
    ))
    self._roots = {
        t5_files.write_msgpack(folder / 'msgpack', params): folder / 'msgpack',
        tokenizer: tokenizer,
    }
    zarr = t5_files.write_zarr(folder / 'zarr', params)
    for root in (hugging_face, zarr):
      self._roots |= {p: root for p in root.rglob('*') if p.is_file()}
    self._sound = {p: p.read_bytes() for p in self._roots}
    self._tokenizer, self._folder = tokenizer, folder

  def __call__(self, rng):
    # Else most tries would be of single chunks.
    by_root = {}
    for path, root in self._roots.items():
      by_root.setdefault(root, []).append(path)
    path = rng.choice(sorted(rng.choice(list(by_root.values()))))
    content = self._sound[path]
    if path.suffix == '.json' or path.name == '.zarray':
      path.write_bytes(damage_json(json.loads(content), rng))
    else:
      path.write_bytes(damaged.any_bytes(content, rng))
    try:
      if path == self._tokenizer:
        tokenizer_lib.Tokenizer(path, length=8)(['a red circle'])
      else:
        t5_weights.load_t5(self._roots[path])
    finally:
      path.write_bytes(content)


KINDS = {
    'config': Config, 'safetensors': Safetensors, 'captions': Captions,
    'video': Video, 't5': T5,
}


class Outcome(NamedTuple):
  """How a try ended.

  Attributes:
    word: 'result', 'sentence' or 'failure'.
    text: the sentence, or what went wrong.
  """

  word: str
  text: str = ''


def attempt(read: Callable[[random.Random], None], seed: str) -> Outcome:
  """One try."""

  def stop(number, frame):
    raise TimeoutError(f'more than {CPU_SECONDS} s of CPU')

  began = time.process_time()
  signal.signal(signal.SIGPROF, stop)
  signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
  try:
    read(random.Random(seed))
    outcome = Outcome('result')
  except UserError as error:
    sentence = str(error)
    good = sentence.isprintable() and 10 < len(sentence) < 1000
    outcome = Outcome(
        'sentence' if good else 'failure',
        f'{len(sentence)} characters: {sentence[:300]!a}',
    )
  except Exception as error:  # pylint: disable=broad-except
    where = traceback.extract_tb(error.__traceback__)[-1]
    outcome = Outcome(
        'failure',
        f'{type(error).__name__}: {str(error)[:300]} '
        f'({pathlib.Path(where.filename).name}:{where.lineno})',
    )
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
  if time.process_time() - began > CPU_SECONDS:
    outcome = Outcome('failure', f'{time.process_time() - began:.0f} s of CPU')
  return outcome


def main(argv: list[str] | None = None) -> int:
  """Runs the tries and prints what came of them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seconds', type=float, default=0.0)
  parser.add_argument(
      '--tries', type=int, default=0, help='Number of tries of each kind.'
  )
  parser.add_argument('--kind', choices=[*KINDS], action='append')
  parser.add_argument('--first', type=int, default=0)
  args = parser.parse_args(argv)
  logging.disable(logging.WARNING)
  kinds = args.kind or [*KINDS]
  counts = {kind: dict(tries=0, result=0, sentence=0) for kind in kinds}
  failures = []
  with tempfile.TemporaryDirectory() as folder:
    readers = {}
    for kind in kinds:
      own = pathlib.Path(folder, kind)
      own.mkdir()
      readers[kind] = KINDS[kind](own)
      attempt(readers[kind], kind)  # imports what it needs
    _limit_memory()
    began, number = time.monotonic(), args.first
    while (
        number - args.first < args.tries
        or time.monotonic() - began < args.seconds
    ):
      for kind, read in readers.items():
        # Read where the process ends with the try.
        print(f'{kind} {number}', file=sys.stderr, flush=True)
        outcome = attempt(read, f'{kind} {number}')
        counts[kind]['tries'] += 1
        if outcome.word == 'failure':
          failures.append(f'{kind} {number}: {outcome.text}')
        else:
          counts[kind][outcome.word] += 1
      number += 1
  print(json.dumps({'kinds': counts, 'failures': failures}, indent=1))
  return 1 if failures else 0


def _limit_memory():
  """Lets what a try takes beyond ROOM end in a MemoryError, on Linux."""
  statm = pathlib.Path('/proc/self/statm')
  if not statm.exists():
    return
  pages = int(statm.read_text().split()[0])
  size = pages * resource.getpagesize() + ROOM
  resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == '__main__':
  sys.exit(main())
