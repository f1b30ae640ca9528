"""The encoder against transformers' own, in PyTorch, on random weights."""
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed'
)

import numpy as np  # noqa: E402
from transformers.models.t5 import modeling_t5  # noqa: E402

from video_diffusion.checkpoints import t5_weights  # noqa: E402
from video_diffusion.models import attention  # noqa: E402
from video_diffusion.models import t5  # noqa: E402

LENGTHS = (40, 17, 1)


def randomize(model):
  """Draws all parameters: fresh ones have norms of 1 and biases of nearly 0."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, x in model.named_parameters():
      noise = torch.randn(x.shape, generator=generator)
      if x.ndim == 1:
        x.copy_(1 + 0.3 * noise)
      elif 'relative_attention_bias' in name or 'shared' in name:
        x.copy_(noise)
      else:
        x.copy_(noise / x.shape[1] ** 0.5)


@pytest.mark.parametrize('projection', ['relu', 'gated-gelu'])
@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'encoder'])
def test_equals_transformers(
    tmp_path, projection, tied, whole, record_property
):
  sizes = dict(
      vocab_size=100,
      d_model=24,
      d_kv=10,
      d_ff=40,
      num_layers=3,
      num_heads=4,
      feed_forward_proj=projection,
      tie_word_embeddings=tied,
  )
  config = transformers.T5Config(**sizes)
  kind = (
      transformers.T5ForConditionalGeneration
      if whole
      else transformers.T5EncoderModel
  )
  model = kind(config).eval()
  randomize(model)
  model.save_pretrained(tmp_path, max_shard_size='30KB' if whole else '1GB')
  assert whole == (tmp_path / 'model.safetensors.index.json').exists()

  ids = np.random.default_rng(0).integers(2, 100, (len(LENGTHS), max(LENGTHS)))
  mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
  ids = np.where(mask, ids, 0).astype(np.int32)
  with torch.no_grad():
    expected = model.get_encoder()(
        input_ids=torch.from_numpy(ids).long(),
        attention_mask=torch.from_numpy(mask).long(),
    ).last_hidden_state.numpy()

  ours, params = t5_weights.load_t5(tmp_path, num_pieces=100)
  assert ours.gated == (projection == 'gated-gelu')
  tokens = t5.make_encode(ours, params)(ids, mask)
  difference = np.abs(tokens - expected)[mask].max()
  record_property('largest difference', float(difference))
  print(f'{projection}, tied {tied}, whole {whole}: {difference:.2e}')
  np.testing.assert_allclose(tokens[mask], expected[mask], atol=1e-5)


@pytest.mark.parametrize('buckets, distance', [(32, 128), (8, 20), (64, 256)])
def test_buckets_equal_transformers_far_beyond_the_farthest(buckets, distance):
  position = torch.arange(2 * distance + 50)
  expected = modeling_t5.T5Attention._relative_position_bucket(
      position[None] - position[:, None],
      bidirectional=True,
      num_buckets=buckets,
      max_distance=distance,
  )
  got = attention.relative_buckets(len(position), buckets, distance)
  np.testing.assert_array_equal(got, expected.numpy())
