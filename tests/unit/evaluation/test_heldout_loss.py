import numpy as np

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import inputs
from video_diffusion.data import shapes
from video_diffusion.evaluation import heldout_loss
from video_diffusion.parallel import sharding


def test_losses_are_means_over_all_heldout_clips():
  config = defaults_lib.get_config()
  config.data.frames = 2
  config.data.loader = 'threads'
  config.eval.num_clips, config.eval.batch_size = 12, 4
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=100, num_frames=2, height=8, width=8
  )
  seen = []

  def eval_step(params, batch, i):
    seen.append(np.asarray(batch['video']))
    return {
        'loss': params * (i + 1.0),
        'bucket_sum': np.array([1.0, 2.0, 0.0, 4.0]) * (i + 1),
        'bucket_count': np.array([1, 1, 0, 2]),
    }

  losses = heldout_loss.mean_losses(
      eval_step, 2.0, inputs.heldout_batches(config, source), batch_size=4,
      num_clips=12, mesh=sharding.make_mesh(),
  )
  assert losses == {
      'loss': 4.0,
      'loss_bucket_0': 2.0,
      'loss_bucket_1': 4.0,
      'loss_bucket_2': None,
      'loss_bucket_3': 4.0,
  }
  assert np.concatenate(seen).shape == (12, 2, 8, 8, 3)
  # Clips in order, the same at each call.
  want = source.example(5, np.random.default_rng(0), 2)['video']
  np.testing.assert_array_equal(np.concatenate(seen)[5], want)
