"""Embeddings from files: .npz (numpy) and .csv, alone or as a folder of them.

    .npz    embeddings (N, 512) of floats, person_ids (N,) of text; names (N,) and space, where
            there are any
    .csv    a header; person_id, name and space, of which the last two may be missing; and either
            embedding, a JSON array of 512 numbers, or 512 further columns of a number each

A person is taken with all their rows, from whatever files, or not at all: of one who has a row that
cannot be used, none is.
"""

import codecs
import csv
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldInvalid, ImportRefused
from service.gallery import boundary
from service.gallery.contract import DIMENSIONS

SUFFIXES: Final = (".npz", ".csv")
_TEXTS: Final = ("person_id", "name", "space")
_ARRAYS: Final = ("embeddings", "person_ids", "names", "space")
# What a file that is none of these forms, or is damaged, has its readers raise.
_UNREADABLE: Final = (
    ValueError,
    KeyError,
    EOFError,
    MemoryError,  # a head that promises more than there can be
    RuntimeError,  # encrypted, or packed in a way that zipfile does not know
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Refusal:
    """A row of no use. where: its file and number; reason: in words."""

    where: str
    person_id: str
    reason: str


@dataclass(frozen=True)
class Person:
    """A person to enrol. embeddings_ND: float32 (N, 512), unit length, in the order of the rows."""

    id: str
    name: str | None
    embeddings_ND: NDArray[np.float32]

    @property
    def content(self) -> str:
        """What the embeddings are, as 32 hex digits: the same for the same ones alone."""
        return hashlib.blake2b(self.embeddings_ND.tobytes(), digest_size=16).hexdigest()


@dataclass
class Read:
    """What was read. refused: all rows of those who are not among the people."""

    people: list[Person] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """A row as it stands. vector: float64 (512,), or why it is none."""

    where: str
    person_id: str
    name: str | None
    vector: NDArray[np.float64] | str


def read_embeddings(path: Path, *, space: str, said: str | None, normalize: bool) -> Read:
    """The people of a file or folder, in the order of their first rows.

    space: what is served. said: the space that the caller says they are of, where the files do not.
    normalize: scale each to unit length instead of refusing other lengths. Raises ImportRefused for
    a file of none of these forms, and for embeddings of another space or of nobody knows which.
    """
    read = Read()
    rows: dict[str, list[_Row]] = {}
    for file in _files(path):
        for row in _rows(file, space, said):
            rows.setdefault(row.person_id, []).append(row)
    for person_id, theirs in rows.items():
        try:
            read.people.append(_person(person_id, theirs, normalize))
        except _Unfit as unfit:
            read.refused += [
                Refusal(row.where, boundary.shown(person_id), unfit.reasons.get(row.where, _ALSO))
                for row in theirs
            ]
    return read


_ALSO: Final = "another row of the same person was refused"


class _Unfit(Exception):
    """Why a person is not taken, by the row."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = reasons


def _person(person_id: str, rows: Sequence[_Row], normalize: bool) -> Person:
    """The person of these rows. Raises _Unfit."""
    reasons, vectors = {}, []
    names = {row.name: row.where for row in reversed(rows) if row.name is not None}
    for row in rows:
        try:
            boundary.person_id(person_id)
            if row.name is not None:
                boundary.person_name(row.name)
                if len(names) > 1:
                    raise _Unusable(f"they have several names: {', '.join(map(repr, names))}")
            vectors.append(_unit(row.vector, normalize))
        except (FieldInvalid, _Unusable) as error:
            reasons[row.where] = str(error)
    if reasons:
        raise _Unfit(reasons)
    return Person(person_id, next(iter(names), None), np.stack(vectors))


class _Unusable(Exception):
    """What is wrong with a row."""


def _unit(vector: NDArray[np.float64] | str, normalize: bool) -> NDArray[np.float32]:
    """The embedding, float32 (512,). Raises _Unusable."""
    if isinstance(vector, str):
        raise _Unusable(vector)
    if not np.isfinite(vector).all():
        raise _Unusable("it holds a number that is not finite")
    length = float(np.linalg.norm(vector))
    if normalize and length > 0:
        vector, length = vector / length, 1.0
    if abs(length - 1) > boundary.NORM_TOLERANCE:
        advice = "" if normalize else "; --normalize scales each to that"
        raise _Unusable(f"its length is {length:.6g}, not 1{advice}")
    return vector.astype(np.float32)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ImportRefused(str(path), f"the folder has no {' or '.join(SUFFIXES)} file")
    return files


def _rows(file: Path, space: str, said: str | None) -> Iterator[_Row]:
    """The file's rows. Raises ImportRefused."""
    readers = {".npz": _npz_rows, ".csv": _csv_rows}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ImportRefused(str(file), f"it is named neither {' nor '.join(SUFFIXES)}")
    try:
        yield from reader(file, space, said)
    except _UNREADABLE as error:
        raise ImportRefused(str(file), f"it cannot be read: {error}") from error


def _require_space(file: Path, told: str | None, said: str | None, space: str) -> None:
    """Raises ImportRefused unless the embeddings are known to be of the space that is served."""
    if told is not None and said is not None and told != said:
        raise ImportRefused(str(file), f"it says the space {told!r}, and --space {said!r}")
    theirs = told if told is not None else said
    if theirs is None:
        reason = (
            f"it does not say of which space its embeddings are, nor does --space; {space!r} is "
            "served, and embeddings of another network match nobody in it"
        )
        raise ImportRefused(str(file), reason)
    if theirs != space:
        reason = (
            f"its embeddings are of the space {theirs!r} and {space!r} is served; embeddings of "
            "two networks cannot be compared: enrol the photographs anew"
        )
        raise ImportRefused(str(file), reason)


def _npz_rows(file: Path, space: str, said: str | None) -> Iterator[_Row]:
    arrays = _arrays(file)
    if lacking := {"embeddings", "person_ids"} - set(arrays):
        raise ImportRefused(str(file), f"it lacks the array {min(lacking)!r}")
    if odd := set(arrays) - set(_ARRAYS):
        raise ImportRefused(str(file), f"its array {min(odd)!r} is none of {', '.join(_ARRAYS)}")
    _require_space(file, str(arrays["space"]) if "space" in arrays else None, said, space)
    vectors_ND, ids_N = arrays["embeddings"], arrays["person_ids"]
    names_N = arrays.get("names", np.full(ids_N.shape, ""))
    count = len(ids_N) if ids_N.ndim == 1 else -1
    if vectors_ND.dtype.kind != "f" or vectors_ND.shape != (count, DIMENSIONS):
        what = f"{vectors_ND.dtype} {vectors_ND.shape}"
        asked = f"floats (N, {DIMENSIONS}) for the N = {count} person_ids"
        raise ImportRefused(str(file), f"its embeddings are {what}, not {asked}")
    if names_N.shape != ids_N.shape:
        raise ImportRefused(str(file), f"it has {ids_N.shape} person_ids and {names_N.shape} names")
    for name, texts_N in (("person_ids", ids_N), ("names", names_N)):
        if texts_N.dtype.kind not in "Uiu":  # of bytes or floats str() would make other names
            raise ImportRefused(str(file), f"its {name} are {texts_N.dtype}, not text")
    for number, (vector_D, who, name) in enumerate(zip(vectors_ND, ids_N, names_N, strict=True)):
        where = f"{file.name}, row {number}"
        yield _Row(where, str(who), str(name) or None, vector_D.astype(np.float64))


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz by their names. Raises _UNREADABLE."""
    if not zipfile.is_zipfile(file):  # NumPy would advise to unpickle it
        raise ValueError("it is no archive of arrays, or was cut off")
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if odd := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"its {odd[0]} is no array")
    return arrays


def _csv_rows(file: Path, space: str, said: str | None) -> Iterator[_Row]:
    with file.open("rb") as start:
        if start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            reason = "it is UTF-16: save it as CSV UTF-8, or convert it (iconv -f UTF-16 -t UTF-8)"
            raise ImportRefused(str(file), reason)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = list(reader.fieldnames or ())
        numbers = _number_columns(file, columns)
        first = True
        for row in reader:
            told = row.get("space") or None
            if first or "space" in columns:
                _require_space(file, told, said, space)
            first = False
            where = f"{file.name}, line {reader.line_num}"
            vector = _vector(row, numbers)
            yield _Row(where, row.get("person_id") or "", row.get("name") or None, vector)


def _number_columns(file: Path, columns: Sequence[str]) -> list[str]:
    """The columns that hold an embedding: one of JSON, or one a number."""
    if "person_id" not in columns or len(set(columns)) != len(columns):
        raise ImportRefused(str(file), "its header lacks person_id, or has a column twice")
    numbers = [column for column in columns if column not in _TEXTS]
    if numbers != ["embedding"] and len(numbers) != DIMENSIONS:
        reason = (
            f"it has {len(numbers)} columns besides {', '.join(_TEXTS)}: an embedding takes one, "
            f"'embedding', with a JSON array, or {DIMENSIONS}, with a number each"
        )
        raise ImportRefused(str(file), reason)
    return numbers


def _vector(row: Mapping[str | None, Any], columns: Sequence[str]) -> NDArray[np.float64] | str:
    """The row's embedding, or why it is none."""
    if None in row or None in row.values():
        return "it has not as many fields as the header"
    try:
        values = (
            json.loads(row["embedding"])
            if list(columns) == ["embedding"]
            else [float(row[column]) for column in columns]
        )
        vector_D = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"its embedding is none of numbers: {str(error)[:100]}"
    if vector_D.shape != (DIMENSIONS,):
        return f"its embedding has the shape {vector_D.shape}, not ({DIMENSIONS},)"
    return vector_D
