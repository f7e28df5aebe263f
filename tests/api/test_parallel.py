"""Many clients at once, over real connections, get what one client gets."""

import http.client
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvicorn

from service.app import create_app
from service.settings import Settings
from tests.api.wire import without
from tests.conftest import open_drawn
from tests.drawn import drawn_photo

PEOPLE = 6
CLIENTS = 12


@pytest.fixture(scope="module")
def port(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server in which PEOPLE persons are enrolled."""
    settings = Settings(
        models=models,
        recognition="stand-in",
        data=tmp_path_factory.mktemp("data"),
        max_body_bytes=4_000_000,
        max_image_bytes=4_000_000,
        photographs=3,
        batch=4,
    )
    config = uvicorn.Config(
        create_app(settings, open_engine=open_drawn), port=0, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    number = server.servers[0].sockets[0].getsockname()[1]
    while ask(number, "GET", "/readyz")[0] != 200:
        pass
    for person in range(PEOPLE):
        path = f"/enroll?person_id={person}"
        assert ask(number, "POST", path, drawn_photo(person), "image/png")[0] == 201
    yield number
    server.should_exit = True
    thread.join()


def ask(
    port: int, method: str, path: str, body: bytes = b"", kind: str = "application/json"
) -> tuple[int, Any]:
    """Status and JSON of an answer, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if body else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def form(name_a: str, a: bytes, name_b: str, b: bytes) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
        + data
        for name, data in ((name_a, a), (name_b, b))
    ]
    return b"\r\n".join(parts) + b"\r\n--b--\r\n"


def calls() -> list[tuple[str, bytes, str]]:
    """Calls of different kinds and sizes, so that crops of several meet in one batch."""
    photos = [drawn_photo(*range(i % 5), take=i) for i in range(1, 9)]
    multipart = "multipart/form-data; boundary=b"
    return [
        *(("/identify?top_k=2", photo, "image/png") for photo in photos),
        *(("/embeddings", photo, "image/png") for photo in photos[:4]),
        *(("/expression", photo, "image/png") for photo in photos[:4]),
        *(
            (f"/analyze?features=quality,{features}", photo, "image/png")
            for features in ("expression,attributes,identity", "attributes,embedding")
            for photo in photos[2:4]
        ),
        ("/identify", form("image", photos[1], "image", photos[3]), multipart),
        ("/verify", form("image_a", photos[2], "image_b", photos[3]), multipart),
        ("/detect", photos[3], "image/png"),
        ("/detect", b"no image", "image/png"),
    ]


def alike(a: Any, b: Any) -> bool:
    """Equal but for the last digits, which may depend on the size of a batch."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else bool(a == b)


def test_an_absolute_target_is_answered_as_its_path(port: int) -> None:
    """As a client sends it that takes the server for a proxy (RFC 9112, 3.2.2)."""
    address = f"http://127.0.0.1:{port}"
    for path in ("/galleries?limit=1", "/galleries/default/persons/0"):
        assert ask(port, "GET", f"{address}{path}") == ask(port, "GET", path)
    assert ask(port, "GET", f"{address}/galleries/default/persons/a%2Fb")[1]["value"] == "a/b"
    status, found = ask(port, "POST", f"{address}/detect", drawn_photo(1), "image/png")
    assert (status, len(found["images"][0]["faces"])) == (200, 1)
    assert ask(port, "GET", f"{address}/nowhere")[1]["detail"] == "there is nothing at /nowhere"


def test_many_parallel_clients_get_what_one_client_gets(port: int) -> None:
    wanted = [ask(port, "POST", *call) for call in calls()]
    assert {status for status, _ in wanted} == {200, 422}

    def client(seed: int) -> list[tuple[int, bool]]:
        order = list(range(len(wanted)))
        random.Random(seed).shuffle(order)
        results = []
        for index in order:
            status, body = ask(port, "POST", *calls_made[index])
            expected_status, expected = wanted[index]
            same = status == expected_status and alike(without(body), without(expected))
            results.append((index, same))
        return results

    calls_made = calls()
    with ThreadPoolExecutor(CLIENTS) as clients:
        results = [r for client_s in clients.map(client, range(CLIENTS)) for r in client_s]
    assert len(results) == CLIENTS * len(wanted)
    assert [index for index, same in results if not same] == []


def test_head_is_answered_as_get_without_the_body(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for path, status in (("/healthz", 200), ("/docs", 200), ("/nowhere", 404), ("/detect", 405)):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
    connection.close()


def test_a_body_that_is_too_large_is_answered_and_not_cut_off(port: int) -> None:
    """The client that sends it all before it reads sees the answer, no broken connection."""
    for path, kind in (("/detect", "application/json"), ("/enroll", "image/png")):
        status, body = ask(port, "POST", path, b"x" * 7_000_000, kind)
        assert (status, body["limit"]) == (413, 4_000_000)
