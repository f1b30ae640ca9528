"""Plans of sampling; `rollout` runs them."""
from video_diffusion.diffusion import extension


def generate(
    num_frames: int,
    *,
    block_frames: int,
    overlap: int,
    context_frames: int = 0,
) -> extension.Plan:
  """The plan of a video from noise.

  It is one block up to the length of the training clips, and an extension
  beyond.

  Args:
    num_frames: frames of the video, at least 1.
    block_frames: T of the model.
    overlap: known frames of a block, where there are several.
    context_frames: of a model that extends frame by frame, see
      `extension.frame_by_frame`; 0 extends block by block.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  if num_frames > block_frames and context_frames:
    return extension.frame_by_frame(
        num_frames, block_frames=block_frames, context_frames=context_frames
    )
  if num_frames > block_frames:
    return extension.extend(
        num_frames, block_frames=block_frames, overlap=overlap
    )
  empty = (False,) * num_frames
  block = extension.Block(tuple(range(num_frames)), empty, empty)
  return extension.Plan(num_frames, (), (block,))


def extend(
    num_given: int,
    *,
    num_frames: int | None = None,
    block_frames: int,
    overlap: int,
    backwards: bool = False,
    context_frames: int = 0,
) -> extension.Plan:
  """The plan that extends a given video; see `extension.extend`.

  Args:
    num_given: frames of the given video.
    num_frames: frames of the whole video; None adds the new ones of one block,
      or T frames one by one.
    block_frames: T of the model.
    overlap: known frames of a block.
    backwards: grow towards the start; of blocks alone.
    context_frames: see `generate`.

  Raises:
    ArgumentError: lengths that do not fit.
  """
  if num_frames is None:
    num_frames = num_given + block_frames - (0 if context_frames else overlap)
  if context_frames:
    return extension.frame_by_frame(
        num_frames,
        block_frames=block_frames,
        context_frames=context_frames,
        num_given=num_given,
    )
  return extension.extend(
      num_frames,
      block_frames=block_frames,
      overlap=overlap,
      num_given=num_given,
      backwards=backwards,
  )
