"""A service without keys, on a port, and the pages that a browser has open."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.api.pages import is_this_machine, name_of
from service.app import create_app
from service.settings import Settings
from tests.conftest import open_drawn

ENROLMENT = {"content-type": "text/plain"}  # what a form of any page may send unasked


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    settings = Settings(
        data=tmp_path_factory.mktemp("data"), hosts="faces.example, Kiosk, porter:8000, fd00::1"
    )
    app = create_app(settings, open_engine=open_drawn, served=True)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


def ask(client, host, **headers):
    return client.get("/healthz", headers={"host": host, **headers})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "127.0.0.1:8000",
        "127.9.9.9",
        "[::1]:8000",
        "kiosk:80",
        "porter",
        "[fd00::1]:8",
    ],
)
def test_names_of_this_machine_and_of_the_setting_are_answered(client, host):
    assert ask(client, host).status_code == 200
    assert ask(client, host, origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "[::2]", "a@b:x["],
)
def test_a_name_that_is_made_to_point_here_is_refused(client, host):
    answer = ask(client, host)
    assert answer.status_code == 421
    problem = answer.json()
    assert (problem["type"], problem["value"]) == ("/problems/host-unknown", host)
    assert problem["request_id"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9", "", "http://["]
)
def test_a_page_of_another_site_is_refused_before_its_body_is_read(client, origin):
    def body():
        raise AssertionError("the body was read")
        yield b""

    answer = client.post("/enroll", headers={"origin": origin, **ENROLMENT}, content=body())
    assert answer.status_code == 403
    assert answer.json()["type"] == "/problems/origin-foreign"


def test_the_host_of_an_absolute_target_counts_whatever_host_says(client):
    async def told(target, host):
        answers = []

        async def send(message):
            answers.append(message)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET",
            "path": target.decode(),
            "raw_path": target,
            "query_string": b"",
            "headers": [(b"host", host)],
        }
        await client.app(scope, receive, send)
        return answers[0]["status"]

    statuses = {
        (b"http://localhost:8000/healthz", b"evil.example"): 200,
        (b"HTTPS://kiosk/healthz", b"localhost"): 200,
        (b"http://evil.example/healthz", b"localhost"): 421,
        (b"http://localhost", b"localhost"): 200,
        (b"ftp://localhost/healthz", b"localhost"): 404,
        (b"http:///healthz", b"localhost"): 404,
    }
    for (target, host), status in statuses.items():
        assert asyncio.run(told(target, host)) == status, target


def test_what_is_open_to_all_is_no_exception(client):
    assert client.get("/healthz").status_code == 200
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421


def test_an_application_that_nobody_can_reach_answers_to_any_name(tmp_path):
    app = create_app(Settings(data=tmp_path), open_engine=open_drawn)
    with TestClient(app, base_url="http://here") as client:
        assert client.get("/healthz").status_code == 200


@given(st.text())
def test_no_name_breaks_the_reading_of_it(host):
    assert is_this_machine(name_of(host)) in (False, True)
