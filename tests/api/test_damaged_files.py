"""Files of the data folder that are damaged, gone or emptied: told by /readyz, once by the log, and
to callers as a problem."""

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service import server
from service.app import create_app, open_store
from service.errors import GalleryMissing, StorageUnavailable
from service.gallery import DATA_KEYS_FILE_NAME, FILE_NAME
from service.gallery.sqlite import PAGE_BYTES
from service.guard.audit import Audit
from service.guard.keys import SCOPES, KeyRing, Keys
from service.settings import Settings
from tests.api.wire import problem, send, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo
from tests.logged import restored_logging

ADA = "/galleries/default/persons/ada"


@pytest.fixture
def enrolled(settings: Settings) -> Settings:
    """Settings of a service that has enrolled ada and bob, and ended."""
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        for number, person in ((1, "ada"), (2, "bob")):
            answer = send(client, "/enroll", "raw", [drawn_photo(number)], {"person_id": person})
            assert answer.status_code == 201
    return settings


def change(settings: Settings, statement: str, *values: Any) -> None:
    """Does to the gallery's file what a disk or another program might."""
    with closing(sqlite3.connect(settings.data / FILE_NAME)) as file, file:
        assert file.execute(statement, values).rowcount > 0


def reasons(client: TestClient) -> list[str]:
    answer = client.get("/readyz")
    return list(problem(answer)["reasons"]) if answer.status_code == 503 else []


# The gallery's file.


@pytest.mark.parametrize("left", [None, b""], ids=["missing", "empty"])
@pytest.mark.parametrize("beside", [f"{FILE_NAME}-wal", DATA_KEYS_FILE_NAME, "audit.jsonl"])
def test_a_gallery_that_was_lost_is_not_taken_for_a_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, left: bytes | None, beside: str
) -> None:
    settings.data.mkdir()
    if beside == "audit.jsonl":
        Audit(settings.data / beside).record("front-desk", "enroll", person_id="ada")
    else:
        (settings.data / beside).write_bytes(b"")
    if left is not None:
        (settings.data / FILE_NAME).write_bytes(left)
    with pytest.raises(GalleryMissing, match=f"{beside} beside it.*--new-gallery"):
        open_store(settings)
    assert not (settings.data / FILE_NAME).exists() or left is not None
    served: list[Any] = []
    monkeypatch.setattr(server.uvicorn, "run", lambda app, **_: served.append(app))
    monkeypatch.setattr(server, "load_models", lambda settings: {})
    chosen = settings.model_copy(update={"port": 0})
    with restored_logging():
        with pytest.raises(GalleryMissing):
            server.serve(chosen)
        server.serve(chosen, new_gallery=True)
    assert len(served) == 1
    store = open_store(settings)
    assert [gallery.name for gallery in store.list_galleries().items] == ["default"]
    store.close()


def test_keys_that_were_made_before_the_first_start_are_no_sign_of_a_gallery(
    settings: Settings,
) -> None:
    audit = Audit(settings.data / "audit.jsonl")
    KeyRing(settings.data / "keys.json", audit, "test").create("front-desk", SCOPES)
    audit.record("nobody", "access.refused", count=1)
    open_store(settings).close()


