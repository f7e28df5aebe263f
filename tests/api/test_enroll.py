"""POST /enroll: 201 means kept and found; what is refused says why; a repeat is a repeat."""

import dataclasses
import uuid
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api import schemas
from service.gallery.contract import NewFace
from service.settings import Settings
from service.vision.quality import BOUNDS
from tests.api.test_images import exact
from tests.api.wire import FORMS, problem, send, slug
from tests.drawn import drawn_photo

KEY = "Idempotency-Key"


def faces_of(client: TestClient, person: str, gallery: str = "default") -> int:
    return int(client.get(f"/galleries/{gallery}/persons/{person}").json()["faces"])


@pytest.mark.parametrize("form", FORMS)
def test_who_was_enrolled_is_found_by_the_next_identify(client: TestClient, form: str) -> None:
    fields = {"person_id": "ada", "name": "Ada", "metadata": {"from": "here"}}
    answer = send(client, "/enroll", form, [drawn_photo(1)], fields)
    body = exact(schemas.EnrollAnswer, answer)
    assert answer.status_code == 201
    assert body["person"] == {
        "id": "ada",
        "name": "Ada",
        "metadata": {"from": "here"},
        "faces": 1,
    }
    [taken] = body["enrolled"]
    found = send(client, "/identify", form, [drawn_photo(1, take=3)]).json()
    [candidate] = found["images"][0]["faces"][0]["candidates"]
    assert (candidate["person_id"], candidate["face_id"]) == ("ada", taken["face_id"])


def test_a_person_without_an_id_gets_one(client: TestClient) -> None:
    ids = {send(client, "/enroll", "raw", [drawn_photo(i)]).json()["person"]["id"] for i in (1, 2)}
    assert len(ids) == 2
    assert all(len(made) == 26 for made in ids)


def test_several_images_are_enrolled_as_far_as_they_can_be(client: TestClient) -> None:
    images = [drawn_photo(1), drawn_photo(), b"junk", drawn_photo(1, 2), drawn_photo(1, take=2)]
    body = exact(
        schemas.EnrollAnswer, send(client, "/enroll", "multipart", images, {"person_id": "ada"})
    )
    assert [taken["image"] for taken in body["enrolled"]] == [0, 4]
    assert [(entry["image"], entry["problem"]["type"]) for entry in body["refused"]] == [
        (1, "/problems/no-face"),
        (2, "/problems/image-unreadable"),
        (3, "/problems/several-faces"),
    ]
    assert body["person"]["faces"] == 2
    assert faces_of(client, "ada") == 2


def test_none_of_several_is_refused_with_the_problem_of_each(client: TestClient) -> None:
    answer = send(client, "/enroll", "multipart", [drawn_photo(), b"junk"], {"person_id": "ada"})
    body = problem(answer)
    assert (slug(answer), body["value"]) == ("enrolment-refused", 2)
    assert [entry["image"] for entry in body["refused"]] == [0, 1]
    assert body["refused"][0]["problem"]["type"] == "/problems/no-face"
    assert slug(client.get("/galleries/default/persons/ada")) == "person-unknown"


def test_one_image_s_problem_is_the_answer_s(client: TestClient) -> None:
    answer = send(client, "/enroll", "raw", [drawn_photo(1, 2)])
    assert slug(answer) == "several-faces"
    assert [box["width"] for box in problem(answer)["boxes"]] == [112, 112]
    assert "face=largest" in problem(answer)["detail"]
    largest = send(
        client, "/enroll", "raw", [drawn_photo(1, 2, sides=(60, 112))], {"face": "largest"}
    )
    assert largest.json()["enrolled"][0]["box"]["width"] == 112


def test_quality_refuses_with_each_component_that_failed_its_value_and_its_limit(
    client: TestClient,
) -> None:
    small = drawn_photo(1, sides=(20,))
    assert send(client, "/enroll", "raw", [small]).status_code == 201
    answer = send(client, "/enroll", "raw", [small], {"quality": "strict"})
    body = problem(answer)
    assert (slug(answer), body["level"]) == ("face-quality-too-low", "strict")
    failed = {one["component"]: one for one in body["failed"]}
    assert set(failed) == {"sharpness", "inter_eye_distance"}
    for component, (least, most) in BOUNDS["strict"].items():
        if component in failed:
            one = failed[component]
            assert set(one) == {"component", "value", "limit", "reason"}
            assert one["limit"] in (least, most)
            assert (one["value"] < one["limit"]) == (one["limit"] == least)
    assert failed["inter_eye_distance"]["reason"] == "inter-eye-distance-too-low"


