"""Runs that commit 66b070e trained, and the videos that one of them saw.

tests/data/run_66b070e/README.md says how they were made.
"""
import pathlib
import zipfile

import numpy as np
import PIL.Image

from tests.support.paths import ROOT

STORED = ROOT / 'tests' / 'data' / 'run_66b070e'
# Nothing is resized, and no frame has more colours than a GIF keeps.
COLOURS = ((230, 40, 40), (40, 230, 40), (40, 40, 230), (230, 230, 40))


def write_videos(folder: pathlib.Path) -> None:
  """Four GIFs of six frames, 8x8: a square moves right, each in its colour.

  A GIF keeps these frames without loss: every version of Pillow gives the same
  pixels, if perhaps not the same bytes.
  """
  folder.mkdir(parents=True)
  for number, colour in enumerate(COLOURS):
    frames = np.full((6, 8, 8, 3), 20, np.uint8)
    for i, frame in enumerate(frames):
      frame[2 + number // 2 :, i : i + 3] = colour
    first, *others = [
        PIL.Image.fromarray(f).quantize(colors=4) for f in frames
    ]
    first.save(
        folder / f'{number}.gif', save_all=True, append_images=others,
        duration=125,
    )


def unpack(name: str, folder: pathlib.Path) -> pathlib.Path:
  """Unpacks the stored run `name` into a folder; returns the run's folder."""
  with zipfile.ZipFile(STORED / f'{name}.zip') as archive:
    archive.extractall(folder)
  return folder / name


_TINY = (
    'data.frames=2',
    'data.images=1',
    'data.height=8',
    'data.width=8',
    'batch_size=4',
    'model.base_channels=4',
    'model.channel_mults=(1,)',
    'model.num_blocks=1',
    'model.attention_resolutions=(8,)',
    'model.head_dim=4',
    'model.emb_dim=4',
    'model.emb_layers=1',
    'optim.lr=0.02',
    'optim.warmup_steps=1',
    'optim.schedule=constant',
    'log.every=1',
    'log.eval_every=0',
    'log.sample_every=0',
    'checkpoint.every=2',
    'checkpoint.keep=1',
    'checkpoint.export=float32',
    'eval.num_clips=1',
    'eval.batch_size=1',
    'sample.num_videos=2',
    'sample.batch_size=2',
    'sample.num_steps=2',
)
# The name of a stored run -> the flags that trained it, but for its steps.
FLAGS = {
    name: [config, *(f'--config.{field}' for field in (*own, *_TINY))]
    for name, config, own in (
        (
            'folder', '--config=configs/video_folder.py:laptop',
            ('data.path=videos', 'data.dir=records', 'data.frameskips=(1,)',
             'data.clip_frames=6', 'data.epoch=clips'),
        ),
        (
            'shapes', '--config=configs/moving_shapes.py',
            ('data.radius=0.25', 'model.cond_dim=2', 'model.group_size=1',
             'optim.name=adam'),
        ),
    )
}
