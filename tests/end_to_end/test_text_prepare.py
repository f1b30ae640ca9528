"""--mode=prepare of a run with T5, killed half-way and made again."""
import dataclasses
import re

import numpy as np

from tests.support import t5_files
from tests.support.waiting import until
from tests.unit.config import test_configs
from video_diffusion.config import inputs
from video_diffusion.text import embedding_files
from video_diffusion.text import tokenizer as tokenizer_lib

# Slow enough to be killed at work.
T5 = dataclasses.replace(
    t5_files.GATED, vocab_size=64, num_layers=4, num_heads=8, mlp_dim=256
)


def wait_for_files(process, cache, number):
  """Until so many files of embeddings are there."""
  until(
      lambda: len(list(cache.glob('*/[!.]*.embeddings'))) >= number, process
  )


def test_a_killed_prepare_is_taken_up(
    start_main, run_main_here, make_t5, tmp_path
):
  config = test_configs.load('moving_shapes', 'text')
  source = inputs.make_source(config, 'test')
  texts = set(source.captions())
  folder, cache = tmp_path / 't5', tmp_path / 'cache'
  t5_files.write_hugging_face(folder, T5, make_t5(T5))
  (folder / 'spiece.model').write_bytes(tokenizer_lib.train_tokenizer(texts))
  flags = [
      '--config=configs/moving_shapes.py:text', '--mode=prepare',
      '--config.text.encoder=t5', f'--config.text.path={folder}',
      f'--config.text.dim={T5.dim}', f'--config.text.dir={cache}',
      f'--workdir={tmp_path / "run"}',
  ]
  process = start_main(*flags, tiny=False)
  wait_for_files(process, cache, 2)
  process.kill()  # SIGKILL
  output, _ = process.communicate()
  assert process.returncode == -9 and 'embedding captions' in output

  def stored():
    """Digests of the captions of all whole files, perhaps repeated."""
    paths = cache.glob('*/[!.]*.embeddings')
    files = [embedding_files.read(path) for path in paths]
    return np.concatenate([file.digests for file in files]).tolist()

  kept = stored()
  assert 0 < len(kept) < len(texts)
  code, output = run_main_here(*flags, tiny=False)
  assert code == 0, output
  total, new = map(
      int, re.search(r'(\d+) captions have .*: (\d+) are new', output).groups()
  )
  assert total == len(texts) and new == total - len(kept)
  # All are there, and none twice: what was kept was not computed again.
  wanted = {embedding_files.digest(text) for text in texts}
  assert len(stored()) == total and set(stored()) == wanted
