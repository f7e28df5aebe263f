"""The change log: what each transaction notes in it, and what the indexes read from it.

A gallery's revision counts its committed changes. Writers take turns, so revisions are committed in
their order, and an index that has applied one has missed nothing before it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from service.errors import GalleryUnknown
from service.gallery import tables
from service.gallery.contract import DIMENSIONS, Candidate
from service.gallery.index import Hit, Rows
from service.gallery.live import Changes, Standing
from service.gallery.sqlite import SqliteFile, Transaction

REVISIONS_KEPT: Final = 10_000  # an index that is further behind is built anew
NAMES_A_READ: Final = 500  # placeholders of a statement; the limit of older SQLites is 999


def log(
    db: Transaction,
    gallery: int,
    *,
    persons: int = 0,
    faces: int = 0,
    changed: Sequence[int] = (),
) -> None:
    """Notes a change as the gallery's next revision, and cuts off the log's oldest end.

    persons, faces: how many more there are now. changed: the faces that came or went.
    """
    db.execute(
        "UPDATE galleries SET persons = persons + ?, faces = faces + ?, revision = revision + 1,"
        " trimmed = max(trimmed, revision + 1 - ?) WHERE number = ?",
        (persons, faces, REVISIONS_KEPT, gallery),
    )
    revision, trimmed = _log_ends(db, gallery) or (0, 0)
    rows = [(gallery, revision, face) for face in changed]
    db.executemany("INSERT INTO changes (gallery, revision, face) VALUES (?, ?, ?)", rows)
    db.execute("DELETE FROM changes WHERE gallery = ? AND revision <= ?", (gallery, trimmed))


class Truth:
    """What the indexes follow, see live.Truth: every method reads one committed state."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def standing(self, gallery: str) -> Standing:
        with self._file.read() as db:
            return tables.standing(db, gallery)

    def changes(self, gallery: Standing, revision: int) -> Changes | None:
        with self._file.read() as db:
            ends = _log_ends(db, gallery.number)
            if ends is None:
                raise GalleryUnknown(gallery.name)
            newest, trimmed = ends
            if revision < trimmed:
                return None
            rows = db.execute(
                "SELECT changed.face, person, content FROM (SELECT DISTINCT face FROM changes"
                " WHERE gallery = ? AND revision > ?) AS changed"
                " LEFT JOIN faces ON faces.number = changed.face LEFT JOIN slots USING (slot)",
                (gallery.number, revision),
            ).fetchall()
        came = [row for row in rows if row[1] is not None]
        went = [face for face, person, _ in rows if person is None]
        return Changes(_index_rows(came), went, newest)

    def faces_after(self, gallery: Standing, face: int, limit: int) -> Rows:
        with self._file.read() as db:
            rows = db.execute(
                "SELECT number, person, content FROM faces JOIN slots USING (slot)"
                " WHERE gallery = ? AND number > ? ORDER BY number LIMIT ?",
                (gallery.number, face, limit),
            ).fetchall()
        return _index_rows(rows)

    def candidates(self, hits: Sequence[Hit]) -> list[Candidate] | None:
        with self._file.read() as db:
            named = _named(db, list({hit.face for hit in hits}))
        if any(hit.face not in named for hit in hits):
            return None
        return [replace(named[hit.face], similarity=hit.similarity) for hit in hits]

    def standing_numbers(self, numbers: Collection[int]) -> set[int]:
        found = "SELECT number FROM galleries WHERE number = ?"
        with self._file.read() as db:
            return {number for number in numbers if db.execute(found, (number,)).fetchone()}


def _log_ends(db: Transaction, gallery: int) -> tuple[int, int] | None:
    """The newest revision, and the one up to which the log is cut off; None: no such gallery."""
    found = "SELECT revision, trimmed FROM galleries WHERE number = ?"
    row: tuple[int, int] | None = db.execute(found, (gallery,)).fetchone()
    return row


def _named(db: Transaction, faces: Sequence[int]) -> dict[int, Candidate]:
    """Those of the faces that are there as candidates, by number, yet without a similarity."""
    named: dict[int, Candidate] = {}
    for start in range(0, len(faces), NAMES_A_READ):
        some = faces[start : start + NAMES_A_READ]
        rows = db.execute(
            "SELECT faces.number, faces.id, content FROM faces"
            " JOIN persons ON persons.number = faces.person"
            " JOIN slots ON slots.slot = persons.slot"
            f" WHERE faces.number IN ({', '.join('?' * len(some))})",
            some,
        )
        for number, face_id, content in rows:
            person_id, name = tables.person_named(content)
            named[number] = Candidate(person_id, name, face_id, similarity=0.0)
    return named


def _index_rows(rows: Sequence[tuple[int, int, bytes]]) -> Rows:
    blob = b"".join(embedding for _, _, embedding in rows)
    return Rows(
        np.array([face for face, _, _ in rows], np.int64),
        np.array([person for _, person, _ in rows], np.int64),
        np.frombuffer(blob, "<f4").astype(np.float32, copy=False).reshape(-1, DIMENSIONS),
    )
