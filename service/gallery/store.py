"""The gallery on one machine: SQLite for the truth, an index a gallery and process for the search.

One method a verb of the contract, and one transaction a method. What a transaction does to faces is
named in the change log by that same transaction, so that the indexes of all processes can follow.

With master keys every person is sealed, see sealed.py and datakeys.py; what a crash left between
the two files, and who lies in the file unsealed, is put right when it is opened.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from ulid import ULID

from service.errors import (
    ConsentRequired,
    ErasureIncomplete,
    GalleryExists,
    PersonExists,
    StorageFull,
    StorageUnavailable,
)
from service.gallery import boundary, keeping, tables
from service.gallery.changelog import Truth, log, look
from service.gallery.contract import (
    DEFAULT_GALLERY,
    DELETED,
    KEEP,
    KEY_ERASED,
    LARGEST_PAGE,
    LOG_TRUNCATED,
    OVERWRITTEN,
    Candidate,
    Consent,
    Enrolment,
    Erasure,
    Export,
    FaceRecord,
    GalleryRecord,
    Idempotency,
    Keep,
    NewFace,
    Page,
    PersonRecord,
)
from service.gallery.datakeys import DataKeys
from service.gallery.live import LiveIndexes, Standing
from service.gallery.safe import Safe
from service.gallery.sealed import MasterKeys
from service.gallery.sqlite import SqliteFile, Transaction
from service.gallery.vault import open_vault

ANSWERS_KEPT_S: Final = 25 * 3600.0  # 24 hours are promised

Item = TypeVar("Item")


class Store:
    """`Galleries` in the SQLite file at `path`; the contract says what each method does.

    search_threads: OpenMP threads of one search. patience_s: how long a call waits for a lock.
    now: the clock, seconds since 1970. masters: the master keys, None to seal nothing; the wrapped
    data keys lie in the file `data_keys`. Raises TemplateKeysRefused when they do not fit.
    """

    def __init__(
        self,
        path: Path,
        *,
        search_threads: int,
        patience_s: float,
        masters: MasterKeys | None = None,
        data_keys: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._file = SqliteFile(path, patience_s=patience_s)
        try:
            keys = None
            if masters is not None:
                where = data_keys or path.with_name("data-keys.sqlite3")
                keys = DataKeys(where, masters=masters, patience_s=patience_s, now=now)
            self._vault = open_vault(self._file, keys)
        except BaseException:
            self._file.close()
            raise
        self._truth = Truth(self._file, self._vault.keys_of)
        self._live = LiveIndexes(self._truth, threads=search_threads)

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
    ) -> GalleryRecord:
        boundary.gallery_name(name)
        text = boundary.metadata(metadata or {})
        if retention_days is not None:
            boundary.retention_days(retention_days)
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
                retention_days=retention_days,
                requires_consent=requires_consent,
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
        retention_days: int | Keep | None = KEEP,
        requires_consent: bool | Keep = KEEP,
    ) -> GalleryRecord:
        if isinstance(calibration, str):
            boundary.calibration_name(calibration)
        if isinstance(retention_days, int):
            boundary.retention_days(retention_days)
        text = KEEP if metadata is KEEP else boundary.metadata(metadata)
        with self._file.write() as db:
            number = tables.standing(db, name).number
            tables.update_gallery(
                db,
                number,
                calibration=calibration,
                metadata=text,
                retention_days=retention_days,
                requires_consent=requires_consent,
            )
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
        _, incomplete = self._finish_erasure()
        if incomplete is not None:
            raise ErasureIncomplete(incomplete)

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
        person = self._checked(person_id, name, metadata, consent)
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            if tables.find_person(db, home, person.id) is not None:
                raise PersonExists(gallery, person.id)
            number = self._upsert_person(db, home, None, person)
            log(db, home.number, persons=1)
            return tables.person(db, self._vault.keys_of, number)

    def get_person(self, gallery: str, person_id: str) -> PersonRecord:
        def at(db: Transaction) -> PersonRecord:
            home = tables.standing(db, gallery)
            return tables.person(db, self._vault.keys_of, tables.person_number(db, home, person_id))

        return look(self._file, at)

    def list_persons(
        self, gallery: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[PersonRecord]:
        after, limit = boundary.cursor_number("p", cursor), boundary.page_limit(limit)

        def at(db: Transaction) -> Page[PersonRecord]:
            home = tables.standing(db, gallery)
            return _page(
                "p", tables.persons(db, self._vault.keys_of, home, after, limit + 1), limit
            )

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
            home = tables.standing(db, gallery)
            number = tables.person_number(db, home, person_id)
            tables.update_person(
                db,
                self._vault.keys_of,
                number,
                name=name,
                metadata=text,
                consent=told,
                now=self._now(),
            )
            log(db, home.number)
            person = tables.person(db, self._vault.keys_of, number)
            if consent is None and person.faces:
                _require_consent(tables.gallery(db, home.number), person)
            return person

    def delete_person(self, gallery: str, person_id: str) -> Erasure:
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            faces = self._erase(db, home, tables.person_number(db, home, person_id))
        erasure = self._erased(home, person_id, faces)
        if erasure.incomplete is not None:
            raise ErasureIncomplete(erasure.incomplete, erasure=erasure)
        return erasure

    def export_person(self, gallery: str, person_id: str) -> Export:
        def at(db: Transaction) -> Export:
            home = tables.standing(db, gallery)
            number = tables.person_number(db, home, person_id)
            theirs = tables.safe_of(db, self._vault.keys_of, number)
            person = tables.person(db, self._vault.keys_of, number)
            faces = tables.faces(db, number, person_id, 0, person.faces)
            return Export(
                tables.gallery(db, home.number),
                person,
                [face for _, face in faces],
                tables.embeddings(db, theirs, number),
            )

        return look(self._file, at)

    # Retention.

    def count_expired(self) -> int:
        with self._file.read() as db:
            return keeping.count_expired(db, self._now())

    def erase_expired(self) -> Erasure | None:
        with self._file.write() as db:
            found = keeping.find_expired(db, self._now())
            if found is None:
                return None
            number, home = found
            person_id = self._id_if_readable(db, number)
            faces = self._erase(db, home, number)
        return self._erased(home, person_id, faces)

    def note_clock(self, *, least_pause_s: float = 0.0) -> float | None:
        now = self._now()
        with self._file.write() as db:
            tables.sweep_answers(db, before=now - ANSWERS_KEPT_S)
            return keeping.note_clock(db, now, least_pause_s)

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
            tables.touch_person(db, person, now=self._now())
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
        consent: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> bytes:
        embeddings_ND = boundary.new_embeddings(faces)
        details = [boundary.details(face.details) for face in faces]
        person = self._checked(person_id, name, metadata, consent)
        boundary.space(space)
        boundary.idempotency(idempotency)
        with self._file.write() as db:
            home = tables.standing(db, gallery)
            if idempotency is not None:
                stored = tables.answered(db, self._vault.keys_of, home, idempotency)
                if stored is not None:
                    return stored
            tables.pin_space(db, home, space)
            number = tables.find_person(db, home, person.id)
            is_new = number is None
            number = self._upsert_person(db, home, number, person)
            theirs = tables.safe_of(db, self._vault.keys_of, number)
            added = self._insert_faces(db, home, number, theirs, embeddings_ND, details)
            log(db, home.number, persons=is_new, faces=len(added), changed=list(added.values()))
            record = tables.person(db, self._vault.keys_of, number)
            _require_consent(tables.gallery(db, home.number), record)
            body = answer(Enrolment(gallery, record, tuple(added)))
            now = self._now()
            if idempotency is not None:
                tables.keep_answer(
                    db, home, idempotency, body, person=number, theirs=theirs, now=now
                )
            tables.sweep_answers(db, before=now - ANSWERS_KEPT_S)
            return body

    def answered(self, gallery: str, idempotency: Idempotency) -> bytes | None:
        boundary.idempotency(idempotency)

        def at(db: Transaction) -> bytes | None:
            return tables.answered(
                db, self._vault.keys_of, tables.standing(db, gallery), idempotency
            )

        return look(self._file, at)

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
        return self._vault.check() + self._file.check() or self._truth.still_broken()

    def close(self) -> None:
        self._vault.close()
        self._file.close()

    def _upsert_person(
        self, db: Transaction, home: Standing, number: int | None, person: "_GivenPerson"
    ) -> int:
        """Makes the person, or updates the one of this number; their number."""
        if number is None:
            return tables.insert_person(
                db,
                home,
                person.id,
                data_key=self._vault.new_key(db),
                name=person.name,
                metadata=person.metadata or "{}",
                consent=person.consent,
                now=self._now(),
            )
        tables.update_person(
            db,
            self._vault.keys_of,
            number,
            name=person.name or KEEP,
            metadata=person.metadata or KEEP,
            consent=person.consent or KEEP,
            now=self._now(),
        )
        return number

    def _insert_faces(
        self,
        db: Transaction,
        home: Standing,
        person: int,
        theirs: Safe,
        embeddings_ND: NDArray[np.float32],
        details: Sequence[str],
    ) -> dict[str, int]:
        """The new faces' numbers by their ids, in order."""
        added = {}
        for embedding_D, text in zip(embeddings_ND, details, strict=True):
            face_id, now = str(ULID()), self._now()
            added[face_id] = tables.insert_face(
                db,
                home,
                person,
                face_id,
                theirs=theirs,
                embedding_D=embedding_D,
                details=text,
                now=now,
            )
        return added

    def _checked(
        self,
        person_id: str | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        consent: Mapping[str, Any] | None,
    ) -> "_GivenPerson":
        return _GivenPerson(
            str(ULID()) if person_id is None else boundary.person_id(person_id),
            None if name is None else boundary.person_name(name),
            None if metadata is None else boundary.metadata(metadata),
            None if consent is None else boundary.consent(consent, self._now()),
        )

    def _erase(self, db: Transaction, home: Standing, number: int) -> dict[str, int]:
        """Deletes the person; their faces' numbers by id."""
        faces = tables.erase_person(db, number)
        log(db, home.number, persons=-1, faces=-len(faces), changed=list(faces.values()))
        return faces

    def _erased(self, home: Standing, person_id: str | None, faces: dict[str, int]) -> Erasure:
        """What was done of an erasure that is committed, and is brought to its end here."""
        self._live.remove(home.number, list(faces.values()))
        done, incomplete = self._finish_erasure()
        time = datetime.fromtimestamp(self._now(), UTC)
        return Erasure(home.name, person_id, tuple(faces), time, (DELETED, *done), incomplete)

    def _finish_erasure(self) -> tuple[list[str], str | None]:
        """Erases the data keys that are due and wipes the file; what was done, and why not all."""
        done, incomplete = [], None
        try:
            if self._vault.erase_due():
                done.append(KEY_ERASED)
        except (ErasureIncomplete, StorageFull, StorageUnavailable) as error:
            incomplete = f"its data key is there: {getattr(error, 'reason', error)}"
        try:
            self._file.wipe()
            done += [OVERWRITTEN, LOG_TRUNCATED]
        except ErasureIncomplete as error:
            incomplete = error.reason
        return done, incomplete

    def _id_if_readable(self, db: Transaction, number: int) -> str | None:
        """The person's id, None where their row does not open; raises where the keys are away."""
        tables.safe_of(db, self._vault.keys_of, number)
        try:
            return tables.person(db, self._vault.keys_of, number).id
        except StorageUnavailable:
            return None


@dataclass(frozen=True)
class _GivenPerson:
    """A person as a caller gave them, checked. metadata: JSON text; None: not given."""

    id: str
    name: str | None
    metadata: str | None
    consent: Consent | None


def _require_consent(gallery: GalleryRecord, person: PersonRecord) -> None:
    """Raises ConsentRequired where the gallery asks for a record that the person has not."""
    if gallery.requires_consent and person.consent is None:
        raise ConsentRequired(gallery.name)


def _page(kind: str, rows: list[tuple[int, Item]], limit: int) -> Page[Item]:
    """A page of at most `limit` of the rows, of which one more was read if there is one."""
    items = [item for _, item in rows[:limit]]
    return Page(items, boundary.cursor(kind, rows[limit - 1][0]) if len(rows) > limit else None)
