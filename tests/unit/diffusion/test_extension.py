import itertools

import pytest

from video_diffusion.diffusion import extension


def check(plan, block_frames, model=0):
  """Every block knows only what is there, and draws something; all is drawn."""
  have = set(plan.given)
  for block in plan.blocks:
    if block.model != model:
      continue
    assert len(block.frames) == len(block.known) == block_frames
    assert len(block.low_res) == block_frames
    assert list(block.frames) == sorted(set(block.frames))
    known = {f for f, k in zip(block.frames, block.known, strict=True) if k}
    assert known == have & set(block.frames)
    assert known != set(block.frames)
    have |= set(block.frames)
  assert have == set(range(plan.num_frames))


@pytest.mark.parametrize(
    'num_frames, overlap, num_given, backwards',
    [
        *itertools.product(
            (16, 17, 30, 64), (1, 8, 15), (0, 3, 15), (False, True)
        )
    ],
)
def test_extension_covers_every_frame(
    num_frames, overlap, num_given, backwards
):
  plan = extension.extend(
      num_frames,
      block_frames=16,
      overlap=overlap,
      num_given=num_given,
      backwards=backwards,
  )
  check(plan, 16)
  assert plan.num_frames == num_frames and len(plan.given) == num_given


def test_the_64_frames_of_the_paper():
  plan = extension.extend(64, block_frames=16, overlap=8)
  assert [b.frames[0] for b in plan.blocks] == list(range(0, 49, 8))
  assert [sum(b.known) for b in plan.blocks] == [0] + [8] * 6
  assert plan.blocks[1].known == (True,) * 8 + (False,) * 8
  back = extension.extend(64, block_frames=16, overlap=8, backwards=True)
  assert [b.frames[0] for b in back.blocks] == list(range(48, -1, -8))
  assert back.blocks[1].known == (False,) * 8 + (True,) * 8


def test_the_last_block_ends_with_the_video():
  plan = extension.extend(20, block_frames=16, overlap=8)
  assert [b.frames[0] for b in plan.blocks] == [0, 4]
  assert sum(plan.blocks[1].known) == 12


@pytest.mark.parametrize(
    'num_given, factor', [(9, 2), (5, 4), (20, 3), (3, 15)]
)
def test_interpolation_covers_every_frame(num_given, factor):
  plan = extension.interpolate(num_given, factor=factor, block_frames=16)
  check(plan, 16)
  assert plan.given == tuple(range(0, plan.num_frames, factor))
  assert len(plan.given) == num_given
  # Every drawn frame lies between two given ones of its block.
  for block in plan.blocks:
    assert block.known[0] or plan.blocks[-1] is block


def test_super_resolution():
  plan = extension.super_resolve(30, block_frames=16, overlap=8)
  check(plan, 16)
  assert all(all(block.low_res) for block in plan.blocks)


def test_the_cascade_of_the_paper():
  plan = extension.cascade(64, base_frames=16, stride=4, block_frames=9)
  base, opening, *fine = plan.blocks
  assert base.frames == tuple(range(0, 64, 4)) and not any(base.known)
  # Drawn for frame 0 alone, which the next block of the same frames knows.
  assert opening.frames == fine[0].frames and not any(opening.known)
  assert opening.low_res == fine[0].low_res and opening.model == 1
  assert len(fine) == 8 and {b.model for b in fine} == {1}
  assert [b.frames[0] for b in fine] == [0, 8, 16, 24, 32, 40, 48, 55]
  assert [sum(b.known) for b in fine] == [1] * 7 + [2]
  assert [sum(b.low_res) for b in fine[:7]] == [3] * 7
  check(extension.Plan(64, (0,), tuple(fine)), 9, model=1)


def test_a_cascade_keeps_only_the_frame_that_has_a_partner():
  """Whatever the overlap, and in a video of one block."""
  plan = extension.cascade(
      9, base_frames=3, stride=4, block_frames=9, overlap=4
  )
  assert [sum(b.known) for b in plan.blocks] == [0, 0, 1]


def test_frame_by_frame():
  plan = extension.frame_by_frame(7, block_frames=4, context_frames=3)
  first, *others = plan.blocks
  assert first == extension.Block((0, 1, 2, 3), (False,) * 4, (False,) * 4)
  assert [block.frames for block in others] == [(4,), (5,), (6,)]
  assert [block.context for block in others] == [
      (1, 2, 3), (2, 3, 4), (3, 4, 5)
  ]
  assert not any(any(b.known) or any(b.low_res) for b in plan.blocks)
  # One given frame is enough; what is before it is not there.
  plan = extension.frame_by_frame(
      4, block_frames=4, context_frames=3, num_given=1
  )
  assert plan.given == (0,)
  assert [block.context for block in plan.blocks] == [
      (-1, -1, 0), (-1, 0, 1), (0, 1, 2)
  ]


@pytest.mark.parametrize(
    'make, sentence',
    [
        (lambda: extension.extend(64, block_frames=16, overlap=16), 'overlap'),
        (lambda: extension.extend(64, block_frames=16, overlap=0), 'overlap'),
        (
            lambda: extension.extend(
                32, block_frames=16, overlap=8, num_given=32
            ),
            'nothing left to sample',
        ),
        (lambda: extension.extend(9, block_frames=16, overlap=8), 'one block'),
        (
            lambda: extension.frame_by_frame(
                8, block_frames=16, context_frames=4, num_given=8
            ),
            'nothing left to sample',
        ),
        (
            lambda: extension.interpolate(4, factor=1, block_frames=16),
            'at least 2',
        ),
        (
            lambda: extension.interpolate(4, factor=16, block_frames=16),
            'at most 14 fit',
        ),
        (
            lambda: extension.interpolate(2, factor=2, block_frames=16),
            'a block needs 16',
        ),
        (
            lambda: extension.cascade(
                65, base_frames=16, stride=4, block_frames=9
            ),
            'from 61 to 64',
        ),
    ],
)
def test_lengths_that_do_not_fit_are_one_sentence(make, sentence):
  with pytest.raises(ValueError) as error:
    make()
  assert sentence in str(error.value) and '\n' not in str(error.value)
