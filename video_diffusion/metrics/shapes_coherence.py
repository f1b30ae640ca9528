"""Whether clips of moving_shapes hold together: objects that stay the same.

All figures are this project's own. Frames are read one by one, by
`shapes_reader.ShapesReader.shapes`; no label is needed, as frame 0 says which
objects a clip has.
"""
import numpy as np

KINDS = {'one': 1, 'two': 2}  # objects in frame 0


def figures(found: np.ndarray) -> dict[str, float | None]:
  """Figures of a set of clips.

  Args:
    found: int [n, time, colours]: the shape of the object of each colour in
      each frame, -1 where there is none.

  Returns:
    For 'one' and for 'two', the number of objects in frame 0:
    'one': the share of such clips among all. Real clips are either.
    'one_kept': the share, among such clips, of those in which every frame has
      exactly the objects of frame 0, each of the same shape and colour.
    'one_colours': the same, whatever the shapes.
    'one_last': the share, among such clips, of those whose last frame has each
      object of frame 0, with its shape and colour, and perhaps further ones.
    All but the first are None where there is no such clip.
  """
  first, last = found[:, :1], found[:, -1]
  shown = first >= 0
  count = shown.sum((1, 2))
  judged = {
      'kept': (found == first).all((1, 2)),
      'colours': ((found >= 0) == shown).all((1, 2)),
      'last': ((last == first[:, 0]) | ~shown[:, 0]).all(1),
  }
  values = {}
  for kind, objects in KINDS.items():
    clips = count == objects
    values[kind] = float(clips.mean())
    for name, good in judged.items():
      values[f'{kind}_{name}'] = (
          float(good[clips].mean()) if clips.any() else None
      )
  return values
