"""T5's vectors: prepare fills the cache, training and sampling read it."""
import shutil

from etils import epath
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import t5_files
from tests.unit.config import test_configs
from tests.unit.data.test_frame_cache import write_gif
from video_diffusion import prepare
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import text_inputs
from video_diffusion.data import shapes
from video_diffusion.data.builders import beam
from video_diffusion.data.builders import file_plans
from video_diffusion.inference import conditioning
from video_diffusion.text import embedding_files
from video_diffusion.text import t5_vectors
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokenizer_files

T5 = t5_files.GATED


@pytest.fixture(name='config')
def t5_config(tmp_path, make_t5):
  """Of moving_shapes with few captions, and a T5 on disk with its tokenizer."""
  config = test_configs.load('moving_shapes', 'text')
  folder = tmp_path / 't5'
  t5_files.write_hugging_face(folder, T5, make_t5(T5))
  pairs = [f'{c} {s}' for c in shapes.COLOURS for s in shapes.SHAPES]
  config.data.heldout_pairs = tuple(pairs[2:])
  config.data.frames, config.data.images = 2, 1
  config.text.update(
      encoder='t5', path=str(folder), dim=T5.dim, dir=str(tmp_path / 'cache')
  )
  words = ['a red circle moves right', 'a red square moves left']
  model = tokenizer_lib.train_tokenizer(words)
  (folder / 'spiece.model').write_bytes(model)
  # All captions that the test split could have would be thousands.
  config.data.test_clips = 2
  return config


@pytest.fixture(name='sources')
def few_captions(config, monkeypatch):
  """Both splits; the test split has captions of the two pairs as well."""
  seen = shapes.MovingShapes._pairs.func
  monkeypatch.setattr(
      shapes.MovingShapes, '_pairs',
      property(lambda self: [p for p in seen(self) if p[1] == 0 and p[0] < 2]),
  )
  return [inputs.make_source(config, split) for split in ('train', 'test')]


def test_prepare_fills_what_training_reads(config, sources, tmp_path, caplog):
  train, _ = sources
  workdir = tmp_path / 'run'
  with pytest.raises(ValueError, match='run --mode=prepare with this config'):
    text_inputs.open_text(config, epath.Path(workdir), train)
  with caplog.at_level('INFO'):
    prepare.prepare(config, str(workdir))
  assert '16 captions have vectors' in caplog.text
  text = text_inputs.open_text(config, epath.Path(workdir), train)
  batches = [
      list(inputs.make_batches(
          config_with(config, loader), train, start=start, stop=3, encode=text
      ))
      for loader, start in (
          ('threads', 0), ('tf', 0), ('threads', 2), ('processes', 2)
      )
  ]
  assert batches[0][0].keys() == {'video', 'captions', 'tokens', 'mask'}
  abstract = build.batch_shapes(config, build.make_model(config))
  for name in ('tokens', 'mask'):
    value = batches[0][0][name]
    assert value.shape == abstract[name].shape
    assert value.dtype == abstract[name].dtype
    for other in batches[1:]:
      np.testing.assert_array_equal(other[-1][name], batches[0][-1][name])
  caption = batches[0][2]['captions'][1, 1].decode()
  want, mask = text.cache.lookup([caption])
  np.testing.assert_array_equal(batches[0][2]['tokens'][1, 1], want[0])
  np.testing.assert_array_equal(batches[0][2]['mask'][1, 1], mask[0])
  assert want.dtype == jnp.bfloat16 and np.abs(want).max() > 0


def test_prepare_says_what_is_wrong_before_it_decodes(config, monkeypatch):
  monkeypatch.setattr(inputs, 'make_source', None)
  config.text.dim = 8
  with pytest.raises(ValueError, match='vectors of width 6, but text.dim is 8'):
    prepare.prepare(config, '')
  config.text.path = ''
  with pytest.raises(ValueError, match='text.path is empty; give the checkpo'):
    prepare.prepare(config, '')


def test_half_of_the_captions_are_not_enough_to_train(
    config, sources, tmp_path
):
  train, _ = sources
  text_inputs.prepare_t5(config, (c for s in sources for c in s.captions()))
  (file,) = (tmp_path / 'cache').glob('*/*.embeddings')
  file.unlink()
  # As after a kill, with a list of encoders from an earlier data set.
  rng = np.random.default_rng(0)
  some = [train.example(i, rng, 1)['caption'] for i in range(3)]
  tokenizer = tokenizer_lib.Tokenizer(
      tmp_path / 't5' / 'spiece.model', length=config.text.length
  )
  t5_vectors.fill(text_inputs.settings(config), tokenizer, some)
  with pytest.raises(ValueError, match='no embedding of .*run --mode=prepare'):
    text_inputs.open_text(config, epath.Path(tmp_path / 'run'), train)


