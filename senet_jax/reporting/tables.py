"""Tables as text for a terminal, as Markdown and as CSV."""

import csv
import io
import math
from collections.abc import Collection, Iterable, Iterator, Sequence


def print_table(columns: str, rows: Sequence[Sequence[str]], *, left: bool = False) -> None:
  """Prints the lines of `aligned`."""
  for line in aligned(columns, rows, left=left):
    print(line)


def aligned(columns: str, rows: Sequence[Sequence[str]], *, left: bool = False) -> Iterator[str]:
  """Yields rows under their column names, in columns as wide as they need.

  Args:
    columns: names, separated by spaces.
    rows: a cell for each column.
    left: align all columns to the left, as of words; otherwise only the first, as of numbers.
  """
  lines = [columns.split(), *rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  for first, *rest in lines:
    cells = [cell.ljust(w) if left else cell.rjust(w)
             for cell, w in zip(rest, widths[1:], strict=True)]  # fmt: skip
    yield '  '.join((first.ljust(widths[0]), *cells)).rstrip()


def markdown(
  columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[str] = ()
) -> str:
  """Returns a table in Markdown, without a line break at its end.

  Args:
    columns: names.
    rows: a cell for each column.
    right: names of the columns that are aligned to the right, as numbers are.
  """
  lines = (columns, ['---:' if name in right else '---' for name in columns], *rows)
  return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
  """Returns a table as CSV."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(columns)
  writer.writerows(rows)
  return buffer.getvalue()


def size(count: float) -> str:
  """Returns a number of bytes in the unit that fits it: `1.23 GB`, `45.6 MB`, `7.89 kB`, `12 B`."""
  for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if abs(count) >= factor:
      digits = 2 - min(int(math.log10(abs(count) / factor)), 2)
      return f'{count / factor:.{digits}f} {unit}'
  return f'{count:.0f} B'
