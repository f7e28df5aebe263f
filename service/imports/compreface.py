"""CompreFace's database, as pg_dump writes it, and the photographs in it.

CompreFace (github.com/exadel-inc/CompreFace, 1.2.0) has no export of its own. Its PostgreSQL
database holds what it knows of people in three tables (its db.changelog-0.1.7.yaml):

    subject     id, api_key (of the service whose face collection it is), subject_name
    img         id, content: the photograph, where save_images_to_db was on (the default)
    embedding   id, subject_id, embedding (float8[]), calculator (the network), img_id or null

Its embeddings are of its own networks' spaces and of no use here: the photographs are enrolled
anew, as its own documentation asks for when its network changes. Read is the plain form of pg_dump
with COPY, which is its default; the rows of the photographs stay in the file until they are asked
for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from service.errors import ImportRefused

_COPY: Final = re.compile(rb'COPY (?:"?\w+"?\.)?"?(\w+)"? \(([^)]*)\) FROM stdin;\r?\n')
_COLUMNS: Final = {
    "subject": ("id", "api_key", "subject_name"),
    "img": ("id", "content"),
    "embedding": ("subject_id", "calculator", "img_id"),
}
_ESCAPED: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HEX: Final = rb"\\x"
_END: Final = rb"\."
_CUSTOM: Final = b"PGDMP"
# With its mark, or as a dump begins, which is with a comment.
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff", b"-\0", b"\0-")


@dataclass(frozen=True)
class Subject:
    """A person as CompreFace knew them. service: the api_key of the face collection; photographs:
    ids of those that were kept; lost: of how many faces no photograph was kept."""

    name: str
    service: str
    photographs: tuple[str, ...]
    lost: int


@dataclass
class Dump:
    """What a dump tells of people. calculators: the networks that its embeddings are of."""

    path: Path
    subjects: list[Subject] = field(default_factory=list)
    calculators: set[str] = field(default_factory=set)
    _photographs: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset, bytes

    def photograph(self, image_id: str) -> bytes:
        """The photograph's file, as CompreFace was sent it. Raises ImportRefused."""
        offset, size = self._photographs[image_id]
        with self.path.open("rb") as file:
            file.seek(offset)
            text = file.read(size)
        if not text.startswith(_HEX):
            reason = f"the img {image_id} is not in hexadecimal (bytea_output = hex)"
            raise ImportRefused(str(self.path), reason)
        try:
            return bytes.fromhex(text[len(_HEX) :].decode("ascii"))
        except ValueError as error:
            raise ImportRefused(str(self.path), f"the img {image_id} is damaged") from error


@dataclass
class _Rows:
    """The rows of the tables, as far as they are needed."""

    subjects: dict[str, tuple[str, str]] = field(default_factory=dict)  # service and name, by id
    faces: list[tuple[str, str, str | None]] = field(default_factory=list)  # subject, network, img
    photographs: dict[str, tuple[int, int]] = field(default_factory=dict)

    def as_dump(self, path: Path) -> Dump:
        """The same as people. Raises ImportRefused."""
        kept: dict[str, dict[str, None]] = {subject: {} for subject in self.subjects}
        lost = dict.fromkeys(self.subjects, 0)
        for subject, _, image_id in self.faces:
            if subject not in lost:
                raise ImportRefused(str(path), f"it lacks the subject {subject}: it was cut off")
            if image_id in self.photographs:
                kept[subject][image_id] = None
            else:
                lost[subject] += 1
        subjects = [
            Subject(name, service, tuple(kept[subject]), lost[subject])
            for subject, (service, name) in self.subjects.items()
        ]
        return Dump(path, subjects, {network for _, network, _ in self.faces}, self.photographs)


def read_dump(path: Path) -> Dump:
    """The people of a dump, in the order of its subjects. Raises ImportRefused."""
    rows, seen = _Rows(), set()
    with path.open("rb") as file:
        start = file.read(len(_CUSTOM))
        if start.startswith(_UTF_16):
            reason = (
                "it is UTF-16, as PowerShell's > writes it: let pg_dump write the file itself "
                "(pg_dump --file=dump.sql), or convert it (iconv -f UTF-16 -t UTF-8)"
            )
            raise ImportRefused(str(path), reason)
        if start == _CUSTOM:
            reason = "it is pg_dump's custom form: make a plain one (pg_dump --format=plain)"
            raise ImportRefused(str(path), reason)
        file.seek(0)
        while line := file.readline():
            begun = _COPY.fullmatch(line)
            if begun is not None and (table := begun[1].decode()) in _COLUMNS:
                seen.add(table)
                columns = [name.strip().strip('"') for name in begun[2].decode().split(",")]
                _read_table(path, file, table, columns, rows)
    if lacking := [table for table in _COLUMNS if table not in seen]:
        reason = (
            f"it lacks the rows of {', '.join(lacking)}: make it of CompreFace's database with "
            "pg_dump --data-only -t subject -t img -t embedding"
        )
        raise ImportRefused(str(path), reason)
    return rows.as_dump(path)


def services_of(dump: Dump) -> dict[str, int]:
    """How many subjects each service has, by its api_key."""
    counts: dict[str, int] = {}
    for subject in dump.subjects:
        counts[subject.service] = counts.get(subject.service, 0) + 1
    return counts


def _read_table(
    path: Path, file: IO[bytes], table: str, columns: Sequence[str], rows: _Rows
) -> None:
    """Reads a table's rows up to their end. Raises ImportRefused."""
    try:
        places = [columns.index(column) for column in _COLUMNS[table]]
    except ValueError as error:
        raise ImportRefused(str(path), f"its table {table} is another: {error}") from error
    while True:
        start, line = file.tell(), file.readline()
        values = line.rstrip(b"\r\n").split(b"\t")
        if values == [_END]:
            return
        if len(values) != len(columns):
            raise ImportRefused(str(path), f"it ends, or is damaged, within the table {table}")
        try:
            if table == "img":
                key, content = places
                offset = start + sum(len(value) + 1 for value in values[:content])
                rows.photographs[values[key].decode()] = offset, len(values[content])
                continue
            first, second, third = (_text(values[place]) for place in places)
        except UnicodeDecodeError as error:
            reason = "its text is not UTF-8: make it with pg_dump --encoding=UTF8"
            raise ImportRefused(str(path), reason) from error
        if table == "subject":
            rows.subjects[str(first)] = str(second), str(third)
        else:
            rows.faces.append((str(first), str(second), third))


def _text(value: bytes) -> str | None:
    """A field as it was before COPY wrote it; None for null."""
    if value == rb"\N":
        return None
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), value.decode("utf-8"))
