"""service/analysis.py: any set of features out of one look, and a face's answer is its own."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.analysis import Analysed, FoundFace, Search, analyze
from service.errors import FaceTooSmall, FeatureOff, GalleryUnknown, QueueFull
from service.look import Engine
from service.observe.stages import Stages
from service.recognition import Asked, EnrolOrder, enroll
from service.settings import Settings
from tests.conftest import open_drawn
from tests.drawn import drawn_photo
from tests.standin import LEAST_INTER_EYE_PX

ALL = ("expression", "attributes", "quality", "identity", "embedding")
SEARCH = Search("default", 3, Asked("threshold", 0.5))
PEOPLE = 6
SMALL = 48  # side of a drawn face whose eyes are 15.1 px apart


@pytest.fixture(scope="module")
def engine(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose default gallery has the persons 0 to PEOPLE - 1, and that batches."""
    folder = tmp_path_factory.mktemp("store")
    opened = open_drawn(Settings(models=models, recognition="stand-in", data=folder, batch=3))
    for person in range(PEOPLE):
        order = EnrolOrder("default", str(person), None, None, "only", "off", None)
        photo = drawn_photo(person)
        asyncio.run(enroll(opened.engine, [photo], Stages(), order, lambda *_: b""))
    yield opened.engine
    opened.close()


def found(engine: Engine, images: list[Any], features: Collection[str], **more: Any) -> Analysed:
    search = SEARCH if "identity" in features else None
    return asyncio.run(
        analyze(engine, images, more.pop("stages", Stages()), features, more.pop("search", search))
    )


def scores_of(face: FoundFace) -> dict[str, list[float]]:
    """What each classifier said of a face."""
    assert face.expression is not None
    assert face.attributes is not None
    told = [a.confidence if a.present else 1 - a.confidence for a in face.attributes.values()]
    return {"expression": list(face.expression.scores.values()), "attributes": told}


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[list[float]]:
    """The expression of each person whose photograph has nobody else in it."""
    photos = [drawn_photo(person) for person in range(PEOPLE)]
    return [scores_of(found(engine, [photo], ALL).faces[0][0])["expression"] for photo in photos]


def test_people_are_told_apart_by_their_scores(alone: list[list[float]]) -> None:
    for person, scores in enumerate(alone):
        others = np.delete(np.array(alone), person, axis=0)
        assert np.abs(others - scores).max(axis=1).min() > 1e-2


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, PEOPLE - 1), max_size=4, unique=True) | st.none(),
        min_size=1,
        max_size=4,
    )
)
def test_a_face_is_told_as_alone_in_any_company_and_any_order(
    engine: Engine, alone: list[list[float]], images: list[list[int] | None]
) -> None:
    """None stands for an image that cannot be read. A crop hangs on its photograph by a rounding of
    its pixels, and the wide one shows neighbours: scores are held to those of the crop alone, and
    to those of the person only as near as that tells them from others."""
    data = [b"no image" if people is None else drawn_photo(*people) for people in images]
    analysed = found(engine, data, ALL)
    for people, look, faces in zip(images, analysed.looks, analysed.faces, strict=True):
        assert (look.error is not None) == (people is None)
        left_to_right = sorted(faces, key=lambda face: face.seen.face.box.x)
        assert len(faces) == len(people or [])
        for person, face in zip(people or [], left_to_right, strict=True):
            scores = scores_of(face)
            assert np.allclose(scores["expression"], alone[person], atol=1e-3)
            for feature, classifier in engine.classifiers.items():
                [wanted] = classifier.scores(face.seen.crops[feature][None]).result()
                assert np.allclose(scores[feature], wanted, atol=1e-5)
            assert face.identity is not None
            assert face.identity.candidates[0].person_id == str(person)
            assert face.embedding is not None
            assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)


def test_however_many_features_an_image_is_decoded_and_searched_once(engine: Engine) -> None:
    looked: list[int] = []

    def detect(photograph: Any, px: int) -> Any:
        looked.append(px)
        return engine.detect(photograph, px)

    stages = Stages()
    counting = dataclasses.replace(engine, detect=detect)
    found(counting, [drawn_photo(1, 2)], ALL, stages=stages)
    assert len(looked) == 1
    assert list(stages.timings_ms()) == [
        *("decode", "detect", "align", "embed", "expression", "attributes"),
        *("search", "decide", "total"),
    ]


@pytest.mark.parametrize(
    ("features", "crops"),
    [
        (["quality"], set()),
        (["expression"], {"expression"}),
        (["attributes", "quality"], {"attributes"}),
        (["embedding"], {"identity"}),
        (["identity", "expression"], {"identity", "expression"}),
    ],
)
def test_crops_are_made_for_what_was_asked_and_nothing_else(
    engine: Engine, features: list[str], crops: set[str]
) -> None:
    stages = Stages()
    [[face]] = found(engine, [drawn_photo(1)], features, stages=stages).faces
    assert set(face.seen.crops) == crops
    told = {"expression": face.expression, "attributes": face.attributes}
    assert {name for name, value in told.items() if value is not None} == crops & set(told)
    assert (face.embedding is not None) == ("identity" in crops)
    assert (face.identity is not None) == ("identity" in features)
    assert set(told) & set(stages.timings_ms()) == crops & set(told)


def test_crops_are_of_the_size_that_the_graph_takes(engine: Engine) -> None:
    [[face]] = found(engine, [drawn_photo(1)], ALL).faces
    assert {name: crop.shape for name, crop in face.seen.crops.items()} == {
        "identity": (112, 112, 3),
        "expression": (48, 48, 3),
        "attributes": (136, 112, 3),
    }


