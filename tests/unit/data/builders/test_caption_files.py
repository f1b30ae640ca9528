"""Caption files: what is written is read, and damage is told, never guessed."""
import contextlib
import csv
import io
import json
import logging
import os
import pathlib
import random
import re
import unicodedata

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.support import damaged
from tests.support.paths import ROOT
from video_diffusion.data import text_files
from video_diffusion.data.builders import caption_files
from video_diffusion.errors import UserError

FAULTS = ROOT.parent / 'shared' / 'data' / 'faults'
SETTINGS = hypothesis.settings(
    max_examples=100, deadline=None, derandomize=True, database=None
)
FILES = (
    'v0.mp4', 'deep/er/v1.MP4', 'a, b.gif', 'say "hi".webm', 'ü 字.mov', '-.png'
)
VIDEOS = tuple(f'v{i}.mp4' for i in range(6))
# Characters that mean something to CSV and JSON, and all others of Unicode.
TEXTS = st.text(
    st.sampled_from('ab ,;"\\\'\n\t{}:é字\u2028\x85\x0c\U0001f600')
    | st.characters(exclude_categories=['Cs'], exclude_characters='\0\r'),
    max_size=12,
).map(str.strip)
ROWS = st.dictionaries(st.sampled_from(FILES), TEXTS, min_size=1)


@st.composite
def csv_files(draw):
  """({file: caption}, the CSV file that csv.writer makes of it)."""
  end = draw(st.sampled_from(['\n', '\r\n', '\r']))
  rows = {
      file: caption.replace('\n', end) for file, caption in draw(ROWS).items()
  }
  columns = draw(st.permutations(
      ['file', 'caption', *draw(st.sampled_from([[], ['id'], ['', 'x, y']]))]
  ))
  buffer = io.StringIO()
  writer = csv.writer(
      buffer,
      lineterminator=end,
      quoting=draw(st.sampled_from(
          [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]
      )),
  )
  writer.writerow(columns)
  for file, caption in rows.items():
    known = {'file': file, 'caption': caption}
    writer.writerow([
        known[c] if c in known else draw(st.sampled_from(['', '7', 'p, "q"']))
        for c in columns
    ])
  mark = draw(st.sampled_from(['', '\ufeff']))
  return rows, (mark + buffer.getvalue()).encode()


@st.composite
def jsonl_files(draw):
  """({file: caption}, a JSON lines file of it)."""
  rows, end = draw(ROWS), draw(st.sampled_from(['\n', '\r\n']))
  ascii_only = draw(st.booleans())
  lines = [
      json.dumps({'file': f, 'caption': c, 'id': 7}, ensure_ascii=ascii_only)
      for f, c in rows.items()
  ]
  return rows, ''.join(line + end for line in lines).encode()


@contextlib.contextmanager
def warnings():
  """Collects the sentences that are logged."""
  said, handler = [], logging.Handler()
  handler.emit = lambda record: said.append(record.getMessage())
  logging.getLogger().addHandler(handler)
  try:
    yield said
  finally:
    logging.getLogger().removeHandler(handler)


@pytest.fixture(name='folder', scope='module')
def one_folder(tmp_path_factory):
  return tmp_path_factory.mktemp('captions')


def read(path, content):
  path.write_bytes(content)
  return {row.file: row.caption for row in caption_files.read(path)}


def check_damaged(path, rows, content):
  """Each file has the caption that was written, or a line is named."""
  with warnings() as said:
    try:
      found = read(path, content)
    except UserError as error:
      assert re.match(rf'{path}, line [1-9]\d*: [^\n]*\.$', str(error))
      return
  if any(f'{path}, line ' in sentence for sentence in said):
    found.popitem()  # the last row is told to be uncertain
  for file, caption in found.items():
    assert caption == rows[file], (file, content)


@SETTINGS
@hypothesis.given(csv_files())
def test_what_csv_writer_writes_is_read(folder, file):
  rows, content = file
  assert read(folder / 'captions.csv', content) == rows


@SETTINGS
@hypothesis.given(jsonl_files())
def test_what_json_writes_is_read(folder, file):
  rows, content = file
  assert read(folder / 'captions.jsonl', content) == rows


