"""Plans: which frames of a video each block draws, and from what.

A plan is plain data. A model of T frames draws a longer, finer or larger video
as a sequence of blocks of T frames; in each, some frames are known (given, or
drawn by an earlier block) and some may have a low-resolution partner. A model
with a context of its own draws longer videos frame by frame.
"""
import dataclasses

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

# What an extension knows of the frames before: extension.context.
CONTEXTS = ('known', 'aligned')


@dataclasses.dataclass(frozen=True)
class Block:
  """One run of the sampler.

  Attributes:
    frames: the place in the video of each frame of the block, ascending.
    known: which of them are known when the block begins.
    low_res: which of them have a low-resolution partner to agree with.
    model: 0, or 1 for the second model of a cascade.
    context: the places of the frames before a single next frame, the oldest
      first, -1 where there is none; () for blocks that need none.
  """

  frames: tuple[int, ...]
  known: tuple[bool, ...]
  low_res: tuple[bool, ...]
  model: int = 0
  context: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
  """Blocks in the order in which they are drawn.

  Attributes:
    num_frames: of the whole video.
    given: places of the frames that are there from the start.
    blocks: see `Block`. Within one model all have the same length, but for
      those with a context, which have one frame.
  """

  num_frames: int
  given: tuple[int, ...]
  blocks: tuple[Block, ...]


def _require(condition: bool, *parts: str) -> None:
  """Raises an ArgumentError of these parts unless the condition holds."""
  if not condition:
    raise ArgumentError(*parts)


def _require_more(num_frames, num_given):
  _require(
      num_given < num_frames,
      Argument('num_frames'),
      f' is {num_frames}, but {num_given} frames are given; there is nothing '
      'left to sample.',
  )


def _block(frames, have, *, low_res=(), model=0):
  return Block(
      frames=tuple(frames),
      known=tuple(f in have for f in frames),
      low_res=tuple(f in low_res for f in frames),
      model=model,
  )


def extend(
    num_frames: int,
    *,
    block_frames: int,
    overlap: int,
    num_given: int = 0,
    backwards: bool = False,
) -> Plan:
  """Block-autoregressive extension (paper section 3.1), to any length.

  Each block begins with the last `overlap` frames of what there is and draws
  the rest; the last one moves back to end with the video, so that it knows more
  frames and all blocks have one length.

  Args:
    num_frames: of the whole video, given frames included.
    block_frames: T of the model.
    overlap: known frames of a block, below T.
    num_given: frames of the video that is extended, at its start (at its end
      when backwards); 0 draws the first block from noise.
    backwards: grow towards the start instead.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  _require(
      0 < overlap < block_frames,
      Argument('overlap'),
      f' is {overlap}; it must be at least 1 and below the {block_frames} '
      'frames of a block.',
  )
  _require_more(num_frames, num_given)
  _require(
      num_frames >= block_frames,
      Argument('num_frames'),
      f' is {num_frames}; an extension needs at least one block of '
      f'{block_frames}.',
  )
  have, blocks = set(range(num_given)), []
  while len(have) < num_frames:
    known = min(overlap, len(have))
    start = min(len(have) - known, num_frames - block_frames)
    frames = range(start, start + block_frames)
    blocks.append(_block(frames, have))
    have |= set(frames)
  if backwards:
    blocks = [
        Block(
            frames=tuple(num_frames - 1 - f for f in reversed(block.frames)),
            known=block.known[::-1],
            low_res=block.low_res[::-1],
        )
        for block in blocks
    ]
  given = range(num_frames - num_given, num_frames) if backwards else range(
      num_given
  )
  return Plan(num_frames, tuple(given), tuple(blocks))


def frame_by_frame(
    num_frames: int,
    *,
    block_frames: int,
    context_frames: int,
    num_given: int = 0,
) -> Plan:
  """Extension by one frame at a time, each from the frames before it.

  Not of the paper (docs/summary.md). Without given frames the first block is
  drawn from noise, as in `extend`.

  Args:
    num_frames: of the whole video, given frames included.
    block_frames: T of the model.
    context_frames: number of frames before that a frame is drawn from, where
      there are so many.
    num_given: frames of the video that is extended, at its start.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  _require_more(num_frames, num_given)
  blocks, have = [], num_given
  if not num_given:
    have = min(block_frames, num_frames)
    blocks.append(_block(range(have), ()))
  for frame in range(have, num_frames):
    before = range(frame - context_frames, frame)
    context = tuple(max(place, -1) for place in before)
    blocks.append(
        dataclasses.replace(_block((frame,), ()), context=context)
    )
  return Plan(num_frames, tuple(range(num_given)), tuple(blocks))


