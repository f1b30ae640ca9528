"""A hook of MkDocs: pages of the site whose source is not in docs/.

The links of these files are those of the repository; here they become links of
the site. A link to a file that is no page keeps its text alone.
"""
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
# Source, as the repository links to it -> page of the site.
PAGES = {
    'README.md': 'index.md',
    'launch/README.md': 'pods.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
}


def link(target: str, source: str) -> str | None:
  """The link of the site for a link in a file; None if it has no page.

  Args:
    target: where the file links to.
    source: path of the file below the root.
  """
  if re.match(r'\w+:|#', target):  # another site, or this page
    return target
  path, _, anchor = target.partition('#')
  path = (ROOT / source).parent.joinpath(path).resolve()
  path = path.relative_to(ROOT).as_posix()
  if path.startswith('docs/'):
    page = path.removeprefix('docs/')
  else:
    page = PAGES.get(path)
  return page and (f'{page}#{anchor}' if anchor else page)


def rewrite(text: str, source: str) -> str:
  """The text of a file with the links of the site."""

  def one(found):
    words, target = found.groups()
    if words.startswith('!['):  # a picture that is a link
      words = rewrite(words, source)
    target = link(target, source)
    return f'[{words}]({target})' if target else words

  return re.sub(
      r'\[(!\[[^\]]*\]\([^)\s]+\)|[^\]]*)\]\(([^)\s]+)\)', one, text
  )


def on_files(files, config):
  """Adds the pages."""
  for source, page in PAGES.items():
    text = rewrite((ROOT / source).read_text(), source)
    files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown, page, **_):
  """Links of pages in docs/ to files outside it."""
  if page.file.src_uri in PAGES.values():
    return markdown
  return rewrite(markdown, f'docs/{page.file.src_uri}')
