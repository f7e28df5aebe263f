"""The gallery on one machine: SQLite for the truth, an index a gallery and process for the search.

One method a verb of the contract, and one transaction a method. What a transaction does to faces is
named in the change log by that same transaction, so that the indexes of all processes can follow.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from ulid import ULID

from service.errors import GalleryExists, PersonExists
from service.gallery import boundary, tables
from service.gallery.changelog import Truth, log
from service.gallery.contract import (
    DEFAULT_GALLERY,
    KEEP,
    LARGEST_PAGE,
    Candidate,
    Enrolment,
    FaceRecord,
    GalleryRecord,
    Idempotency,
    Keep,
    NewFace,
    Page,
    PersonRecord,
)
from service.gallery.live import LiveIndexes, Standing
from service.gallery.sqlite import SqliteFile, Transaction

ANSWERS_KEPT_S: Final = 25 * 3600.0  # 24 hours are promised

Item = TypeVar("Item")


class Store:
    """`Galleries` in the SQLite file at `path`; the contract says what each method does.

    search_threads: OpenMP threads of one search. patience_s: how long a call waits for a lock.
    now: the clock, seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        *,
        search_threads: int,
        patience_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._file = SqliteFile(path, patience_s=patience_s)
        self._live = LiveIndexes(Truth(self._file), threads=search_threads)

    # Galleries.

    def create_gallery(
        self,
        name: str,
        *,
        space: str | None = None,
        calibration: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GalleryRecord:
        boundary.gallery_name(name)
        text = boundary.metadata(metadata or {})
        if space is not None:
            boundary.space(space)
        if calibration is not None:
            boundary.calibration_name(calibration)
        with self._file.write() as db:
            if tables.find_gallery(db, name) is not None:
                raise GalleryExists(name)
            tables.insert_gallery(
                db,
                name,
                space=space,
                calibration=calibration,
                metadata=text,
                revision=0,
                now=self._now(),
            )
            return tables.gallery(db, tables.standing(db, name).number)

    def get_gallery(self, name: str) -> GalleryRecord:
        with self._file.read() as db:
            return tables.gallery(db, tables.standing(db, name).number)

    def list_galleries(self, *, cursor: str | None = None, limit: int = 100) -> Page[GalleryRecord]:
        after, limit = boundary.cursor_number("g", cursor), boundary.page_limit(limit)
        with self._file.read() as db:
            return _page("g", tables.galleries(db, after, limit + 1), limit)

    def update_gallery(
        self,
        name: str,
        *,
        calibration: str | Keep | None = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
    ) -> GalleryRecord:
        if isinstance(calibration, str):
            boundary.calibration_name(calibration)
        text = KEEP if metadata is KEEP else boundary.metadata(metadata)
        with self._file.write() as db:
            number = tables.standing(db, name).number
            tables.update_gallery(db, number, calibration=calibration, metadata=text)
            log(db, number)
            return tables.gallery(db, number)

    def delete_gallery(self, name: str) -> None:
        with self._file.write() as db:
            gallery = tables.standing(db, name)
            tables.erase_gallery(db, gallery.number)
            if name == DEFAULT_GALLERY:
                revision, now = gallery.revision + 1, self._now()
                tables.insert_gallery(db, name, metadata="{}", revision=revision, now=now)
        self._live.forget(gallery.number)
        self._file.wipe()

    # Persons.

    def create_person(
        self,
        gallery: str,
        *,
        person_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> PersonRecord:
        person = _GivenPerson.checked(person_id, name, metadata)
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            if tables.find_person(db, home, person.id) is not None:
                raise PersonExists(gallery, person.id)
            number = self._upsert_person(db, home, None, person)
            log(db, home.number, persons=1)
            return tables.person(db, number)

    def get_person(self, gallery: str, person_id: str) -> PersonRecord:
        with self._file.read() as db:
            home = tables.standing(db, gallery)
            return tables.person(db, tables.person_number(db, home, person_id))

    def list_persons(
        self, gallery: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[PersonRecord]:
        after, limit = boundary.cursor_number("p", cursor), boundary.page_limit(limit)
        with self._file.read() as db:
            home = tables.standing(db, gallery)
            return _page("p", tables.persons(db, home, after, limit + 1), limit)

    def update_person(
        self,
        gallery: str,
        person_id: str,
        *,
        name: str | Keep | None = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
    ) -> PersonRecord:
        if isinstance(name, str):
            boundary.person_name(name)
        text = KEEP if metadata is KEEP else boundary.metadata(metadata)
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            number = tables.person_number(db, home, person_id)
            tables.update_person(db, number, name=name, metadata=text, now=self._now())
            log(db, home.number)
            return tables.person(db, number)

    def delete_person(self, gallery: str, person_id: str) -> None:
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            faces = tables.erase_person(db, tables.person_number(db, home, person_id))
            log(db, home.number, persons=-1, faces=-len(faces), changed=faces)
        self._live.remove(home.number, faces)
        self._file.wipe()

    # Faces.

    def list_faces(
        self, gallery: str, person_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[FaceRecord]:
        after, limit = boundary.cursor_number("f", cursor), boundary.page_limit(limit)
        with self._file.read() as db:
            home = tables.standing(db, gallery)
            person = tables.person_number(db, home, person_id)
            return _page("f", tables.faces(db, person, person_id, after, limit + 1), limit)

    def get_face(self, gallery: str, person_id: str, face_id: str) -> FaceRecord:
        with self._file.read() as db:
            home = tables.standing(db, gallery)
            person = tables.person_number(db, home, person_id)
            number = tables.face_number(db, home, person, person_id, face_id)
            return tables.face(db, number, person_id)

    def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            person = tables.person_number(db, home, person_id)
            face = tables.face_number(db, home, person, person_id, face_id)
            tables.erase_face(db, face)
            tables.update_person(db, person, name=KEEP, metadata=KEEP, now=self._now())
            log(db, home.number, faces=-1, changed=[face])
        self._live.remove(home.number, [face])
        self._file.wipe()

    # Faces in, names out.

    def enroll(
        self,
        gallery: str,
        faces: Sequence[NewFace],
        *,
        space: str,
        answer: Callable[[Enrolment], bytes],
        person_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> bytes:
        embeddings_ND = boundary.new_embeddings(faces)
        details = [boundary.details(face.details) for face in faces]
        person = _GivenPerson.checked(person_id, name, metadata)
        boundary.space(space)
        boundary.idempotency(idempotency)
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            if idempotency is not None:
                stored = tables.answered(db, home, idempotency)
                if stored is not None:
                    return stored
            tables.pin_space(db, home, space)
            number = tables.find_person(db, home, person.id)
            is_new = number is None
            number = self._upsert_person(db, home, number, person)
            added = self._insert_faces(db, home, number, embeddings_ND, details)
            log(db, home.number, persons=is_new, faces=len(added), changed=list(added.values()))
            body = answer(Enrolment(gallery, tables.person(db, number), tuple(added)))
            now = self._now()
            if idempotency is not None:
                tables.keep_answer(db, home, idempotency, body, person=number, now=now)
            tables.sweep_answers(db, before=now - ANSWERS_KEPT_S)
            return body

    def answered(self, gallery: str, idempotency: Idempotency) -> bytes | None:
        boundary.idempotency(idempotency)
        with self._file.read() as db:
            return tables.answered(db, tables.standing(db, gallery), idempotency)

    def search(
        self, gallery: str, *, space: str, embeddings_ND: NDArray[np.float32], top_k: int
    ) -> list[list[Candidate]]:
        boundary.top_k(top_k)
        return self._live.search(gallery, space, boundary.queries(embeddings_ND), top_k)

    def persons_in(self, gallery: str) -> int:
        return self.get_gallery(gallery).persons

    # The house.

    def warm_up(self) -> None:
        cursor = None
        while True:
            page = self.list_galleries(cursor=cursor, limit=LARGEST_PAGE)
            self._live.warm_up(gallery.name for gallery in page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    def check(self) -> list[str]:
        return self._file.check()

    def close(self) -> None:
        self._file.close()

    def _upsert_person(
        self, db: Transaction, home: Standing, number: int | None, person: "_GivenPerson"
    ) -> int:
        """Makes the person, or updates the one of this number; their number."""
        now = self._now()
        if number is None:
            return tables.insert_person(
                db, home, person.id, name=person.name, metadata=person.metadata or "{}", now=now
            )
        name, metadata = person.name or KEEP, person.metadata or KEEP
        tables.update_person(db, number, name=name, metadata=metadata, now=now)
        return number

    def _insert_faces(
        self,
        db: Transaction,
        home: Standing,
        person: int,
        embeddings_ND: NDArray[np.float32],
        details: Sequence[str],
    ) -> dict[str, int]:
        """The new faces' numbers by their ids, in order."""
        added = {}
        for embedding_D, text in zip(embeddings_ND, details, strict=True):
            face_id, now = str(ULID()), self._now()
            added[face_id] = tables.insert_face(
                db, home, person, face_id, embedding_D=embedding_D, details=text, now=now
            )
        return added


@dataclass(frozen=True)
class _GivenPerson:
    """A person as a caller gave them, checked. metadata: JSON text; None: not given."""

    id: str
    name: str | None
    metadata: str | None

    @staticmethod
    def checked(
        person_id: str | None, name: str | None, metadata: Mapping[str, Any] | None
    ) -> "_GivenPerson":
        return _GivenPerson(
            str(ULID()) if person_id is None else boundary.person_id(person_id),
            None if name is None else boundary.person_name(name),
            None if metadata is None else boundary.metadata(metadata),
        )


def _page(kind: str, rows: list[tuple[int, Item]], limit: int) -> Page[Item]:
    """A page of at most `limit` of the rows, of which one more was read if there is one."""
    items = [item for _, item in rows[:limit]]
    return Page(items, boundary.cursor(kind, rows[limit - 1][0]) if len(rows) > limit else None)
