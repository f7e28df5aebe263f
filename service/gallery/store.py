"""The gallery on one machine: SQLite for the truth, an index a gallery and process for the search.

One method a verb of the contract, and one transaction a method. What a transaction does to faces is
named in the change log by that same transaction, so that the indexes of all processes can follow.

With master keys every person is sealed, see sealed.py and datakeys.py; what a crash left between
the two files, and who lies in the file unsealed, is put right when it is opened.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ErasureIncomplete, GalleryExists, PersonExists
from service.gallery import (
    DATA_KEYS_FILE_NAME,
    answers,
    boundary,
    deleting,
    enrolling,
    galleries,
    keeping,
    people,
)
from service.gallery.changelog import Truth, log, look
from service.gallery.contract import (
    DEFAULT_GALLERY,
    KEEP,
    LARGEST_PAGE,
    Begins,
    Candidate,
    Enrolment,
    Erasure,
    Export,
    FaceRecord,
    GalleryRecord,
    Idempotency,
    Keep,
    NearestFace,
    NewFace,
    Page,
    PersonRecord,
)
from service.gallery.datakeys import DataKeys
from service.gallery.erasing import Eraser
from service.gallery.live import LiveIndexes
from service.gallery.paging import page_of
from service.gallery.sealed import MasterKeys
from service.gallery.sqlite import SqliteFile, Transaction
from service.gallery.vault import open_vault


class Store:
    """`Galleries` in the SQLite file at `path`; the contract says what each method does.

    search_threads: OpenMP threads of one search. patience_s: how long a call waits for a lock.
    now: the clock, seconds since 1970. masters: the master keys, None to seal nothing; the wrapped
    data keys lie in a file beside it. Raises TemplateKeysRefused when they do not fit.
    """

    def __init__(
        self,
        path: Path,
        *,
        search_threads: int,
        patience_s: float,
        masters: MasterKeys | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._file = SqliteFile(path, patience_s=patience_s)
        try:
            keys = None
            if masters is not None:
                where = path.with_name(DATA_KEYS_FILE_NAME)
                keys = DataKeys(where, masters=masters, patience_s=patience_s, now=now)
            self._vault = open_vault(self._file, keys)
        except BaseException:
            self._file.close()
            raise
        self._truth = Truth(self._file, self._vault.keys_of)
        self._live = LiveIndexes(self._truth, threads=search_threads)
        self._eraser = Eraser(self._file, self._vault, self._live, now=now)

    # Galleries.

    def create_gallery(
        self,
        name: str,
        *,
        space: str | None = None,
        calibration: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retention_days: int | None = None,
        requires_consent: bool = False,
        population: str | None = None,
    ) -> GalleryRecord:
        boundary.gallery_name(name)
        text = boundary.metadata(metadata or {})
        if retention_days is not None:
            boundary.retention_days(retention_days)
        if space is not None:
            boundary.space(space)
        if calibration is not None:
            boundary.calibration_name(calibration)
        if population is not None:
            boundary.population_name(population)
        with self._file.write() as db:
            if galleries.find_gallery(db, name) is not None:
                raise GalleryExists(name)
            galleries.insert_gallery(
                db,
                name,
                space=space,
                calibration=calibration,
                metadata=text,
                retention_days=retention_days,
                requires_consent=requires_consent,
                population=population,
                revision=0,
                now=self._now(),
            )
            return galleries.gallery(db, galleries.standing(db, name).number)

    def get_gallery(self, name: str) -> GalleryRecord:
        with self._file.read() as db:
            return galleries.gallery(db, galleries.standing(db, name).number)

    def list_galleries(self, *, cursor: str | None = None, limit: int = 100) -> Page[GalleryRecord]:
        after, limit = boundary.cursor_number("g", cursor), boundary.page_limit(limit)
        with self._file.read() as db:
            return galleries.galleries(db, after, limit)

    def update_gallery(
        self,
        name: str,
        *,
        calibration: str | Keep | None = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        retention_days: int | Keep | None = KEEP,
        requires_consent: bool | Keep = KEEP,
        population: str | Keep | None = KEEP,
    ) -> GalleryRecord:
        if isinstance(calibration, str):
            boundary.calibration_name(calibration)
        if isinstance(population, str):
            boundary.population_name(population)
        if isinstance(retention_days, int):
            boundary.retention_days(retention_days)
        text = KEEP if metadata is KEEP else boundary.metadata(metadata)
        with self._file.write() as db:
            number = galleries.standing(db, name).number
            galleries.update_gallery(
                db,
                number,
                calibration=calibration,
                metadata=text,
                retention_days=retention_days,
                requires_consent=requires_consent,
                population=population,
            )
            log(db, number)
            return galleries.gallery(db, number)

    def delete_gallery(self, name: str) -> None:
        with self._file.write() as db:
            gallery = galleries.standing(db, name)
            deleting.delete_gallery(db, gallery.number)
            if name == DEFAULT_GALLERY:
                revision, now = gallery.revision + 1, self._now()
                galleries.insert_gallery(db, name, metadata="{}", revision=revision, now=now)
        self._eraser.gallery(gallery.number)

    # Persons.

    def create_person(
        self,
        gallery: str,
        *,
        person_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        consent: Mapping[str, Any] | None = None,
    ) -> PersonRecord:
        now = self._now()
        person = enrolling.given_person(person_id, name, metadata, consent, now=now)
        with self._file.write() as db:
            home = galleries.standing(db, gallery)
            if people.find_person(db, home, person.id) is not None:
                raise PersonExists(gallery, person.id)
            number = enrolling.put_person(db, self._vault, home, None, person, now=now)
            log(db, home.number, persons=1)
            return people.person(db, self._vault.keys_of, number)

    def get_person(self, gallery: str, person_id: str) -> PersonRecord:
        def at(db: Transaction) -> PersonRecord:
            home = galleries.standing(db, gallery)
            return people.person(db, self._vault.keys_of, people.person_number(db, home, person_id))

        return look(self._file, at)

    def list_persons(
        self, gallery: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[PersonRecord]:
        after, limit = boundary.cursor_number("p", cursor), boundary.page_limit(limit)

        def at(db: Transaction) -> Page[PersonRecord]:
            home = galleries.standing(db, gallery)
            return people.persons(db, self._vault.keys_of, home, after, limit)

        return look(self._file, at)

    def update_person(
        self,
        gallery: str,
        person_id: str,
        *,
        name: str | Keep | None = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        consent: Mapping[str, Any] | Keep | None = KEEP,
    ) -> PersonRecord:
        if isinstance(name, str):
            boundary.person_name(name)
        text = KEEP if metadata is KEEP else boundary.metadata(metadata)
        told = boundary.consent(consent, self._now()) if isinstance(consent, Mapping) else consent
        with self._file.write() as db:
            home = galleries.standing(db, gallery)
            number = people.person_number(db, home, person_id)
            people.update_person(
                db,
                self._vault.keys_of,
                number,
                name=name,
                metadata=text,
                consent=told,
                now=self._now(),
            )
            log(db, home.number)
            person = people.person(db, self._vault.keys_of, number)
            if consent is None and person.faces:
                enrolling.require_consent(galleries.gallery(db, home.number), person)
            return person

    def delete_person(self, gallery: str, person_id: str) -> Erasure:
        with self._file.write() as db:
            home = galleries.standing(db, gallery)
            number = people.person_number(db, home, person_id)
            faces = deleting.delete_person(db, home.number, number)
        erasure = self._eraser.person(home, person_id, faces)
        if erasure.incomplete is not None:
            raise ErasureIncomplete(erasure.incomplete, erasure=erasure)
        return erasure

    def export_person(self, gallery: str, person_id: str) -> Export:
        def at(db: Transaction) -> Export:
            home = galleries.standing(db, gallery)
            number = people.person_number(db, home, person_id)
            theirs = people.safe_of(db, self._vault.keys_of, number)
            person = people.person(db, self._vault.keys_of, number)
            faces = people.faces(db, number, person_id, 0, person.faces)
            return Export(
                galleries.gallery(db, home.number),
                person,
                [face for _, face in faces],
                people.embeddings(db, theirs, number),
            )

        return look(self._file, at)

    # Retention.

    def count_expired(self) -> int:
        with self._file.read() as db:
            return keeping.count_expired(db, self._now())

    def erase_expired(self, begins: Begins = lambda gallery, person_id: None) -> Erasure | None:
        with self._file.write() as db:
            found = keeping.find_expired(db, self._now())
            if found is None:
                return None
            number, home = found
            person_id = people.id_if_it_opens(db, self._vault.keys_of, number)
            begins(home.name, person_id)
            faces = deleting.delete_person(db, home.number, number)
        return self._eraser.person(home, person_id, faces)

    def note_clock(self, *, least_pause_s: float = 0.0) -> float | None:
        now = self._now()
        with self._file.write() as db:
            held_s = keeping.note_clock(db, now, least_pause_s)
            if held_s == 0:
                answers.sweep(db, now=now)
            return held_s

    # Faces.

    def list_faces(
        self, gallery: str, person_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[FaceRecord]:
        after, limit = boundary.cursor_number("f", cursor), boundary.page_limit(limit)
        with self._file.read() as db:
            home = galleries.standing(db, gallery)
            person = people.person_number(db, home, person_id)
            faces = people.faces(db, person, person_id, after, limit + 1)
            return page_of("f", faces[:limit], more=len(faces) > limit)

    def get_face(self, gallery: str, person_id: str, face_id: str) -> FaceRecord:
        with self._file.read() as db:
            home = galleries.standing(db, gallery)
            person = people.person_number(db, home, person_id)
            number = people.face_number(db, home, person, person_id, face_id)
            return people.face(db, number, person_id)

    def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        with self._file.write() as db:
            home = galleries.standing(db, gallery)
            person = people.person_number(db, home, person_id)
            face = people.face_number(db, home, person, person_id, face_id)
            deleting.delete_face(db, home.number, person, face, now=self._now())
        self._eraser.face(home, face)

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
        consent: Mapping[str, Any] | None = None,
        name_if_new: str | None = None,
        idempotency: Idempotency | None = None,
    ) -> bytes:
        new = enrolling.given_faces(faces, space)
        person = enrolling.given_person(
            person_id, name, metadata, consent, name_if_new=name_if_new, now=self._now()
        )
        boundary.idempotency(idempotency)
        with self._file.write() as db:
            home = galleries.standing(db, gallery)
            return enrolling.enroll(
                db,
                self._vault,
                home,
                person,
                new,
                answer=answer,
                idempotency=idempotency,
                now=self._now(),
            )

    def answered(self, gallery: str, idempotency: Idempotency) -> bytes | None:
        boundary.idempotency(idempotency)

        def at(db: Transaction) -> bytes | None:
            return answers.answered(
                db, self._vault.keys_of, galleries.standing(db, gallery), idempotency
            )

        return look(self._file, at)

    def search(
        self, gallery: str, *, space: str, embeddings_ND: NDArray[np.float32], top_k: int
    ) -> list[list[Candidate]]:
        boundary.top_k(top_k)
        return self._live.search(gallery, space, boundary.queries(embeddings_ND), top_k)

    def search_person(
        self, gallery: str, person_id: str, *, space: str, embeddings_ND: NDArray[np.float32]
    ) -> list[NearestFace | None]:
        queries_ND = boundary.queries(embeddings_ND)

        def at(db: Transaction) -> list[NearestFace | None]:
            home = galleries.standing(db, gallery)
            galleries.require_space(home, space)
            number = people.find_person(db, home, person_id)
            if number is None:
                return [None] * len(queries_ND)
            theirs = people.safe_of(db, self._vault.keys_of, number)
            return people.nearest_faces(db, theirs, number, queries_ND)

        return look(self._file, at)

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
        return self._vault.check() + self._file.check() or self._truth.still_broken()

    def close(self) -> None:
        self._vault.close()
        self._file.close()
