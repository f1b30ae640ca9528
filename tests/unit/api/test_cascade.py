import ml_collections
import pytest

from video_diffusion.api import cascade as cascade_lib
from video_diffusion.errors import ArgumentError


@pytest.mark.parametrize(
    'base, fine, good',
    [
        (((4,), 0.0), ((1,), 0.0), True),
        (((1, 4), 0.0), ((1,), 0.0), True),
        (((1,), 0.0), ((1,), 0.0), False),
        (((1,), 6.0), ((1,), 24.0), True),
        (((4,), 6.0), ((1,), 24.0), False),
        (((1,), 6.0), ((1,), 0.0), True),  # not to be compared
    ],
)
def test_the_stride_of_a_cascade_is_that_of_its_clips(base, fine, good):
  base, fine = (
      ml_collections.ConfigDict({'frameskips': skips, 'fps': fps})
      for skips, fps in (base, fine)
  )
  if good:
    cascade_lib.check_stride(4, base, fine)
  else:
    with pytest.raises(ArgumentError, match='set it to their ratio') as error:
      cascade_lib.check_stride(4, base, fine)
    assert ('seconds' in str(error.value)) == bool(base.fps)
