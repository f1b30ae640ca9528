"""A trained model: videos from noise, and from given videos."""
from collections.abc import Callable, Sequence
import copy
import dataclasses
import functools
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion.api import model_folder
from video_diffusion.config import build
from video_diffusion.config import distill_config
from video_diffusion.config import next_frames
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import samplers
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.inference import block_sampler
from video_diffusion.inference import conditioning
from video_diffusion.inference import denoiser
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.inference import step_calls
from video_diffusion.parallel import sharding

# Groups of a run's config that decide the frames sampled from its weights.
DECIDING = ('data', 'diffusion', 'extension', 'model', 'sample', 'text')
# Arguments of `diffusion.extension` -> those of the methods here.
_PLAN_ARGUMENTS = {
    'num_frames': Argument('frames'), 'num_given': Argument('video')
}


class Model:
  """A trained model.

  Attributes:
    config: the config of its run, with the fields of this call.
    network: a `ConditionalUNet`.
    mesh: the devices that it is sampled on.
    settings: how the run samples, unless a call says otherwise.
  """

  def __init__(
      self,
      config: ml_collections.ConfigDict,
      network,
      weights: Callable[[], tuple[Any, int]],
      conditioner: conditioning.Conditioner,
      mesh: jax.sharding.Mesh | None = None,
      run_dir: epath.Path | None = None,
  ):
    """Makes a model; `load` is the way from a folder.

    Args:
      config: the config of its run.
      network: from `build.make_model`.
      weights: returns (EMA parameters, step); called when they are needed.
      conditioner: makes the conditions of videos.
      mesh: from `build.make_mesh`, None makes it.
      run_dir: folder that the model is from; `save` needs it.
    """
    self.config, self.network = config, network
    self.mesh = mesh or build.make_mesh(config)
    self.conditioner = conditioner
    self.settings = build.sampling_settings(config)
    self._read, self._run_dir = weights, run_dir
    self._samplers = {}  # jitted, by what is static in them

  @functools.cached_property
  def _weights(self):
    return self._read()

  @property
  def params(self) -> Any:
    """EMA parameters."""
    return self._weights[0]

  @property
  def step(self) -> int:
    """The number of training steps behind the parameters."""
    return self._weights[1]

  @property
  def frames(self) -> int:
    """T, the frames of a training clip and of a block."""
    return self.config.data.frames

  @property
  def size(self) -> tuple[int, int]:
    """(height, width) of a frame."""
    return self.config.data.height, self.config.data.width

  def with_weights(self, params: Any, step: int) -> 'Model':
    """The same model with other parameters; compiled programs are shared."""
    other = copy.copy(self)
    other.__dict__['_weights'] = params, step
    return other

  def save(
      self, folder: epath.PathLike, *, dtype: str = 'bfloat16', card: str = ''
  ) -> None:
    """Writes the model to a folder that `load` reads, here or elsewhere.

    Args:
      folder: local or gs://; see `model_folder`.
      dtype: 'float32' or 'bfloat16', in which weights are stored.
      card: text of README.md; '' makes one of the config and the scores.

    Raises:
      UserError: the folder holds something else than a model.
    """
    if self._run_dir is None:
      raise UserError('a model that was not loaded from a folder has no config '
                      'to save; train it by `video_diffusion.train`.')
    model_folder.save(
        folder, run_dir=self._run_dir, config=self.config, params=self.params,
        step=self.step, dtype=dtype, card=card,
    )

  def with_examples(self, examples: Sequence[dict[str, Any]]) -> 'Model':
    """The same model, which conditions its videos on these examples.

    Args:
      examples: at least as many as there are videos, with what the model takes:
        'caption', 'labels' or other arrays; see `data.mixture.Source.example`.
    """
    other = copy.copy(self)
    other.conditioner = dataclasses.replace(
        self.conditioner, heldout=lambda count: iter(examples[:count])
    )
    return other

  def denoise_fn(
      self, condition: dict[str, jax.Array] | None = None
  ) -> guidance.DenoiseFn:
    """(z, logsnr) -> x_hat, neither guided nor clipped.

    Args:
      condition: arrays [batch, 1, ...], as those of `conditions`; None is the
        null condition.
    """
    return denoiser.make_denoise_fn(
        self.network, self.params, condition,
        prediction=self.config.diffusion.prediction,
    )

  def conditions(
      self,
      num_videos: int | None = None,
      prompts: Sequence[str] | None = None,
      labels: Sequence[Any] | None = None,
  ) -> conditioning.Conditions:
    """What videos are conditioned on; see `conditioning.Conditioner`."""
    if num_videos is None and prompts is None and labels is None:
      num_videos = self.config.sample.num_videos
    return self.conditioner(num_videos, prompts, labels)

  def sample(
      self,
      *,
      num_videos: int | None = None,
      prompts: Sequence[str] | None = None,
      labels: Sequence[Any] | None = None,
      frames: int | None = None,
      overlap: int | None = None,
      sampler: str | samplers.Sampler | None = None,
      num_steps: int | None = None,
      guidance_weight: float | None = None,
      seed: int = 0,
      batch_size: int | None = None,
      progress: Callable[[int, int], None] | None = None,
      on_step: Callable[[int, int], None] | None = None,
      resume_dir: epath.PathLike | None = None,
      **settings: Any,
  ) -> np.ndarray:
    """Samples videos from noise.

    None always takes the run's own value.

    Args:
      num_videos: see `conditions`.
      prompts: see `conditions`.
      labels: see `conditions`.
      frames: frames of a video; more than those of a training clip are sampled
        by block-autoregressive extension (paper section 3.1), or frame by frame
        where the model was trained for it.
      overlap: frames that a block of an extension knows of the one before.
      sampler: a name, 'ancestral', 'ddim', 'dpmpp_2m' or 'annealed_langevin',
        or a sampler of `diffusion.samplers` with its own options.
      num_steps: sampling steps of a block.
      guidance_weight: w of classifier-free guidance, 0 is unguided.
      seed: seed of all randomness: the same videos for the same arguments.
      batch_size: videos sampled at once, over all devices.
      progress: called with (blocks done, blocks in all).
      on_step: called with (steps done, steps in all) at each sampling step,
        from another thread. The videos are the same, but the program that
        makes them is compiled anew, once in a process. An exception that it
        raises ends the call, which raises it.
      resume_dir: folder in which finished blocks are kept, so that the same
        call goes on behind them after an interruption.
      **settings: further fields of `block_sampler.Settings`, and options of the
        sampler, as gamma=0.3.

    Returns:
      uint8 [n, frames, height, width, 3]; where several processes sample, the
      videos of this one.

    Raises:
      UserError: an argument that does not fit; names it.
    """
    plan = self._generation(frames, overlap)
    return self._rollout(
        plan, num_videos=num_videos, prompts=prompts, labels=labels,
        sampler=sampler, num_steps=num_steps, guidance_weight=guidance_weight,
        seed=seed, batch_size=batch_size, progress=progress, on_step=on_step,
        resume_dir=resume_dir, **settings,
    )

  def check(
      self, *, num_videos=None, prompts=None, labels=None, frames=None, seed=0
  ) -> None:
    """Raises UserError for arguments of `sample` that do not fit."""
    del seed
    self._generation(frames, None)
    self.conditions(num_videos, prompts, labels)

  def extend(
      self,
      video: np.ndarray,
      *,
      frames: int | None = None,
      backwards: bool = False,
      overlap: int | None = None,
      **options: Any,
  ) -> np.ndarray:
    """Continues a given video (paper section 3.1).

    Args:
      video: uint8 [f, height, width, 3], of the model's size, with frames as
        far apart as those of the run's clips; or one for each video,
        [n, f, height, width, 3].
      frames: frames of the result, given ones included; None adds the new ones
        of one block, or as many as a training clip has, frame by frame.
      backwards: the given frames are the last ones, not the first. A model
        that extends frame by frame cannot do so.
      overlap: see `sample`.
      **options: other arguments of `sample`. num_videos is 1 by default, or n.

    Returns:
      uint8 [n, frames, height, width, 3], the given frames exactly as they
      were.
    """
    given, options = _given(video, options, self.size)
    with plan_arguments():
      plan = sampling_plan.extend(
          given.shape[-4],
          num_frames=frames,
          block_frames=self.frames,
          backwards=backwards,
          **self._extension(overlap, backwards),
      )
    return self._rollout(plan, given, **options)

  def interpolate(
      self, video: np.ndarray, *, factor: int, **options: Any
  ) -> np.ndarray:
    """Fills in frames between those of a given video.

    Args:
      video: see `extend`; its frames lie `factor` times as far apart as those
        of the run's clips.
      factor: new distance between the given frames, at least 2.
      **options: see `extend`.

    Returns:
      uint8 [n, (f - 1) * factor + 1, height, width, 3].
    """
    given, options = _given(video, options, self.size)
    with plan_arguments():
      plan = extension.interpolate(
          given.shape[-4], factor=factor, block_frames=self.frames
      )
    return self._rollout(plan, given, **options)

  def upscale(
      self,
      video: np.ndarray,
      *,
      factor: int,
      overlap: int | None = None,
      **options: Any,
  ) -> np.ndarray:
    """Enlarges a given video (super-resolution guidance, paper eq. 8).

    Args:
      video: uint8 [f, height / factor, width / factor, 3] or one for each
        video, where height and width are the model's; at least one block.
      factor: how many times larger the result is.
      overlap: see `sample`.
      **options: see `extend`.

    Returns:
      uint8 [n, f, height, width, 3].
    """
    given, options = _given(video, options, self.size, factor)
    with plan_arguments():
      plan = extension.super_resolve(
          given.shape[-4],
          block_frames=self.frames,
          overlap=self.overlap(overlap),
      )
    return self._rollout(plan, given, upscale=factor, **options)

  def overlap(self, given: int | None = None) -> int:
    """Known frames of a block: the given number, else the run's, else half."""
    if given is not None:
      return given
    return self.config.sample.overlap or max(1, self.frames // 2)

  def batches(
      self, num_videos: int, batch_size: int | None = None
  ) -> rollout.Batches:
    """How so many videos are divided into batches.

    A batch has no more rows than there are videos, up to the number of devices
    that share it.

    Raises:
      ArgumentError: the devices cannot share a batch of this size.
    """
    devices = sharding.batch_devices(self.mesh)
    size = batch_size or self.config.sample.batch_size
    if size % devices:
      raise ArgumentError(
          Argument('batch_size'), f' is {size}; it must divide by the '
          f'{devices} devices that share a batch.',
      )
    if jax.process_count() == 1:
      size = min(size, -(-num_videos // devices) * devices)
    return rollout.Batches(num_videos, size, self.mesh)

  def stage(
      self,
      settings: block_sampler.Settings,
      conditions: conditioning.Conditions,
      batches: rollout.Batches,
      *,
      block_frames: int,
      upscale: int = 1,
  ) -> rollout.Stage:
    """This model as a stage of a rollout.

    Args:
      settings: how to sample.
      conditions: of all videos.
      batches: their division.
      block_frames: frames of a block.
      upscale: see `block_sampler.make_block_sampler`.
    """
    static = (settings, batches.size, block_frames, upscale)
    if static not in self._samplers:
      self._samplers[static] = block_sampler.make_block_sampler(
          self.network,
          settings,
          shape=(batches.size, block_frames, *self.size, 3),
          prediction=self.config.diffusion.prediction,
          logsnr_fn=build.make_logsnr_fn(self.config),
          mesh=self.mesh,
          upscale=upscale,
          sees_known=self.config.distill.reconstruction_weight > 0,
      )
    return rollout.Stage(
        self._samplers[static],
        self.params,
        conditions.arrays,
        self.size,
        {
            'config': {name: self.config[name].to_dict() for name in DECIDING},
            'settings': repr(settings),
            'step': self.step,
        },
    )

  def with_settings(self, **given: Any) -> block_sampler.Settings:
    """The run's settings with those of a call; None leaves one as it is.

    Args:
      **given: fields of `block_sampler.Settings`, where sampler may be a name,
        and options of that sampler.

    Raises:
      ArgumentError: an unknown name, or a value that is out of range, or that
        the model was not distilled for.
    """
    options = {name: self.config.sample[name] for name in samplers.options()}
    settings = self.settings.updated(options, **given)
    distill_config.require_distilled(self.config, settings)
    return settings

  def _generation(self, frames, overlap) -> extension.Plan:
    """The plan of videos from noise."""
    frames = frames or self.frames
    if frames <= self.frames:  # one block, whatever an extension would be
      how = {'overlap': self.overlap(overlap)}
    else:
      how = self._extension(overlap)
    with plan_arguments():
      return sampling_plan.generate(frames, block_frames=self.frames, **how)

  def _extension(
      self, overlap: int | None, backwards: bool = False
  ) -> dict[str, int]:
    """Arguments of plans: what an extension knows of the frames before."""
    next_frames.require_forwards(self.config, overlap, backwards)
    return {
        'overlap': self.overlap(overlap),
        'context_frames': next_frames.context_frames(self.config),
    }

  def _rollout(
      self,
      plan: extension.Plan,
      given: np.ndarray | None = None,
      *,
      num_videos=None,
      prompts=None,
      labels=None,
      seed: int = 0,
      batch_size=None,
      progress=None,
      on_step=None,
      resume_dir=None,
      upscale: int = 1,
      **settings,
  ) -> np.ndarray:
    """Runs a plan with the arguments of `sample`."""
    settings = self.with_settings(**settings)
    conditions = self.conditions(num_videos, prompts, labels)
    batches = self.batches(conditions.num_videos, batch_size)
    stage = self.stage(
        settings, conditions, batches,
        # Blocks with a context have one frame, whatever others would have.
        block_frames=next(
            (len(b.frames) for b in plan.blocks if not b.context), self.frames
        ),
        upscale=upscale,
    )
    run = functools.partial(
        rollout.run, plan, batches=batches, seed=seed, given=given,
        resume_dir=resume_dir,
    )
    if on_step is None:
      return run(stages=[stage], progress=progress)
    with step_calls.following(
        on_step, num_blocks=len(batches.rows()) * len(plan.blocks),
        num_steps=settings.num_steps, progress=progress,
    ) as (call, progress):
      sample_block = functools.partial(stage.sample_block, call=call)
      return run(
          stages=[stage._replace(sample_block=sample_block)], progress=progress
      )


def _given(
    video: np.ndarray,
    options: dict[str, Any],
    size: tuple[int, int],
    factor: int = 1,
) -> tuple[np.ndarray, dict[str, Any]]:
  """(a given video as float32 in [-1, 1], options with num_videos set).

  Args:
    video: of the caller.
    options: of the caller.
    size: (height, width) of the model.
    factor: how many times smaller the video is.
  """
  video = np.asarray(video)
  if factor < 1 or any(side % factor for side in size):
    raise ArgumentError(
        Argument('factor'), f' is {factor}; it must divide the height and '
        f'width of the model, {size[0]} and {size[1]}.',
    )
  shape = [side // factor for side in size]
  if (
      video.dtype != np.uint8
      or video.ndim not in (4, 5)
      or list(video.shape[-3:]) != [*shape, 3]
  ):
    raise ArgumentError(
        Argument('video'), f' is {video.dtype} {list(video.shape)}; it must '
        f'be uint8 [frames, {shape[0]}, {shape[1]}, 3], or such a video for '
        'each of several.',
    )
  if all(options.get(n) is None for n in ('num_videos', 'prompts', 'labels')):
    options = options | {'num_videos': 1 if video.ndim == 4 else len(video)}
  return video.astype(np.float32) / 127.5 - 1.0, options


def plan_arguments():
  """Names the arguments of plans as those of the methods here."""
  return naming(lambda name: _PLAN_ARGUMENTS.get(name, name))
