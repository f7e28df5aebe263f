"""The report of a preparation: what became of each photograph, in a csv.

While it grows it is named .part and is the journal from which a run that was broken off goes on: a
line is only written when its crop is on the disk, so that the lines tell what need not be done
again.
"""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """A photograph. file: below the folder. outcome: kept, or why not, in a word or two. faces: how
    many were found. label: in the .rec, where kept. rec_bytes: how long the .rec was after it."""

    file: str
    person: str
    outcome: str
    detail: str
    faces: int
    label: int | None
    rec_bytes: int


class Report:
    """A report in the making. lines: those that are written."""

    def __init__(self, part: Path, file: Any) -> None:
        self.part, self.lines = part, _lines(file.read(), part)
        self._file = file
        self.cut(len(self.lines))

    def cut(self, count: int) -> None:
        """Keeps the first `count` lines; what lies behind them goes, half a line too."""
        self.lines = self.lines[:count]
        written = _written(self.lines, heading=True)
        if self._file.seek(0, os.SEEK_END) < len(written):  # not even the heading is whole
            self._file.truncate(0)
            self._append(written)
        else:
            self._file.truncate(len(written))

    def append(self, lines: Iterable[Line]) -> None:
        """Writes lines whose crops are on the disk."""
        new = list(lines)
        self._append(_written(new))
        self.lines += new

    def _append(self, data: bytes) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def open_report(path: Path) -> Iterator[Report]:
    """The report, gone on with where it was left; it gets its name when the block ends well.

    Raises ValueError where another process is at it, or the .part is none of a preparation.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with part.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{part}: another run is at it") from None
        yield Report(part, file)
        part.replace(path)


def _written(lines: Iterable[Line], *, heading: bool = False) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    if heading:
        rows.writerow(field.name for field in fields(Line))
    rows.writerows(astuple(line) for line in lines)
    return text.getvalue().encode("utf-8", "surrogateescape")  # names of files are any bytes


def _lines(data: bytes, part: Path) -> list[Line]:
    """The whole lines of what was written; the last one may be half there."""
    lines = []
    rows = csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
    next(rows, None)
    for row in rows:
        try:
            file, person, outcome, detail, faces, label, rec_bytes = row
            number = int(label) if label else None
            lines.append(Line(file, person, outcome, detail, int(faces), number, int(rec_bytes)))
        except ValueError:
            break
    for whole in (lines, lines[:-1]):
        if data.startswith(_written(whole, heading=True)):
            return whole
    if _written([], heading=True).startswith(data):
        return []
    raise ValueError(f"{part} is no report of a preparation; remove it to begin anew")