def test_damaged_pages_are_told_and_no_call_fails_inside(enrolled: Settings) -> None:
    path = enrolled.data / FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:PAGE_BYTES] + b"\xff" * (len(whole) - PAGE_BYTES))
    said = "damaged"
    try:
        with TestClient(create_app(enrolled, open_engine=open_drawn)) as client:
            while "damaged" not in (answer := client.get("/readyz")).text:
                assert answer.status_code == 503
            assert send(client, "/identify", "raw", [drawn_photo(1)]).status_code == 503
    except StorageUnavailable as error:  # found before anything is served
        said = str(error)
    assert "damaged" in said


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, b"5\n{}", b'["bob", null]\n{}', b'["ada", null]\n{"a": NaN}']
)
def test_a_person_s_row_that_nobody_wrote_so_is_a_problem_and_not_a_fault(
    enrolled: Settings, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    change(
        enrolled,
        "UPDATE slots SET content = ? WHERE slot = (SELECT min(slot) FROM persons)",
        content,
    )
    with (
        caplog.at_level(logging.WARNING, "mien"),
        ready_client(create_app(enrolled, open_engine=open_drawn)) as client,
    ):
        for _ in range(3):
            for answer in (client.get(ADA), client.get(f"{ADA}/export")):
                assert (answer.status_code, slug(answer)) == (503, "storage-unavailable")
            assert ["damaged" in reason for reason in reasons(client)] == [True]
        found = send(client, "/identify", "raw", [drawn_photo(2)], {"top_k": 1})
        assert found.json()["images"][0]["faces"][0]["candidates"][0]["person_id"] == "bob"
        assert client.delete(ADA).status_code == 200
    told = [line for line in caplog.records if line.getMessage() == "not ready"]
    assert len(told) == 1


@pytest.mark.parametrize("table", ["faces", "galleries"])
def test_what_is_no_json_in_a_row_is_a_problem_too(enrolled: Settings, table: str) -> None:
    column = {"faces": "details", "galleries": "metadata"}[table]
    change(enrolled, f"UPDATE {table} SET {column} = '[NaN'")
    with TestClient(create_app(enrolled, open_engine=open_drawn)) as client:
        while "not warm" in client.get("/readyz").text:
            pass
        for path in (f"{ADA}/faces", "/galleries", "/galleries/default"):
            assert client.get(path).status_code in (200, 503)
        paths = {"faces": f"{ADA}/faces", "galleries": "/galleries/default"}
        assert client.get(paths[table]).status_code == 503
        assert "damaged" in " ".join(reasons(client))


@pytest.mark.parametrize(
    "numbers",
    [np.full(512, np.nan), np.full(512, 1e30), np.zeros(512), np.zeros(7)],
    ids=["nan", "huge", "zero", "short"],
)
def test_an_embedding_that_is_none_is_never_found_and_named_by_readyz(
    enrolled: Settings, numbers: np.ndarray[Any, Any]
) -> None:
    change(
        enrolled,
        "UPDATE slots SET content = ? WHERE slot = (SELECT min(slot) FROM faces)",
        numbers.astype("<f4").tobytes(),
    )
    with TestClient(create_app(enrolled, open_engine=open_drawn)) as client:
        while "is damaged" not in client.get("/readyz").text:
            pass
        [face] = client.get(f"{ADA}/faces").json()["items"]
        assert face["id"] in " ".join(reasons(client))
        for number in (1, 2):
            answer = send(client, "/identify", "raw", [drawn_photo(number)])
            candidates = answer.json()["images"][0]["faces"][0]["candidates"]
            assert [candidate["person_id"] for candidate in candidates] == ["bob"]
        fields = {"person_id": "ada"}
        assert send(client, "/enroll", "raw", [drawn_photo(3)], fields).status_code == 201
        assert client.delete(f"{ADA}/faces/{face['id']}").status_code == 204
        assert reasons(client) == []


def test_an_export_with_an_embedding_that_is_none_is_a_problem(enrolled: Settings) -> None:
    nan = np.full(512, np.nan, "<f4").tobytes()
    change(enrolled, "UPDATE slots SET content = ? WHERE slot IN (SELECT slot FROM faces)", nan)
    with TestClient(create_app(enrolled, open_engine=open_drawn)) as client:
        while "is damaged" not in client.get("/readyz").text:
            pass
        assert slug(client.get(f"{ADA}/export")) == "storage-unavailable"


# Keys and the audit log.


@pytest.fixture
def guarded(settings: Settings) -> Iterator[tuple[TestClient, dict[str, str], Path]]:
    """A client of a service that asks for keys, the header with one, and its data folder."""
    ring = KeyRing(settings.data / "keys.json", Audit(settings.data / "audit.jsonl"), "test")
    key = {"Authorization": f"Bearer {ring.create('desk', SCOPES)}"}
    asks = settings.model_copy(update={"keys": "required"})
    with ready_client(create_app(asks, open_engine=open_drawn)) as client:
        yield client, key, settings.data


def spoilt(entry: dict[str, Any]) -> list[Any]:
    """What a key's entry may be changed into that is no key's."""
    secret = entry["secrets"][0]
    return [
        5,
        {**entry, "name": 5},
        {**entry, "scopes": 5},
        {**entry, "scopes": [5]},
        {**entry, "rate": "often"},
        {**entry, "quota": 7},
        {**entry, "more": 1},
        {**entry, "secrets": [{**secret, "sha256": None}]},
        {**entry, "secrets": [{**secret, "sha256": "\u00fc" * 64}]},
        {**entry, "secrets": [{**secret, "until": 5}]},
    ]


def test_keys_that_are_gone_or_malformed_are_told_and_hold_again_when_they_are_back(
    guarded: tuple[TestClient, dict[str, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    client, key, data = guarded
    path = data / "keys.json"
    text = path.read_text()
    [entry] = json.loads(text)["keys"]
    wrong = [None, "", "[]", *(json.dumps({"keys": [one]}) for one in spoilt(entry))]
    for content in wrong:
        path.unlink()
        if content is not None:
            path.write_text(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "mien"):
            for _ in range(3):
                answer = client.get("/galleries", headers=key)
                assert (answer.status_code, slug(answer)) == (503, "storage-unavailable"), content
                assert reasons(client) == ["the keys cannot be read"]
        told = [line.getMessage() for line in caplog.records]
        assert told.count("the keys cannot be read") == 1
        assert told.count("not ready") == 1
        path.write_text(text)
        assert client.get("/galleries", headers=key).status_code == 200
        assert reasons(client) == []


def test_a_file_of_keys_that_was_never_there_is_none_that_is_gone(tmp_path: Path) -> None:
    assert Keys(tmp_path / "keys.json").all() == ()


def test_an_audit_log_that_is_damaged_cut_or_gone_is_told(
    guarded: tuple[TestClient, dict[str, str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    client, key, data = guarded
    path = data / "audit.jsonl"
    image = {"image": drawn_photo(1)}
    assert client.post("/identify", files=image, headers=key).status_code == 200
    assert reasons(client) == []
    whole = path.read_bytes()

    path.write_bytes(whole[:-20] + b"?" * 19 + b"\n")
    with caplog.at_level(logging.WARNING, "mien"):
        for _ in range(3):
            assert "is no entry" in " ".join(reasons(client))
            answer = client.post("/identify", files=image, headers=key)
            assert (answer.status_code, slug(answer)) == (503, "audit-unavailable")
    assert [line.getMessage() for line in caplog.records].count("not ready") <= 2

    path.write_bytes(whole)
    while reasons(client):
        pass
    whole = path.read_bytes()  # with an entry that it goes on again
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    assert "was cut" in " ".join(reasons(client))
    path.write_bytes(whole)
    while reasons(client):
        pass

    kept = path.rename(data / "kept")
    assert "was removed" in " ".join(reasons(client))
    assert client.post("/identify", files=image, headers=key).status_code == 200
    assert "was removed" in " ".join(reasons(client))  # though a new one has begun
    kept.rename(path)
    while reasons(client):
        pass


def test_an_audit_log_that_is_put_aside_is_not_one_that_is_gone(
    guarded: tuple[TestClient, dict[str, str], Path],
) -> None:
    client, key, data = guarded
    image = {"image": drawn_photo(1)}
    assert client.post("/identify", files=image, headers=key).status_code == 200
    aside = (data / "audit.jsonl").rename(data / "audit-2026.jsonl")
    assert reasons(client) == []
    assert client.post("/identify", files=image, headers=key).status_code == 200
    aside.rename(data / "taken-elsewhere")
    assert reasons(client) == []


# The pages that describe the API.


def test_the_pages_of_the_api_have_the_console_s_headers(client: TestClient) -> None:
    names = {name for name in client.get("/").headers if name not in ("etag", "content-length")}
    names -= {"content-type", "x-request-id", "traceparent"}
    assert "content-security-policy" in names
    for path in ("/docs", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert names <= set(answer.headers)
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
