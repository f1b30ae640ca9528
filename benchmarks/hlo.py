"""Reads a compiled program of one device: collectives and oversized arrays."""
import collections
from collections.abc import Iterable, Iterator
import math
import re
from typing import NamedTuple

import jax

KINDS = (
    'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
    'collective-permute', 'collective-broadcast', 'ragged-all-to-all',
)
# A batch that no other size of a program is a multiple of.
MARKER = 10_007
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(
    r'^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$'
)
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_NAME = re.compile(r'%([\w.\-]+)')


class Array(NamedTuple):
  """dtype as HLO writes it, and shape, on one device."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    bits = re.search(r'\d+', self.dtype)  # s32, bf16, f8e4m3fn; pred has none
    return math.ceil(self.size * (int(bits[0]) if bits else 8) / 8)


class Instruction(NamedTuple):
  """A line of HLO: what it is named, returns, does and takes."""

  computation: str
  name: str
  arrays: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  source: str  # the operation of the JAX program, '' where HLO names none


def instructions(text: str) -> Iterator[Instruction]:
  """Every instruction of a module's text, nested computations included."""
  computation = ''
  for line in text.splitlines():
    if not line.startswith(' '):
      head = _COMPUTATION.match(line)
      computation = head[1] if head else computation
      continue
    found = _INSTRUCTION.match(line)
    if not found:
      continue
    name, types, opcode, rest = found.groups()
    arrays = tuple(
        Array(dtype, tuple(int(d) for d in dims.split(',') if d))
        for dtype, dims in _ARRAY.findall(types)
    )
    source = _OP_NAME.search(rest)
    yield Instruction(
        computation, name, arrays, opcode,
        tuple(_NAME.findall(rest.partition(')')[0])),
        source[1] if source else '',
    )


class Collective(NamedTuple):
  """Exchange between devices; bytes of its whole result or operand."""

  kind: str
  bytes: int
  arrays: tuple[Array, ...]
  source: str


def collectives(program: Iterable[Instruction]) -> list[Collective]:
  """Every collective of a program, one in a loop's body once.

  Bytes are those of one device's arrays, of the result or of the operands,
  whichever are more: what an all-gather assembles, what a reduce-scatter takes.
  On TPUs a reduce-scatter is a computation 'all-reduce-scatter' with an
  all-reduce inside.
  """
  program = list(program)
  named = {(i.computation, i.name): i for i in program}
  total = lambda arrays: sum(a.bytes for a in arrays)
  out = []
  for i in program:
    kind = i.opcode.removesuffix('-done')
    if kind not in KINDS:
      continue  # '-start' among them: it is counted where it is done
    begun = i
    if kind != i.opcode:
      begun = named[i.computation, i.operands[0]]
    operands = [named.get((i.computation, name)) for name in begun.operands]
    taken = sum(total(o.arrays) for o in operands if o)
    if i.computation.startswith('all-reduce-scatter'):
      kind = 'reduce-scatter'
    out.append(Collective(
        kind, max(total(i.arrays), taken), i.arrays, begun.source or i.source
    ))
  return out


def by_kind(found: Iterable[Collective]) -> dict[str, dict[str, int]]:
  """Kind -> {'count', 'bytes'}, the most bytes first."""
  table = collections.defaultdict(lambda: {'count': 0, 'bytes': 0})
  for c in found:
    table[c.kind]['count'] += 1
    table[c.kind]['bytes'] += c.bytes
  return dict(sorted(table.items(), key=lambda item: -item[1]['bytes']))


def traced_shapes(fn, *args) -> set[tuple[int, ...]]:
  """Shapes of every value that fn computes of abstract arguments."""
  found = set()

  def walk(jaxpr):
    for variable in [*jaxpr.invars, *jaxpr.constvars]:
      found.add(tuple(variable.aval.shape))
    for equation in jaxpr.eqns:
      for variable in equation.outvars:
        found.add(tuple(getattr(variable.aval, 'shape', ())))
      for value in jax.tree.leaves(
          list(equation.params.values()),
          is_leaf=lambda v: hasattr(v, 'eqns') or hasattr(v, 'jaxpr'),
      ):
        inner = getattr(value, 'jaxpr', value)
        if hasattr(inner, 'eqns'):
          walk(inner)

  walk(jax.make_jaxpr(fn)(*args).jaxpr)
  return found


def offenders(
    program: Iterable[Instruction],
    shapes: Iterable[tuple[int, ...]],
    *,
    batch: int,
    devices: int,
    marker: int = MARKER,
    min_bytes: int = 2**20,
) -> dict[Array, str]:
  """Arrays of one device that hold more of the batch than its share.

  One axis does not tell: 256 may be the batch or the channels. So whole shapes
  are compared, with those that the network computes, `shapes`, traced at a
  batch that marks its axis. An array is an offender where it

  - is larger than everything that is computed of a device's share, or
  - has the axes, or as many elements, of something computed of the global
    batch, and of nothing computed of the share.

  The compiler swaps and merges axes: hence in any order, or elements alone. An
  array that has both by chance escapes the second rule, none of the largest.

  Args:
    program: the compiled one.
    shapes: from `traced_shapes`, with a batch of `marker`; and those of the
      shards of parameters.
    batch: the global one.
    devices: that a batch is split over.
    marker: see shapes.
    min_bytes: smaller arrays are no harm.

  Returns:
    Array -> the operation of the JAX program that it comes from.
  """
  if devices == 1:
    return {}

  def at(rows, only_marked=False):
    """The shapes at a batch of so many rows."""
    return {
        tuple(d // marker * rows if d % marker == 0 else d for d in shape)
        for shape in shapes
        if 0 not in shape
        and not (only_marked and all(d % marker for d in shape))
    }

  share, whole = at(max(1, batch // devices)), at(batch, only_marked=True)
  largest = max(math.prod(shape) for shape in share)
  known = [
      (look, {look(s) for s in whole} - {look(s) for s in share})
      for look in (math.prod, _axes)
  ]
  found = {}
  for i in program:
    for array in i.arrays:
      if array.bytes < min_bytes or array in found:
        continue
      if array.size > largest or any(
          look(array.shape) in bad for look, bad in known
      ):
        found[array] = i.source
  return found


def _axes(shape):
  return tuple(sorted(d for d in shape if d > 1))


def sources(found: Iterable[Collective]) -> dict[str, int]:
  """Where collectives come from -> how many, transformations left out."""
  wrapper = re.compile(r'\b(?:jit|jvp|transpose|checkpoint|vmap)\(|\)|^/')
  return dict(collections.Counter(
      wrapper.sub('', c.source) or 'unnamed' for c in found
  ).most_common())


def describe(array: Array) -> str:
  """bf16[24,64,64,256], 48.0 MiB."""
  shape = ','.join(str(d) for d in array.shape)
  return f'{array.dtype}[{shape}], {array.bytes / 2**20:.1f} MiB'
