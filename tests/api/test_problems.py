"""service/api/problems.py, envelope.py: every error has its problem, no failure shows itself."""

import dataclasses
import json
import logging
import math
import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service import errors
from service.api.problems import OF_ERROR, OF_SLUG, problem_of, shown
from service.errors import MienError
from tests.api.wire import problem, slug
from tests.conftest import ready_client
from tests.drawn import drawn_photo

STOPS_THE_START = {
    errors.ArtefactError,
    errors.GalleryMissing,
    errors.SettingsError,
    errors.TemplateKeysRefused,
}
OF_A_COMMAND = {errors.BackupRefused, errors.ImportRefused}
RESERVED = {"type", "title", "status", "detail", "request_id"}
EXAMPLES: dict[Any, Any] = {str: "text", int: 3, float: 0.5, list: [], Any: None}
FAILED = {"component": "sharpness", "value": 3.5, "limit": 16, "reason": "sharpness-too-low"}


def leaves(root: type[MienError] = MienError) -> list[type[MienError]]:
    """The errors that are raised: those of the tree without another below them."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]


def example(kind: type[MienError]) -> MienError:
    """An error of the kind, with some value in each field."""
    values = {}
    for field in dataclasses.fields(kind):
        if field.name == "failed":
            values[field.name] = [FAILED]
        elif field.name != "image":
            values[field.name] = next(
                (v for k, v in EXAMPLES.items() if k is not Any and k.__name__ in str(field.type)),
                None,
            )
    return kind(**values)


def test_every_error_but_those_that_stop_the_start_has_its_problem() -> None:
    assert set(OF_ERROR) == set(leaves()) - STOPS_THE_START - OF_A_COMMAND
    assert len(OF_SLUG) == len(OF_ERROR) + 6  # those that HTTP alone knows


@pytest.mark.parametrize("kind", OF_ERROR)
def test_an_error_s_problem_has_its_fields_beside_those_of_every_problem(
    kind: type[MienError],
) -> None:
    body = problem_of(example(kind))
    own = {field.name for field in dataclasses.fields(kind)} - {"image", "erasure"}
    assert not own & RESERVED
    assert set(body) == own | RESERVED - {"request_id"}
    assert 400 <= body["status"] < 600
    assert json.loads(json.dumps(body, allow_nan=False)) == body


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = errors.__doc__ or ""
    for kind in leaves():
        assert f"{kind.__name__} " in drawn
        assert kind in STOPS_THE_START | OF_A_COMMAND or f" {kind.slug}" in drawn


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("\ud800", "?"),
        ("x" * 999, "x" * 200 + "…"),
        (2**60, "1.15292e+18"),
        (10**400, "huge"),
        (True, True),
        ({"a": [1, math.inf]}, {"a": [1, "inf"]}),
        (b"bytes", "b'bytes'"),
    ],
)
def test_a_value_is_shown_as_plain_short_json(value: Any, expected: Any) -> None:
    assert shown(value) == expected
    json.dumps(shown(value), allow_nan=False).encode()


def test_an_unknown_path_and_a_wrong_method_are_problems(client: TestClient) -> None:
    assert slug(client.get("/no/such/path")) == "path-unknown"
    slashed = client.get("/console/..%2Fapp.py")
    assert problem(slashed)["detail"] == "there is nothing at /console/../app.py"
    assert slug(client.get("/detect/")) == "path-unknown"
    wrong = client.delete("/identify")
    assert slug(wrong) == "method-not-allowed"
    assert wrong.headers["allow"] == "POST"


def test_a_wrong_method_is_answered_with_all_that_the_path_has(
    client: TestClient, app: FastAPI
) -> None:
    """Those that OpenAPI lists, and HEAD where GET is."""
    calls = app.openapi()["paths"]
    assert len(calls) > 20
    for path, methods in calls.items():
        names = {method.upper() for method in methods}
        answer = client.request("BREW", re.sub(r"\{\w+\}", "x", path))
        assert (answer.status_code, slug(answer)) == (405, "method-not-allowed")
        allowed = set(answer.headers["allow"].split(", "))
        assert allowed == names | ({"HEAD"} if "GET" in names else set()), path
    person = client.put("/galleries/default/persons/a%2Fb")
    assert person.headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert client.head("/healthz").status_code == 200


def test_every_problem_explains_itself(client: TestClient) -> None:
    for name, kind in OF_SLUG.items():
        body = client.get(f"/problems/{name}").json()
        assert body["type"] == f"/problems/{name}"
        assert (body["status"], body["title"]) == (kind.status, kind.title)
        assert body["advice"].endswith(".")
    assert slug(client.get("/problems/none")) == "problem-unknown"


def test_an_answer_carries_the_caller_s_request_id_where_it_is_sane(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    for insane in ("", "a b", "x" * 129, "a\tb", "<script>"):
        answer = client.get("/nowhere", headers={"X-Request-ID": insane})
        assert problem(answer)["request_id"] not in ("", insane)


def test_a_failure_is_logged_under_the_request_s_id_and_not_told(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("the secret of the house")

    with ready_client(app) as client:
        service = app.state.service
        service.engine = dataclasses.replace(service.engine, detect=fail)
        with caplog.at_level(logging.ERROR, "mien"):
            answer = client.post(
                "/detect", files={"image": drawn_photo(1)}, headers={"X-Request-ID": "the-id"}
            )
    assert slug(answer) == "internal-error"
    assert "secret" not in answer.text
    [line] = caplog.records
    assert (line.message, line.request_id, line.route) == ("request failed", "the-id", "/detect")
    assert line.exc_info is not None  # tests/service/test_logs.py: what is told of it
