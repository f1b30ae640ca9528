"""Opens video files that are real containers, and decodes them by libav.

PyAV is imported when the first file is opened.
"""
from collections.abc import Iterator
import contextlib
import fractions
import os
from typing import Any, NamedTuple

from video_diffusion.data import limits as limits_lib
from video_diffusion.data.limits import VideoError

# Demuxers of files that hold video themselves. Off are those that open what
# else a file names (concat, hls, dash, image2), that take any text for video
# (tty and other text formats), and devices. The content decides, not the name.
DEMUXERS = (
    'mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm', 'avi', 'gif', 'asf', 'flv',
    'mpeg', 'mpegts', 'mpegvideo', 'm4v', 'ogg', 'mxf', 'dv', 'rm', 'nut',
    'ivf', 'yuv4mpegpipe', 'apng',
)
# Containers round times, Matroska to a millisecond: a frame counts as shown
# this much before its time, in seconds.
TIME_TOLERANCE = 1e-3
# A longer pause between two frames is taken for a broken time stamp.
LONGEST_PAUSE = 60.0
DEFAULT_RATE = 25.0  # where a file names none
# A pixel that is longer than this in either direction is a broken tag.
LONGEST_PIXEL = 4


class Decoded(NamedTuple):
  """A frame as the file stores it.

  Attributes:
    frame: libav's.
    end: seconds from the start of the first frame to the end of this one.
    aspect: width of its pixels by their height.
    notes: sentences about what was done or passed over, for the report.
  """

  frame: Any
  end: float
  aspect: fractions.Fraction
  notes: tuple[str, ...]


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, limits: limits_lib.Limits = limits_lib.DEFAULT
) -> Iterator[Any]:
  """libav's container of a file, its content being one of DEMUXERS.

  Raises:
    VideoError: it cannot be opened, or is none.
  """
  import av

  # Tags in an old encoding must not make a file unreadable; PyAV has no such
  # argument from 19 on.
  old = int(av.__version__.partition('.')[0]) < 19
  tags = {'metadata_errors': 'replace'} if old else {}
  options = {
      'format_whitelist': ','.join(DEMUXERS),
      'protocol_whitelist': 'file',
      'enable_drefs': '0',  # files in which a QuickTime movie has its samples
      # libav looks into frames as it opens a file, and allocates them.
      **_allocation(limits),
  }
  try:
    # libav takes what stands before a colon for a protocol unless the name
    # is absolute.
    container = av.open(os.path.abspath(path), 'r', options=options, **tags)
  except av.ArgumentError as error:  # a format that is not on the list
    raise VideoError(
        path, 'Invalid data: its content is no video container of a known kind'
    ) from error
  except av.FFmpegError as error:
    raise VideoError(path, error.strerror) from error
  with container:
    yield container


def description(path: str | os.PathLike) -> str:
  """Returns the description in the metadata of a video file, or ''.

  Raises:
    VideoError: see `opened`.
  """
  with opened(path) as container:
    # GIF has comments only.
    tags = container.metadata
    return tags.get('description') or tags.get('comment', '')


def decode(
    path: str | os.PathLike, limits: limits_lib.Limits = limits_lib.DEFAULT
) -> Iterator[Decoded]:
  """Yields the frames of the first stream that is no attached picture.

  Interlaced frames, as they are flagged, are deinterlaced, one for one.

  Raises:
    VideoError: see `video.read_timed`.
  """
  import av

  count = pixels = 0
  with opened(path, limits) as container:
    stream = _stream(path, container)
    size = os.path.getsize(path)
    _check_header(path, container, stream, size, limits)
    stream.codec_context.thread_count = 1
    stream.codec_context.options = _allocation(limits)
    aspect, notes = _aspect(stream)
    clock = _Clock(1 / float(stream.average_rate or DEFAULT_RATE))
    held = None  # shown until the next one comes
    deinterlacer = _Deinterlacer()
    try:
      for frame in deinterlacer.frames(container.decode(stream)):
        count += 1
        pixels += frame.height * frame.width
        start = clock.start(frame)
        height, width = square_size(frame, aspect)
        limits.check(
            path, height=height, width=width, frames=count, seconds=start,
            pixels=pixels, size=size,
        )
        if held is not None:
          yield Decoded(held, start, aspect, notes + deinterlacer.notes)
        held = frame
    except av.ArgumentError as error:  # what libav says of frames too large
      raise limits_lib.LimitError(
          path,
          f'after {count} frames libav refuses one, perhaps for its size, '
          f'which data.max_pixels, {limits.pixels}, limits',
      ) from error
    except av.FFmpegError as error:
      after = f' after {count} frames' if count else ''
      raise VideoError(path, f'{error.strerror}{after}') from error
    if held is None:
      raise VideoError(path, 'it holds no frames')
    yield Decoded(held, clock.end(), aspect, notes + deinterlacer.notes)


