"""Samples of a model for an evaluation, written as they come, resumable."""
from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from etils import epath
import jax
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import digests
from video_diffusion.evaluation import chunk_files
from video_diffusion.evaluation import clip_sets
from video_diffusion.parallel import collectives
from video_diffusion.parallel import distributed


@dataclasses.dataclass(frozen=True)
class SampleSet:
  """Which samples of a model are made.

  Attributes:
    model: the model, with its settings.
    reference: real clips; sample i takes the condition and the known frames of
      clip i // samples_per_clip.
    count: number of samples.
    frames: number of frames, known ones included.
    known_frames: number of known frames at the start.
    samples_per_clip: number of samples of each real clip.
    seed: seed of all randomness.
  """

  model: model_lib.Model
  reference: clip_sets.RealClips
  count: int
  frames: int
  known_frames: int = 0
  samples_per_clip: int = 1
  seed: int = 0

  @functools.cached_property
  def chunk_size(self) -> int:
    """The number of samples that are made at once."""
    return self.model.config.sample.batch_size

  @functools.cached_property
  def identity(self) -> dict[str, Any]:
    """Everything that decides a sample; their number is not among it."""
    config = self.model.config
    weights = digests.digests(self.model.params)
    reference = dict(self.reference.identity)
    del reference['count']
    return {
        'model': config.model.to_dict(),
        'diffusion': config.diffusion.to_dict(),
        'settings': repr(self.model.settings),
        'overlap': self.model.overlap(),
        'step': self.model.step,
        'weights': chunk_files.digest({'weights': weights}),
        'reference': reference,
        'chunk_size': self.chunk_size,
        **{
            name: getattr(self, name)
            for name in ('frames', 'known_frames', 'samples_per_clip', 'seed')
        },
    }

  def generate(
      self,
      run_dir: epath.PathLike,
      progress: Callable[[int, int], None] | None = None,
  ) -> clip_sets.Samples:
    """Makes the samples that are not on disk yet.

    They lie in run_dir/samples_<digest>. A call that is interrupted and made
    again goes on behind the last chunk that every process has written; a call
    for more samples keeps those that are there.

    Args:
      run_dir: folder of this evaluation.
      progress: called with (samples done, samples in all).

    Raises:
      UserError: the model samples frames that are not finite, or the settings
        do not fit.
    """
    name = f'samples_{chunk_files.digest(self.identity)}'
    chunks = chunk_files.ChunkFiles(epath.Path(run_dir) / name, self.identity)
    process = jax.process_index()
    num_chunks = -(-self.count // self.chunk_size)
    if progress:
      progress(0, self.count)
    for chunk in range(num_chunks):
      missing = int(not chunks.path(chunk, process).exists())
      # All processes sample a chunk together, or none does.
      if int(collectives.largest(missing, self.model.mesh)):
        numbers, videos = self._sample(chunk)
        chunks.save(chunk, process, number=numbers, video=videos)
      if progress:
        progress(min((chunk + 1) * self.chunk_size, self.count), self.count)
    distributed.wait_for_all('samples')
    return clip_sets.Samples(
        chunks, self.identity, count=self.count, chunk_size=self.chunk_size
    )

  def _sample(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, videos) of a chunk that this process samples."""
    size, first = self.chunk_size, chunk * self.chunk_size
    clips = [(first + i) // self.samples_per_clip for i in range(size)]
    # Samples behind the last one are made only to fill the batch.
    clips = [clip % len(self.reference) for clip in clips]
    examples = [self.reference.example(clip) for clip in clips]
    model = self.model.with_examples(examples)
    arguments = {
        'num_videos': size, 'frames': self.frames, 'batch_size': size,
        'seed': self._chunk_seed(chunk),
    }
    if self.known_frames:
      known = np.stack([e['video'][: self.known_frames] for e in examples])
      videos = model.extend(known, **arguments)
    else:
      videos = model.sample(**arguments)
    return first + model.batches(size, size).own(), videos

  def _chunk_seed(self, chunk):
    """A seed for each chunk, which no other seed's chunks share."""
    sequence = np.random.SeedSequence([self.seed, chunk])
    return int(sequence.generate_state(1)[0] >> 1)