@pytest.mark.parametrize('damage', damaged.CSV, ids=lambda d: d.__name__)
@SETTINGS
@hypothesis.given(file=csv_files(), seed=st.integers(0, 2**32))
@hypothesis.example(
    file=(
        {'v0.mp4': 'a, b', '-.png': 'c, d'},
        b'file,caption\nv0.mp4,"a, b"\n-.png,"c, d"\n',
    ),
    seed=0,
)
def test_a_damaged_csv_has_its_captions_or_a_line_is_named(
    folder, damage, file, seed
):
  rows, content = file
  broken = damage(content, random.Random(seed))
  check_damaged(folder / 'captions.csv', rows, broken)


@pytest.mark.parametrize('damage', damaged.JSONL, ids=lambda d: d.__name__)
@SETTINGS
@hypothesis.given(file=jsonl_files(), seed=st.integers(0, 2**32))
def test_a_damaged_jsonl_has_its_captions_or_a_line_is_named(
    folder, damage, file, seed
):
  rows, content = file
  broken = damage(content, random.Random(seed))
  check_damaged(folder / 'captions.jsonl', rows, broken)


@SETTINGS
@hypothesis.given(
    file=csv_files() | jsonl_files(), seed=st.integers(0, 2**32),
    suffix=st.sampled_from(['csv', 'jsonl']),
)
def test_no_bytes_end_in_a_traceback(folder, file, seed, suffix):
  content = damaged.any_bytes(file[1], random.Random(seed))
  path = folder / f'captions.{suffix}'
  with contextlib.suppress(UserError):
    read(path, content)
    caption_files.match(caption_files.read(path), FILES, path=path)


@pytest.mark.parametrize('damage, content', [
    (damage, content)
    for damages, content in (
        (damaged.CSV, b'file,caption\r\nv0.mp4,"a ""b"", c"\r\nv1.mp4,"d"\r\n'),
        (damaged.JSONL, b'{"file": "v0.mp4", "caption": "a \\"b\\""}\n' * 2),
    )
    for damage in damages
], ids=lambda value: getattr(value, '__name__', ''))
def test_every_damage_does_damage(damage, content):
  """Else the properties would say nothing."""
  rng = random.Random(0)
  assert len({damage(content, rng) for _ in range(20)} - {content}) > 0


@pytest.mark.parametrize('name, sentence', [
    ('captions_unquoted_comma.csv',
     'line 2: it has more fields than columns; put quotes around captions that '
     'hold commas.'),
    ('captions_open_quote.csv',
     'line 2: a quote opens here and is never closed;'),
    ('captions_cp1252.csv',
     'line 2: its byte 0xE9 is not UTF-8; save the file as UTF-8.'),
    ('captions_semicolon.csv',
     "line 1: its columns are 'file;caption'; the first line must name the "
     'columns file and caption, separated by commas; this line seems to have '
     'semicolons.'),
    ('captions_absolute.csv',
     'none of its 6 captions names a file of {folder}, for instance '
     "'/data/videos/v0.mp4' on line 2; the nearest file is 'v0.mp4'; write "
     "names relative to that folder, such as 'v0.mp4'."),
])
@pytest.mark.skipif(not FAULTS.is_dir(), reason='the faulty files are absent')
def test_files_that_people_had(tmp_path, name, sentence):
  path = tmp_path / 'captions.csv'
  path.write_bytes((FAULTS / name).read_bytes())
  with pytest.raises(UserError) as error:
    caption_files.match(caption_files.read(path), VIDEOS, path=path)
  assert sentence.format(folder=tmp_path) in str(error.value)
  assert str(path) in str(error.value)


