"""POST /detect, /embeddings, /identify, /verify: the wire contract's answers."""

import math
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from service.api import schemas
from tests.api.wire import problem, send, slug
from tests.conftest import ready_client
from tests.drawn import drawn_photo


@pytest.fixture
def people(client: TestClient) -> TestClient:
    """A client of a service whose default gallery has ada (1), bob (2) and cleo (3)."""
    for number, name in enumerate(("ada", "bob", "cleo"), start=1):
        for take in (0, 1):
            images = [drawn_photo(number, take=take)]
            fields = {"person_id": name, "name": name.title()}
            assert send(client, "/enroll", "multipart", images, fields).status_code == 201
    return client


def exact(kind: Any, answer: Any) -> Any:
    """The answer's body, which has the shape that the documentation says, and no more."""
    assert answer.status_code in (200, 201), answer.text
    TypeAdapter(kind).validate_json(answer.content, strict=False)
    return answer.json()


def test_detect_answers_the_faces_of_the_upright_image(client: TestClient) -> None:
    answer = send(client, "/detect", "multipart", [drawn_photo(1, 2, sides=(60, 112))])
    body = exact(schemas.DetectAnswer, answer)
    [image] = body["images"]
    assert (image["index"], image["width"], image["height"]) == (0, 640, 480)
    assert [face["box"]["width"] for face in image["faces"]] == [112, 60]
    assert image["faces"][0]["box"] == {"x": 91.0, "y": 19.0, "width": 112.0, "height": 112.0}
    assert {"decode", "detect", "align", "total"} == set(body["timings_ms"])


def test_detect_looks_for_faces_of_the_size_and_number_asked(client: TestClient) -> None:
    photo = drawn_photo(1, 2, 3, sides=(60, 112, 90))
    some = send(client, "/detect", "json", [photo], {"min_face": 80, "limit": 1}).json()
    assert [face["box"]["width"] for face in some["images"][0]["faces"]] == [112]


def test_embeddings_are_unit_vectors_of_a_named_space(client: TestClient) -> None:
    answer = send(client, "/embeddings", "raw", [drawn_photo(1)])
    body = exact(schemas.EmbeddingsAnswer, answer)
    [face] = body["images"][0]["faces"]
    assert len(face["embedding"]) == 512
    assert math.isclose(math.fsum(v * v for v in face["embedding"]), 1, abs_tol=1e-5)
    assert face["space"] == body["space"] == "stand-in/1"


def test_identify_answers_every_face_with_people_by_their_best_face(people: TestClient) -> None:
    photo = drawn_photo(2, 9, 1, take=5)
    body = exact(schemas.IdentifyAnswer, send(people, "/identify", "multipart", [photo]))
    faces = sorted(body["images"][0]["faces"], key=lambda face: face["box"]["x"])
    assert [face["decision"] for face in faces] == ["match", "no_match", "match"]
    assert [faces[i]["candidates"][0]["person_id"] for i in (0, 2)] == ["bob", "ada"]
    for face in faces:
        similarities = [candidate["similarity"] for candidate in face["candidates"]]
        assert similarities == sorted(similarities, reverse=True)
        assert {c["person_id"] for c in face["candidates"]} == {"ada", "bob", "cleo"}
    assert (body["gallery"], body["model"]) == ("default", "stand-in")
    assert body["threshold"]["by"] == "target_fpir"
    assert body["threshold"]["target"] == 0.01
    assert faces[0]["candidates"][0]["name"] == "Bob"


def test_top_k_counts_people_and_not_faces(people: TestClient) -> None:
    body = send(people, "/identify", "json", [drawn_photo(1, take=4)], {"top_k": 2}).json()
    names = [c["person_id"] for c in body["images"][0]["faces"][0]["candidates"]]
    assert names[0] == "ada"
    assert len(set(names)) == len(names) == 2


def test_a_threshold_of_one_s_own_decides(people: TestClient) -> None:
    photo = drawn_photo(1, take=4)
    for threshold, decision in ((0.5, "match"), (1, "no_match")):
        body = send(people, "/identify", "raw", [photo], {"threshold": threshold}).json()
        assert body["images"][0]["faces"][0]["decision"] == decision
        assert body["threshold"]["similarity"] == threshold


