"""Lists that come as a csv: rows by the names of their columns, and where each stands."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path


def rows(
    path: Path, columns: Sequence[str], *, skip_spaces: bool = False
) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, row) of a csv that has the columns and may have others.

    skip_spaces: those after a comma, also in the heading. A byte order mark is passed over. Raises
    ValueError, naming the file, for a csv without one of the columns, for a row that ends before
    the last of them and for a file that is no text."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        try:
            found = csv.DictReader(lines, skipinitialspace=skip_spaces)
            absent = [name for name in columns if name not in (found.fieldnames or ())]
            if absent:
                raise ValueError(f"{path} has no column {', '.join(absent)}")
            for row in found:
                where = f"{path}, line {found.line_num}"
                if any(row[name] is None for name in columns):
                    raise ValueError(f"{where} ends before its last column")
                yield where, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no csv: {error}") from error