@pytest.mark.parametrize('content, sentence', [
    ('file,caption\nv0.mp4,"a\nv1.mp4,"b"\n',
     'line 2: a quote opens here and closes on line 3, and text follows'),
    ('file,caption\nv0.mp4,"a\nv1.mp4,b"\n',
     "line 2: a quote opens here, and the text up to the next one holds 'v1"),
    ('file,caption\nv0.mp4,"a" b\n', 'line 2: a quote opens here, and text'),
    ('file,caption\n\nv0.mp4,a 5" disk\n', 'line 3: a quote stands within'),
    ('file,caption\nv0.mp4,"two\nlines"\nv1.mp4,b,c\n', 'line 4: it has more'),
    ('file,caption\nv0.mp4\n', 'line 2: it must have the columns file and'),
    ('file,caption,more\nv0.mp4,a\n', 'fewer fields than columns, 2 of 3.'),
    ('file,caption\n,a\n', "line 2: its file is ''"),
    ('file,caption\n"v0.mp4\nv1.mp4",a\n', 'line 2: a quote opens here'),
    ('"v\n0",caption\n', "line 1: its columns are 'v\\n0', 'caption'"),
    ('file,caption,file\n', 'line 1: it names the column file twice.'),
    ('"file"\t"caption"\n', 'line 1: its columns are \'"file"\\t"caption"\';'),
    ('\n \r\nfile;caption\n', "line 3: its columns are 'file;caption'; the"),
    ('\n \nname,text\n', "line 3: its columns are 'name', 'text'; the"),
    ('name|text\na|b\n', 'this line seems to have vertical bars.'),
    ('v0.mp4,a red ball\n', "line 1: its columns are 'v0.mp4', 'a red ball'"),
    ('file,caption\n', 'line 1: it holds no caption'),
    ('file,caption\nv0.mp4,a\0b\n', 'line 2: it holds a zero byte'),
])
def test_a_wrong_csv_is_refused_with_its_line(tmp_path, content, sentence):
  with pytest.raises(UserError) as error:
    read(tmp_path / 'captions.csv', content.encode())
  assert sentence in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('line, sentence', [
    ('{"file": "a"', 'but it is cut or no JSON'),
    ('{"file": "a", "caption": "b"}{}', 'it is cut or no JSON (Extra data)'),
    ('["a"]', 'but it is no JSON object.'),
    ('{"file": "a"}', 'but has no caption.'),
    ('{"file": "a", "caption": null}', 'but its caption is None.'),
    ('{"file": "a", "caption": NaN}', 'but its caption is nan.'),
    ('{"file": "a", "caption": "b", "caption": "c"}',
     "but it cannot be read (the field 'caption' stands there twice)."),
    ('{"file": "a", "caption": "\\ud800"}', 'holds a character that is no'),
    ('{"file": "a", "caption": "\\u0000"}', 'holds a character that is no'),
    ('[' * 100_000, 'but it cannot be read (maximum recursion'),
])
def test_a_wrong_jsonl_is_refused_with_its_line(tmp_path, line, sentence):
  first = '{"file": "v0.mp4", "caption": "good", "score": NaN}\n\n'
  with pytest.raises(UserError) as error:
    read(tmp_path / 'captions.jsonl', (first + line).encode())
  assert 'captions.jsonl, line 3: ' in str(error.value)
  assert sentence in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-be', 'utf-32'])
@pytest.mark.parametrize('name', ['captions.csv', 'captions.jsonl'])
def test_other_encodings_are_named(tmp_path, encoding, name):
  with pytest.raises(UserError, match='line 1: it .*; save the file as UTF-8'):
    read(tmp_path / name, 'file,caption\nv0.mp4,a\n'.encode(encoding))


def test_a_file_that_may_be_cut_is_told(tmp_path):
  path = tmp_path / 'captions.csv'
  with warnings() as said:
    assert read(path, b'file,caption\nv0.mp4,a red b') == {'v0.mp4': 'a red b'}
    assert read(path, b'file,caption\nv0.mp4,a red b\n') == {
        'v0.mp4': 'a red b'
    }
  assert said == [
      f'{path}, line 2: the file ends without a line end, as one that was cut '
      "does; check that its last field, 'a red b', is whole."
  ]


def match(folder, rows, names):
  """(captions by name, report, warnings) of (file, caption) pairs."""
  captions = [
      caption_files.Caption(i, *row) for i, row in enumerate(rows, 2)
  ]
  with warnings() as said:
    matched = caption_files.match(
        captions, names, path=folder / 'captions.csv'
    )
  return matched.by_name, matched.report, said


