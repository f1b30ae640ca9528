"""Where this checkout and the data beside it lie."""
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT.parent / 'shared' / 'data'