def _allocation(limits) -> dict[str, str]:
  """libav's own limit, which bounds its memory; it counts padded rows."""
  return {'max_pixels': str(2 * limits.pixels + 2**20)}


def square_size(
    frame: Any, aspect: fractions.Fraction
) -> tuple[int, int]:
  """(rows, columns) at which the frame has square pixels, none lost."""
  if aspect >= 1:
    return frame.height, round(frame.width * aspect)
  return round(frame.height / aspect), frame.width


def _stream(path, container):
  """The video stream to read: not libav's "best", which is the largest."""
  import av

  cover = av.stream.Disposition.attached_pic
  for stream in container.streams.video:
    if not stream.disposition & cover:
      if stream.codec_context is None:
        raise VideoError(path, 'libav has no decoder for its codec')
      return stream
  raise VideoError(path, 'it holds no video stream')


def _check_header(path, container, stream, size, limits):
  """Raises LimitError where the header claims more than is allowed."""
  seconds = 0.0
  if stream.duration and stream.time_base:
    seconds = float(stream.duration * stream.time_base)
  elif container.duration:
    seconds = container.duration / 1e6
  context = stream.codec_context
  limits.check(
      path,
      height=context.height,
      width=context.width,
      frames=stream.frames,
      seconds=seconds,
      pixels=context.height * context.width * stream.frames,
      size=size,
  )


def _aspect(stream) -> tuple[fractions.Fraction, tuple[str, ...]]:
  """(width of a pixel by its height, notes); the container's tag comes first.

  libav turns the aspect of a whole picture, as Matroska has it, into this.
  """
  square = fractions.Fraction(1)
  aspect = stream.sample_aspect_ratio or square
  if not fractions.Fraction(1, LONGEST_PIXEL) <= aspect <= LONGEST_PIXEL:
    ratio = f'{aspect.numerator}:{aspect.denominator}'
    return square, (f'pixels of {ratio}, taken for square ones',)
  return aspect, ()


class _Deinterlacer:
  """Takes the lines of one field from each interlaced frame, by libav's bwdif.

  The other lines are made of these and of the neighbours in time.

  Attributes:
    notes: sentences for the report, once a frame was interlaced.
  """

  def __init__(self):
    self.notes = ()
    self._graph = self._form = None

  def frames(self, frames: Iterator[Any]) -> Iterator[Any]:
    """The frames, one for one, progressive ones as they are."""
    for frame in frames:
      form = frame.width, frame.height, frame.format.name, frame.time_base
      if self._graph is not None and form != self._form:
        yield from self._rest()
      if self._graph is None and frame.interlaced_frame:
        self._start(frame, form)
      if self._graph is None:
        yield frame
      else:
        self._graph.vpush(frame)
        yield from self._pull()
    if self._graph is not None:
      yield from self._rest()

  def _start(self, frame, form):
    import av

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format,
            time_base=frame.time_base,
        ),
        graph.add('bwdif', 'mode=send_frame:deint=interlaced'),
        graph.add('buffersink'),
    ).configure()
    self._graph, self._form = graph, form
    self.notes = ('deinterlaced',)

  def _pull(self):
    import av

    while True:
      try:
        yield self._graph.vpull()
      except (av.BlockingIOError, av.EOFError):
        return

  def _rest(self):
    """What the filter still holds; then it is gone."""
    self._graph.vpush(None)
    yield from self._pull()
    self._graph = None


class _Clock:
  """Times of presentation that always grow, in seconds from the first."""

  def __init__(self, step: float):
    self._step = step  # how long the newest frame is shown, as far as known
    self._origin = self._now = None

  def start(self, frame) -> float:
    time = frame.time
    if self._now is None:
      self._now, self._origin = 0.0, time
    else:
      ahead = None
      if time is not None and self._origin is not None:
        ahead = time - self._origin - self._now
      if ahead is not None and 0 < ahead <= LONGEST_PAUSE:
        self._step = ahead
      elif time is not None:
        # The times that follow go on from here.
        self._origin = time - self._now - self._step
      self._now += self._step
    length = float((frame.duration or 0) * (frame.time_base or 0))
    if 0 < length <= LONGEST_PAUSE:
      self._step = length
    return self._now

  def end(self) -> float:
    return self._now + self._step
