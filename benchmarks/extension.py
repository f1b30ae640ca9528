"""Extension, interpolation and enlargement by a trained moving_shapes model.

  python -m benchmarks.extension WORKDIR OUT [--kinetics]

WORKDIR holds config.json and weights (or checkpoints) of
configs/moving_shapes.py:accelerator. Writes to OUT, drawn without labels:
  extension.gif          64 frames; above by reconstruction guidance, below by
                         replacement alone, from the same noise
  interpolation.gif      a test clip, every other frame of it, and the model's
                         frames between them
  super_resolution.gif   a test clip, a quarter of its pixels, and the model's
  extension.json         figures, with the protocol; those that score are from
                         video_diffusion/evaluation/extension_figures.py
With --kinetics also the peak memory of reconstruction guidance through the
Kinetics-size network at 16x64x64.
"""
import argparse
import datetime
import json
import time

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases
from video_diffusion import media
from video_diffusion.api import load
from video_diffusion.config import build
from video_diffusion.data import shapes
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import rng
from video_diffusion.diffusion import sampling
from video_diffusion.evaluation import extension_figures
from video_diffusion.inference import conditioning
from video_diffusion.inference import denoiser
from video_diffusion.inference import rollout
from video_diffusion.training import state as state_lib

CLIPS = 4
STEPS = 128
WEIGHT = 9.0


def test_clips(config, frames: int) -> np.ndarray:
  """float32 [CLIPS, frames, h, w, 3]: drawn clips of the test split."""
  data = config.data
  source = shapes.MovingShapes(
      split='test', seed=config.seed, num_examples=data.test_clips,
      num_frames=frames, height=data.height, width=data.width,
      radius=data.radius,
      speed=data.speed * (data.frames - 1) / (frames - 1),
  )
  rng = np.random.default_rng(0)
  videos = [source.example(i, rng, frames)['video'] for i in range(CLIPS)]
  return np.stack(videos).astype(np.float32) / 127.5 - 1


def make_stage(model, *, weight: float = WEIGHT, upscale: int = 1):
  """(stage, batches) of CLIPS unconditional videos.

  Args:
    model: from `api.load`.
    weight: w_r of reconstruction guidance.
    upscale: see `block_sampler.make_block_sampler`.
  """
  batches = model.batches(CLIPS)
  stage = model.stage(
      model.with_settings(reconstruction_weight=weight),
      conditioning.Conditions(CLIPS), batches,
      block_frames=model.frames, upscale=upscale,
  )
  return stage, batches


def run(model, plan, stage, batches, *, given=None):
  """(videos, seconds): one run of a plan, compilation included."""
  began = time.time()
  key = rng.stream_key(model.config.sample.seed, 'sample', 0)
  video = rollout.run_batch(plan, [stage], key, batches, given=given)
  return video, time.time() - began


