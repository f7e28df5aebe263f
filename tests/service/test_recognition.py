"""service/recognition.py: the order of the steps, an error in its place, nothing ever crossed."""

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service import recognition
from service.errors import (
    EnrolmentRefused,
    FaceQualityTooLow,
    GalleryUnknown,
    ImageEmpty,
    ImageError,
    ImageUnreadable,
    NoFace,
    QueueFull,
    SeveralFaces,
)
from service.gallery.contract import Enrolment, Idempotency
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Asked, Enrolled, EnrolOrder
from service.settings import Settings
from tests.conftest import open_drawn
from tests.drawn import drawn_photo, png
from tests.standin import calibration

PEOPLE = 8
AT = Asked("threshold", 0.5)
GREY = png(np.full((120, 160, 3), 128, np.uint8))
ORDER = EnrolOrder("default", None, None, None, "only", "off", None)


@pytest.fixture(scope="module")
def engine(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose default gallery has PEOPLE persons, "0" to "7", drawn with that number."""
    folder = tmp_path_factory.mktemp("store")
    opened = open_drawn(Settings(models=models, recognition="stand-in", data=folder))
    for person in range(PEOPLE):
        enroll(opened.engine, [drawn_photo(person)], person_id=str(person), name=f"P {person}")
    yield opened.engine
    opened.close()


def enroll(engine: Engine, images: list[bytes | ImageError], **order: Any) -> tuple[Enrolled, bool]:
    """What became of the images, and whether the answer was an earlier one."""
    seen: list[Enrolled] = []

    def answer(enrolment: Enrolment, enrolled: Enrolled) -> bytes:
        seen.append(enrolled)
        return enrolment.person.id.encode()

    whole = dataclasses.replace(ORDER, **order)
    _, replayed = asyncio.run(recognition.enroll(engine, images, Stages(), whole, answer))
    return (seen or [Enrolled([], [])])[0], replayed


def warned(engine: Engine, images: list[bytes | ImageError], **order: Any) -> list[tuple[str, Any]]:
    """The warnings of an enrollment: each one's type and image."""
    return [(one.type, one.image) for one in enroll(engine, images, **order)[0].warnings]


def identify(engine: Engine, images: list[Any], **asked: Any) -> recognition.Identified:
    options = {"gallery": "default", "top_k": 3, "asked": AT, **asked}
    return asyncio.run(recognition.identify(engine, images, Stages(), **options))


def test_faces_come_largest_first_and_only_as_many_as_asked(engine: Engine) -> None:
    photo = drawn_photo(1, 2, 3, sides=(56, 112, 84))
    [look] = asyncio.run(recognition.detect(engine, [photo], Stages()))
    assert (look.width, look.height, look.error) == (640, 480, None)
    assert [seen.face.box.width for seen in look.faces] == [112, 84, 56]
    [look] = asyncio.run(recognition.detect(engine, [photo], Stages(), limit=2, min_face_px=60))
    assert [seen.face.box.width for seen in look.faces] == [112, 84]


def test_embeddings_are_unit_length_and_none_where_there_is_no_face(engine: Engine) -> None:
    two, none = asyncio.run(recognition.embed(engine, [drawn_photo(1, 2), GREY], Stages()))
    assert two.embeddings_ND.shape == (2, 512)
    assert np.allclose(np.linalg.norm(two.embeddings_ND, axis=1), 1, atol=1e-5)
    assert none.embeddings_ND.shape == (0, 512)
    assert none.look.error is None


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, PEOPLE - 1), max_size=4, unique=True) | st.none(),
        min_size=1,
        max_size=6,
    )
)
def test_every_face_of_every_image_gets_its_own_person(
    engine: Engine, images: list[list[int] | None]
) -> None:
    """None stands for an image that cannot be read; the others are not disturbed by it."""
    data = [
        b"no image" if people is None else drawn_photo(*people, take=i + 1)
        for i, people in enumerate(images)
    ]
    found = identify(engine, data)
    for people, look, identities in zip(images, found.looks, found.identities, strict=True):
        assert isinstance(look.error, ImageUnreadable) == (people is None)
        left_to_right = sorted(
            zip(look.faces, identities, strict=True), key=lambda pair: pair[0].face.box.x
        )
        best = [int(identity.candidates[0].person_id) for _, identity in left_to_right]
        assert best == (people or [])
        assert all(identity.decision == "match" for identity in identities)


def test_a_stranger_is_no_match_and_an_unknown_gallery_is_told_before_any_work(
    engine: Engine,
) -> None:
    found = identify(engine, [drawn_photo(99)])
    assert [i.decision for i in found.identities[0]] == ["no_match"]
    blind = dataclasses.replace(engine, detect=lambda *_: pytest.fail("an image was looked at"))
    with pytest.raises(GalleryUnknown):
        identify(blind, [drawn_photo(1)], gallery="nowhere")