def interpolate(num_given: int, *, factor: int, block_frames: int) -> Plan:
  """Temporal interpolation: x^a = the given frames, spread by `factor`.

  Each block begins at a known frame, the last of the block before, so that no
  frame is drawn twice; the last one moves back to end with the video.

  Args:
    num_given: frames of the sparse video.
    factor: new distance between them, in frames.
    block_frames: T of the model.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  _require(
      factor >= 2, Argument('factor'), f' is {factor}; it must be at least 2.'
  )
  _require(
      block_frames > factor,
      Argument('factor'),
      f' is {factor}; between two given frames at most {block_frames - 2} fit '
      'into a block.',
  )
  num_frames = (num_given - 1) * factor + 1
  _require(
      num_frames >= block_frames,
      Argument('num_given'),
      f' is {num_given}; so many frames make {num_frames} at a factor of '
      f'{factor}, and a block needs {block_frames}.',
  )
  given = range(0, num_frames, factor)
  have, blocks, start = set(given), [], 0
  # The last given frame within a block is the first of the next.
  stride = (block_frames - 1) // factor * factor
  while len(have) < num_frames:
    frames = range(
        min(start, num_frames - block_frames),
        min(start + block_frames, num_frames),
    )
    blocks.append(_block(frames, have))
    have |= set(frames)
    start += stride
  return Plan(num_frames, tuple(given), tuple(blocks))


def super_resolve(
    num_frames: int, *, block_frames: int, overlap: int
) -> Plan:
  """Spatial super-resolution of a low-resolution video, block by block.

  Blocks as in `extend`; every frame has its low-resolution partner.
  """
  plan = extend(num_frames, block_frames=block_frames, overlap=overlap)
  blocks = tuple(
      dataclasses.replace(block, low_res=(True,) * block_frames)
      for block in plan.blocks
  )
  return dataclasses.replace(plan, blocks=blocks)


def cascade(
    num_frames: int,
    *,
    base_frames: int,
    stride: int,
    block_frames: int,
    overlap: int = 1,
) -> Plan:
  """The paper's two models: sparse and small, then dense and large (fig. 2).

  Model 0 draws `base_frames` frames, `stride` apart; model 1 draws all frames
  at the high resolution, in blocks that agree with the small frames where there
  is one and go on from the block before. The paper: 16 frames of 64x64 at
  stride 4, then blocks of 9 of 128x128, to 64 frames.

  The first of these blocks is drawn twice, for its frame 0 and then, with that
  known, for the others (this project's choice). Guidance is weak at high noise,
  where a place is decided: without a known frame, frames without a partner can
  settle elsewhere than the three that have one (docs/results.md).

  Args:
    num_frames: of the whole video, at most base_frames * stride.
    base_frames: T of model 0.
    stride: frames between two of model 0.
    block_frames: T of model 1.
    overlap: known frames of a block of model 1.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  _require(
      (base_frames - 1) * stride < num_frames <= base_frames * stride,
      Argument('num_frames'),
      f' is {num_frames}; {base_frames} frames at ',
      Argument('stride'),
      f' {stride} reach from {(base_frames - 1) * stride + 1} to '
      f'{base_frames * stride}.',
  )
  sparse = tuple(range(0, base_frames * stride, stride))
  fine = extend(
      num_frames, block_frames=block_frames, overlap=overlap, num_given=1
  )
  opening = _block(range(block_frames), ())
  blocks = [_block(sparse, ())] + [
      dataclasses.replace(
          block, low_res=tuple(f in sparse for f in block.frames), model=1
      )
      for block in (opening, *fine.blocks)
  ]
  return Plan(num_frames, (), tuple(blocks))