def extend(model, out: epath.Path) -> dict[str, dict]:
  """64 frames, by guidance and by replacement."""
  frames, report = model.frames, {}
  plan = extension.extend(64, block_frames=frames, overlap=frames // 2)
  long = {}
  for name, weight in (('guidance', WEIGHT), ('replacement', 0.0)):
    stage, batches = make_stage(model, weight=weight)
    long[name], seconds = run(model, plan, stage, batches)
    report[f'extension_{name}'] = {
        **extension_figures.shape_figures(long[name]),
        'seconds_with_compilation': round(seconds, 1),
        'w_r': weight,
        **extension_figures.frame_to_frame(
            long[name], extension_figures.seams(plan)
        ),
        'programs': stage.sample_block._cache_size(),
    }
    print(name, report[f'extension_{name}'], flush=True)
  rows = np.concatenate([long['guidance'], long['replacement']])
  picture = media.grid(media.to_uint8(rows), columns=CLIPS)
  media.write_gif(out / 'extension.gif', media.enlarge(picture, 400), fps=8)
  return report


def interpolate(model, out: epath.Path) -> dict[str, dict]:
  """Frames between those of test clips."""
  config, frames = model.config, model.frames
  real = test_clips(config, 17)
  sparse = real[:, ::2]
  plan = extension.interpolate(9, factor=2, block_frames=frames)
  # The plan's clips are the batch here: one sparse clip each.
  video, seconds = run(model, plan, *make_stage(model), given=sparse)
  assert np.array_equal(video[:, ::2], sparse)
  # At the last noise level, of the frames of one block.
  own_error = extension_figures.own_error(
      jax.jit(model.denoise_fn()), video[:, :frames],
      [place for place in plan.given if place < frames],
      logsnr=build.make_logsnr_fn(config)(jnp.float32(1 / STEPS)),
  )
  report = {
      **extension_figures.shape_figures(video),
      'seconds': round(seconds, 1),
      'known_frames_exact': True,
      'x_hat_a_rms': round(own_error, 4),
      'drawn_frames_rms_to_the_real_ones': round(
          extension_figures.rms(video[:, 1::2], real[:, 1::2]), 4
      ),
  }
  print(report, flush=True)
  rows = np.concatenate([real, sparse.repeat(2, axis=1)[:, :17], video])
  picture = media.grid(media.to_uint8(rows), columns=CLIPS)
  media.write_gif(out / 'interpolation.gif', media.enlarge(picture, 400), fps=8)
  return {'interpolation': report}


def super_resolve(model, out: epath.Path) -> dict[str, dict]:
  """Test clips, from a quarter of their pixels."""
  config, frames = model.config, model.frames
  real = test_clips(config, frames)
  low = np.asarray(guidance.area(2)(real))
  plan = extension.super_resolve(
      frames, block_frames=frames, overlap=frames // 2
  )
  video, seconds = run(
      model, plan, *make_stage(model, upscale=2), given=low
  )
  report = {
      **extension_figures.shape_figures(video),
      'seconds_with_compilation': round(seconds, 1),
      'w_r': WEIGHT,
      **extension_figures.enlargement(video, low, real),
  }
  print(report, flush=True)
  rows = np.concatenate([real, low.repeat(2, 2).repeat(2, 3), video])
  picture = media.grid(media.to_uint8(rows), columns=CLIPS)
  media.write_gif(
      out / 'super_resolution.gif', media.enlarge(picture, 400), fps=8
  )
  return {'super_resolution': report}


def main(argv: list[str] | None = None) -> None:
  """Runs everything, and writes pictures and figures."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('workdir')
  parser.add_argument('out')
  parser.add_argument('--kinetics', action='store_true')
  args = parser.parse_args(argv)
  workdir, out = epath.Path(args.workdir), epath.Path(args.out)
  model = load.load(workdir, {
      'sample.batch_size': CLIPS,
      'sample.num_steps': STEPS,
      'sample.super_resolution_weight': WEIGHT,
  })
  report = {
      'date': datetime.date.today().isoformat(),
      'device': jax.devices()[0].device_kind,
      'jax': jax.__version__,
      'model_step': model.step,
      'sampler': f'ancestral, {STEPS} steps, gamma {model.config.sample.gamma}',
      'clips': CLIPS,
  }
  for part in (extend, interpolate, super_resolve):
    report |= part(model, out)
  (out / 'extension.json').write_text(json.dumps(report, indent=1))

  if args.kinetics:
    report['kinetics_size'] = gradient_memory()
    print(report['kinetics_size'], flush=True)
    (out / 'extension.json').write_text(json.dumps(report, indent=1))


def gradient_memory() -> dict[str, float]:
  """Reconstruction guidance, one clip of 16x64x64, configs/kinetics.py."""
  config = cases.load_config('kinetics')
  config.model.remat = (64, 32, 16, 8)
  model = build.make_model(config, ())
  abstract = jax.eval_shape(
      lambda: state_lib.init_params(
          model, build.batch_shapes(config, model),
          num_images=config.data.images, seed=0,
      )
  )
  # The numbers do not matter to memory: no initialiser is compiled.
  params = jax.tree.map(lambda p: jnp.full(p.shape, 1e-3, p.dtype), abstract)
  known = jnp.zeros((1, 16, 64, 64, 3))
  mask = jnp.arange(16)[None] < 5

  def draw(params, key):
    denoise = denoiser.make_denoise_fn(
        model, params, None, prediction=config.diffusion.prediction
    )
    guided = guidance.reconstruction(
        denoise, known=known, known_mask=mask, weight=9.0
    )
    return sampling.sample(
        key, guidance.clip(guided), shape=known.shape, num_steps=3,
        known=known, known_mask=mask,
    )

  began = time.time()
  compiled = jax.jit(draw).lower(params, jax.random.key(0)).compile()
  seconds = time.time() - began
  analysis = compiled.memory_analysis()
  began = time.time()
  x = jax.block_until_ready(compiled(params, jax.random.key(0)))
  gib = lambda n: round(n / 2**30, 2)
  return {
      'parameters': state_lib.tree_size(abstract),
      'compile_seconds': round(seconds, 1),
      'seconds_per_guided_step': round((time.time() - began) / 3, 3),
      'arguments_gib': gib(analysis.argument_size_in_bytes),
      'temporaries_gib': gib(analysis.temp_size_in_bytes),
      'peak_bytes_in_use_gib_whole_process': gib(
          (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)
      ),
      'finite': bool(np.isfinite(x).all()),
  }


if __name__ == '__main__':
  main()