def test_a_face_too_small_for_a_feature_is_refused_and_the_rest_goes_on(engine: Engine) -> None:
    photo = drawn_photo(1, 2, 3, sides=(SMALL, 112, SMALL))
    large, *small = found(engine, [photo], ALL).faces[0]
    assert large.refused == {}
    assert len(scores_of(large)["attributes"]) == 40
    for face in small:
        assert face.expression is face.attributes is None
        assert face.identity is not None
        assert list(face.refused) == ["expression", "attributes"]
        for feature, error in face.refused.items():
            assert isinstance(error, FaceTooSmall)
            assert (error.feature, error.limit) == (feature, LEAST_INTER_EYE_PX)
            assert error.value == pytest.approx(35.24 * SMALL / 112, abs=0.01)


def test_when_the_largest_face_is_refused_the_others_keep_their_own_scores(
    engine: Engine, alone: list[list[float]]
) -> None:
    """As of a face that is seen from the side, whose eyes are close to each other."""

    def detect(photograph: Any, px: int) -> Any:
        largest, *others = engine.detect(photograph, px)
        turned = largest.landmarks_52.copy()
        turned[0] = turned[1] - (5, 0)
        return [dataclasses.replace(largest, landmarks_52=turned), *others]

    turned = dataclasses.replace(engine, detect=detect)
    photo = drawn_photo(1, 2, 3, sides=(130, 112, 112))
    side, *others = found(turned, [photo], ALL).faces[0]
    assert list(side.refused) == ["expression", "attributes"]
    for face in others:
        person = 2 if face.seen.face.box.x < 250 else 3
        assert np.allclose(scores_of(face)["expression"], alone[person], atol=1e-3)


def test_the_bound_of_each_classifier_is_its_own(engine: Engine) -> None:
    bounds = {"expression": 0.0, "attributes": 1e6}
    classifiers = {
        name: dataclasses.replace(one, min_inter_eye_px=bounds[name])
        for name, one in engine.classifiers.items()
    }
    other = dataclasses.replace(engine, classifiers=classifiers)
    photo = drawn_photo(1, 2, sides=(SMALL, 112))
    for face in found(other, [photo], ("expression", "attributes")).faces[0]:
        assert face.expression is not None
        assert list(face.refused) == ["attributes"]


def test_a_label_is_the_class_of_the_highest_score(engine: Engine) -> None:
    [[face]] = found(engine, [drawn_photo(4)], ["expression"]).faces
    assert face.expression is not None
    scores = face.expression.scores
    assert list(scores) == [f"class {i}" for i in range(8)]
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    assert face.expression.confidence == max(scores.values()) == scores[face.expression.label]


def test_an_attribute_is_present_from_one_half_on(engine: Engine) -> None:
    rows = np.linspace(0, 1, 40, dtype=np.float32)[None]
    rows[0, 7] = 0.5

    def scores(crops: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        answer.set_result(rows)
        return answer

    attributes = dataclasses.replace(engine.classifiers["attributes"], scores=scores)
    fixed = dataclasses.replace(engine, classifiers={"attributes": attributes})
    [[face]] = found(fixed, [drawn_photo(1)], ["attributes"]).faces
    assert face.attributes is not None
    for (name, attribute), score in zip(face.attributes.items(), rows[0].tolist(), strict=True):
        assert attribute.present == (score >= 0.5)
        assert attribute.confidence == pytest.approx(max(score, 1 - score))
        assert attribute.reliable == (name not in ("class 38", "class 39"))


def test_what_is_off_or_unknown_is_told_before_any_image_is_looked_at(engine: Engine) -> None:
    blind = dataclasses.replace(
        engine, classifiers={}, detect=lambda *_: pytest.fail("an image was looked at")
    )
    with pytest.raises(FeatureOff) as off:
        found(blind, [drawn_photo(1)], ["quality", "expression"])
    assert (off.value.feature, off.value.setting) == ("expression", "MIEN_EXPRESSION")
    assert "2024/1689" in str(off.value)
    with pytest.raises(FeatureOff, match="MIEN_ATTRIBUTES=off"):
        found(blind, [drawn_photo(1)], ["attributes"])
    nowhere = dataclasses.replace(SEARCH, gallery="nowhere")
    with pytest.raises(GalleryUnknown):
        found(blind, [drawn_photo(1)], ["identity"], search=nowhere)


def test_a_photograph_without_a_face_has_nothing_to_tell(engine: Engine) -> None:
    assert found(engine, [drawn_photo(), drawn_photo(1)], ALL).faces[0] == []


def with_scores(engine: Engine, feature: str, scores: Callable[[Any], Any]) -> Engine:
    """The engine with another network behind a feature."""
    other = dataclasses.replace(engine.classifiers[feature], scores=scores)
    return dataclasses.replace(engine, classifiers={**engine.classifiers, feature: other})


def test_a_full_line_of_one_network_ends_the_call(engine: Engine) -> None:
    def full(_: Any) -> "Future[Any]":
        raise QueueFull(9, 9)

    with pytest.raises(QueueFull):
        found(with_scores(engine, "attributes", full), [drawn_photo(1)], ALL)


def test_a_call_that_is_cancelled_leaves_the_line_of_every_network(engine: Engine) -> None:
    waiting: dict[str, Future[Any]] = {"expression": Future(), "attributes": Future()}
    reached = {name: threading.Event() for name in waiting}
    slow = engine
    for name in waiting:

        def scores(_: Any, name: str = name) -> "Future[Any]":
            reached[name].set()
            return waiting[name]

        slow = with_scores(slow, name, scores)

    async def leave() -> None:
        task = asyncio.create_task(
            analyze(slow, [drawn_photo(1)], Stages(), ["expression", "attributes"])
        )
        for event in reached.values():
            await asyncio.to_thread(event.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert all(future.cancelled() for future in waiting.values())
