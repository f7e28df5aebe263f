"""The gallery's contract: its records, and `Galleries`, the one door to people and faces.

Every home of the truth (SQLite here, PostgreSQL for more machines) passes the same suite,
tests/service/gallery_contract.py. Shapes: N queries, D = 512 dimensions of a unit embedding.

What holds for every method
- Times are UTC. Names of galleries and of calibrations stand in URLs: 1 to 128 of A-Z a-z 0-9
  . _ -, beginning with a letter or digit. Person ids and names are 1 to 128 characters of any
  script, without control characters or blanks at the ends. Metadata is a JSON object of at most
  16 KiB. A consent is a JSON object: `basis`, one of BASES; `time`, RFC 3339 with its offset and
  not in the future; `reference`, None or 1 to 512 characters as of a name. A retention is 1 to
  36,500 days. What breaks these is refused with FieldInvalid.
- A method that changes something has it on disk when it returns, all of it or nothing; what an
  error left is as if the method had not been called (ErasureIncomplete is the one exception).
- Every method may raise StorageFull (writes) and StorageUnavailable; every method that names a
  gallery GalleryUnknown, one that names a person PersonUnknown, one that names a face FaceUnknown.
- Methods block, and may be called from any thread of any process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

DIMENSIONS: Final = 512
DEFAULT_GALLERY: Final = "default"
LARGEST_PAGE: Final = 1000
LARGEST_PAGE_BYTES: Final = 4 * 1024 * 1024
LARGEST_TOP_K: Final = 1000
LONGEST_RETENTION_DAYS: Final = 36_500

# What may allow to keep somebody's face, in the law's words. GDPR (Regulation (EU) 2016/679), Art.
# 6(1)(a) to (f); Art. 9(2)(a), which biometric data to identify people ask for besides, unless
# another point of Art. 9(2) holds; and the Illinois BIPA's (740 ILCS 14/15(b)(3)).
BASES: Final = (
    "consent",
    "contract",
    "legal-obligation",
    "vital-interests",
    "public-task",
    "legitimate-interests",
    "explicit-consent",
    "written-release",
)

Item = TypeVar("Item")
Begins = Callable[[str, str | None], None]  # told a gallery, and a person who is about to go


class Keep(Enum):
    """The type of KEEP, which tells "leave it" from "make it null"."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True)
class GalleryRecord:
    """A gallery. space: the embedding space its first face pinned, None while it is free.

    calibration: the name of the one it is bound to, None for the model's own; whether there is one
    of that name is not the gallery's business. revision grows with every committed change of the
    gallery, its persons or its faces. retention_days: how long a person is kept after their last
    change, None until they are erased. requires_consent: nobody is enrolled without a record of it.
    population: whose false match rate decides, None where the service says; as with calibration.
    """

    name: str
    space: str | None
    calibration: str | None
    metadata: Mapping[str, Any]
    persons: int
    faces: int
    revision: int
    created: datetime
    retention_days: int | None = None
    requires_consent: bool = False
    population: str | None = None


@dataclass(frozen=True)
class Consent:
    """What allows to keep a person's face: the basis, one of BASES, when it was given, and where
    it is written down."""

    basis: str
    time: datetime
    reference: str | None


@dataclass(frozen=True)
class PersonRecord:
    """A person of a gallery. faces: how many they have; updated: when they were last enrolled or
    changed, or lost a face; expires: until when they are kept, None until they are erased."""

    id: str
    name: str | None
    metadata: Mapping[str, Any]
    faces: int
    created: datetime
    updated: datetime
    consent: Consent | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class FaceRecord:
    """An enrolled face. id: a ULID; details: what NewFace brought, its embedding left out."""

    id: str
    person_id: str
    details: Mapping[str, Any]
    created: datetime


@dataclass(frozen=True)
class NewFace:
    """A face to enrol. embedding: float32 (512,) of unit length; details: a JSON object."""

    embedding: NDArray[np.float32]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Idempotency:
    """An Idempotency-Key and the fingerprint of the request that it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment is about to commit. faces: the new face ids, in the order given."""

    gallery: str
    person: PersonRecord
    faces: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A person as an answer to a query. face_id: their best face; similarity: its cosine."""

    person_id: str
    name: str | None
    face_id: str
    similarity: float


@dataclass(frozen=True)
class NearestFace:
    """A person's face that is most similar to a query. similarity: its cosine."""

    face_id: str
    similarity: float


@dataclass(frozen=True)
class Export:
    """All that is kept of a person. embeddings: float32 (512,), unit length, by the face's id."""

    gallery: GalleryRecord
    person: PersonRecord
    faces: list[FaceRecord]
    embeddings: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Erasure:
    """A person who is erased. faces: the ids of theirs; time: when.

    person_id: None for somebody of whom even that does not open any more. done: which of DEEDS were
    done; incomplete: why not all of them, None where they were.
    """

    gallery: str
    person_id: str | None
    faces: tuple[str, ...]
    time: datetime
    done: tuple[str, ...]
    incomplete: str | None


