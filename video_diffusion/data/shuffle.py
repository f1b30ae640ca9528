"""Orders of examples that need no state: a permutation, and turns by weight."""
from collections.abc import Sequence
import fractions
import math

import numpy as np

_FEISTEL_ROUNDS = 4
MAX_PERIOD = 2**16


def mix(value: int, key: int) -> int:
  """A 64-bit hash (the finaliser of SplitMix64)."""
  value = (value + 0x9E3779B97F4A7C15 * (key + 1)) & (2**64 - 1)
  value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
  value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
  return value ^ (value >> 31)


def permute(position: int, *, size: int, key: int) -> int:
  """Returns the id at `position` of a permutation of range(size).

  A Feistel network over the next even power of two, walked until it lands
  inside the range: a bijection with no table, whatever the size.
  """
  half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
  mask = (1 << half_bits) - 1
  value = position
  while True:
    left, right = value >> half_bits, value & mask
    for i in range(_FEISTEL_ROUNDS):
      left, right = right, left ^ (mix(right, mix(key, i)) & mask)
    value = (left << half_bits) | right
    if value < size:
      return value


def turns(weights: Sequence[float]) -> np.ndarray:
  """Returns whose turn it is, int32 [period], for parties with these weights.

  Repeated for ever, each party has had its share of the first p turns, rounded
  up or down, for every p. It is the quota method of Balinski and Young (1975):
  of those who are not ahead of their share, the one whose next turn is due
  first. Rounding shares one by one instead would drift with many parties.

  Args:
    weights: positive, taken as the decimals that they print as; (0.7, 0.3) has
      a period of 10. Beyond MAX_PERIOD shares are rounded to 1 / MAX_PERIOD,
      and are at least that.
  """
  exact = [fractions.Fraction(str(weight)) for weight in weights]
  scale = math.lcm(*(weight.denominator for weight in exact))
  parts = [int(weight * scale) for weight in exact]
  divisor = math.gcd(*parts)
  parts = [part // divisor for part in parts]
  if sum(parts) > MAX_PERIOD:
    total = sum(parts)
    parts = [max(1, round(part * MAX_PERIOD / total)) for part in parts]
  period = sum(parts)
  had = [0] * len(parts)
  table = np.empty(period, np.int32)
  for p in range(period):
    table[p] = turn = min(
        (i for i, n in enumerate(had) if n * period < parts[i] * (p + 1)),
        key=lambda i: (had[i] + 1) / parts[i],
    )
    had[turn] += 1
  return table
