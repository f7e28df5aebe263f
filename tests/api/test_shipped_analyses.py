"""The networks that ship, behind the API, on real photographs: each face's answer is its own."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from starlette.testclient import TestClient

from service.api import schemas
from service.app import create_app
from service.settings import Settings
from tests.api.test_images import exact
from tests.api.wire import send
from tests.conftest import ready_client
from tests.shared import SHARED, needs_shared

pytestmark = needs_shared("data/lfw/photos.zip", "golden/photos")
CROWD = SHARED / "golden" / "photos" / "018_insightface_t1.jpg"
PHOTOGRAPHS = 12
ASKED = {"features": "expression,attributes,embedding", "include_unreliable": True}
EXPRESSIONS = [
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service as it ships, but that it batches."""
    settings = Settings(data=tmp_path_factory.mktemp("data"), batch=8, photographs=2)
    with ready_client(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """Photographs of LFW, far from one another in its list."""
    with ZipFile(SHARED / "data" / "lfw" / "photos.zip") as photos:
        names = sorted(name for name in photos.namelist() if name.endswith(".jpg"))
        return [photos.read(name) for name in names[:: len(names) // PHOTOGRAPHS][:PHOTOGRAPHS]]


@pytest.fixture(scope="module")
def alone(client: TestClient, photographs: list[bytes]) -> list[Any]:
    """The faces of each photograph, in a call of its own with nothing else going on."""
    answers = [send(client, "/analyze", "raw", [photo], ASKED) for photo in photographs]
    return [exact(schemas.AnalyzeAnswer, answer)["images"][0]["faces"] for answer in answers]


def alike(one: Any, other: Any) -> bool:
    """Equal, numbers to 1e-5."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return bool(one == pytest.approx(other, abs=1e-5))
    return bool(one == other)


def test_faces_are_found_and_told_in_the_classes_of_the_networks(alone: list[Any]) -> None:
    faces = [face for of_photograph in alone for face in of_photograph]
    assert len(faces) >= PHOTOGRAPHS - 1
    for face in faces:
        assert face["refused"] == []
        assert list(face["expression"]["scores"]) == EXPRESSIONS
        assert len(face["attributes"]) == 40
        assert all(0.5 <= told["confidence"] <= 1 for told in face["attributes"].values())
    confidences = {face["expression"]["confidence"] for face in faces}
    assert len(confidences) > PHOTOGRAPHS / 2


def test_a_face_is_told_the_same_alone_and_beside_others_in_any_order(
    client: TestClient, photographs: list[bytes], alone: list[Any]
) -> None:
    for seed in range(2):
        order = list(range(len(photographs)))
        random.Random(seed).shuffle(order)
        images = [photographs[i] for i in order] + [b"no image"]
        answer = send(client, "/analyze", "multipart", images, ASKED).json()
        found = [image["faces"] for image in answer["images"]]
        assert [alike(faces, alone[i]) for faces, i in zip(found, order, strict=False)] == [
            True for _ in order
        ]
        assert answer["images"][-1]["error"]["type"] == "/problems/image-unreadable"


def test_callers_at_the_same_time_get_what_each_gets_alone(
    client: TestClient, photographs: list[bytes], alone: list[Any]
) -> None:
    def ask(index: int) -> bool:
        answer = send(client, "/analyze", "raw", [photographs[index]], ASKED)
        return alike(answer.json()["images"][0]["faces"], alone[index])

    with ThreadPoolExecutor(len(photographs)) as callers:
        assert all(callers.map(ask, range(len(photographs))))


@pytest.mark.parametrize("path", ["/expression", "/attributes"])
def test_the_short_way_says_the_same(
    client: TestClient, photographs: list[bytes], alone: list[Any], path: str
) -> None:
    feature = path[1:]
    fields = {"include_unreliable": True} if feature == "attributes" else {}
    answer = send(client, path, "multipart", photographs, fields).json()
    for image, faces in zip(answer["images"], alone, strict=True):
        assert alike([face[feature] for face in image["faces"]], [face[feature] for face in faces])


def test_in_a_crowd_each_face_is_told_unless_it_is_too_small_for_the_network(
    client: TestClient,
) -> None:
    [image] = send(client, "/analyze", "raw", [CROWD.read_bytes()], ASKED).json()["images"]
    engine = client.app.state.service.engine  # type: ignore[attr-defined]
    assert len(image["faces"]) > 4
    for face in image["faces"]:
        (x, y), (other_x, other_y) = face["landmarks"][:2]
        apart = ((x - other_x) ** 2 + (y - other_y) ** 2) ** 0.5
        refused = {entry["feature"]: entry["problem"] for entry in face["refused"]}
        for feature, classifier in engine.classifiers.items():
            limit = classifier.min_inter_eye_px
            if abs(apart - limit) > 0.02:  # landmarks are answered to 0.01 px
                assert (face[feature] is None) == (feature in refused) == (apart < limit)
            if feature in refused:
                assert refused[feature]["limit"] == limit


def test_the_networks_are_those_of_their_settings(client: TestClient) -> None:
    models = {model["task"]: model["name"] for model in client.get("/models").json()["items"]}
    assert models["expression"] == Settings().expression == "patt-lite"
    assert models["attributes"] == Settings().attributes == "mzts"
    for task in ("expression", "attributes"):
        manifest = client.get(f"/models/{models[task]}").json()["manifest"]
        assert manifest["min_inter_eye_px"] > 0


def test_what_is_off_is_not_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service import app as app_module

    loaded: list[str] = []
    load = app_module.load_artefact

    def watched(folder: Path, **options: Any) -> Any:
        loaded.append(folder.name)
        return load(folder, **options)

    monkeypatch.setattr(app_module, "load_artefact", watched)
    app = create_app(Settings(data=tmp_path, expression="off", attributes="off"))
    with ready_client(app) as client:
        assert loaded == ["mtcnn", "ecacface-mobile"]
        assert send(client, "/expression", "raw", [CROWD.read_bytes()]).status_code == 403
