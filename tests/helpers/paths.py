"""Where the tests find the checkout and the sample data beside it."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ROOT / 'tests'
SHARED_DATA = ROOT.parent / 'shared' / 'data'
