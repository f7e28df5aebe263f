"""Enrolling: a person and their faces as a caller gave them, checked, and what one transaction
makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ulid import ULID

from service.errors import ConsentRequired
from service.gallery import answers, boundary, galleries, keeping, people
from service.gallery.changelog import log
from service.gallery.contract import (
    KEEP,
    Consent,
    Enrolment,
    GalleryRecord,
    Idempotency,
    NewFace,
    PersonRecord,
)
from service.gallery.live import Standing
from service.gallery.safe import Safe
from service.gallery.sqlite import Transaction
from service.gallery.vault import Vault


@dataclass(frozen=True)
class GivenPerson:
    """A person as a caller gave them, checked. metadata: JSON text; None: not given. name_if_new:
    the name of somebody who is not there yet and is given none."""

    id: str
    name: str | None
    metadata: str | None
    consent: Consent | None
    name_if_new: str | None = None


@dataclass(frozen=True)
class GivenFaces:
    """Faces as a caller gave them, checked. embeddings_ND: float32 (N, 512), N > 0, unit length, of
    the space; details: N JSON texts."""

    embeddings_ND: NDArray[np.float32]
    details: Sequence[str]
    space: str


def given_person(
    person_id: str | None,
    name: str | None,
    metadata: Mapping[str, Any] | None,
    consent: Mapping[str, Any] | None,
    *,
    name_if_new: str | None = None,
    now: float,
) -> GivenPerson:
    """The person; without an id they get a ULID. Raises FieldInvalid."""
    return GivenPerson(
        str(ULID()) if person_id is None else boundary.person_id(person_id),
        None if name is None else boundary.person_name(name),
        None if metadata is None else boundary.metadata(metadata),
        None if consent is None else boundary.consent(consent, now),
        None if name_if_new is None else boundary.person_name(name_if_new, "name_if_new"),
    )


def given_faces(faces: Sequence[NewFace], space: str) -> GivenFaces:
    """The faces. Raises FieldInvalid, ValueError."""
    embeddings_ND = boundary.new_embeddings(faces)
    details = [boundary.details(face.details) for face in faces]
    return GivenFaces(embeddings_ND, details, boundary.space(space))


def enroll(
    db: Transaction,
    vault: Vault,
    home: Standing,
    person: GivenPerson,
    faces: GivenFaces,
    *,
    answer: Callable[[Enrolment], bytes],
    idempotency: Idempotency | None,
    now: float,
) -> bytes:
    """The answer's bytes, as Galleries.enroll; what was kept, where it was answered before.

    The space comes first: an answer that names faces of another one says nothing of what can be
    found by this.
    """
    galleries.pin_space(db, home, faces.space)
    if idempotency is not None:
        kept = answers.answered(db, vault.keys_of, home, idempotency)
        if kept is not None:
            return kept
    known = people.find_person(db, home, person.id)
    number = put_person(db, vault, home, known, person, now=now)
    theirs = people.safe_of(db, vault.keys_of, number)
    added = _add_faces(db, home, number, theirs, faces, now=now)
    log(db, home.number, persons=known is None, faces=len(added), changed=list(added.values()))
    record = people.person(db, vault.keys_of, number)
    require_consent(galleries.gallery(db, home.number), record)
    body = answer(Enrolment(home.name, record, tuple(added)))
    if idempotency is not None:
        answers.keep(db, home, idempotency, body, person=number, theirs=theirs, now=now)
    if keeping.clock_is_trusted(db, now):
        answers.sweep(db, now=now)
    return body


def put_person(
    db: Transaction,
    vault: Vault,
    home: Standing,
    number: int | None,
    person: GivenPerson,
    *,
    now: float,
) -> int:
    """Makes the person, or has what is given replace what the one of this number has; the number.

    At most one new person a transaction, see Vault.new_key.
    """
    if number is None:
        return people.insert_person(
            db,
            home,
            person.id,
            data_key=vault.new_key(db),
            name=person.name or person.name_if_new,
            metadata=person.metadata or "{}",
            consent=person.consent,
            now=now,
        )
    people.update_person(
        db,
        vault.keys_of,
        number,
        name=person.name or KEEP,
        metadata=person.metadata or KEEP,
        consent=person.consent or KEEP,
        now=now,
    )
    return number


def require_consent(gallery: GalleryRecord, person: PersonRecord) -> None:
    """Raises ConsentRequired where the gallery asks for a record that the person has not."""
    if gallery.requires_consent and person.consent is None:
        raise ConsentRequired(gallery.name)


def _add_faces(
    db: Transaction, home: Standing, person: int, theirs: Safe, faces: GivenFaces, *, now: float
) -> dict[str, int]:
    """The new faces' numbers by their ids, in order."""
    added = {}
    for embedding_D, details in zip(faces.embeddings_ND, faces.details, strict=True):
        face_id = str(ULID())
        added[face_id] = people.insert_face(
            db,
            home,
            person,
            face_id,
            theirs=theirs,
            embedding_D=embedding_D,
            details=details,
            now=now,
        )
    return added