def test_a_face_that_was_enrolled_under_other_names_of_quality_is_read_back(
    client: TestClient,
) -> None:
    """Names of measures change; what was kept under the names of its time stays as it was."""
    engine = client.app.state.service.engine  # type: ignore[attr-defined]
    old = {
        "box": {"x": 19.0, "y": 19.0, "width": 112.0, "height": 112.0},
        "confidence": 0.999,
        "landmarks": [[57.3, 70.7], [92.5, 70.5], [75.0, 90.7], [60.5, 111.4], [89.7, 111.2]],
        "quality": {
            "score": 0.8081,
            "sharpness": 412.0,
            "luminance": 118.3,
            "inter_eye_px": 35.24,
            "roll_deg": -0.3169,
            "yaw_deg": 0.1,
            "margin": 0.17,
        },
    }
    engine.galleries.enroll(
        "default",
        [NewFace(np.eye(1, 512, dtype=np.float32)[0], old)],
        space=engine.space,
        answer=lambda enrolment: b"",
        person_id="ada",
    )
    path = "/galleries/default/persons/ada/faces"
    [listed] = exact(schemas.Page[schemas.PersonFace], client.get(path))["items"]
    alone = exact(schemas.PersonFace, client.get(f"{path}/{listed['id']}"))
    assert alone == listed
    assert {key: listed[key] for key in old} == old


def test_an_unknown_gallery_is_404_and_enrols_nothing(client: TestClient) -> None:
    answer = send(client, "/enroll", "raw", [drawn_photo(1)], {"gallery": "nowhere"})
    assert (answer.status_code, slug(answer)) == (404, "gallery-unknown")


def test_a_gallery_of_another_space_refuses(client: TestClient) -> None:
    galleries = client.app.state.service.engine.galleries  # type: ignore[attr-defined]
    galleries.create_gallery("old", space="another/1")
    for path in ("/enroll", "/identify"):
        answer = send(client, path, "raw", [drawn_photo(1)], {"gallery": "old"})
        assert (answer.status_code, slug(answer)) == (409, "space-mismatch")
        assert (problem(answer)["value"], problem(answer)["limit"]) == ("stand-in/1", "another/1")


def test_the_same_key_and_request_give_the_same_answer_and_one_face(client: TestClient) -> None:
    key = {KEY: uuid.uuid4().hex}
    fields = {"person_id": "ada", "metadata": {"b": 1, "a": 2}}
    first = send(client, "/enroll", "multipart", [drawn_photo(1)], fields, key)
    again = send(client, "/enroll", "multipart", [drawn_photo(1)], fields, key)
    as_json = send(client, "/enroll", "json", [drawn_photo(1)], fields, key)
    assert first.status_code == again.status_code == as_json.status_code == 201
    assert first.content == again.content == as_json.content
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == as_json.headers["idempotent-replay"] == "true"
    assert faces_of(client, "ada") == 1


@pytest.mark.parametrize(
    ("images", "fields"),
    [
        ([drawn_photo(2)], {"person_id": "ada"}),
        ([drawn_photo(1), drawn_photo(1)], {"person_id": "ada"}),
        ([drawn_photo(1)], {"person_id": "bob"}),
        ([drawn_photo(1)], {"person_id": "ada", "name": "Ada"}),
        ([drawn_photo(1)], {"person_id": "ada", "metadata": {"a": 1}}),
        ([drawn_photo(1)], {"person_id": "ada", "face": "largest"}),
        ([drawn_photo(1)], {"person_id": "ada", "quality": "standard"}),
        ([drawn_photo(1)], {}),
    ],
)
def test_the_same_key_with_another_request_is_refused(
    client: TestClient, images: list[bytes], fields: dict[str, Any]
) -> None:
    key = {KEY: "the-key"}
    first = send(client, "/enroll", "json", [drawn_photo(1)], {"person_id": "ada"}, key)
    assert first.status_code == 201
    answer = send(client, "/enroll", "json", images, fields, key)
    assert (answer.status_code, slug(answer)) == (422, "idempotency-key-reused")
    assert faces_of(client, "ada") == 1


def test_a_repeat_after_the_person_was_deleted_enrols_nobody(client: TestClient) -> None:
    key = {KEY: "the-key"}
    send(client, "/enroll", "raw", [drawn_photo(1)], {"person_id": "ada"}, key)
    client.delete("/galleries/default/persons/ada")
    answer = send(client, "/enroll", "raw", [drawn_photo(1)], {"person_id": "ada"}, key)
    assert (answer.status_code, slug(answer)) == (410, "answer-erased")


def test_a_repeat_after_the_face_was_deleted_names_no_face_that_is_gone(
    client: TestClient,
) -> None:
    first, other = {KEY: "the-key"}, {KEY: "another-key"}
    fields = {"person_id": "ada"}
    photo = drawn_photo(1)
    [taken] = send(client, "/enroll", "raw", [photo], fields, first).json()["enrolled"]
    client.delete(f"/galleries/default/persons/ada/faces/{taken['face_id']}")
    for differing in (fields, {**fields, "quality": "standard"}):
        answer = send(client, "/enroll", "raw", [photo], differing, first)
        assert (answer.status_code, slug(answer)) == (410, "answer-erased")
        assert "use a new key" in problem(answer)["detail"]
    assert faces_of(client, "ada") == 0
    again = send(client, "/enroll", "raw", [photo], fields, other)
    assert (again.status_code, faces_of(client, "ada")) == (201, 1)


