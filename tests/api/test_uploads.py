"""service/api/uploads.py: three forms, one call; what is wrong is a problem and never a 500."""

import asyncio
import base64
import dataclasses
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.fields import parse_json
from service.app import create_app
from service.errors import BodyBroken
from service.settings import Settings
from tests.api.wire import FORMS, problem, send, slug, without
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo

PHOTO = drawn_photo(1)
CODED = base64.b64encode(PHOTO).decode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service with small limits."""
    settings = Settings(
        models=models,
        recognition="stand-in",
        data=tmp_path_factory.mktemp("data"),
        max_image_bytes=300_000,
        max_body_bytes=1_000_000,
        max_images=3,
        max_pixels=640 * 480,
    )
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        yield client


def faces(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["images"][0]["faces"]


def test_every_form_of_a_call_gives_the_same_faces(client: TestClient) -> None:
    url_safe = base64.urlsafe_b64encode(PHOTO).decode().rstrip("=")
    wrapped = base64.encodebytes(PHOTO).decode()
    answers = [
        client.post("/detect", files={"image": PHOTO}),
        client.post("/detect", files={"image": ("a.png", PHOTO, "image/png")}),
        client.post("/detect", json={"image": CODED}),
        client.post("/detect", json={"images": [CODED]}),
        client.post("/detect", json={"image": url_safe}),
        client.post("/detect", json={"image": wrapped}),
        client.post("/detect", json={"image": f"data:image/png;base64,{CODED}"}),
        client.post("/detect", json={"images": [f"data:;base64,{url_safe}"]}),
        client.post("/detect", content=PHOTO, headers={"Content-Type": "image/png"}),
        client.post("/detect", content=PHOTO, headers={"Content-Type": "application/octet-stream"}),
        client.post(
            "/detect",
            content=b"\xef\xbb\xbf" + json.dumps({"image": CODED}).encode(),
            headers={"Content-Type": "Application/JSON; charset=UTF-8"},
        ),
    ]
    first = faces(answers[0])
    assert len(first) == 1
    assert all(faces(answer) == first for answer in answers)


VALIDATED: list[tuple[str, str, Any, str, Any]] = [
    ("/identify", "top_k", -1, "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "top_k", 1001, "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "top_k", 1.5, "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "top_k", "many", "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "top_k", "", "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "top_k", 10**30, "field-invalid", "an integer from 1 to 1000"),
    ("/identify", "threshold", 7, "field-invalid", "a number from -1 to 1"),
    ("/identify", "threshold", "nan", "field-invalid", "a number from -1 to 1"),
    ("/identify", "threshold", "1_0", "field-invalid", "a number from -1 to 1"),
    ("/identify", "threshold", "-inf", "field-invalid", "a number from -1 to 1"),
    ("/identify", "target_fpir", 0, "field-invalid", "a number between 0 and 1, without them"),
    ("/identify", "target_fpir", 1, "field-invalid", "a number between 0 and 1, without them"),
    ("/identify", "treshold", 0.4, "field-unknown", None),
    ("/identify", "gallery", "nowhere", "gallery-unknown", None),
    ("/identify", "gallery", "\x00", "gallery-unknown", None),
    ("/detect", "min_face", 11, "field-invalid", "an integer from 12 to 10000"),
    ("/enroll", "face", "both", "field-invalid", "one of only, largest"),
    ("/enroll", "quality", "best", "field-invalid", "one of off, standard, strict"),
    ("/enroll", "metadata", [1], "field-invalid", "a JSON object"),
    ("/enroll", "metadata", {"a": "x" * 17_000}, "field-invalid", None),
    ("/enroll", "person_id", "x" * 129, "field-invalid", "text of 1 to 128 characters"),
    ("/enroll", "name", "", "field-invalid", "text of 1 to 128 characters"),
    ("/enroll", "name", "a\x00b", "field-invalid", None),
    ("/enroll", "name", " ada ", "field-invalid", None),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("path", "field", "value", "expected", "limit"), VALIDATED)
def test_a_field_is_refused_the_same_way_in_every_form(
    client: TestClient, form: str, path: str, field: str, value: Any, expected: str, limit: Any
) -> None:
    answer = send(client, path, form, [PHOTO], {field: value})
    assert slug(answer) == expected
    if expected.startswith("field"):
        assert problem(answer)["field"] == field
    if limit:
        assert problem(answer)["limit"] == limit


@pytest.mark.parametrize("form", FORMS)
def test_fields_mean_the_same_in_every_form(client: TestClient, form: str) -> None:
    fields = {"top_k": 2, "threshold": 0.25, "gallery": "default"}
    body = send(client, "/identify", form, [PHOTO], fields).json()
    assert body["threshold"]["similarity"] == 0.25
    assert body["threshold"]["by"] == "threshold"


@pytest.mark.parametrize(
    ("text", "value"), [("0.25", 0.25), ("+.5", 0.5), ("-1", -1.0), ("1e-1", 0.1), ("0", 0.0)]
)
def test_numbers_are_read_out_of_text(client: TestClient, text: str, value: float) -> None:
    answer = client.post("/identify", files={"image": PHOTO}, data={"threshold": text})
    assert answer.json()["threshold"]["similarity"] == value


def test_json_keeps_its_types(client: TestClient) -> None:
    for value in ("3", True, 3.5, [3], {"a": 3}):
        answer = client.post("/identify", json={"image": CODED, "top_k": value})
        assert slug(answer) == "field-invalid"
    assert client.post("/identify", json={"image": CODED, "threshold": None}).status_code == 200


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, None), (7, 7), (True, True), ([], "an empty list"), ({}, "an object")],
)
def test_an_image_that_is_no_text_is_refused_by_the_name_it_came_in(
    client: TestClient, value: Any, told: Any
) -> None:
    limit = "base64 text or a data URI"
    for path, name, given in (
        ("/detect", "image", {"image": value}),
        ("/detect", "images", {"images": [CODED, value]}),
        ("/verify", "image_b", {"image_a": CODED, "image_b": value}),
    ):
        body = problem(client.post(path, json=given))
        assert (body["field"], body["value"], body["limit"]) == (name, told, limit)


def test_a_refused_value_is_told_as_it_was_sent(client: TestClient) -> None:
    too_large = client.post("/identify", files={"image": PHOTO}, data={"threshold": "1e309"})
    assert problem(too_large)["value"] == "1e309"
    null = client.post("/identify", json={"image": CODED, "top_k": None})
    assert problem(null)["detail"] == "top_k is null; it must be an integer from 1 to 1000"
    kind = {"Content-Type": "application/json"}
    vast = client.post(
        "/galleries", content=b'{"name": "a", "metadata": {"a": 1e999}}', headers=kind
    )
    assert problem(vast)["value"].endswith("as a number that is not finite")
    long = client.post("/galleries", content=b'{"name": %s}' % (b"9" * 5000), headers=kind)
    assert problem(long)["reason"].endswith("value has 5000 digits")
    truth = client.post("/identify", json={"image": CODED, "gallery": True})
    assert problem(truth)["detail"] == "gallery is true; it must be text"


def test_two_ways_to_say_one_thing_are_refused(client: TestClient) -> None:
    both = {"threshold": 0.4, "target_fpir": 0.01}
    assert problem(send(client, "/identify", "json", [PHOTO], both))["field"] == "target_fpir"
    answer = client.post("/detect", json={"image": CODED, "images": [CODED]})
    assert problem(answer)["field"] == "images"


def test_what_is_given_twice_with_different_values_is_refused(client: TestClient) -> None:
    twice = [
        client.post("/identify?top_k=1&top_k=2", files={"image": PHOTO}),
        client.post("/identify?top_k=1", files={"image": PHOTO}, data={"top_k": "2"}),
        client.post("/identify", files={"image": PHOTO}, data={"top_k": ["1", "2"]}),
        client.post("/identify?top_k=1", json={"image": CODED, "top_k": 2}),
        client.post("/identify", content='{"top_k": 1, "top_k": 2}', headers=JSON),
        client.post(
            "/identify?top_k=1&top_k=2", content=PHOTO, headers={"Content-Type": "image/x"}
        ),
        client.post("/identify?top_k=1", json={"image": CODED, "top_k": True}),
        client.post("/identify?threshold=0.5", json={"image": CODED, "threshold": None}),
        client.post('/enroll?metadata={"a":1}', json={"image": CODED, "metadata": {"a": True}}),
        client.post("/enroll", content='{"metadata": {"a": 1, "a": 2}}', headers=JSON),
        client.post("/verify", files=[("image_a", PHOTO), ("image_a", PHOTO), ("image_b", PHOTO)]),
    ]
    assert {slug(answer) for answer in twice} == {"field-invalid"}
    assert {problem(answer)["limit"] for answer in twice} == {"given once"}


def test_what_is_given_twice_differently_is_named_with_both_values(client: TestClient) -> None:
    refused = problem(client.post("/identify?gallery=a", json={"image": CODED, "gallery": "b"}))
    assert (refused["field"], refused["value"]) == ("gallery", 'given twice, as "a" and as "b"')
    objects = {"image": CODED, "metadata": {"a": 2}}
    refused = problem(client.post('/enroll?metadata={"a":1}', json=objects))
    assert refused["value"] == "given twice, with different values"


def test_what_is_given_twice_with_equal_values_counts_once(client: TestClient) -> None:
    """As clients do that were generated from the document, where a field stands twice."""
    raw = {"Content-Type": "image/png"}
    form = {"files": {"image": PHOTO}}
    person = {"metadata": '{"a": [1, null], "b": "x"}', "person_id": "ada"}
    spaced = {"metadata": '{"b":"x","a":[1,null]}', "person_id": "ada"}
    assert client.post("/enroll", **form, data=person, params=spaced).status_code == 201
    answers = [
        client.post("/identify?top_k=1", **form, data={"top_k": "1"}),
        client.post("/identify", **form, data={"top_k": ["1", "1"]}),
        client.post("/identify?top_k=1", json={"image": CODED, "top_k": 1}),
        client.post("/identify?threshold=1", json={"image": CODED, "threshold": 1}),
        client.post("/identify?threshold=1", json={"image": CODED, "threshold": 1.0}),
        client.post("/identify?top_k=1&top_k=1&gallery=default", content=PHOTO, headers=raw),
        client.post(
            "/identify", content=f'{{"top_k": 1, "image": "{CODED}", "top_k": 1}}', headers=JSON
        ),
        client.get("/galleries?limit=5&limit=5"),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    both = {"features": ["quality", "identity"], "image": CODED}
    asked = [
        client.post("/analyze?features=quality,identity", json=both),
        client.post("/analyze?features=identity&features=quality", json=both),
        client.post(
            "/analyze?features=quality&features=identity", **form, data={"features": "quality"}
        ),
    ]
    for answer in asked:
        [face] = answer.json()["images"][0]["faces"]
        assert {"quality", "candidates"} <= set(face)


def test_a_field_is_not_repeated_without_end(client: TestClient) -> None:
    many = client.post("/identify", files={"image": PHOTO}, data={"top_k": ["1"] * 9})
    assert (problem(many)["field"], problem(many)["limit"]) == ("top_k", "given at most 8 times")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused_with_what_to_do(
    client: TestClient, kind: str
) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n'
    answer = client.post("/detect", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, slug(answer)) == (400, "body-broken")
    assert "Content-Type has no boundary; leave that header" in problem(answer)["reason"]


@pytest.mark.parametrize("word", ["blue", "team=blue", "{team: blue}", ""])
def test_an_object_as_text_is_asked_for_as_json_text(client: TestClient, word: str) -> None:
    for form in ("multipart", "raw"):
        answer = send(client, "/enroll", form, [PHOTO], {"metadata": word})
        refused = problem(answer)
        assert (slug(answer), refused["field"]) == ("field-invalid", "metadata")
        assert refused["value"] == word
        assert refused["limit"].startswith('the JSON text of an object, as {"key": "value"}')


@pytest.mark.parametrize("path", ["/detect?nonsense=1", "/galleries?nonsense=1"])
def test_an_unknown_field_in_the_query_is_refused(client: TestClient, path: str) -> None:
    calls = [client.get(path)]
    if path.startswith("/detect"):
        calls = [
            client.post(path, files={"image": PHOTO}),
            client.post(path, json={"image": CODED}),
            client.post(path, content=PHOTO, headers={"Content-Type": "image/png"}),
        ]
    assert {slug(call) for call in calls} == {"field-unknown"}


def multipart(body: bytes, boundary: str = "b") -> dict[str, Any]:
    kind = f"multipart/form-data; boundary={boundary}"
    return {"content": body, "headers": {"Content-Type": kind}}


def part(head: str, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + head.encode("latin-1") + b"\r\n\r\n" + data + b"\r\n--b--\r\n"


def text_part(name: str, data: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', data)


DEEP = b"[" * 100_000 + b"]" * 100_000
METADATA_DEEP = b'{"image": "", "metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}"
BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "no content type": ({"content": b"x"}, 415, "body-unsupported"),
    "no body": ({}, 415, "body-unsupported"),
    "xml": (
        {"content": b"<x/>", "headers": {"Content-Type": "application/xml"}},
        415,
        "body-unsupported",
    ),
    "a web form": ({"data": {"image": "x"}}, 415, "body-unsupported"),
    "a content type of junk": (
        {"content": b"x", "headers": {"Content-Type": ";;=\x7f"}},
        415,
        "body-unsupported",
    ),
    "json in another charset": (
        {"content": b"{}", "headers": {"Content-Type": "application/json; charset=utf-16"}},
        415,
        "body-unsupported",
    ),
    "empty json": ({"content": b"", "headers": JSON}, 400, "body-broken"),
    "half of json": ({"content": b"{", "headers": JSON}, 400, "body-broken"),
    "a list": ({"content": b"[]", "headers": JSON}, 400, "body-broken"),
    "nan": ({"content": b'{"threshold": NaN}', "headers": JSON}, 400, "body-broken"),
    "infinity": ({"content": b'{"threshold": -Infinity}', "headers": JSON}, 400, "body-broken"),
    "deep json": ({"content": DEEP, "headers": JSON}, 400, "body-broken"),
    "deep metadata": ({"content": METADATA_DEEP, "headers": JSON}, 422, "field-invalid"),
    "many small values": (
        {"content": b'{"metadata": [' + b"[]," * 70_000 + b"1]}", "headers": JSON},
        400,
        "body-broken",
    ),
    "a number of many digits": (
        {"content": b'{"top_k": ' + b"9" * 5000 + b"}", "headers": JSON},
        400,
        "body-broken",
    ),
    "not utf-8": ({"content": b'{"gallery": "\xff"}', "headers": JSON}, 400, "body-broken"),
    "a lone surrogate": (
        {"content": b'{"image": "", "gallery": "\\ud800"}', "headers": JSON},
        422,
        "field-invalid",
    ),
    "a lone surrogate in a name": (
        {"content": b'{"image": "", "\\ud800": 1}', "headers": JSON},
        422,
        "field-unknown",
    ),
    "no image in json": ({"json": {}}, 422, "field-missing"),
    "an image of null": ({"json": {"image": None}}, 422, "field-invalid"),
    "images that are text": ({"json": {"images": "x"}}, 422, "field-invalid"),
    "images of numbers": ({"json": {"images": [1]}}, 422, "field-invalid"),
    "no images": ({"json": {"images": []}}, 422, "image-count"),
    "too many images": ({"json": {"images": ["", "", "", ""]}}, 422, "image-count"),
    "too many parts": ({"files": [("image", b"x")] * 4}, 422, "image-count"),
    "no part": (multipart(b"--b--\r\n"), 422, "image-count"),
    "an empty form": (multipart(b""), 400, "body-broken"),
    "a form without a boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "body-broken",
    ),
    "a boundary of 300": (multipart(b"x", "b" * 300), 400, "body-broken"),
    "another boundary": (multipart(b"--x\r\nbroken"), 400, "body-broken"),
    "half a form": (multipart(text_part("image", PHOTO)[:-20]), 400, "body-broken"),
    "a part without a name": (multipart(part("X-A: b")), 400, "body-broken"),
    "a header without an end": (multipart(b"--b\r\nContent-Dispo"), 400, "body-broken"),
    "a header of a megabyte": (multipart(part("X: " + "y" * 900_000)), 400, "body-broken"),
    "a thousand headers": (multipart(part("X: y\r\n" * 1000)), 400, "body-broken"),
    "an attachment": (
        multipart(part('Content-Disposition: attachment; name="image"')),
        400,
        "body-broken",
    ),
    "an unknown part": (multipart(text_part("imagee", b"x")), 422, "field-unknown"),
    "a name that is not utf-8": (multipart(text_part("\xff", b"x")), 422, "field-invalid"),
    "a field that is not utf-8": (multipart(text_part("gallery", b"\xff")), 422, "field-invalid"),
    "a field of a megabyte": (multipart(text_part("name", b"x" * 900_000)), 422, "field-unknown"),
    "a query of many fields": ({"params": "a=1&" * 101, "json": {}}, 400, "body-broken"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_body_is_a_problem(client: TestClient, name: str) -> None:
    request, status, expected = BROKEN[name]
    path = "/enroll" if name == "deep metadata" else "/identify"
    answer = client.post(path, **request)
    assert (answer.status_code, slug(answer)) == (status, expected)


def test_a_query_that_is_not_utf_8_is_refused(client: TestClient) -> None:
    assert slug(client.post("/identify?gallery=%ff", json={"image": CODED})) == "body-broken"


def test_metadata_in_a_form_is_the_text_of_a_json_object(client: TestClient) -> None:
    for text in ("nonsense", "[1]", "1", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 5000):
        answer = client.post("/enroll", files={"image": PHOTO}, data={"metadata": text})
        assert slug(answer) == "field-invalid"
    answer = client.post(
        "/enroll", files={"image": PHOTO}, data={"metadata": '{"from": ["ü", 1.5, null]}'}
    )
    assert answer.json()["person"]["metadata"] == {"from": ["ü", 1.5, None]}


def test_a_field_of_a_form_may_not_be_endless(client: TestClient) -> None:
    answer = client.post("/enroll", files={"image": PHOTO}, data={"name": "x" * 70_000})
    assert problem(answer)["value"] == "70000 bytes"


@pytest.mark.parametrize("address", [b"http://a.b/c.jpg", b" HTTPS://a.b", b"file:///etc/passwd"])
def test_an_address_is_not_fetched_in_any_form(client: TestClient, address: bytes) -> None:
    kind = {"Content-Type": "image/png"}
    for answer in (
        client.post("/detect", files={"image": address}),
        client.post("/detect", json={"image": address.decode()}),
        client.post("/detect", content=address, headers=kind),
    ):
        assert slug(answer) == "image-is-url"
        assert problem(answer)["value"] == address.decode().strip()


@pytest.mark.parametrize(
    "text", ["!!!not base64!!!", "data:image/png,abc", "data:", "abcde", "ä" * 8, "a=bc"]
)
def test_what_is_no_base64_is_said_so(client: TestClient, text: str) -> None:
    assert slug(client.post("/detect", json={"image": text})) == "image-not-base64"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ada/1.jpg", "'ada/1.jpg' is a file's name"),
        (repr(CODED.encode()), "Python's form of bytes"),
    ],
)
def test_what_stands_in_base64_s_place_is_named(client: TestClient, text: str, named: str) -> None:
    answer = client.post("/detect", json={"image": text})
    assert slug(answer) == "image-not-base64"
    assert named in problem(answer)["detail"]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"ada/1.jpg", "the text 'ada/1.jpg', a file's name"),
        (CODED.encode(), "base64 text of a PNG"),
        (f"data:image/png;base64,{CODED}".encode(), "a data URI"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99), "a video, not a photograph"),
    ],
)
def test_what_stands_in_an_image_s_place_is_named(
    client: TestClient, data: bytes, named: str
) -> None:
    kind = {"Content-Type": "image/jpeg"}
    for answer in (
        client.post("/detect", files={"image": data}),
        client.post("/detect", json={"image": base64.b64encode(data).decode()}),
        client.post("/detect", content=data, headers=kind),
    ):
        assert slug(answer) == "image-unreadable"
        assert named in problem(answer)["detail"]


@pytest.mark.parametrize("told", [True, False])
def test_a_compressed_body_is_refused_by_its_name_in_every_form(
    client: TestClient, told: bool
) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + PHOTO + b"\r\n--b--"
    for content, headers in (
        (PHOTO, {"Content-Type": "image/png"}),
        (json.dumps({"image": CODED}).encode(), JSON),
        (part, form),
    ):
        encoding = {"Content-Encoding": "gzip"} if told else {}
        body = gzip.compress(content)
        answer = client.post("/detect", content=body, headers={**headers, **encoding})
        assert (slug(answer), answer.status_code) == ("body-compressed", 415)
        assert "(gzip)" in problem(answer)["detail"]
        plain = {"Content-Encoding": "identity"} if told else {}
        assert faces(client.post("/detect", content=content, headers={**headers, **plain}))


def test_a_gzip_among_images_is_named_in_its_place(client: TestClient) -> None:
    answer = client.post("/detect", files={"image": gzip.compress(PHOTO)})
    assert "gzip-compressed" in problem(answer)["detail"]


@pytest.mark.parametrize("form", FORMS)
def test_an_image_over_the_byte_limit_is_refused_with_value_and_limit(
    client: TestClient, form: str
) -> None:
    body = problem(send(client, "/detect", form, [b"\x00" * 300_001]))
    assert (body["status"], body["limit"]) == (413, 300_000)
    assert body["value"] >= 300_001


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_of_several_images_the_one_too_large_has_its_error_in_its_place(
    client: TestClient, form: str
) -> None:
    images = [
        PHOTO,
        b"\x00" * 300_001,
        drawn_photo(2),
    ][:3]
    answer = send(client, "/detect", form, images)
    entries = answer.json()["images"]
    assert [entry["index"] for entry in entries] == [0, 1, 2]
    assert [bool(entry["error"]) for entry in entries] == [False, True, False]
    assert entries[1]["error"]["type"] == "/problems/image-too-many-bytes"
    assert (entries[1]["width"], entries[1]["faces"]) == (None, [])


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"image": "'
        for _ in range(40):
            yield b"A" * 50_000

    declared = client.post("/detect", content=b"x" * 1_000_001, headers=JSON)
    chunked = client.post("/detect", content=endless(), headers=JSON)
    form = client.post(
        "/detect", files=[("image", b"x" * 290_000)] * 3 + [("image", b"x" * 200_000)]
    )
    assert slug(declared) == slug(chunked) == "body-too-large"
    assert problem(declared)["limit"] == 1_000_000
    assert slug(form) in ("body-too-large", "image-count")


def test_json_of_many_small_values_is_refused_before_it_takes_the_memory() -> None:
    """`[],` has three bytes, and a list of none takes 64 once it is read."""
    text = b'{"metadata": [' + b"[]," * 2**18 + b"1]}"
    tracemalloc.start()
    try:
        with pytest.raises(BodyBroken, match="the limit is 65536"):
            parse_json(text)
        assert tracemalloc.get_traced_memory()[1] < len(text)
    finally:
        tracemalloc.stop()


def test_a_raw_image_is_held_to_the_limit_of_bodies_too(settings: Settings) -> None:
    small = settings.model_copy(update={"max_body_bytes": 1000, "max_image_bytes": 2000})
    kind = {"Content-Type": "image/png"}
    with ready_client(create_app(small, open_engine=open_drawn)) as client:
        refused = client.post("/detect", content=b"x" * 1001, headers=kind)
        assert (slug(refused), problem(refused)["limit"]) == ("body-too-large", 1000)
        assert slug(client.post("/detect", content=b"x" * 999, headers=kind)) == "image-unreadable"


def test_a_body_that_is_declared_too_large_is_not_read(app: FastAPI) -> None:
    """With Expect: 100-continue the client has sent nothing yet, and need not."""
    sent: list[Any] = []

    async def receive() -> Any:
        pytest.fail("the body was asked for")

    async def send_(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"99999999999"),
        (b"expect", b"100-continue"),
    ]
    with ready_client(app):
        asyncio.run(app(scope("/detect", headers), receive, send_))
    assert sent[0]["status"] == 413


def test_a_body_that_does_not_come_is_given_up(settings: Settings) -> None:
    impatient = settings.model_copy(update={"body_timeout_s": 0.05})
    app = create_app(impatient, open_engine=open_drawn)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send_(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        await asyncio.wait_for(
            app(scope("/detect", [(b"content-type", b"image/png")]), receive, send_), 60
        )

    with ready_client(app):
        asyncio.run(call())
    assert sent[0]["status"] == 408


def scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The ASGI scope of a POST."""
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "root_path": "",
    }