def test_another_t5_under_the_same_path_is_noticed(
    config, sources, tmp_path, make_t5, caplog
):
  workdir, train = epath.Path(tmp_path / 'run'), sources[0]
  prepare.prepare(config, '')
  before = text_inputs.open_text(config, workdir, train)
  shutil.move(config.text.path, tmp_path / 'away')
  # Where there is none, training takes what was prepared.
  config.text.tokenizer = str(tmp_path / 'away' / 'spiece.model')
  again = text_inputs.open_text(config, workdir, train)
  assert again.fingerprint == before.fingerprint
  params = make_t5(T5)
  params['encoder']['encoder_norm']['scale'] = np.ones(6, np.float32)
  t5_files.write_hugging_face(tmp_path / 't5', T5, params)
  with pytest.raises(ValueError, match='run --mode=prepare with this config'):
    text_inputs.open_text(config, workdir, train)
  assert 'is not the one that it was' in caplog.text
  prepare.prepare(config, '')
  assert 'were made with another encoder: none of them is used' in caplog.text
  after = text_inputs.open_text(config, workdir, train)
  assert after.fingerprint != before.fingerprint
  caption = next(iter(train.captions()))
  new, old = (text([caption])['tokens'] for text in (after, before))
  assert np.any(new != old)


def test_t5_in_bfloat16_has_vectors_of_its_own(config, sources, tmp_path):
  workdir = epath.Path(tmp_path / 'run')
  exact = encode(config, workdir, ['a red circle'])
  config.text.dtype = 'bfloat16'
  rough = encode(config, workdir, ['a red circle'])
  mask = exact['mask']
  a, b = (x['tokens'][mask].astype(np.float32) for x in (exact, rough))
  assert 0 < np.abs(a - b).max() < 0.1
  assert len(list((tmp_path / 'cache').glob('*/settings.json'))) == 2