def test_a_target_that_the_data_cannot_support_is_answered_with_the_smallest(
    people: TestClient,
) -> None:
    images = {"image_a": drawn_photo(1), "image_b": drawn_photo(1, take=2)}
    body = send(people, "/verify", "json", images, {"target_fmr": 1e-9}).json()
    assert body["threshold"]["by"] == "target_fmr"
    assert body["threshold"]["target"] == pytest.approx(1e-4)


def test_an_empty_gallery_has_no_candidates_and_no_match(client: TestClient) -> None:
    body = exact(schemas.IdentifyAnswer, send(client, "/identify", "raw", [drawn_photo(1)]))
    [face] = body["images"][0]["faces"]
    assert (face["candidates"], face["decision"]) == ([], "no_match")


@pytest.mark.parametrize("path", ["/detect", "/embeddings", "/identify"])
def test_no_face_is_a_valid_answer(client: TestClient, path: str) -> None:
    body = send(client, path, "multipart", [drawn_photo()]).json()
    assert body["images"][0]["faces"] == []
    assert body["images"][0]["error"] is None


@pytest.mark.parametrize("path", ["/detect", "/embeddings", "/identify"])
def test_one_image_s_error_is_the_answer_s_and_several_have_each_their_own(
    client: TestClient, path: str
) -> None:
    assert slug(send(client, path, "multipart", [b"no image"])) == "image-unreadable"
    answer = send(client, path, "multipart", [b"no image", drawn_photo(1), b""])
    images = answer.json()["images"]
    assert answer.status_code == 200
    assert [image["index"] for image in images] == [0, 1, 2]
    assert [image["error"] and image["error"]["type"] for image in images] == [
        "/problems/image-unreadable",
        None,
        "/problems/image-empty",
    ]
    assert [len(image["faces"]) for image in images] == [0, 1, 0]


def test_verify_compares_two_faces(client: TestClient) -> None:
    a, b = drawn_photo(1, 2, sides=(112, 60)), drawn_photo(1, take=2)
    same = send(client, "/verify", "multipart", {"image_a": a, "image_b": b})
    body = exact(schemas.VerifyAnswer, same)
    assert body["decision"] == "match"
    assert body["threshold"]["by"] == "target_fmr"
    assert body["threshold"]["target"] == 0.001
    assert len(body["faces"]) == 2
    other = send(client, "/verify", "json", {"image_a": drawn_photo(3), "image_b": b}).json()
    assert other["similarity"] < body["similarity"]
    assert other["decision"] == "no_match"
    itself = send(client, "/verify", "json", {"image_a": b, "image_b": b}).json()
    assert itself["similarity"] == pytest.approx(1, abs=1e-5)


def test_verify_names_the_image_that_cannot_be_used(client: TestClient) -> None:
    one, none = drawn_photo(1), drawn_photo()
    answer = send(client, "/verify", "json", {"image_a": one, "image_b": none})
    assert (slug(answer), problem(answer)["image"]) == ("no-face", "image_b")
    answer = send(client, "/verify", "json", {"image_a": b"junk", "image_b": none})
    assert (slug(answer), problem(answer)["image"]) == ("image-unreadable", "image_a")
    several = {"image_a": one, "image_b": drawn_photo(1, 2)}
    answer = send(client, "/verify", "json", several, {"face": "only"})
    assert (slug(answer), len(problem(answer)["boxes"])) == ("several-faces", 2)


def test_between_the_threshold_and_the_calibration_s_lower_bound_a_person_should_look(
    app: FastAPI,
) -> None:
    with ready_client(app) as client:
        a, b = drawn_photo(1), drawn_photo(1, take=2)
        similarity = send(client, "/verify", "json", {"image_a": a, "image_b": b}).json()[
            "similarity"
        ]
        # the stand-in's calibration: rate 10^(-5 s), its lower bound half of it
        target = 10 ** (-5 * (similarity + 0.01))
        calibration = app.state.service.engine.calibration
        object.__setattr__(calibration, "lowest_fmr", 1e-9)
        fields = {"target_fmr": target}
        body = send(client, "/verify", "json", {"image_a": a, "image_b": b}, fields).json()
    assert body["decision"] == "uncertain"
    assert body["threshold"]["similarity"] > similarity
