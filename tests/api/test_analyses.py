"""POST /expression, /attributes, /analyze: any set of features, in the shapes of the contract."""

import base64
import dataclasses
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api import schemas
from service.api.analyses import FEATURES
from service.app import create_app
from service.settings import Settings
from tests.api.test_images import exact
from tests.api.wire import FORMS, problem, send, slug, without
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

ADA = drawn_photo(1)
SMALL = drawn_photo(1, 2, sides=(112, 40))
CLASSES = [f"class {i}" for i in range(40)]
OF_FEATURE = {
    "expression": {"expression"},
    "attributes": {"attributes"},
    "quality": {"quality_gate"},
    "identity": {"decision", "candidates"},
    "embedding": {"embedding", "space"},
}
ALWAYS = {"box", "confidence", "landmarks", "quality", "refused"}


@pytest.fixture(scope="module")
def client(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service whose default gallery has ada (1) and bob (2)."""
    settings = Settings(
        models=models, recognition="stand-in", data=tmp_path_factory.mktemp("data"), batch=4
    )
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        for number, name in ((1, "ada"), (2, "bob")):
            images = [drawn_photo(number)]
            assert send(client, "/enroll", "multipart", images, {"person_id": name}).is_success
        yield client


def face_of(answer: Any) -> Any:
    """The only face of the only image."""
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["images"]
    [face] = image["faces"]
    return face


def test_expression_names_one_of_the_classes_with_a_distribution_over_all(
    client: TestClient,
) -> None:
    body = exact(schemas.ExpressionAnswer, send(client, "/expression", "raw", [ADA]))
    [face] = body["images"][0]["faces"]
    assert set(face) == ALWAYS | {"expression"}
    found = face["expression"]
    assert list(found["scores"]) == CLASSES[:8]
    assert sum(found["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert found["confidence"] == found["scores"][found["label"]] == max(found["scores"].values())
    assert (body["model"], face["refused"]) == ("stand-in-expression", [])
    stages = {"decode", "detect", "align", "expression", "total"}
    assert set(body["timings_ms"]) == stages


def test_attributes_are_those_that_can_be_relied_on_unless_all_are_asked_for(
    client: TestClient,
) -> None:
    body = exact(schemas.AttributesAnswer, send(client, "/attributes", "raw", [ADA]))
    [face] = body["images"][0]["faces"]
    assert set(face) == ALWAYS | {"attributes"}
    assert list(face["attributes"]) == CLASSES[:38]
    for attribute in face["attributes"].values():
        assert set(attribute) == {"present", "confidence"}
        assert 0.5 <= attribute["confidence"] <= 1
    assert body["model"] == "stand-in-attributes"
    for form in FORMS:
        answer = send(client, "/attributes", form, [ADA], {"include_unreliable": True})
        more = face_of(answer)["attributes"]
        assert list(more) == CLASSES
        assert {name: more[name] for name in CLASSES[:38]} == face["attributes"]
        assert [more[name]["reliable"] for name in CLASSES[38:]] == [False, False]
    few = face_of(send(client, "/attributes", "raw", [ADA], {"include_unreliable": False}))
    assert few == face


@pytest.mark.parametrize(
    "features", [f for n in range(1, len(FEATURES) + 1) for f in combinations(FEATURES, n)], ids=str
)
def test_analyze_answers_what_was_asked_and_nothing_else(
    client: TestClient, features: tuple[str, ...]
) -> None:
    answer = send(client, "/analyze", "json", [ADA], {"features": list(features)})
    body = exact(schemas.AnalyzeAnswer, answer)
    [face] = body["images"][0]["faces"]
    assert set(face) == ALWAYS.union(*(OF_FEATURE[feature] for feature in features))
    wanted = {"images", "models", "timings_ms", "request_id"}
    wanted |= {"space"} if {"identity", "embedding"} & set(features) else set()
    wanted |= {"gallery", "threshold"} if "identity" in features else set()
    assert set(body) == wanted
    tasks = {"identity": "recognition", "embedding": "recognition", "quality": None}
    assert set(body["models"]) == {tasks.get(f, f) for f in features} - {None}


def test_analyze_says_what_the_calls_of_each_feature_say(client: TestClient) -> None:
    photo = drawn_photo(2, 1, take=3)
    fields = {"features": ",".join(FEATURES), "top_k": 1, "threshold": 0.4}
    body = send(client, "/analyze", "multipart", [photo], fields).json()
    alone = {
        "expression": send(client, "/expression", "raw", [photo]).json(),
        "attributes": send(client, "/attributes", "raw", [photo]).json(),
        "embedding": send(client, "/embeddings", "raw", [photo]).json(),
        "identity": send(
            client, "/identify", "raw", [photo], {"top_k": 1, "threshold": 0.4}
        ).json(),
    }
    for feature, other in alone.items():
        for face, same in zip(body["images"][0]["faces"], other["images"][0]["faces"], strict=True):
            for name in OF_FEATURE[feature] | (ALWAYS - {"refused"}):
                assert face[name] == same[name]
    assert {k: body[k] for k in ("gallery", "threshold", "space")} == {
        k: alone["identity"][k] for k in ("gallery", "threshold", "space")
    }
    assert body["models"] == {
        "expression": "stand-in-expression",
        "attributes": "stand-in-attributes",
        "recognition": "stand-in",
    }


def test_the_quality_gate_is_that_of_enroll(client: TestClient) -> None:
    for photo in (ADA, drawn_photo(1, sides=(40,))):
        face = face_of(send(client, "/analyze", "raw", [photo], {"features": "quality"}))
        for level, gate in face["quality_gate"].items():
            fields = {"quality": level, "person_id": "gate"}
            enrolled = send(client, "/enroll", "raw", [photo], fields).is_success
            assert gate["passed"] == enrolled
            assert gate["passed"] == all(check["passed"] for check in gate["checks"])
            for check in gate["checks"]:
                assert check["value"] == face["quality"][check["component"]]
                assert (check["reason"] is None) == check["passed"]
                assert check["least"] is not None or check["most"] is not None


SPELLINGS: list[dict[str, Any]] = [
    {"files": {"image": ADA}, "data": {"features": ["quality", "expression"]}},
    {"files": {"image": ADA}, "data": {"features": "quality,expression"}},
    {"files": {"image": ADA}, "data": {"features": " expression , quality "}},
    {"files": {"image": ADA}, "params": {"features": ["quality", "expression"]}},
    {
        "files": {"image": ADA},
        "params": {"features": "quality"},
        "data": {"features": "expression"},
    },
    {"json": {"image": base64.b64encode(ADA).decode(), "features": ["expression", "quality"]}},
    {"json": {"image": base64.b64encode(ADA).decode(), "features": "expression,quality"}},
    {
        "content": ADA,
        "params": {"features": "expression,quality"},
        "headers": {"Content-Type": "image/png"},
    },
    {
        "content": ADA,
        "params": [("features", "expression"), ("features", "quality")],
        "headers": {"Content-Type": "image/png"},
    },
]


def test_features_may_be_repeated_or_stand_with_commas_in_every_form(client: TestClient) -> None:
    first, *others = [without(client.post("/analyze", **call).json()) for call in SPELLINGS]
    assert set(first["images"][0]["faces"][0]) == ALWAYS | {"expression", "quality_gate"}
    assert all(other == first for other in others)


ONE_OR_MORE = f"one or more of {', '.join(FEATURES)}"
EACH_ONCE = "a list that names each once"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fields", "field", "value", "limit"),
    [
        ({"features": "smile"}, "features", "smile", ONE_OR_MORE),
        ({"features": "quality,Identity"}, "features", "Identity", ONE_OR_MORE),
        ({"features": ""}, "features", "", ONE_OR_MORE),
        ({"features": "quality,"}, "features", "", ONE_OR_MORE),
        ({"features": "quality,quality"}, "features", "quality twice", EACH_ONCE),
        ({"features": "x," * 9000}, "features", "x twice", EACH_ONCE),
        (
            {"features": "quality", "include_unreliable": True},
            *("include_unreliable", True, "left out, or attributes be among the features"),
        ),
        (
            {"features": "quality", "top_k": 5},
            *("top_k", 5, "left out, or identity be among the features"),
        ),
        (
            {"features": "embedding", "gallery": "default"},
            *("gallery", "default", "left out, or identity be among the features"),
        ),
        (
            {"features": "expression", "threshold": 0.5},
            *("threshold", 0.5, "left out, or identity be among the features"),
        ),
        (
            {"features": "identity", "threshold": 0.5, "target_fpir": 0.1},
            *("target_fpir", 0.1, "given without threshold"),
        ),
        ({"features": "identity", "top_k": 0}, "top_k", 0, "an integer from 1 to 1000"),
        (
            {"features": "attributes", "include_unreliable": "yes"},
            *("include_unreliable", "yes", "true or false"),
        ),
    ],
)
def test_fields_that_cannot_be_are_refused_the_same_way_in_every_form(
    client: TestClient, form: str, fields: dict[str, Any], field: str, value: Any, limit: str
) -> None:
    refused = problem(send(client, "/analyze", form, [ADA], fields))
    assert (refused["type"], refused["status"]) == ("/problems/field-invalid", 422)
    assert (refused["field"], refused["value"], refused["limit"]) == (field, value, limit)


@pytest.mark.parametrize("value", [[], [5], [["quality"]], {"a": 1}, None, 7, True, ["a"] * 20_000])
def test_features_that_are_no_list_of_names_are_refused_in_json(
    client: TestClient, value: Any
) -> None:
    coded = base64.b64encode(ADA).decode()
    refused = problem(client.post("/analyze", json={"image": coded, "features": value}))
    assert (refused["status"], refused["field"]) == (422, "features")


def test_features_are_needed_and_not_without_end(client: TestClient) -> None:
    missing = client.post("/analyze", files={"image": ADA})
    assert (slug(missing), problem(missing)["field"]) == ("field-missing", "features")
    many = client.post("/analyze", files={"image": ADA}, data={"features": ["quality"] * 6})
    assert problem(many)["limit"] == f"given at most {len(FEATURES)} times"


@pytest.mark.parametrize("path", ["/expression", "/attributes"])
def test_the_short_ways_know_no_fields_of_another_feature(client: TestClient, path: str) -> None:
    for fields in ({"features": "quality"}, {"gallery": "default"}, {"top_k": 1}):
        assert slug(send(client, path, "multipart", [ADA], fields)) == "field-unknown"


def test_a_gallery_that_is_not_there_is_said_so(client: TestClient) -> None:
    fields = {"features": "identity", "gallery": "nowhere"}
    answer = send(client, "/analyze", "multipart", [ADA], fields)
    assert (answer.status_code, slug(answer)) == (404, "gallery-unknown")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/expression", {}),
        ("/attributes", {}),
        ("/analyze", {"features": "expression,attributes,quality,identity"}),
    ],
)
class TestEachCall:
    def test_no_face_is_a_valid_answer(
        self, client: TestClient, path: str, fields: dict[str, Any]
    ) -> None:
        [image] = send(client, path, "multipart", [drawn_photo()], fields).json()["images"]
        assert (image["faces"], image["error"]) == ([], None)

    def test_of_several_images_each_has_its_own_error(
        self, client: TestClient, path: str, fields: dict[str, Any]
    ) -> None:
        assert slug(send(client, path, "multipart", [b"no image"], fields)) == "image-unreadable"
        photos = [ADA, b"no image", drawn_photo(2), b""]
        images = send(client, path, "json", photos, fields).json()["images"]
        assert [image["index"] for image in images] == [0, 1, 2, 3]
        assert [image["error"] and image["error"]["type"] for image in images] == [
            None,
            "/problems/image-unreadable",
            None,
            "/problems/image-empty",
        ]
        alone = send(client, path, "json", [drawn_photo(2)], fields).json()["images"]
        assert images[2]["faces"] == alone[0]["faces"]

    def test_a_face_too_small_is_answered_with_the_reason_and_the_others_go_on(
        self, client: TestClient, path: str, fields: dict[str, Any]
    ) -> None:
        large, small = send(client, path, "raw", [SMALL], fields).json()["images"][0]["faces"]
        features = [name for name in ("expression", "attributes") if name in large]
        assert large["refused"] == []
        assert [entry["feature"] for entry in small["refused"]] == features
        for entry in small["refused"]:
            assert small[entry["feature"]] is None
            assert large[entry["feature"]] is not None
            why = entry["problem"]
            assert (why["type"], why["status"]) == ("/problems/face-too-small", 422)
            assert why["feature"] == entry["feature"]
            assert why["value"] == pytest.approx(35.24 * 40 / 112, abs=0.01)
            assert why["limit"] == 16
        assert set(small) == set(large)


def off_app(settings: Settings, *features: str) -> FastAPI:
    changes = dict.fromkeys(features, "off")
    return create_app(settings.model_copy(update=changes), open_engine=open_drawn)


@pytest.mark.parametrize(
    ("off", "on"), [("expression", "attributes"), ("attributes", "expression")]
)
def test_a_feature_that_is_off_is_refused_with_the_reason_and_not_loaded(
    settings: Settings, off: str, on: str
) -> None:
    app = off_app(settings, off)
    with ready_client(app) as client:
        tasks = [model["task"] for model in client.get("/models").json()["items"]]
        assert tasks == ["detection", "recognition", on]
        assert list(app.state.service.engine.classifiers) == [on]
        for refused in (
            send(client, f"/{off}", "multipart", [ADA]),
            client.post(f"/{off}", content=b"<x/>", headers={"Content-Type": "application/xml"}),
            send(client, "/analyze", "raw", [ADA], {"features": f"quality,{off}"}),
        ):
            body = problem(refused)
            assert (body["status"], body["type"]) == (403, "/problems/feature-off")
            assert (body["feature"], body["setting"]) == (off, f"MIEN_{off.upper()}")
            assert f"MIEN_{off.upper()}=off" in body["detail"]
            assert ("2024/1689" in body["detail"]) == (off == "expression")
        assert face_of(send(client, f"/{on}", "raw", [ADA]))[on]
        assert face_of(send(client, "/analyze", "raw", [ADA], {"features": f"quality,{on}"}))[on]
        assert send(client, "/identify", "raw", [ADA]).status_code == 200


def test_a_network_that_is_off_need_not_be_there(settings: Settings, tmp_path: Any) -> None:
    for name in ("mtcnn", "stand-in"):
        (tmp_path / name).symlink_to(settings.models / name)
    alone = settings.model_copy(update={"models": tmp_path})
    with ready_client(off_app(alone, "expression", "attributes")) as client:
        tasks = [model["task"] for model in client.get("/models").json()["items"]]
        assert tasks == ["detection", "recognition"]
        features = "quality,identity,embedding"
        assert face_of(send(client, "/analyze", "raw", [ADA], {"features": features}))


def test_warming_up_runs_every_network(settings: Settings) -> None:
    opened = open_drawn(settings)
    asked: dict[str, list[tuple[int, ...]]] = {}

    def counted(name: str, run: Any) -> Any:
        def counting(crops: Any) -> Any:
            asked.setdefault(name, []).append(crops.shape[1:])
            return run(crops)

        return counting

    engine = opened.engine
    classifiers = {
        name: dataclasses.replace(one, scores=counted(name, one.scores))
        for name, one in engine.classifiers.items()
    }
    watched = dataclasses.replace(
        engine, classifiers=classifiers, embed=counted("recognition", engine.embed)
    )
    warm_up = opened.warm_up.func  # type: ignore[attr-defined]
    warm_up(watched, settings)
    opened.close()
    assert {name: set(shapes) for name, shapes in asked.items()} == {
        "recognition": {(112, 112, 3)},
        "expression": {(48, 48, 3)},
        "attributes": {(136, 112, 3)},
    }
