"""The suite that every home of the gallery passes: what service/gallery/contract.py promises.

A home's test module derives from GalleryContract and gives the fixture `opener`: a function without
arguments, picklable, that opens the same empty place anew each time it is called, from any process.
"""

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from service.errors import (
    AnswerErased,
    ConsentRequired,
    FaceUnknown,
    FieldInvalid,
    GalleryExists,
    GalleryUnknown,
    IdempotencyKeyReused,
    PersonExists,
    PersonUnknown,
    SpaceMismatch,
)
from service.gallery import paging
from service.gallery.contract import (
    BASES,
    DELETED,
    LOG_TRUNCATED,
    OVERWRITTEN,
    Candidate,
    Consent,
    Enrolment,
    Galleries,
    Idempotency,
    NewFace,
    Page,
)

Opener = Callable[[], Galleries]

SPACE = "ecacface-mobile/1"
CONSENT = {
    "basis": "explicit-consent",
    "time": "2026-01-31T09:30:00+01:00",
    "reference": "form 17",
}
OTHER_SPACE = "ecacface-mobile/2"
SPAWN = multiprocessing.get_context("spawn")


def units(count: int, seed: int) -> NDArray[np.float32]:
    """Random unit embeddings, float32 (count, 512): any two have a cosine near 0."""
    drawn = np.random.default_rng(seed).standard_normal((count, 512)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def near(embedding: NDArray[np.float32], cosine: float, seed: int) -> NDArray[np.float32]:
    """A unit embedding at this cosine to the given one, in a random direction."""
    other = units(1, seed)[0]
    other = other - (other @ embedding) * embedding
    other /= np.linalg.norm(other)
    return np.asarray(cosine * embedding + np.sqrt(1 - cosine**2) * other, np.float32)


def answer_of(enrolment: Enrolment) -> bytes:
    """An answer as the API would give it."""
    return json.dumps({"id": enrolment.person.id, "faces": enrolment.faces}).encode()


def enroll(
    gallery: Galleries,
    person_id: str | None,
    *embeddings: NDArray[np.float32],
    into: str = "default",
    space: str = SPACE,
    **more: Any,
) -> list[str]:
    """The ids of the faces that these embeddings became."""
    faces = [NewFace(embedding, {"n": n}) for n, embedding in enumerate(embeddings)]
    answer = gallery.enroll(into, faces, space=space, answer=answer_of, person_id=person_id, **more)
    enrolled: list[str] = json.loads(answer)["faces"]
    return enrolled


def search(
    gallery: Galleries,
    *embeddings: NDArray[np.float32],
    top_k: int = 5,
    into: str = "default",
    space: str = SPACE,
) -> list[list[Candidate]]:
    """The candidates of each embedding."""
    queries = np.stack(embeddings)
    return gallery.search(into, space=space, embeddings_ND=queries, top_k=top_k)


def all_pages(read: Callable[[str | None], Page[Any]]) -> list[Any]:
    """The items of every page in turn."""
    page = read(None)
    items = list(page.items)
    while page.next_cursor is not None:
        page = read(page.next_cursor)
        items += page.items
    return items


def brute_force(
    faces: Mapping[str, tuple[str, NDArray[np.float32]]], query: NDArray[np.float32], top_k: int
) -> list[tuple[str, str, float]]:
    """(person, face, cosine) of the best persons; faces: (person, embedding), oldest first."""
    scored = [
        (
            float(np.float32(np.dot(e.astype(np.float64), query.astype(np.float64)))),
            -age,
            person,
            id,
        )
        for age, (id, (person, e)) in enumerate(faces.items())
    ]
    best: dict[str, tuple[str, str, float]] = {}
    for cosine, _, person, id in sorted(scored, reverse=True):
        best.setdefault(person, (person, id, min(cosine, 1.0)))
    return list(best.values())[:top_k]


def assert_same_candidates(
    found: Sequence[Candidate], expected: Sequence[tuple[str, str, float]]
) -> None:
    assert [(c.person_id, c.face_id) for c in found] == [(p, f) for p, f, _ in expected]
    assert [c.similarity for c in found] == pytest.approx([s for *_, s in expected], abs=1e-6)


class GalleryContract:
    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("each home gives its own")

    @pytest.fixture
    def gallery(self, opener: Opener) -> Iterator[Galleries]:
        opened = opener()
        yield opened
        opened.close()

    @pytest.fixture
    def neighbour(self, opener: Opener) -> Iterator[Galleries]:
        """The same place opened a second time, as another process has it."""
        opened = opener()
        yield opened
        opened.close()

    # Galleries.

    def test_the_default_gallery_is_there_from_the_start(self, gallery: Galleries) -> None:
        record = gallery.get_gallery("default")
        assert (record.space, record.metadata, record.persons, record.faces) == (None, {}, 0, 0)
        assert [g.name for g in gallery.list_galleries().items] == ["default"]
        assert gallery.check() == []

    def test_a_created_gallery_is_as_it_was_given(self, gallery: Galleries) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        made = gallery.create_gallery("guests", space=SPACE, metadata={"floor": 3})
        assert made == gallery.get_gallery("guests")
        assert (made.name, made.space, made.metadata) == ("guests", SPACE, {"floor": 3})
        assert before < made.created < datetime.now(UTC) + timedelta(seconds=1)

    def test_a_gallery_of_a_name_that_is_taken_is_refused(self, gallery: Galleries) -> None:
        gallery.create_gallery("guests", metadata={"kept": True})
        with pytest.raises(GalleryExists):
            gallery.create_gallery("guests")
        assert gallery.get_gallery("guests").metadata == {"kept": True}

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a/b", "a b", "-a", "ä", "a\n", "a" * 129, "\ud800", "%41"]
    )
    def test_a_gallery_name_that_cannot_stand_in_a_url_is_refused(
        self, gallery: Galleries, name: str
    ) -> None:
        with pytest.raises(FieldInvalid) as refused:
            gallery.create_gallery(name)
        assert refused.value.field == "name"
        json.dumps(refused.value.values(), ensure_ascii=False).encode()  # it can be answered
        with pytest.raises(GalleryUnknown) as unknown:
            gallery.get_gallery(name)
        json.dumps(unknown.value.values(), ensure_ascii=False).encode()

    def test_every_verb_names_the_gallery_that_is_not_there(self, gallery: Galleries) -> None:
        (embedding,) = units(1, 0)
        verbs: list[Callable[[], object]] = [
            lambda: gallery.get_gallery("none"),
            lambda: gallery.update_gallery("none", metadata={}),
            lambda: gallery.delete_gallery("none"),
            lambda: gallery.create_person("none"),
            lambda: gallery.get_person("none", "ada"),
            lambda: gallery.list_persons("none"),
            lambda: gallery.update_person("none", "ada", name="Ada"),
            lambda: gallery.delete_person("none", "ada"),
            lambda: gallery.export_person("none", "ada"),
            lambda: gallery.list_faces("none", "ada"),
            lambda: gallery.get_face("none", "ada", "f"),
            lambda: gallery.delete_face("none", "ada", "f"),
            lambda: enroll(gallery, "ada", embedding, into="none"),
            lambda: gallery.answered("none", Idempotency("k", "f")),
            lambda: search(gallery, embedding, into="none"),
            lambda: gallery.persons_in("none"),
        ]
        for verb in verbs:
            with pytest.raises(GalleryUnknown) as refused:
                verb()
            assert refused.value.value == "none"

    def test_every_verb_names_the_person_or_face_that_is_not_there(
        self, gallery: Galleries
    ) -> None:
        gallery.create_person("default", person_id="ada")
        for absent in ["bob", "", "\ud800", "a" * 200]:
            verbs: list[Callable[[], object]] = [
                lambda who=absent: gallery.get_person("default", who),
                lambda who=absent: gallery.update_person("default", who, name="Ada"),
                lambda who=absent: gallery.delete_person("default", who),
                lambda who=absent: gallery.export_person("default", who),
                lambda who=absent: gallery.list_faces("default", who),
                lambda who=absent: gallery.get_face("default", who, "f"),
                lambda who=absent: gallery.delete_face("default", who, "f"),
            ]
            for verb in verbs:
                with pytest.raises(PersonUnknown):
                    verb()
            for of_face in (gallery.get_face, gallery.delete_face):
                with pytest.raises(FaceUnknown):
                    of_face("default", "ada", absent)

    def test_a_gallerys_metadata_is_replaced_as_a_whole(self, gallery: Galleries) -> None:
        gallery.create_gallery("guests", metadata={"a": 1, "b": 2})
        revision = gallery.get_gallery("guests").revision
        updated = gallery.update_gallery("guests", metadata={"b": None})
        assert updated == gallery.get_gallery("guests")
        assert updated.metadata == {"b": None}
        assert updated.revision > revision

    def test_a_gallery_is_bound_to_a_calibration_and_to_none_again(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        assert gallery.get_gallery("default").calibration is None
        made = gallery.create_gallery("guests", calibration="staff-2026", metadata={"a": 1})
        assert (made.calibration, made) == ("staff-2026", neighbour.get_gallery("guests"))
        rebound = gallery.update_gallery("guests", calibration="other")
        assert (rebound.calibration, rebound.metadata) == ("other", {"a": 1})
        assert rebound.revision > made.revision
        assert gallery.update_gallery("guests", metadata={}).calibration == "other"
        freed = gallery.update_gallery("guests", calibration=None)
        assert (freed.calibration, freed.metadata) == (None, {})
        assert [g.calibration for g in neighbour.list_galleries().items] == [None, None]

    def test_a_gallery_may_name_the_population_that_decides_and_leave_it_again(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        assert gallery.get_gallery("default").population is None
        made = gallery.create_gallery("guests", population="worst", metadata={"a": 1})
        assert (made.population, made) == ("worst", neighbour.get_gallery("guests"))
        changed = gallery.update_gallery("guests", population="strangers")
        assert (changed.population, changed.metadata) == ("strangers", {"a": 1})
        assert gallery.update_gallery("guests", metadata={}).population == "strangers"
        assert gallery.update_gallery("guests", population=None).population is None
        for verb in (gallery.create_gallery, gallery.update_gallery):
            with pytest.raises(FieldInvalid) as refused:
                verb("another", population="a b")
            assert refused.value.field == "population"

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a" * 129, "\ud800"])
    def test_a_calibration_of_a_name_that_cannot_be_is_refused(
        self, gallery: Galleries, name: str
    ) -> None:
        verbs: list[Callable[[], object]] = [
            lambda: gallery.create_gallery("guests", calibration=name),
            lambda: gallery.update_gallery("default", calibration=name),
        ]
        for verb in verbs:
            with pytest.raises(FieldInvalid) as refused:
                verb()
            assert refused.value.field == "calibration"
            json.dumps(refused.value.values(), ensure_ascii=False).encode()
        assert [g.calibration for g in gallery.list_galleries().items] == [None]

    def test_galleries_keep_their_people_apart(self, gallery: Galleries) -> None:
        a, b = units(2, 1)
        gallery.create_gallery("guests")
        enroll(gallery, "ada", a)
        enroll(gallery, "ada", b, into="guests", name="Another Ada")
        assert [c.name for c in search(gallery, b)[0]] == [None]
        assert [c.name for c in search(gallery, b, into="guests")[0]] == ["Another Ada"]
        gallery.delete_person("guests", "ada")
        assert gallery.get_person("default", "ada").faces == 1

    def test_a_deleted_gallery_is_gone_with_all_in_it(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        gallery.create_gallery("guests")
        (embedding,) = units(1, 2)
        once = Idempotency("key", "print")
        enroll(gallery, "ada", embedding, into="guests", idempotency=once)
        assert search(neighbour, embedding, into="guests")[0]
        gallery.delete_gallery("guests")
        for reader in (gallery, neighbour):
            with pytest.raises(GalleryUnknown):
                search(reader, embedding, into="guests")
        gallery.create_gallery("guests", space=OTHER_SPACE)
        for reader in (gallery, neighbour):
            assert reader.get_gallery("guests").persons == 0
            assert reader.answered("guests", once) is None
            assert search(reader, embedding, into="guests", space=OTHER_SPACE) == [[]]

    def test_the_default_gallery_deleted_is_there_again_empty_free_and_unbound(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        (embedding,) = units(1, 3)
        enroll(gallery, "ada", embedding)
        gallery.update_gallery("default", calibration="staff", metadata={"a": 1})
        assert search(neighbour, embedding)[0]
        before = gallery.get_gallery("default")
        gallery.delete_gallery("default")
        after = gallery.get_gallery("default")
        assert (after.space, after.metadata, after.persons, after.faces) == (None, {}, 0, 0)
        assert after.calibration is None
        assert after.revision > before.revision
        assert search(neighbour, embedding, space=OTHER_SPACE) == [[]]
        enroll(gallery, "bob", embedding, space=OTHER_SPACE)
        assert [c.person_id for c in search(neighbour, embedding, space=OTHER_SPACE)[0]] == ["bob"]

    # Persons.

    @pytest.mark.parametrize(
        "person_id", ["ada", "Ñandú", "李 雷", "a/b?c#d", "...", "👩‍🔬", "می‌خواهم", "x" * 128, "0"]
    )
    def test_a_person_has_the_id_that_they_were_given(
        self, gallery: Galleries, person_id: str
    ) -> None:
        made = gallery.create_person("default", person_id=person_id, name=person_id)
        assert made == gallery.get_person("default", person_id)
        assert (made.id, made.name, made.metadata, made.faces) == (person_id, person_id, {}, 0)
        (embedding,) = units(1, 4)
        enroll(gallery, person_id, embedding)
        assert [c.person_id for c in search(gallery, embedding)[0]] == [person_id]
        gallery.delete_person("default", person_id)
        assert gallery.list_persons("default").items == []

    @pytest.mark.parametrize("text", [".", ".."])
    def test_an_id_that_clients_take_out_of_a_path_is_refused(
        self, gallery: Galleries, text: str
    ) -> None:
        (embedding,) = units(1, 5)
        with pytest.raises(FieldInvalid, match="which paths lose"):
            gallery.create_person("default", person_id=text)
        with pytest.raises(FieldInvalid, match="which paths lose"):
            enroll(gallery, text, embedding)
        assert gallery.create_person("default", person_id="ada", name=text).name == text

    @pytest.mark.parametrize(
        "text", ["", " ", " ada", "ada\n", "a\x00b", "a\x1bb", "a\u2028b", "\ud800", "x" * 129]
    )
    def test_an_id_or_name_that_cannot_be_read_is_refused(
        self, gallery: Galleries, text: str
    ) -> None:
        (embedding,) = units(1, 5)
        verbs: list[Callable[[], object]] = [
            lambda: gallery.create_person("default", person_id=text),
            lambda: gallery.create_person("default", name=text),
            lambda: enroll(gallery, text, embedding),
            lambda: enroll(gallery, "ada", embedding, name=text),
        ]
        for verb in verbs:
            with pytest.raises(FieldInvalid) as refused:
                verb()
            json.dumps(refused.value.values(), ensure_ascii=False).encode()
        assert gallery.list_persons("default").items == []

    @pytest.mark.parametrize(
        "metadata",
        [{"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": "x" * 16_384}],
        ids=["nan", "a set", "a lone surrogate", "too large"],
    )
    def test_metadata_that_is_no_json_of_a_fair_size_is_refused(
        self, gallery: Galleries, metadata: dict[str, Any]
    ) -> None:
        gallery.create_person("default", person_id="ada")
        verbs: list[Callable[[], object]] = [
            lambda: gallery.create_person("default", metadata=metadata),
            lambda: gallery.update_person("default", "ada", metadata=metadata),
            lambda: gallery.create_gallery("guests", metadata=metadata),
            lambda: gallery.update_gallery("default", metadata=metadata),
            lambda: enroll(gallery, "ada", units(1, 6)[0], metadata=metadata),
        ]
        for verb in verbs:
            with pytest.raises(FieldInvalid) as refused:
                verb()
            assert refused.value.field == "metadata"
            json.dumps(refused.value.values(), ensure_ascii=False).encode()
        assert gallery.get_gallery("default").faces == 0

    def test_metadata_comes_back_as_it_went_in(self, gallery: Galleries) -> None:
        metadata = {"a": [1, 2.5, None, True, {"b": "ü 李 \u0000"}], "": {}}
        gallery.create_person("default", person_id="ada", metadata=metadata)
        assert gallery.get_person("default", "ada").metadata == metadata

    def test_a_person_without_an_id_gets_one(self, gallery: Galleries) -> None:
        made = [gallery.create_person("default").id for _ in range(3)]
        assert len(set(made)) == 3
        enroll(gallery, None, units(1, 7)[0])
        assert gallery.persons_in("default") == 4

    def test_a_person_who_is_there_is_not_created_again(self, gallery: Galleries) -> None:
        gallery.create_person("default", person_id="ada", name="Ada")
        with pytest.raises(PersonExists):
            gallery.create_person("default", person_id="ada", name="Other")
        assert gallery.get_person("default", "ada").name == "Ada"
        assert gallery.persons_in("default") == 1

    def test_an_update_changes_only_what_is_given(self, gallery: Galleries) -> None:
        made = gallery.create_person("default", person_id="ada", name="Ada", metadata={"a": 1})
        named = gallery.update_person("default", "ada", name="Ada L.")
        assert (named.name, named.metadata) == ("Ada L.", {"a": 1})
        assert named.created == made.created <= named.updated
        changed = gallery.update_person("default", "ada", metadata={})
        assert (changed.name, changed.metadata) == ("Ada L.", {})
        assert gallery.update_person("default", "ada", name=None).name is None
        assert gallery.get_person("default", "ada").name is None

    # Consent, retention, export.

    def test_a_consent_is_kept_replaced_and_taken_away(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        given = Consent("explicit-consent", datetime(2026, 1, 31, 8, 30, tzinfo=UTC), "form 17")
        made = gallery.create_person("default", person_id="ada", consent=CONSENT)
        assert (made.consent, neighbour.get_person("default", "ada").consent) == (given, given)
        enroll(gallery, "ada", *units(1, 40))
        assert gallery.update_person("default", "ada", name="Ada").consent == given
        other = {"basis": "contract", "time": "2026-02-01T00:00:00Z", "reference": None}
        enroll(gallery, "ada", *units(1, 41), consent=other)
        assert neighbour.get_person("default", "ada").consent == Consent(
            "contract", datetime(2026, 2, 1, tzinfo=UTC), None
        )
        assert gallery.update_person("default", "ada", consent=None).consent is None
        assert gallery.get_person("default", "ada").name == "Ada"

    @pytest.mark.parametrize(
        ("field", "change"),
        [
            ("consent.basis", {"basis": "a handshake"}),
            ("consent.basis", {"basis": None}),
            ("consent.basis", {"basis": ["consent"]}),
            ("consent.time", {"time": "2026-01-31"}),
            ("consent.time", {"time": "2026-01-31T09:30:00"}),
            ("consent.time", {"time": "2026-02-31T09:30:00Z"}),
            ("consent.time", {"time": "20260131T093000Z"}),
            ("consent.time", {"time": "0001-01-01T00:00:00+12:00"}),
            ("consent.time", {"time": "2026-01-31T24:00:00Z"}),
            ("consent.time", {"time": "2026-01-31T09:30:00+05:75"}),
            ("consent.time", {"time": "2026-01-31T09:30:00.Z"}),
            ("consent.time", {"time": "2026-01-31T09:30:00,5Z"}),
            ("consent.time", {"time": 0}),
            ("consent.time", {"time": "2999-01-01T00:00:00Z"}),
            ("consent.reference", {"reference": ""}),
            ("consent.reference", {"reference": "x" * 513}),
            ("consent.reference", {"reference": 17}),
            ("consent", {"signed": True}),
        ],
    )
    def test_a_consent_that_is_none_is_refused(
        self, gallery: Galleries, field: str, change: dict[str, Any]
    ) -> None:
        consent = {**CONSENT, **change}
        gallery.create_person("default", person_id="ada", consent=CONSENT)
        verbs: list[Callable[[], object]] = [
            lambda: gallery.create_person("default", consent=consent),
            lambda: gallery.update_person("default", "ada", consent=consent),
            lambda: enroll(gallery, "ada", *units(1, 42), consent=consent),
        ]
        for verb in verbs:
            with pytest.raises(FieldInvalid) as refused:
                verb()
            assert refused.value.field == field
            json.dumps(refused.value.values(), ensure_ascii=False).encode()
        record = gallery.get_gallery("default")
        assert (record.persons, record.faces) == (1, 0)

    @pytest.mark.parametrize(
        ("time", "microseconds"),
        [
            ("2026-01-31T08:30:00.1234567Z", 123456),  # .NET
            ("2026-01-31T09:30:00.123456789+01:00", 123456),  # Go, Java
            ("2026-01-31T08:30:00.5Z", 500000),
            ("2026-01-31t08:30:00z", 0),
            ("2026-01-31t08:30:00.000000999-00:00", 0),
        ],
    )
    def test_every_time_of_rfc_3339_is_taken(
        self, gallery: Galleries, neighbour: Galleries, time: str, microseconds: int
    ) -> None:
        gallery.create_person("default", person_id="ada", consent={**CONSENT, "time": time})
        consent = neighbour.get_person("default", "ada").consent
        assert consent is not None
        assert consent.time == datetime(2026, 1, 31, 8, 30, 0, microseconds, tzinfo=UTC)

    @pytest.mark.parametrize("basis", BASES)
    def test_every_basis_is_taken(self, gallery: Galleries, basis: str) -> None:
        made = gallery.create_person("default", consent={"basis": basis, "time": CONSENT["time"]})
        assert made.consent is not None
        assert (made.consent.basis, made.consent.reference) == (basis, None)

    def test_a_gallery_that_requires_consent_enrols_nobody_without(
        self, gallery: Galleries
    ) -> None:
        a, b = units(2, 43)
        enroll(gallery, "eve", a)
        assert gallery.update_gallery("default", requires_consent=True).requires_consent
        gallery.create_person("default", person_id="ada")  # without a face
        once = Idempotency("key", "print")
        for who in ("ada", "bob", "eve", None):
            with pytest.raises(ConsentRequired):
                enroll(gallery, who, b, idempotency=once)
        assert search(gallery, b)[0][0].person_id == "eve"
        assert gallery.answered("default", once) is None
        enroll(gallery, "ada", b, consent=CONSENT, idempotency=once)
        enroll(gallery, "ada", b)  # hers is on record
        with pytest.raises(ConsentRequired):
            gallery.update_person("default", "ada", consent=None, name="Ada")
        assert gallery.get_person("default", "ada").name is None
        assert gallery.update_person("default", "eve", name="Eve").name == "Eve"
        gallery.update_gallery("default", requires_consent=False)
        enroll(gallery, "bob", b)

    def test_a_retention_says_until_when_people_are_kept(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        made = gallery.create_gallery("guests", retention_days=30, requires_consent=True)
        assert (made.retention_days, made.requires_consent) == (30, True)
        assert made == neighbour.get_gallery("guests")
        person = gallery.create_person("guests", person_id="ada")
        assert person.expires == person.updated + timedelta(days=30)
        changed = gallery.update_person("guests", "ada", name="Ada")
        assert changed.expires == changed.updated + timedelta(days=30)
        assert changed.updated > person.updated
        assert gallery.update_gallery("guests", retention_days=1).retention_days == 1
        assert neighbour.get_person("guests", "ada").expires == changed.updated + timedelta(days=1)
        assert gallery.update_gallery("guests", metadata={}).retention_days == 1
        gallery.update_gallery("guests", retention_days=None)
        assert gallery.get_person("guests", "ada").expires is None
        assert (gallery.count_expired(), gallery.erase_expired()) == (0, None)

    @pytest.mark.parametrize("days", [0, -1, 36_501])
    def test_a_retention_that_cannot_be_is_refused(self, gallery: Galleries, days: int) -> None:
        verbs: list[Callable[[], object]] = [
            lambda: gallery.create_gallery("guests", retention_days=days),
            lambda: gallery.update_gallery("default", retention_days=days),
        ]
        for verb in verbs:
            with pytest.raises(FieldInvalid) as refused:
                verb()
            assert refused.value.field == "retention_days"

    def test_an_export_has_all_that_was_given_of_a_person_and_of_nobody_else(
        self, gallery: Galleries
    ) -> None:
        embeddings = units(3, 44)
        given: dict[str, Any] = {"name": "Ada", "metadata": {"a": 1}, "consent": CONSENT}
        faces = enroll(gallery, "ada", *embeddings[:2], **given)
        enroll(gallery, "bob", embeddings[2])
        found = gallery.export_person("default", "ada")
        assert found.gallery == gallery.get_gallery("default")
        assert found.person == gallery.get_person("default", "ada")
        assert found.faces == gallery.list_faces("default", "ada").items
        assert list(found.embeddings) == faces
        for face, embedding in zip(faces, embeddings, strict=False):
            assert np.array_equal(found.embeddings[face], embedding)
        gallery.create_person("default", person_id="eve")
        assert gallery.export_person("default", "eve").embeddings == {}

    def test_an_erasure_says_what_was_done(self, gallery: Galleries) -> None:
        faces = enroll(gallery, "ada", *units(2, 45))
        before = datetime.now(UTC) - timedelta(seconds=1)
        erasure = gallery.delete_person("default", "ada")
        assert (erasure.gallery, erasure.person_id) == ("default", "ada")
        assert (list(erasure.faces), erasure.incomplete) == (faces, None)
        assert {DELETED, OVERWRITTEN, LOG_TRUNCATED} <= set(erasure.done)
        assert before < erasure.time < datetime.now(UTC) + timedelta(seconds=1)

    def test_a_new_name_is_in_the_next_answer(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        (embedding,) = units(1, 8)
        enroll(gallery, "ada", embedding, name="Ada")
        assert search(neighbour, embedding)[0][0].name == "Ada"
        gallery.update_person("default", "ada", name="Countess")
        assert search(neighbour, embedding)[0][0].name == "Countess"

    def test_pages_show_everyone_once_in_order_of_creation(self, gallery: Galleries) -> None:
        ids = [gallery.create_person("default", person_id=f"p{n}").id for n in (3, 1, 2, 5, 4)]
        names = [gallery.create_gallery(f"g{n}").name for n in (2, 1, 3)]
        faces = enroll(gallery, "p3", *units(5, 9))
        for limit in (1, 2, 5, 1000):
            persons = all_pages(
                lambda c, n=limit: gallery.list_persons("default", cursor=c, limit=n)
            )
            assert [p.id for p in persons] == ids
            listed = all_pages(lambda c, n=limit: gallery.list_galleries(cursor=c, limit=n))
            assert [g.name for g in listed] == ["default", *names]
            theirs = all_pages(
                lambda c, n=limit: gallery.list_faces("default", "p3", cursor=c, limit=n)
            )
            assert [f.id for f in theirs] == faces
        full = gallery.list_persons("default", limit=5)
        assert full.next_cursor is None
        assert full.items[0] == gallery.get_person("default", "p3")

    def test_a_page_ends_before_it_has_more_bytes_than_it_may(
        self, gallery: Galleries, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paging, "LARGEST_PAGE_BYTES", 5_000)
        wide = {"note": "é" * 1_000}
        for n in range(6):
            gallery.create_person("default", person_id=f"p{n}", metadata=wide)
            gallery.create_gallery(f"g{n}", metadata=wide)
        gallery.create_person("default", person_id="widest", metadata={"note": "x" * 16_000})
        first = gallery.list_persons("default", limit=1000)
        assert 1 <= len(first.items) <= 2
        persons = all_pages(lambda c: gallery.list_persons("default", cursor=c, limit=1000))
        assert [p.id for p in persons] == [*(f"p{n}" for n in range(6)), "widest"]
        assert len(gallery.list_galleries(limit=1000).items) <= 3  # `default` is one, and narrow
        listed = all_pages(lambda c: gallery.list_galleries(cursor=c, limit=1000))
        assert [g.name for g in listed] == ["default", *(f"g{n}" for n in range(6))]

    def test_pages_stay_in_step_while_others_come_and_go(self, gallery: Galleries) -> None:
        for n in range(6):
            gallery.create_person("default", person_id=f"p{n}")
        first = gallery.list_persons("default", limit=3)
        for gone in ("p0", "p2", "p4"):  # read before, the cursor's own, and yet to come
            gallery.delete_person("default", gone)
        gallery.create_person("default", person_id="p0")
        rest = gallery.list_persons("default", cursor=first.next_cursor, limit=3)
        assert [p.id for p in first.items] == ["p0", "p1", "p2"]
        assert [p.id for p in rest.items] == ["p3", "p5", "p0"]

    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "cDE=", "cA", "cC0x", "cDA", "cDAx", "cDEg", "ä", "\ud800", "ZzE", "A" * 99],
    )
    def test_a_broken_cursor_is_refused(self, gallery: Galleries, cursor: str) -> None:
        with pytest.raises(FieldInvalid) as refused:
            gallery.list_persons("default", cursor=cursor)
        assert refused.value.field == "cursor"

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    def test_a_page_of_no_or_too_many_items_is_refused(
        self, gallery: Galleries, limit: int
    ) -> None:
        for read in (
            lambda: gallery.list_galleries(limit=limit),
            lambda: gallery.list_persons("default", limit=limit),
        ):
            with pytest.raises(FieldInvalid):
                read()

    # Enrolment.

    def test_an_enrolment_is_answered_with_what_was_committed(self, gallery: Galleries) -> None:
        seen: list[Enrolment] = []

        def answer(enrolment: Enrolment) -> bytes:
            seen.append(enrolment)
            return b"the answer"

        faces = [NewFace(e, {"box": [n, 2, 3, 4]}) for n, e in enumerate(units(3, 10))]
        metadata = {"from": "a test"}
        answered = gallery.enroll(
            "default",
            faces,
            space=SPACE,
            answer=answer,
            person_id="ada",
            name="Ada",
            metadata=metadata,
        )
        assert answered == b"the answer"
        (enrolment,) = seen
        assert enrolment.gallery == "default"
        assert enrolment.person == gallery.get_person("default", "ada")
        assert (enrolment.person.name, enrolment.person.metadata) == ("Ada", metadata)
        assert enrolment.person.faces == len(enrolment.faces) == 3
        listed = gallery.list_faces("default", "ada").items
        assert [f.id for f in listed] == list(enrolment.faces)
        assert [f.details for f in listed] == [{"box": [n, 2, 3, 4]} for n in range(3)]
        assert listed[1] == gallery.get_face("default", "ada", enrolment.faces[1])
        record = gallery.get_gallery("default")
        assert (record.persons, record.faces, record.space) == (1, 3, SPACE)

    def test_a_second_enrolment_adds_faces_and_keeps_what_is_not_given(
        self, gallery: Galleries
    ) -> None:
        a, b, c = units(3, 11)
        enroll(gallery, "ada", a, name="Ada", metadata={"a": 1})
        enroll(gallery, "ada", b)
        kept = gallery.get_person("default", "ada")
        assert (kept.name, kept.metadata, kept.faces) == ("Ada", {"a": 1}, 2)
        enroll(gallery, "ada", c, name="Countess", metadata={})
        changed = gallery.get_person("default", "ada")
        assert (changed.name, changed.metadata, changed.faces) == ("Countess", {}, 3)
        assert gallery.persons_in("default") == 1

    def test_a_name_for_who_is_new_renames_nobody(self, gallery: Galleries) -> None:
        a, b = units(2, 11)
        enroll(gallery, "ada", a, name_if_new="ada")
        assert gallery.get_person("default", "ada").name == "ada"
        gallery.update_person("default", "ada", name="Ada Lovelace")
        enroll(gallery, "ada", b, name_if_new="ada")
        assert gallery.get_person("default", "ada").name == "Ada Lovelace"
        gallery.update_person("default", "ada", name=None)
        enroll(gallery, "ada", b, name_if_new="ada")
        assert gallery.get_person("default", "ada").name is None
        with pytest.raises(FieldInvalid, match="name_if_new"):
            enroll(gallery, "bob", a, name_if_new="b\n")

    def test_an_answer_that_cannot_be_made_undoes_the_enrolment(self, gallery: Galleries) -> None:
        def answer(enrolment: Enrolment) -> bytes:
            raise ZeroDivisionError

        before = gallery.get_gallery("default")
        once = Idempotency("key", "print")
        (embedding,) = units(1, 12)
        with pytest.raises(ZeroDivisionError):
            gallery.enroll(
                "default",
                [NewFace(embedding, {})],
                space=SPACE,
                answer=answer,
                person_id="ada",
                idempotency=once,
            )
        assert gallery.get_gallery("default") == before
        assert gallery.answered("default", once) is None
        assert search(gallery, embedding) == [[]]
        enroll(gallery, "ada", embedding, idempotency=once)

    def test_an_embedding_that_is_not_one_is_refused(self, gallery: Galleries) -> None:
        (good,) = units(1, 13)
        bad = [good * 1.01, good * 0, good.astype(np.float64), good[:511], good[None]]
        bad += [np.where(np.arange(512) == 5, np.float32(np.nan), good)]
        for embedding in bad:
            with pytest.raises(ValueError, match=r"float32|unit"):
                enroll(gallery, "ada", embedding)
            with pytest.raises(ValueError, match=r"float32|unit"):
                search(gallery, embedding)
        with pytest.raises(ValueError, match="no face"):
            enroll(gallery, "ada")
        with pytest.raises(ValueError, match="unit"):
            enroll(gallery, "ada", good, good * 2)
        assert gallery.persons_in("default") == 0

    def test_a_gallery_holds_one_embedding_space(self, gallery: Galleries) -> None:
        (embedding,) = units(1, 14)
        enroll(gallery, "ada", embedding)
        for verb in (
            lambda: enroll(gallery, "bob", embedding, space=OTHER_SPACE),
            lambda: search(gallery, embedding, space=OTHER_SPACE),
        ):
            with pytest.raises(SpaceMismatch) as refused:
                verb()
            assert refused.value.values() == {
                "gallery": "default",
                "value": OTHER_SPACE,
                "limit": SPACE,
            }
        assert gallery.persons_in("default") == 1
        gallery.create_gallery("next", space=OTHER_SPACE)
        with pytest.raises(SpaceMismatch):
            enroll(gallery, "ada", embedding, into="next")
        enroll(gallery, "ada", embedding, into="next", space=OTHER_SPACE)

    def test_a_refused_enrolment_pins_no_space(self, gallery: Galleries) -> None:
        with pytest.raises(ValueError, match="unit"):
            enroll(gallery, "ada", units(1, 15)[0] * 2)
        assert gallery.get_gallery("default").space is None

    # The same call again.

    def test_a_repeated_enrolment_gives_the_same_bytes_and_writes_nothing(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        once = Idempotency("key", "print")
        assert gallery.answered("default", once) is None
        calls: list[Enrolment] = []

        def answer(enrolment: Enrolment) -> bytes:
            calls.append(enrolment)
            return f"answer {len(calls)} \x00 ü".encode()

        def enroll_once(through: Galleries) -> bytes:
            faces = [NewFace(units(1, 16)[0], {})]
            return through.enroll("default", faces, space=SPACE, answer=answer, idempotency=once)

        first = enroll_once(gallery)
        record = gallery.get_gallery("default")
        assert enroll_once(gallery) == enroll_once(neighbour) == first
        assert gallery.answered("default", once) == neighbour.answered("default", once) == first
        assert len(calls) == 1
        assert gallery.get_gallery("default") == record

    def test_a_repeat_for_another_space_is_refused(self, gallery: Galleries) -> None:
        once = Idempotency("key", "print")
        (embedding,) = units(1, 16)
        enroll(gallery, "ada", embedding, idempotency=once)
        with pytest.raises(SpaceMismatch):
            enroll(gallery, "ada", embedding, space=OTHER_SPACE, idempotency=once)

    def test_a_repeat_whose_faces_are_not_all_there_is_refused(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        a, b, c = units(3, 16)
        twice, once = Idempotency("two", "print"), Idempotency("one", "print")
        first, second = enroll(gallery, "ada", a, b, idempotency=twice)
        (third,) = enroll(gallery, "ada", c, idempotency=once)
        gallery.delete_face("default", "ada", second)
        for request in (twice, Idempotency("two", "another")):
            with pytest.raises(AnswerErased):
                enroll(gallery, "ada", a, b, idempotency=request)
            with pytest.raises(AnswerErased):
                neighbour.answered("default", request)
        assert enroll(gallery, "ada", c, idempotency=once) == [third]
        assert [face.id for face in gallery.list_faces("default", "ada").items] == [first, third]
        gallery.delete_person("default", "ada")
        with pytest.raises(AnswerErased):
            gallery.answered("default", once)

    def test_a_key_that_came_with_another_request_is_refused(self, gallery: Galleries) -> None:
        (embedding,) = units(1, 17)
        enroll(gallery, "ada", embedding, idempotency=Idempotency("key", "print"))
        with pytest.raises(IdempotencyKeyReused):
            enroll(gallery, "bob", embedding, idempotency=Idempotency("key", "another"))
        with pytest.raises(IdempotencyKeyReused):
            gallery.answered("default", Idempotency("key", "another"))
        gallery.create_gallery("guests")
        assert gallery.answered("guests", Idempotency("key", "another")) is None
        assert gallery.persons_in("default") == 1

    @pytest.mark.parametrize("key", ["", "k" * 256, "a\nb"])
    def test_a_key_that_is_no_key_is_refused(self, gallery: Galleries, key: str) -> None:
        with pytest.raises(FieldInvalid):
            gallery.answered("default", Idempotency(key, "print"))
        with pytest.raises(FieldInvalid):
            enroll(gallery, "ada", units(1, 18)[0], idempotency=Idempotency(key, "print"))

    def test_a_repeat_does_not_bring_a_deleted_person_back(self, gallery: Galleries) -> None:
        once = Idempotency("key", "print")
        (embedding,) = units(1, 19)
        enroll(gallery, "ada", embedding, idempotency=once)
        gallery.delete_person("default", "ada")
        with pytest.raises(AnswerErased):
            enroll(gallery, "ada", embedding, idempotency=once)
        with pytest.raises(AnswerErased):
            gallery.answered("default", once)
        assert gallery.persons_in("default") == 0

    def test_one_key_raced_by_processes_and_threads_makes_one_face(
        self, opener: Opener, gallery: Galleries
    ) -> None:
        with SPAWN.Pool(2) as pool:
            together = pool.starmap_async(_race, [(opener, 20), (opener, 20)])
            answers = [*together.get(timeout=60), _race(opener, 20)]
        everyone = {answer for answers_of_one in answers for answer in answers_of_one}
        assert len(everyone) == 1
        assert gallery.get_gallery("default").faces == 1

    # Search.

    def test_an_empty_gallery_has_no_candidates(self, gallery: Galleries) -> None:
        gallery.create_person("default", person_id="without a face")
        queries = units(3, 21)
        assert search(gallery, *queries) == [[], [], []]
        none = gallery.search("default", space=SPACE, embeddings_ND=queries[:0], top_k=5)
        assert none == []

    def test_a_person_scores_by_the_best_of_their_faces(self, gallery: Galleries) -> None:
        (query,) = units(1, 22)
        cosines = {"ada": (0.3, 0.9, 0.5), "bob": (0.8, 0.85), "eve": (0.1,)}
        best = {}
        for seed, (person, theirs) in enumerate(cosines.items()):
            faces = [near(query, cosine, 100 * seed + n) for n, cosine in enumerate(theirs)]
            best[person] = enroll(gallery, person, *faces, name=person.title())[
                int(np.argmax(theirs))
            ]
        found = search(gallery, query)[0]
        assert [c.person_id for c in found] == ["ada", "bob", "eve"]
        assert [c.name for c in found] == ["Ada", "Bob", "Eve"]
        assert [c.face_id for c in found] == list(best.values())
        assert [c.similarity for c in found] == pytest.approx([0.9, 0.85, 0.1], abs=1e-5)
        assert search(gallery, query, top_k=2)[0] == found[:2]
        assert search(gallery, query, top_k=1)[0] == found[:1]

    def test_a_person_s_own_most_similar_face_is_found_among_all(self, gallery: Galleries) -> None:
        a, b, c = units(3, 21)
        enroll(gallery, "bob", a)
        first, second = enroll(gallery, "ada", b, c)

        def own(person: str, *embeddings: NDArray[np.float32], space: str = SPACE) -> Any:
            queries = np.stack(embeddings)
            return gallery.search_person("default", person, space=space, embeddings_ND=queries)

        one, other = own("ada", near(b, 0.7, 1), c)
        assert (one.face_id, other.face_id) == (first, second)
        assert [one.similarity, other.similarity] == pytest.approx([0.7, 1], abs=1e-6)
        assert other.similarity <= 1
        assert own("ada", a)[0].similarity < 0.3  # bob's face is not looked at
        gallery.create_person("default", person_id="cleo")
        assert own("cleo", a, b) == own("nobody", a, b) == own("a\nb", a, b) == [None, None]
        with pytest.raises(SpaceMismatch):
            own("ada", a, space=OTHER_SPACE)
        with pytest.raises(ValueError, match="unit"):
            own("ada", a * 2)

    def test_search_equals_brute_force(self, gallery: Galleries) -> None:
        centres, queries = units(40, 23), units(20, 24)
        faces: dict[str, tuple[str, NDArray[np.float32]]] = {}
        for n, centre in enumerate(centres):
            theirs = [near(centre, 0.6, 1000 * n + m) for m in range(1 + n % 7)]
            enrolled = enroll(gallery, f"p{n}", *theirs)
            faces.update({i: (f"p{n}", e) for i, e in zip(enrolled, theirs, strict=True)})
        for top_k in (1, 5, 40, 1000):
            found = search(gallery, *queries, *centres, top_k=top_k)
            for query, candidates in zip([*queries, *centres], found, strict=True):
                assert_same_candidates(candidates, brute_force(faces, query, top_k))

    def test_a_query_is_answered_alike_alone_and_among_others(self, gallery: Galleries) -> None:
        faces, queries = units(300, 25), units(64, 26)
        for n in range(0, 300, 30):
            enroll(gallery, f"p{n}", *faces[n : n + 30])
        together = search(gallery, *queries, top_k=3)
        assert together == [search(gallery, query, top_k=3)[0] for query in queries]

    def test_equal_similarities_go_by_the_older_face(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        same, other = units(2, 27)
        first = enroll(gallery, "gone", same)
        for person in ("zoe", "ada", "mia", "bob"):
            enroll(gallery, person, other, same, same)
        assert [c.person_id for c in search(neighbour, same)[0]] == [
            *("gone", "zoe", "ada", "mia", "bob")
        ]
        gallery.delete_face("default", "gone", first[0])
        for reader in (gallery, neighbour):
            for top_k in (1, 2, 3, 4):
                found = search(reader, same, top_k=top_k)[0]
                assert [c.person_id for c in found] == ["zoe", "ada", "mia", "bob"][:top_k]
                oldest = [reader.list_faces("default", c.person_id).items[1].id for c in found]
                assert [c.face_id for c in found] == oldest

    def test_one_persons_thousands_of_faces_hide_nobody(self, gallery: Galleries) -> None:
        (query,) = units(1, 28)
        rng = np.random.default_rng(29)
        crowd = query + 0.001 * rng.standard_normal((3000, 512)).astype(np.float32)
        crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
        enroll(gallery, "crowd", *crowd)
        for n, cosine in enumerate((0.7, 0.6, 0.5)):
            enroll(gallery, f"p{n}", near(query, cosine, 30 + n))
        found = search(gallery, query, units(1, 31)[0], top_k=3)
        assert [c.person_id for c in found[0]] == ["crowd", "p0", "p1"]
        assert [c.similarity for c in found[0][1:]] == pytest.approx([0.7, 0.6], abs=1e-5)
        assert len({c.person_id for c in found[1]}) == 3

    @pytest.mark.parametrize("top_k", [0, -1, 1001])
    def test_a_top_k_that_cannot_be_given_is_refused(self, gallery: Galleries, top_k: int) -> None:
        with pytest.raises(FieldInvalid) as refused:
            search(gallery, units(1, 32)[0], top_k=top_k)
        assert refused.value.field == "top_k"

    def test_deletions_are_in_the_next_answer_of_every_process(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        a, b, c = units(3, 33)
        faces = enroll(gallery, "ada", a, b)
        enroll(gallery, "bob", c)
        for reader in (gallery, neighbour):
            assert search(reader, a, b, top_k=1)[1][0].similarity == pytest.approx(1, abs=1e-6)
        gallery.delete_face("default", "ada", faces[1])
        for reader in (gallery, neighbour):
            assert all(k.face_id != faces[1] for k in search(reader, b)[0])
            assert search(reader, a)[0][0].face_id == faces[0]
        neighbour.delete_person("default", "ada")
        for reader in (gallery, neighbour):
            assert [k.person_id for k in search(reader, a)[0]] == ["bob"]
        record = gallery.get_gallery("default")
        assert (record.persons, record.faces) == (1, 1)

    def test_a_person_outlives_their_last_face(self, gallery: Galleries) -> None:
        (embedding,) = units(1, 34)
        (face,) = enroll(gallery, "ada", embedding, name="Ada")
        gallery.delete_face("default", "ada", face)
        person = gallery.get_person("default", "ada")
        assert (person.name, person.faces) == ("Ada", 0)
        assert search(gallery, embedding) == [[]]
        with pytest.raises(FaceUnknown):
            gallery.get_face("default", "ada", face)

    def test_a_face_of_another_person_is_unknown(self, gallery: Galleries) -> None:
        a, b = units(2, 35)
        (face,) = enroll(gallery, "ada", a)
        enroll(gallery, "bob", b)
        with pytest.raises(FaceUnknown):
            gallery.get_face("default", "bob", face)
        with pytest.raises(FaceUnknown):
            gallery.delete_face("default", "bob", face)
        assert gallery.get_face("default", "ada", face).person_id == "ada"

    def test_another_processs_enrolment_is_found_by_the_next_search(
        self, opener: Opener, gallery: Galleries
    ) -> None:
        embeddings = units(20, 36)
        with SPAWN.Pool(1) as pool:
            for n, embedding in enumerate(embeddings):
                pool.apply(_enroll_one, (opener, f"p{n}", embedding))
                assert search(gallery, embedding, top_k=1)[0][0].person_id == f"p{n}"

    def test_everything_is_there_after_opening_again(self, opener: Opener) -> None:
        gallery = opener()
        embeddings = units(5, 37)
        gallery.create_gallery("guests", metadata={"a": 1})
        enroll(gallery, "ada", *embeddings, name="Ada", idempotency=Idempotency("k", "f"))
        told = gallery.get_gallery("default"), gallery.get_person("default", "ada")
        found = search(gallery, *embeddings)
        answer = gallery.answered("default", Idempotency("k", "f"))
        gallery.close()
        again = opener()
        again.warm_up()
        assert (again.get_gallery("default"), again.get_person("default", "ada")) == told
        assert search(again, *embeddings) == found
        assert again.answered("default", Idempotency("k", "f")) == answer
        again.close()

    # Many at once.

    def test_threads_that_enroll_delete_and_search_never_see_a_wrong_answer(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        embeddings = units(4 * 40, 38)
        told_there: list[int] = []
        told_gone: list[int] = []
        enrolling = threading.Semaphore(0)

        def write(mine: Sequence[int]) -> None:
            for n in mine:
                enroll(gallery, f"p{n}", embeddings[n])
                told_there.append(n)
                if n % 3 == 0:
                    gallery.delete_person("default", f"p{n}")
                    told_gone.append(n)
            enrolling.release()

        def read(reader: Galleries, seed: int) -> int:
            rng, looked = np.random.default_rng(seed), 0
            while not enrolling.acquire(blocking=False):
                there, gone = list(told_there), set(told_gone)
                if not there:
                    continue
                n = int(rng.choice(there))
                (found,) = search(reader, embeddings[n], top_k=2)
                if n % 3:
                    assert found[0].person_id == f"p{n}"
                assert not {f"p{g}" for g in gone} & {c.person_id for c in found}
                assert all(
                    c.similarity == pytest.approx(_cosine(embeddings, c, n), abs=1e-6)
                    for c in found
                )
                looked += 1
            enrolling.release()
            return looked

        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(write, range(start, 160, 4)) for start in range(4)]
            reads = [pool.submit(read, (gallery, neighbour)[n % 2], n) for n in range(4)]
            for done in writes:
                done.result()
            assert all(done.result() > 0 for done in reads)
        assert gallery.persons_in("default") == len(told_there) - len(told_gone)

    def test_processes_that_enroll_and_delete_at_once_get_what_they_ask(
        self, opener: Opener, gallery: Galleries
    ) -> None:
        with SPAWN.Pool(3) as pool:
            kept = pool.map(_live_and_delete, [(opener, n) for n in range(3)], 1)
        listed = all_pages(lambda cursor: gallery.list_persons("default", cursor=cursor, limit=7))
        assert sorted(p.id for p in listed) == sorted(chain.from_iterable(kept))
        assert gallery.get_gallery("default").faces == len(listed)

    def test_a_random_life_is_that_of_a_plain_model(
        self, gallery: Galleries, neighbour: Galleries
    ) -> None:
        lives = iter(range(10**6))

        def life() -> RuleBasedStateMachine:
            name = f"life-{next(lives)}"
            gallery.create_gallery(name)
            return _Life(name, gallery, neighbour)

        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            life,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


class _Life(RuleBasedStateMachine):
    """Persons and faces come and go through two openings of one place, beside a dict that knows."""

    faces = Bundle("faces")
    persons = st.sampled_from(["ada", "bob", "eve"])
    seeds = st.integers(0, 20)  # few, so that the same embedding comes again
    through = st.sampled_from([0, 1])

    def __init__(self, name: str, *openings: Galleries) -> None:
        super().__init__()
        self.name = name
        self.openings = openings
        self.people: set[str] = set()
        self.model: dict[str, tuple[str, NDArray[np.float32]]] = {}

    @rule(target=faces, person=persons, seed=seeds, count=st.integers(1, 3), through=through)
    def enroll(self, person: str, seed: int, count: int, through: int) -> Any:
        embeddings = units(count, seed)
        added = enroll(self.openings[through], person, *embeddings, into=self.name)
        self.people.add(person)
        self.model.update({i: (person, e) for i, e in zip(added, embeddings, strict=True)})
        return multiple(*added)

    @rule(face=consumes(faces), through=through)
    def delete_face(self, face: str, through: int) -> None:
        if face in self.model:
            person, _ = self.model.pop(face)
            self.openings[through].delete_face(self.name, person, face)

    @rule(person=persons, through=through)
    def delete_person(self, person: str, through: int) -> None:
        if person in self.people:
            self.people.remove(person)
            self.model = {i: f for i, f in self.model.items() if f[0] != person}
            self.openings[through].delete_person(self.name, person)
        else:
            with pytest.raises(PersonUnknown):
                self.openings[through].delete_person(self.name, person)

    @rule(seed=seeds, top_k=st.integers(1, 4), through=through)
    def search(self, seed: int, top_k: int, through: int) -> None:
        queries = units(4, seed)
        found = search(self.openings[through], *queries, top_k=top_k, into=self.name)
        for query, candidates in zip(queries, found, strict=True):
            assert_same_candidates(candidates, brute_force(self.model, query, top_k))

    @invariant()
    def counters_tell_what_is_there(self) -> None:
        record = self.openings[0].get_gallery(self.name)
        assert (record.persons, record.faces) == (len(self.people), len(self.model))
        listed = {p.id: p.faces for p in self.openings[1].list_persons(self.name).items}
        held = [person for person, _ in self.model.values()]
        assert listed == {person: held.count(person) for person in self.people}


def _cosine(embeddings: NDArray[np.float32], candidate: Candidate, query: int) -> float:
    return float(embeddings[int(candidate.person_id[1:])] @ embeddings[query])


def _enroll_one(opener: Opener, person_id: str, embedding: NDArray[np.float32]) -> None:
    """Run in a process of its own."""
    gallery = opener()
    enroll(gallery, person_id, embedding)
    gallery.close()


def _live_and_delete(given: tuple[Opener, int]) -> list[str]:
    """The persons who are left of those this process enrolled, run in a process of its own."""
    opener, process = given
    gallery = opener()
    for n, embedding in enumerate(units(20, 500 + process)):
        enroll(gallery, f"{process}-{n}", embedding)
        assert search(gallery, embedding, top_k=1)[0][0].person_id == f"{process}-{n}"
        if n % 4:
            gallery.delete_person("default", f"{process}-{n}")
    gallery.close()
    return [f"{process}-{n}" for n in range(0, 20, 4)]


def _race(opener: Opener, times: int) -> list[bytes]:
    """What many threads of a process get for one key, run in a process of its own."""
    gallery = opener()
    once = Idempotency("raced", "print")

    def attempt(n: int) -> bytes:
        # each attempt would enrol a face of its own: only the key makes them one
        face = NewFace(units(1, n)[0], {})
        return gallery.enroll(
            "default", [face], space=SPACE, answer=answer_of, idempotency=replace(once)
        )

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(attempt, range(times)))
    gallery.close()
    return answers