def test_verify_compares_the_largest_faces_and_names_the_image_that_has_none(
    engine: Engine,
) -> None:
    def verify(a: Any, b: Any, pick: recognition.Pick = "largest") -> recognition.Verified:
        return asyncio.run(recognition.verify(engine, (a, b), Stages(), pick=pick, asked=AT))

    same = verify(drawn_photo(1, 2, sides=(112, 56)), drawn_photo(1, take=3))
    assert same.similarity > 0.98
    assert same.decision == "match"
    assert verify(drawn_photo(1), drawn_photo(2)).decision == "no_match"
    with pytest.raises(NoFace) as refused:
        verify(drawn_photo(1), GREY)
    assert refused.value.image == "image_b"
    with pytest.raises(ImageEmpty) as empty:
        verify(b"", GREY)
    assert empty.value.image == "image_a"
    with pytest.raises(SeveralFaces) as several:
        verify(drawn_photo(1), drawn_photo(1, 2), pick="only")
    assert (several.value.value, len(several.value.boxes)) == (2, 2)


def test_enrolling_takes_what_is_usable_and_says_why_not_of_the_rest(engine: Engine) -> None:
    images = [drawn_photo(50), GREY, b"no image", drawn_photo(51, 52), drawn_photo(53)]
    enrolled, replayed = enroll(engine, images, person_id="fifty")
    assert [index for index, _ in enrolled.taken] == [0, 4]
    assert [(index, type(why)) for index, why in enrolled.refused] == [
        (1, NoFace),
        (2, ImageUnreadable),
        (3, SeveralFaces),
    ]
    assert not replayed
    assert engine.galleries.get_person("default", "fifty").faces == 2


def test_enrolling_nothing_is_the_image_s_own_error_or_all_of_them(engine: Engine) -> None:
    with pytest.raises(NoFace):
        enroll(engine, [GREY])
    with pytest.raises(EnrolmentRefused) as refused:
        enroll(engine, [GREY, b""])
    assert [entry["image"] for entry in refused.value.refused] == [0, 1]


def test_a_face_below_the_quality_asked_is_refused_with_value_and_limit(engine: Engine) -> None:
    small = drawn_photo(60, sides=(30,))
    enroll(engine, [small], quality="off")
    with pytest.raises(FaceQualityTooLow) as refused:
        enroll(engine, [small], quality="standard")
    assert refused.value.level == "standard"
    failed = {one["component"]: one for one in refused.value.failed}
    assert failed["inter_eye_distance"]["value"] < failed["inter_eye_distance"]["limit"]


def test_the_same_key_again_does_no_work_and_enrols_nothing(engine: Engine) -> None:
    key = Idempotency("key", "fingerprint")
    _, replayed = enroll(engine, [drawn_photo(70)], person_id="seventy", idempotency=key)
    assert not replayed
    blind = dataclasses.replace(engine, detect=lambda *_: pytest.fail("an image was looked at"))
    _, replayed = enroll(blind, [drawn_photo(70)], person_id="seventy", idempotency=key)
    assert replayed
    assert engine.galleries.get_person("default", "seventy").faces == 1


def test_a_full_queue_ends_the_call_and_not_just_an_image(engine: Engine) -> None:
    def full(_: Any) -> "Future[Any]":
        raise QueueFull(9, 9)

    with pytest.raises(QueueFull):
        identify(dataclasses.replace(engine, embed=full), [drawn_photo(1), drawn_photo(2)])


