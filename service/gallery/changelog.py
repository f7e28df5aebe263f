"""The change log: what each transaction notes in it, and what the indexes read from it.

A gallery's revision counts its committed changes. Writers take turns, so revisions are committed in
their order, and an index that has applied one has missed nothing before it.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np

from service.errors import GalleryUnknown, StorageUnavailable
from service.gallery import boundary, galleries, people
from service.gallery.contract import DIMENSIONS, Candidate
from service.gallery.index import Hit, Rows
from service.gallery.live import LOOKS, Changes, Standing
from service.gallery.safe import KeysOf
from service.gallery.safe import safe as safe_of
from service.gallery.sealed import PersonGone, SealBroken
from service.gallery.sqlite import SqliteFile, Transaction

Seen = TypeVar("Seen")
_FACE: Final = "faces.person, data_key, id_hash, faces.id, faces.seal, content"
_MOST_TOLD: Final = 10
_EMBEDDING_BYTES: Final = 4 * DIMENSIONS
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


def look(file: SqliteFile, at: Callable[[Transaction], Seen]) -> Seen:
    """What `at` reads in one transaction: in another, when a person was erased meanwhile."""
    for _ in range(LOOKS):
        with contextlib.suppress(PersonGone), file.read() as db:
            return at(db)
    raise StorageUnavailable("the data key of a person who is there is erased; start again")


class Truth:
    """What the indexes follow, see live.Truth: every method reads one committed state.

    keys: see people.py. A face that does not open, or whose embedding is none, is in no index, and
    in `broken` by its number: its id and gallery.
    """

    def __init__(self, file: SqliteFile, keys: KeysOf) -> None:
        self._file = file
        self._keys = keys
        self.broken: dict[int, tuple[str, str]] = {}

    def standing(self, gallery: str) -> Standing:
        with self._file.read() as db:
            return galleries.standing(db, gallery)

    def changes(self, gallery: Standing, revision: int) -> Changes | None:
        def at(db: Transaction) -> Changes | None:
            ends = _log_ends(db, gallery.number)
            if ends is None:
                raise GalleryUnknown(gallery.name)
            newest, trimmed = ends
            if revision < trimmed:
                return None
            rows = db.execute(
                f"SELECT changed.face, {_FACE} FROM (SELECT DISTINCT face FROM changes"
                " WHERE gallery = ? AND revision > ?) AS changed"
                " LEFT JOIN faces ON faces.number = changed.face LEFT JOIN slots USING (slot)"
                " LEFT JOIN persons ON persons.number = faces.person",
                (gallery.number, revision),
            ).fetchall()
            came = [row for row in rows if row[1] is not None]
            went = [face for face, person, *_ in rows if person is None]
            return Changes(self._opened(gallery, came), went, newest)

        return look(self._file, at)

    def faces_after(self, gallery: Standing, face: int, limit: int) -> Rows:
        def at(db: Transaction) -> Rows:
            last, found = face, Rows.none()
            while not len(found):
                rows = db.execute(
                    f"SELECT faces.number, {_FACE} FROM faces JOIN slots USING (slot)"
                    " JOIN persons ON persons.number = faces.person"
                    " WHERE faces.gallery = ? AND faces.number > ? ORDER BY faces.number LIMIT ?",
                    (gallery.number, last, limit),
                ).fetchall()
                if not rows:
                    break
                last, found = rows[-1][0], self._opened(gallery, rows)
            return found

        return look(self._file, at)

    def candidates(self, hits: Sequence[Hit]) -> list[Candidate] | None:
        named = look(self._file, lambda db: _named(db, self._keys, list({h.face for h in hits})))
        if any(hit.face not in named for hit in hits):
            return None
        return [replace(named[hit.face], similarity=hit.similarity) for hit in hits]

    def still_broken(self) -> list[str]:
        """A sentence for each face that does not open and is not deleted."""
        if not self.broken:
            return []
        found = "SELECT number FROM faces WHERE number = ?"
        with self._file.read() as db:
            for number in list(self.broken):  # a search may be adding to it
                if db.execute(found, (number,)).fetchone() is None:
                    self.broken.pop(number, None)
        return [
            f"face {face_id} of gallery {gallery!r} does not open and is never found:"
            " its row is damaged, or was changed or moved by another program; delete it and enrol"
            " it again"
            for face_id, gallery in list(self.broken.values())[:_MOST_TOLD]
        ]

    def _opened(self, gallery: Standing, rows: Sequence[tuple[Any, ...]]) -> Rows:
        """The rows as an index takes them, without those that do not open."""
        keys = self._keys(row[2] for row in rows)
        opened: list[tuple[int, int, bytes]] = []
        for face, person, data_key, id_hash, face_id, seal, content in rows:
            theirs = safe_of(keys, data_key, id_hash, gallery.name)
            try:
                opened.append((face, person, theirs.take("face", seal, content, face_id)))
            except SealBroken:
                self.broken[face] = (face_id, gallery.name)
        found = _index_rows([one for one in opened if len(one[2]) == _EMBEDDING_BYTES])
        whole = boundary.are_unit(found.embeddings)
        if len(found) == len(rows) and whole.all():
            return found
        sound = Rows(found.faces[whole], found.persons[whole], found.embeddings[whole])
        there = set(sound.faces.tolist())
        ids = {row[0]: row[4] for row in rows}
        self.broken |= {n: (ids[n], gallery.name) for n in ids if n not in there}
        return sound

    def standing_numbers(self, numbers: Collection[int]) -> set[int]:
        found = "SELECT number FROM galleries WHERE number = ?"
        with self._file.read() as db:
            return {number for number in numbers if db.execute(found, (number,)).fetchone()}


def _log_ends(db: Transaction, gallery: int) -> tuple[int, int] | None:
    """The newest revision, and the one up to which the log is cut off; None: no such gallery."""
    found = "SELECT revision, trimmed FROM galleries WHERE number = ?"
    row: tuple[int, int] | None = db.execute(found, (gallery,)).fetchone()
    return row


def _named(db: Transaction, keys: KeysOf, faces: Sequence[int]) -> dict[int, Candidate]:
    """Those of the faces that are there as candidates, by number, yet without a similarity."""
    named: dict[int, Candidate] = {}
    for start in range(0, len(faces), NAMES_A_READ):
        some = faces[start : start + NAMES_A_READ]
        rows = db.execute(
            "SELECT faces.number, faces.id, persons.data_key, persons.id_hash, galleries.name,"
            " persons.seal, content FROM faces"
            " JOIN persons ON persons.number = faces.person"
            " JOIN galleries ON galleries.number = persons.gallery"
            " JOIN slots ON slots.slot = persons.slot"
            f" WHERE faces.number IN ({', '.join('?' * len(some))})",
            some,
        ).fetchall()
        theirs = keys(row[2] for row in rows)
        for number, face_id, data_key, id_hash, gallery, seal, content in rows:
            safe = safe_of(theirs, data_key, id_hash, gallery)
            person_id, name = people.person_named(safe, seal, content)
            named[number] = Candidate(person_id, name, face_id, similarity=0.0)
    return named


def _index_rows(rows: Sequence[tuple[int, int, bytes]]) -> Rows:
    blob = b"".join(embedding for _, _, embedding in rows)
    return Rows(
        np.array([face for face, _, _ in rows], np.int64),
        np.array([person for _, person, _ in rows], np.int64),
        np.frombuffer(blob, "<f4").astype(np.float32, copy=False).reshape(-1, DIMENSIONS),
    )