def test_a_repeat_for_a_gallery_of_another_space_is_no_success(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    key, fields = {KEY: "the-key"}, {"person_id": "ada"}
    assert send(client, "/enroll", "raw", [drawn_photo(1)], fields, key).status_code == 201
    service.engine = dataclasses.replace(service.engine, space="stand-in/2")
    answer = send(client, "/enroll", "raw", [drawn_photo(1)], fields, key)
    assert (answer.status_code, slug(answer)) == (409, "space-mismatch")


@pytest.mark.parametrize("form", FORMS)
def test_a_name_for_who_is_new_renames_nobody(client: TestClient, form: str) -> None:
    fields = {"person_id": "ada", "name_if_new": "ada"}
    first = send(client, "/enroll", form, [drawn_photo(1)], fields)
    assert first.json()["person"]["name"] == "ada"
    client.patch("/galleries/default/persons/ada", json={"name": "Ada Lovelace"})
    again = send(client, "/enroll", form, [drawn_photo(1, take=1)], fields)
    assert again.json()["person"]["name"] == "Ada Lovelace"
    both = send(client, "/enroll", form, [drawn_photo(1)], {**fields, "name": "Ada"})
    assert (slug(both), problem(both)["field"]) == ("field-invalid", "name_if_new")


def test_what_a_caller_probably_did_by_mistake_is_a_warning(client: TestClient) -> None:
    def warnings(photo: bytes, **fields: str) -> list[dict[str, Any]]:
        body = exact(schemas.EnrollAnswer, send(client, "/enroll", "raw", [photo], fields))
        return list(body["warnings"])

    [made] = warnings(drawn_photo(1))
    assert set(made) == {"type", "detail", "person_id"}
    assert (made["type"], made["person_id"] in made["detail"]) == ("new-person", True)
    ada = made["person_id"]
    assert warnings(drawn_photo(1, take=1), person_id=ada) == []
    [again] = warnings(drawn_photo(1), person_id=ada)
    assert set(again) == {"type", "detail", "image", "face_id", "similarity"}
    assert (again["type"], again["image"]) == ("photograph-again", 0)
    [like] = warnings(drawn_photo(1, take=2), person_id="bob")
    assert set(like) == {*again, "person_id", "limit"}
    assert (like["type"], like["person_id"]) == ("like-another-person", ada)
    assert like["limit"] < like["similarity"] <= 1
    [unlike] = warnings(drawn_photo(3), person_id=ada)
    assert set(unlike) == {"type", "detail", "image", "similarity", "limit"}
    assert (unlike["type"], unlike["similarity"] < unlike["limit"]) == ("unlike-own-faces", True)


def test_a_kept_answer_names_nobody_but_its_own_person(
    client: TestClient, settings: Settings
) -> None:
    """Whoever else it named could be erased, and would stand in it still."""
    key, fields = {KEY: "the-key"}, {"person_id": "bob"}
    send(client, "/enroll", "raw", [drawn_photo(1)], {"person_id": "ada-lovelace-1815"})
    first = send(client, "/enroll", "raw", [drawn_photo(1, take=1)], fields, key)
    assert [one["person_id"] for one in first.json()["warnings"]] == ["ada-lovelace-1815"]
    client.delete("/galleries/default/persons/ada-lovelace-1815")
    again = send(client, "/enroll", "raw", [drawn_photo(1, take=1)], fields, key)
    assert again.headers["idempotent-replay"] == "true"
    assert again.json()["enrolled"] == first.json()["enrolled"]
    assert again.json()["warnings"] == []
    files = [path for path in settings.data.glob("gallery.sqlite3*") if path.is_file()]
    assert files
    assert not any(b"ada-lovelace-1815" in path.read_bytes() for path in files)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x85b"])
def test_a_key_that_cannot_be_kept_is_refused(client: TestClient, key: str) -> None:
    headers = [(KEY.encode(), key.encode("latin-1")), (b"Content-Type", b"image/png")]
    answer = client.post("/enroll", content=drawn_photo(1), headers=headers)
    assert (slug(answer), problem(answer)["field"]) == ("field-invalid", KEY)


def test_a_failed_enrolment_does_not_use_up_its_key(client: TestClient) -> None:
    key = {KEY: "the-key"}
    assert slug(send(client, "/enroll", "raw", [drawn_photo()], {}, key)) == "no-face"
    assert send(client, "/enroll", "raw", [drawn_photo(1)], {}, key).status_code == 201