def test_a_t5_in_the_home_folder(config, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  config.text.path = '~/t5'
  text_inputs.check_t5(config)
  encoded = encode(config, epath.Path(tmp_path / 'run'), ['a red circle'])
  assert encoded['mask'].sum() == 4


def encode(config, workdir, captions):
  return text_inputs.make_encode(config, workdir)(captions)


def config_with(config, loader):
  config = config.copy_and_resolve_references()
  config.data.loader = loader
  return config


def test_prompts_are_embedded_where_they_are_new(config, tmp_path, monkeypatch):
  workdir = epath.Path(tmp_path / 'run')
  conditioner = conditioning.Conditioner(
      heldout=None, encode=text_inputs.make_encode(config, workdir)
  )
  prompts = ('a blue dog', 'a red circle')
  first = conditioner(3, prompts)
  assert first.captions == ('a blue dog', 'a red circle', 'a blue dog')
  assert first.arrays['tokens'].shape == (3, 1, 16, T5.dim)
  # The second time T5 is not read.
  monkeypatch.setattr(t5_vectors.t5_weights, 'load_t5', None)
  again = conditioner(3, prompts)
  np.testing.assert_array_equal(again.arrays['tokens'], first.arrays['tokens'])
  with pytest.raises(ValueError, match="a prompt is ' '; it must describe"):
    conditioner(1, (' ',))


def test_a_t5_that_cannot_be_used_is_one_sentence(
    config, sources, tmp_path, make_t5
):
  workdir = epath.Path(tmp_path / 'run')
  config.text.dim = 8
  with pytest.raises(ValueError, match='vectors of width 6, but text.dim is 8'):
    encode(config, workdir, ['a red circle'])
  config.text.dim = T5.dim
  good = config.text.path
  config.text.path = str(tmp_path / 'none' / 'none')
  with pytest.raises(ValueError, match='none does not exist; give the checkpo'):
    encode(config, workdir, ['a red circle'])
  bare = tmp_path / 'deep' / 'bare'
  shutil.copytree(good, bare)
  (bare / 'spiece.model').unlink()
  config.text.path = str(bare)
  with pytest.raises(ValueError, match='has no spiece.model or sentencepiece'):
    encode(config, workdir, ['a red circle'])
  # Of the right size, but not the run's.
  config.text.path = good
  prepare.prepare(config, str(workdir))
  text = text_inputs.open_text(config, workdir, sources[0])
  run_dir.claim(config, workdir, '', text.fingerprint)
  tokenizer_files.keep(text.tokenizer, workdir)
  assert encode(config, workdir, ['a red circle'])['mask'].any()
  other = make_t5(T5)
  other['token_embedder']['embedding'] = 2 * np.asarray(
      other['token_embedder']['embedding']
  )
  config.text.path = str(tmp_path / 'other')
  t5_files.write_hugging_face(tmp_path / 'other', T5, other)
  with pytest.raises(ValueError, match='another tokenizer or text encoder'):
    encode(config, workdir, ['a red circle'])


def test_a_caption_without_text_has_no_token(config, tmp_path):
  vectors = encode(config, epath.Path(tmp_path), ['a red circle', ' ', ''])
  assert vectors['mask'].any(axis=1).tolist() == [True, False, False]


@pytest.fixture(name='videos')
def config_of_videos_with_captions(config, tmp_path):
  """The videos are six and a broken one; the T5 embeds their captions."""
  pytest.importorskip('av')
  pytest.importorskip('tensorflow_datasets')
  folder = tmp_path / 'videos'
  for i in range(6):
    write_gif(folder / f'{i}.gif', 4, 10 * i)
  (folder / '6.gif').write_bytes(b'GIF89a but no more')
  lines = [f'{i}.gif,a red circle {i}' for i in range(7)]
  text = '\n'.join(['file,caption', *lines, ''])
  (folder / 'captions.csv').write_text(text)
  videos = test_configs.load('video_folder', 'laptop')
  videos.data.path, videos.data.dir = str(folder), str(tmp_path / 'data')
  videos.data.frames, videos.data.frameskips = 2, (1,)
  videos.text.update(config.text)
  for field in ('conditioning', 'cond_dim'):
    videos.model[field] = config.model[field]
  return videos


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_tasks_with_an_accelerator_embed_the_captions_of_their_files(
    videos, tmp_path, caplog, monkeypatch, backend
):
  """The backend is pretended; the call that packs finds what they embedded."""
  monkeypatch.setattr('jax.default_backend', lambda: backend)
  videos.prepare.tasks = 2
  shares = [
      sum(file_plans.share_of(f'{i}.gif', 2) == task for i in range(6))
      for task in range(2)
  ]
  assert all(shares)
  for task in range(2):
    videos.prepare.task = task
    prepare.prepare(videos, '')
  counts = []
  for file in (tmp_path / 'cache').glob('*/*.embeddings'):
    counts.append(len(embedding_files.read(file).digests))
  assert sorted(counts) == sorted(shares if backend == 'gpu' else [])
  videos.prepare.tasks = videos.prepare.task = 0
  with caplog.at_level('INFO'):
    prepare.prepare(videos, '')
  new = 0 if backend == 'gpu' else 6
  assert '6 captions have vectors in' in caplog.text
  assert f': {new} are new' in caplog.text


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_workers_of_beam_with_an_accelerator_embed_captions(
    videos, tmp_path, caplog, monkeypatch, backend
):
  """Two threads are the workers; the backend is pretended."""
  pytest.importorskip('apache_beam')
  captions = [f'a red circle {i}' for i in range(6)]

  def vectors(folder):
    videos.text.dir = str(tmp_path / folder)
    prepare.prepare(videos, '')
    settings = text_inputs.settings(videos)
    tokenizer = tokenizer_files.find(settings)
    return t5_vectors.known_vectors(settings, tokenizer).cache.lookup(captions)

  alone = vectors('alone')
  monkeypatch.setattr('jax.default_backend', lambda: backend)
  monkeypatch.setattr(text_inputs, 'CAPTIONS_OF_A_LINE', 2)
  monkeypatch.setattr(beam, 'LOCAL_RUNNERS', ())
  videos.prepare.runner = 'beam'
  videos.prepare.beam_options = (
      f'--runner={beam.LOCAL_RUNNER} --direct_num_workers=2 '
      '--direct_running_mode=multi_threading'
  )
  caplog.clear()
  with caplog.at_level('INFO'):
    shared = vectors('shared')
  for one, other in zip(alone, shared, strict=True):
    np.testing.assert_array_equal(one, other)
  # Read once by the workers, and by the call that looks what is missing.
  assert caplog.text.count('Reading the T5') == (2 if backend == 'gpu' else 1)
  new = 0 if backend == 'gpu' else 6
  assert f'6 captions have vectors in {tmp_path}/shared' in caplog.text
  assert f': {new} are new' in caplog.text
  assert caplog.text.count(': 2 are new') == (3 if backend == 'gpu' else 0)
  assert not [*tmp_path.rglob('*.todo')]