def test_a_call_that_is_cancelled_leaves_the_batcher_s_line(engine: Engine) -> None:
    waiting: Future[Any] = Future()
    reached = threading.Event()

    def embed(_: Any) -> "Future[Any]":
        reached.set()
        return waiting

    async def leave() -> None:
        slow = dataclasses.replace(engine, embed=embed)
        task = asyncio.create_task(recognition.embed(slow, [drawn_photo(1)], Stages()))
        await asyncio.to_thread(reached.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert waiting.cancelled()


def test_no_more_photographs_are_in_work_than_there_are_threads(engine: Engine) -> None:
    lock, inside, most = threading.Lock(), [0], [0]

    def detect(photograph: Any, px: int) -> list[Any]:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        faces = engine.detect(photograph, px)
        with lock:
            inside[0] -= 1
        return faces

    counting = dataclasses.replace(engine, detect=detect)
    asyncio.run(recognition.detect(counting, [drawn_photo(1)] * 12, Stages()))
    assert 1 <= most[0] <= engine.photographs._max_workers  # type: ignore[attr-defined]


def test_the_stages_of_a_call_are_measured(engine: Engine) -> None:
    stages = Stages()
    options: dict[str, Any] = {"gallery": "default", "top_k": 1, "asked": AT}
    asyncio.run(recognition.identify(engine, [drawn_photo(1)], stages, **options))
    times = stages.timings_ms()
    assert list(times) == ["decode", "detect", "align", "embed", "search", "decide", "total"]
    assert all(value >= 0 for value in times.values())


@pytest.fixture
def own_engine(models: Any, tmp_path: Path) -> Iterator[Engine]:
    """An engine with an empty gallery of its own."""
    opened = open_drawn(Settings(models=models, recognition="stand-in", data=tmp_path / "data"))
    yield opened.engine
    opened.close()


def test_an_enrolment_like_any_other_has_no_warning(own_engine: Engine) -> None:
    assert warned(own_engine, [drawn_photo(1)], person_id="ada") == []
    assert warned(own_engine, [drawn_photo(1, take=1)], person_id="ada") == []
    assert warned(own_engine, [drawn_photo(2)], person_id="bob") == []
    pair = [drawn_photo(3, take=take) for take in (1, 2)]
    assert warned(own_engine, pair, person_id="cleo") == []


def test_a_photograph_enrolled_again_is_warned_of(own_engine: Engine) -> None:
    photo = drawn_photo(1)
    assert warned(own_engine, [photo, photo], person_id="ada") == [("photograph-again", 1)]
    first = own_engine.galleries.list_faces("default", "ada").items[0]
    taken, _ = enroll(own_engine, [photo], person_id="ada")
    [again] = taken.warnings
    assert (again.type, again.face_id, again.image) == ("photograph-again", first.id, 0)
    assert again.similarity == pytest.approx(1, abs=1e-5)


def test_a_face_like_another_persons_is_warned_of_with_whose_it_is(own_engine: Engine) -> None:
    enroll(own_engine, [drawn_photo(1)], person_id="ada", name="Ada")
    face = own_engine.galleries.list_faces("default", "ada").items[0]
    order = {"person_id": "bob", "images": [drawn_photo(1, take=1)]}
    [like] = enroll(own_engine, **order)[0].warnings
    assert (like.type, like.person_id, like.face_id) == ("like-another-person", "ada", face.id)
    threshold = recognition.threshold_in(own_engine, "default", Asked("target_fpir", 0.01))
    assert like.limit is not None
    assert like.similarity is not None
    assert like.similarity >= like.limit
    assert like.limit < threshold.similarity  # of the one face that there was, not of two
    assert warned(own_engine, [drawn_photo(1, take=2)], person_id="dan", may_identify=False) == []


def test_a_face_unlike_the_persons_own_is_warned_of(own_engine: Engine) -> None:
    enroll(own_engine, [drawn_photo(1)], person_id="ada")
    [unlike] = enroll(own_engine, [drawn_photo(2)], person_id="ada")[0].warnings
    assert (unlike.type, unlike.image) == ("unlike-own-faces", 0)
    assert unlike.limit == pytest.approx(0.2)  # where the stand-in's FMR is one in ten
    assert unlike.similarity is not None
    assert unlike.similarity < unlike.limit
    together = [drawn_photo(3), b"no image", drawn_photo(4)]
    assert warned(own_engine, together, person_id="bob") == [
        ("unlike-own-faces", 0),
        ("unlike-own-faces", 2),
    ]


def test_who_is_made_for_want_of_an_id_is_warned_of(own_engine: Engine) -> None:
    assert warned(own_engine, [drawn_photo(1)]) == [("new-person", None)]
    made = own_engine.galleries.list_persons("default").items[0].id
    again = enroll(own_engine, [drawn_photo(1, take=1)])[0].warnings
    assert [one.type for one in again] == ["new-person", "like-another-person"]
    assert again[1].person_id == made != again[0].person_id


def test_the_galleries_own_calibration_judges_and_one_that_is_lost_stops_nobody(
    own_engine: Engine,
) -> None:
    facts = {"model": "stand-in", "space": own_engine.space, **calibration()}
    curve = {**facts["curve"], "fmr": [1.0] * 20 + [1e-9], "fmr_low": [1.0] * 20 + [1e-9]}
    own_engine.calibrations.keep("severe", {**facts, "curve": curve, "smallest_fmr": 1e-9})
    own_engine.galleries.create_gallery("staff", calibration="severe")
    enroll(own_engine, [drawn_photo(1)], person_id="ada", gallery="staff")
    taken, _ = enroll(own_engine, [drawn_photo(2)], person_id="ada", gallery="staff")
    [unlike] = taken.warnings
    assert unlike.limit is not None
    assert unlike.limit > 0.9
    own_engine.galleries.update_gallery("staff", calibration="lost")
    taken, _ = enroll(own_engine, [drawn_photo(1, take=1)], person_id="ada", gallery="staff")
    [blind] = taken.warnings
    assert blind.type == "not-compared"
    assert "'lost'" in blind.detail
    assert len(taken.taken) == 1


def test_a_population_that_is_lost_leaves_a_new_face_not_compared(own_engine: Engine) -> None:
    enroll(own_engine, [drawn_photo(1)], person_id="ada")
    own_engine.galleries.update_gallery("default", population="worst")
    taken, _ = enroll(own_engine, [drawn_photo(1, take=1)], person_id="ada")
    [blind] = taken.warnings
    assert blind.type == "not-compared"
    assert "no population 'worst'" in blind.detail