DELETED: Final = "deleted"  # committed, and in no later answer
KEY_ERASED: Final = "data-key-erased"  # in copies of the gallery's file they cannot be read
OVERWRITTEN: Final = "overwritten"  # with zeros, where they lay in the gallery's file
LOG_TRUNCATED: Final = "log-truncated"  # the write-ahead log, to nothing
DEEDS: Final = (DELETED, KEY_ERASED, OVERWRITTEN, LOG_TRUNCATED)


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items in order of creation, as many as were asked for or as fit LARGEST_PAGE_BYTES.

    next_cursor: where the next page begins, None at the end.
    """

    items: list[Item]
    next_cursor: str | None


class Galleries(Protocol):
    """Galleries of persons with faces: the truth on disk, and an exact search over it."""

    # Galleries. `default` is always there.

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
        """The new gallery, pinned to `space` if given. Raises GalleryExists, FieldInvalid."""

    def get_gallery(self, name: str) -> GalleryRecord:
        """The gallery."""

    def list_galleries(self, *, cursor: str | None = None, limit: int = 100) -> Page[GalleryRecord]:
        """A page of all galleries. Raises FieldInvalid for a cursor that no page gave."""

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
        """The gallery with what is given replaced; calibration=None binds it to none,
        population=None leaves it to the service, and retention_days=None keeps everybody until they
        are erased."""

    def delete_gallery(self, name: str) -> None:
        """Erases the gallery and all in it; `default` is there again, empty, free and unbound.

        Raises ErasureIncomplete as delete_person does.
        """

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
        """The new person, without a face; without an id they get a ULID. Raises PersonExists."""

    def get_person(self, gallery: str, person_id: str) -> PersonRecord:
        """The person."""

    def list_persons(
        self, gallery: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[PersonRecord]:
        """A page of the gallery's persons; others may come and go between two pages.

        Who is there from the first page to the last is listed exactly once.
        """

    def update_person(
        self,
        gallery: str,
        person_id: str,
        *,
        name: str | Keep | None = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        consent: Mapping[str, Any] | Keep | None = KEEP,
    ) -> PersonRecord:
        """The person with name, metadata and consent replaced where given; None takes it away.

        Raises ConsentRequired when somebody with faces would be without consent in a gallery that
        requires it: who withdraws it is to be deleted.
        """

    def delete_person(self, gallery: str, person_id: str) -> Erasure:
        """Erases the person with all their faces: on disk, and in every later answer.

        Raises ErasureIncomplete, with the Erasure as its `erasure`, when they are deleted but some
        bytes are still on the disk.
        """

    def export_person(self, gallery: str, person_id: str) -> Export:
        """All that is kept of the person, as of one moment."""

    def count_expired(self) -> int:
        """How many persons their galleries keep no longer."""

    def erase_expired(self, begins: Begins = lambda gallery, person_id: None) -> Erasure | None:
        """Erases somebody whom their gallery keeps no longer; None when there is nobody.

        begins: told whom, before it is done; whom it raises for is not erased.
        """

    def note_clock(self, *, least_pause_s: float = 0.0) -> float | None:
        """Notes the clock for retention; for how many seconds it is not to be trusted, 0 if it is.

        None when another process noted it less than least_pause_s ago. A clock is trusted that was
        noted for a day, each time less than a day from the last, so that one that was set wrong
        erases nobody for a day after the leap. Answers that are kept no longer go with it.
        """

    # Faces. They are added by `enroll` alone.

    def list_faces(
        self, gallery: str, person_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[FaceRecord]:
        """A page of the person's faces, as list_persons."""

    def get_face(self, gallery: str, person_id: str, face_id: str) -> FaceRecord:
        """The face."""

    def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        """Erases the face, as delete_person; the person stays, if need be without a face."""

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
        """The answer's bytes, once person, faces and answer are committed in one transaction.

        A person who is not there yet is created (without an id they get a ULID); of one who is
        there, name, metadata and consent are replaced where given; name_if_new is the name of one
        who is created without a name, and of nobody else. The first face pins the gallery to
        `space`. `answer` is called inside the transaction: it must be quick, and what it raises
        undoes the enrolment. With `idempotency`, the same key and fingerprint again gives the
        stored bytes and writes nothing, from any process, for at least 24 hours.
        Raises SpaceMismatch, for a stored answer too, AnswerErased (the person or a face of the
        first answer was deleted since), IdempotencyKeyReused (same key, other fingerprint),
        ConsentRequired, FieldInvalid;
        ValueError when there is no face or an embedding is not float32 (512,) of unit length.
        """

    def answered(self, gallery: str, idempotency: Idempotency) -> bytes | None:
        """The bytes that `enroll` stored under the key, or None: asked before any work is done.

        Raises AnswerErased and IdempotencyKeyReused as `enroll` does.
        """

    def search(
        self, gallery: str, *, space: str, embeddings_ND: NDArray[np.float32], top_k: int
    ) -> list[list[Candidate]]:
        """For each query the top_k persons, most similar first; fewer when there are fewer.

        Exact: a person scores by the best of their faces, and whoever committed before the call
        began, in any process, is seen. Equal similarities go by the older face first, so that
        the answer to a query depends on the gallery alone and not on its neighbours in the call.
        embeddings_ND: float32 (N, 512) of unit length, N may be 0. top_k: 1 to 1000.
        Raises SpaceMismatch, FieldInvalid (top_k), ValueError (embeddings).
        """

    def search_person(
        self, gallery: str, person_id: str, *, space: str, embeddings_ND: NDArray[np.float32]
    ) -> list[NearestFace | None]:
        """For each query the most similar of this person's faces; None without a face.

        A person who is not there has none. Raises SpaceMismatch, ValueError as `search` does.
        """

    def persons_in(self, gallery: str) -> int:
        """How many persons the gallery has, from a counter: O(1)."""

    # The house.

    def warm_up(self) -> None:
        """Brings the index of every gallery into memory, so that no caller waits for it."""

    def check(self) -> list[str]:
        """Why the store cannot be used now, a sentence each; empty when it can."""

    def close(self) -> None:
        """Lets go of files and memory; the object is not used afterwards."""