def test_verify_takes_two_images_in_two_forms(client: TestClient) -> None:
    images = {"image_a": PHOTO, "image_b": drawn_photo(1, take=2)}
    form, json_ = (send(client, "/verify", kind, images) for kind in ("multipart", "json"))
    assert without(form.json()) == without(json_.json())
    one = client.post("/verify", files={"image_a": PHOTO})
    assert (slug(one), problem(one)["field"]) == ("field-missing", "image_b")
    raw = client.post("/verify", content=PHOTO, headers={"Content-Type": "image/png"})
    assert problem(raw)["accepted"] == ["application/json", "multipart/form-data"]
    assert "application/json, multipart/form-data" in problem(raw)["detail"]
    assert slug(client.post("/verify", json={"image": CODED})) == "field-unknown"


def test_a_problem_says_no_more_of_a_value_than_is_needed(client: TestClient) -> None:
    answer = client.post("/identify", json={"image": CODED, "top_k": "x" * 500_000})
    assert len(answer.content) < 2000
    assert problem(answer)["value"].startswith("xxx")


def test_limits_are_the_callers_own(client: TestClient) -> None:
    """The application's limits are values, not constants: another service has others."""
    service = client.app.state.service  # type: ignore[attr-defined]
    assert dataclasses.asdict(service.limits) == {
        "image_bytes": 300_000,
        "body_bytes": 1_000_000,
        "images": 3,
        "body_timeout_s": 60.0,
    }