@pytest.mark.parametrize('written', [
    'a/é.mp4', './a/é.mp4', 'a//b/../é.mp4', 'a\\é.mp4', '{folder}/a/é.mp4',
    '../videos/a/é.mp4', '{link}/a/é.mp4', '..\\videos\\a\\é.mp4',
])
@pytest.mark.parametrize('form', ['NFC', 'NFD'])
@pytest.mark.parametrize('on_disk', ['NFC', 'NFD'])
def test_names_of_one_file_are_matched(tmp_path, written, form, on_disk):
  folder, link = tmp_path / 'videos', tmp_path / 'link'
  folder.mkdir()
  link.symlink_to(folder)
  name = unicodedata.normalize(on_disk, 'a/é.mp4')
  written = unicodedata.normalize(
      form, written.format(folder=folder, link=link)
  )
  # A folder that is given by a link has two absolute names.
  given = link if str(link) in written else folder
  by_name, report, said = match(given, [(written, 'x')], [name])
  assert by_name == {name: 'x'} and report['captions_without_file'] == 0
  assert not said


def test_two_forms_of_a_name_may_be_two_files(tmp_path):
  names = [unicodedata.normalize(form, 'é.mp4') for form in ('NFC', 'NFD')]
  rows = list(zip(names, 'xy', strict=True))
  assert match(tmp_path, rows, names)[0] == dict(rows)


@pytest.mark.parametrize('written, nearest', [
    ('V1.MP4', "; the nearest file is 'v1.mp4'"),
    ('v1', "; the nearest file is 'v1.mp4'"),
    ('clips/v1.avi', "; the nearest file is 'v1.mp4'"),
    ('../elsewhere/v1.mp4', "; the nearest file is 'v1.mp4'"),
    ('C:\\videos\\v1.mp4', "; the nearest file is 'v1.mp4'"),
    ('other.mp4', ''),
])
def test_what_is_left_over_is_told(tmp_path, written, nearest):
  rows = [('v0.mp4', 'a'), (written, 'b'), ('none', 'c'), ('v2.mp4', '')]
  by_name, report, said = match(tmp_path, rows, VIDEOS[:3])
  path = tmp_path / 'captions.csv'
  assert by_name == {'v0.mp4': 'a'}
  assert report == {
      'captions_without_file': 2,
      'files_without_caption': 2,
      'captions_replaced': 0,
      'captions_naming_sides': (0, ''),
  }
  assert said == [
      f'{path}: 2 of the 4 files that it names were not found, for instance '
      f'{written!r} on line 3{nearest}.',
      f'{path}: 2 of the 3 files of its folder have no caption, for instance '
      "'v1.mp4'.",
  ]


def test_several_captions_of_a_file_are_told(tmp_path):
  rows = [('v0.mp4', 'a'), ('./v0.mp4', 'a'), ('v0.mp4', 'b')]
  by_name, report, said = match(tmp_path, rows, ['v0.mp4'])
  assert by_name == {'v0.mp4': 'b'} and report['captions_replaced'] == 1
  assert said == [
      f'{tmp_path}/captions.csv: a file has the last of its captions; 1 was '
      "replaced, for instance that of 'v0.mp4' on line 3 by that on line 4."
  ]


def test_a_folder_is_no_caption_file(tmp_path):
  (tmp_path / 'captions.csv').mkdir()
  with pytest.raises(UserError, match='captions.csv is a folder; it must be'):
    caption_files.read(tmp_path / 'captions.csv')


def test_lines_end_where_editors_end_them():
  text = 'a\u2028b\x85c\x0cd\r\ne\rf\n'
  assert text_files.split_lines(text) == ['a\u2028b\x85c\x0cd', 'e', 'f', '']


def test_a_folder_may_be_given_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = pathlib.Path('captions.csv')
  captions = [caption_files.Caption(2, os.path.abspath('v0.mp4'), 'a')]
  found = caption_files.match(captions, ['v0.mp4'], path=path)
  assert found.by_name == {'v0.mp4': 'a'}
