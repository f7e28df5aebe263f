"""Enrolling people whose embeddings were read: each once, whole or not at all."""

from collections.abc import Mapping
from typing import Any, Final

from service.errors import PersonUnknown
from service.gallery.contract import Galleries, NewFace
from service.imports.embeddings import Person

IMPORTED: Final = "imported"  # in a person's metadata: the contents that were imported for them


def with_import(metadata: Mapping[str, Any], content: str) -> dict[str, Any] | None:
    """The metadata with this content noted in it; None where it was noted before."""
    before = metadata.get(IMPORTED, [])
    if not isinstance(before, list):
        before = []
    return None if content in before else {**metadata, IMPORTED: [*before, content]}


def enroll_person(galleries: Galleries, gallery: str, person: Person, *, space: str) -> bool:
    """Whether the person was enrolled now: not, where the same was imported for them before.

    One transaction. Raises what Galleries.enroll does.
    """
    try:
        metadata = galleries.get_person(gallery, person.id).metadata
    except PersonUnknown:
        metadata = {}
    noted = with_import(metadata, person.content)
    if noted is None:
        return False
    galleries.enroll(
        gallery,
        [NewFace(embedding, {}) for embedding in person.embeddings_ND],
        space=space,
        answer=lambda _: b"",
        person_id=person.id,
        name=person.name,
        metadata=noted,
    )
    return True
