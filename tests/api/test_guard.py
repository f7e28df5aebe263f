"""The door: who comes in, what they may do, how often, and what of it is on record."""

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from service import app as app_module
from service.api.rights import FEATURES, RIGHTS
from service.app import create_app
from service.errors import AuditUnavailable, SettingsError
from service.guard.audit import Audit, Entry, read_entries, verify
from service.guard.keys import SCOPES, KeyRing
from service.settings import Settings
from tests.api.wire import FORMS, problem, send, slug, without
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo
from tests.standin import NAME

OPEN = [call for call, right in RIGHTS.items() if right.scopes is None]
GUARDED = [call for call, right in RIGHTS.items() if right.scopes is not None]
NUMBERS = count()
DOCS = Path(__file__).parents[2] / "docs"


@dataclasses.dataclass
class House:
    """A guarded service: what asks it, who makes its keys, and what is on record."""

    client: TestClient
    ring: KeyRing
    audit: Path

    def key(self, *scopes: str, name: str | None = None, **limits: Any) -> dict[str, str]:
        """The header that shows a new key."""
        name = name or f"key-{next(NUMBERS)}"
        return {"Authorization": f"Bearer {self.ring.create(name, scopes, **limits)}"}

    def entries(self, action: str | None = None) -> list[Entry]:
        """What is on record, the making of keys left out."""
        found = [entry for entry in read_entries(self.audit) if entry.actor != "test"]
        return [entry for entry in found if action in (None, entry.action)]


@pytest.fixture
def ring(settings: Settings) -> KeyRing:
    """The keys of a data folder, with one that nobody uses."""
    return ring_of(settings)


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    """Settings of a service that asks for keys."""
    return settings.model_copy(update={"keys": "required"})


@pytest.fixture(scope="module")
def house(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A guarded service with a gallery `staff` of one person, ada, which many tests ask."""
    data = tmp_path_factory.mktemp("data")
    settings = Settings(models=models, recognition=NAME, data=data, keys="required")
    with open_house(settings) as house:
        yield house


@pytest.fixture
def own_house(guarded: Settings) -> Iterator[House]:
    """The same for one test alone, which may do it harm."""
    with open_house(guarded) as house:
        yield house


def ring_of(settings: Settings) -> KeyRing:
    ring = KeyRing(settings.data / "keys.json", Audit(settings.data / "audit.jsonl"), "test")
    ring.create("spare", SCOPES)
    return ring


@contextmanager
def open_house(settings: Settings) -> Iterator[House]:
    ring = ring_of(settings)
    with ready_client(create_app(settings, open_engine=open_drawn)) as client:
        house = House(client, ring, settings.data / "audit.jsonl")
        owner = house.key(*SCOPES, name="owner")
        assert client.post("/galleries", json={"name": "staff"}, headers=owner).status_code == 201
        fields = {"gallery": "staff", "person_id": "ada", "name": "Ada Lovelace"}
        enrolled = send(client, "/enroll", "multipart", [drawn_photo(1)], fields, owner)
        assert enrolled.status_code == 201
        yield house


def asking(call: str, gallery: str = "none") -> tuple[str, str]:
    """A method and a path for a line of the table, which leads to nothing that there is."""
    method, path = call.split(" ")
    path = path.replace("{gallery}", gallery)
    return method, re.sub(r"{\w+}", "none", path)


def test_every_call_has_its_line_in_the_table_and_no_line_is_of_none() -> None:
    routes = [route for module in app_module._ROUTERS for route in module.router.routes]
    served = {
        f"{method} {route.path}"
        for route in routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert set(RIGHTS) == served | {"GET /openapi.json"}


def test_every_right_is_documented_as_it_is() -> None:
    lines = (DOCS / "keys.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    told = {row[0].strip("`"): row[1:] for row in cells if len(row) == 3 and " /" in row[0]}
    assert told == {
        call: [
            "open" if right.scopes is None else ", ".join(f"`{s}`" for s in right.scopes) or "any",
            "" if right.act is None else f"`{right.act}`",
        ]
        for call, right in RIGHTS.items()
    }


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer mien_wrong"}])
def test_without_a_key_that_holds_every_path_answers_the_same(
    house: House, headers: dict[str, str]
) -> None:
    bodies = []
    for call in [*GUARDED, "GET /nothing", "DELETE /healthz", "POST /galleries/none/none"]:
        method, path = asking(call)
        answer = house.client.request(method, path, headers=headers)
        assert answer.status_code == 401, call
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="mien"'
        bodies.append(without(problem(answer)))
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["type"] == "/problems/key-required"


@pytest.mark.parametrize("call", OPEN)
def test_what_is_open_needs_no_key(house: House, call: str) -> None:
    method, path = asking(call)
    assert house.client.request(method, path).status_code not in (401, 403)


@pytest.mark.parametrize("call", GUARDED)
def test_a_call_asks_for_its_scopes_and_for_no_other(house: House, call: str) -> None:
    method, path = asking(call)
    wanted = RIGHTS[call].scopes or ()
    others = [scope for scope in SCOPES if scope not in wanted]
    if wanted:
        refused = house.client.request(method, path, headers=house.key(*others))
        assert slug(refused) == "scope-missing"
        assert problem(refused)["limit"] == " or ".join(wanted)
    for scope in wanted or SCOPES:
        headers = house.key(scope)
        answer = house.client.request(method, path, headers=headers)
        assert answer.status_code not in (401, 403), scope


def test_a_key_may_come_as_a_bearer_s_token_or_in_a_header_of_its_own(house: House) -> None:
    key = house.key("recognise")["Authorization"].removeprefix("Bearer ")
    other = house.key("recognise")["Authorization"]
    get = house.client.get
    assert get("/galleries", headers={"X-API-Key": key}).status_code == 200
    assert get("/galleries", headers={"Authorization": f"bearer {key}"}).status_code == 200
    both = {"X-API-Key": key, "Authorization": f"Bearer {key}"}
    assert get("/galleries", headers=both).status_code == 200
    assert get("/galleries", headers={**both, "Authorization": other}).status_code == 401
    assert get("/galleries", headers={"Authorization": f"Basic {key}"}).status_code == 401


def test_an_unknown_path_is_told_to_who_shows_a_key(house: House) -> None:
    headers = house.key("embed")
    assert slug(house.client.get("/nothing", headers=headers)) == "path-unknown"
    assert slug(house.client.delete("/identify", headers=headers)) == "method-not-allowed"


@pytest.mark.parametrize("call", [call for call in GUARDED if "{gallery}" in call])
def test_a_gallery_that_is_not_the_key_s_is_refused_be_it_there_or_not(
    house: House, call: str
) -> None:
    headers = house.key(*SCOPES[:5], galleries=["own"])
    bodies = []
    for gallery in ("staff", "none", "default"):
        method, path = asking(call, gallery)
        refused = house.client.request(method, path, headers=headers)
        assert (refused.status_code, slug(refused)) == (403, "gallery-forbidden")
        bodies.append(json.dumps(without(problem(refused))).replace(gallery, "?"))
    assert bodies[0] == bodies[1] == bodies[2]
    method, path = asking(call, "own")
    assert house.client.request(method, path, headers=headers).status_code not in (401, 403)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["/identify", "/enroll", "/analyze"])
def test_a_gallery_among_the_fields_is_held_to_the_key_s_too(
    house: House, path: str, form: str
) -> None:
    headers = house.key("recognise", "enrol", galleries=["staff"])
    more = {"features": "identity"} if path == "/analyze" else {}
    for gallery in ("none", "default"):
        fields = {**more, "gallery": gallery}
        refused = send(house.client, path, form, [drawn_photo(2)], fields, headers)
        assert (refused.status_code, slug(refused)) == (403, "gallery-forbidden")
    assert slug(send(house.client, path, form, [drawn_photo(2)], more, headers)) == (
        "gallery-forbidden"
    )
    answer = send(house.client, path, form, [drawn_photo(1)], {**more, "gallery": "staff"}, headers)
    assert answer.is_success


def test_a_key_for_single_galleries_sees_and_makes_no_others(house: House) -> None:
    headers = house.key("administer", galleries=["staff", "yard"])
    listed = house.client.get("/galleries", headers=headers).json()
    assert ([one["name"] for one in listed["items"]], listed["next"]) == (["staff"], None)
    made = [
        house.client.post("/galleries", json={"name": name}, headers=headers).status_code
        for name in ("yard", "elsewhere", "default")
    ]
    assert made == [201, 403, 403]
    listed = house.client.get("/galleries", headers=headers).json()
    assert [one["name"] for one in listed["items"]] == ["staff", "yard"]


@pytest.mark.parametrize("feature", FEATURES)
def test_an_analysis_asks_for_the_scopes_of_its_features(house: House, feature: str) -> None:
    images, scope = [drawn_photo(1)], FEATURES[feature]
    others = [one for one in ("recognise", "embed", "expression") if one != scope]
    for form in FORMS:
        fields = {"features": [feature]} if form == "json" else {"features": feature}
        refused = send(house.client, "/analyze", form, images, fields, house.key(*others))
        assert (slug(refused), problem(refused)["limit"]) == ("scope-missing", scope)
        headers = house.key(scope)
        assert send(house.client, "/analyze", form, images, fields, headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"embed": ""}, 403), ({"staff": ""}, 403)]
)
def test_it_is_decided_before_the_body_is_read(
    house: House, headers: dict[str, str], status: int
) -> None:
    path = "/identify"
    if "embed" in headers:
        headers = house.key("embed")
    if "staff" in headers:
        headers, path = house.key("enrol", galleries=["none"]), "/galleries/staff/persons"

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    sent: list[Any] = []

    async def send_back(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
    }
    anyio.run(house.client.app, scope, receive, send_back)
    assert sent[0]["status"] == status


def test_the_log_names_the_key_and_never_shows_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    headers = house.key("recognise", name="front-desk")
    secret = headers["Authorization"].removeprefix("Bearer ")
    with caplog.at_level(logging.INFO, "mien"):
        house.client.get("/galleries", headers=headers)
        house.client.get("/metrics", headers=headers)
        house.client.get("/galleries", headers={"X-API-Key": secret[:-1]})
    lines = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert [(line.get("key"), line["status"], line["route"]) for line in lines] == [
        ("front-desk", 200, "/galleries"),
        ("front-desk", 403, "/metrics"),
        (None, 401, "/galleries"),
    ]
    assert secret[:-1] not in str(lines)
    on_disk = [path.read_bytes() for path in house.audit.parent.rglob("*") if path.is_file()]
    assert not any(secret.encode() in content for content in on_disk)


def test_who_asks_too_often_is_told_when_to_come_again(house: House) -> None:
    slow = house.key("recognise", rate="2/minute")
    little = house.key("recognise", quota="2/day")
    for headers, reason, longest in ((slow, "rate-limited", 60), (little, "quota-spent", 86_400)):
        get = [house.client.get("/galleries", headers=headers) for _ in range(4)]
        assert [one.status_code for one in get] == [200, 200, 429, 429]
        assert slug(get[2]) == reason
        assert longest - 10 < int(get[2].headers["Retry-After"]) <= longest
    text = house.client.get("/metrics", headers=house.key("observe")).text
    assert 'mien_refused_total{reason="rate-limited"}' in text
    assert house.client.get("/galleries", headers=house.key("enrol")).status_code == 200


def test_a_revoked_key_is_refused_with_the_next_request(house: House) -> None:
    headers = house.key("recognise", name="short")
    assert house.client.get("/galleries", headers=headers).status_code == 200
    house.ring.revoke("short")
    assert house.client.get("/galleries", headers=headers).status_code == 401


def test_keys_that_cannot_be_read_let_nobody_in_until_they_can(own_house: House) -> None:
    headers, file = own_house.key("recognise"), own_house.audit.with_name("keys.json")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    refused = own_house.client.get("/galleries", headers=headers)
    assert (refused.status_code, slug(refused)) == (503, "storage-unavailable")
    assert problem(refused)["reason"] == "the keys cannot be read"  # and not where they lie
    assert problem(own_house.client.get("/readyz"))["reasons"] == ["the keys cannot be read"]
    file.write_bytes(whole)
    assert own_house.client.get("/readyz").status_code == 200
    assert own_house.client.get("/galleries", headers=headers).status_code == 200


def test_what_is_done_is_on_record_by_whom_and_in_numbers(house: House) -> None:
    headers = {**house.key("recognise", "embed", name="desk"), "X-Request-ID": "r-1"}
    both = [drawn_photo(1), drawn_photo(2)]
    send(house.client, "/identify", "json", both, {"gallery": "staff"}, headers)
    send(house.client, "/verify", "json", {"image_a": both[0], "image_b": both[1]}, {}, headers)
    for features in ("identity,quality", "embedding"):
        fields = {"features": features} | ({"gallery": "staff"} if "id" in features else {})
        send(house.client, "/analyze", "multipart", both[:1], fields, headers)
    send(house.client, "/embeddings", "json", both, {}, headers)
    send(house.client, "/identify", "json", [b"nothing"], {}, headers)
    identify, verify_, analyze = [entry for entry in house.entries() if entry.actor == "desk"]
    assert identify.action == "identify"
    assert identify.what == {
        "request_id": "r-1",
        "gallery": "staff",
        "status": 200,
        "images": 2,
        "faces": 2,
        "decisions": identify.what["decisions"],
    }
    assert sum(identify.what["decisions"].values()) == 2
    assert (verify_.action, sum(verify_.what["decisions"].values())) == ("verify", 1)
    assert (analyze.action, analyze.what["gallery"]) == ("analyze", "staff")
    assert verify(house.audit).flaw is None


def test_a_change_is_on_record_before_it_begins_and_when_it_has_ended(own_house: House) -> None:
    headers = own_house.key("administer")
    begun, ended = phases(own_house, "enroll")
    assert (begun.actor, begun.what["phase"], "person_id" in begun.what) == (
        "owner",
        "begun",
        False,
    )
    assert (ended.what["phase"], ended.what["begun"]) == ("ended", begun.sequence)
    assert (ended.what["gallery"], ended.what["person_id"]) == ("staff", "ada")
    assert len(ended.what["face_ids"]) == 1
    own_house.client.patch("/galleries/staff", json={"calibration": "none"}, headers=headers)
    for path in ("staff/persons/ada", "staff/persons/ada", "staff"):
        own_house.client.delete(f"/galleries/{path}", headers=headers)
    told = [(e.action, e.what["phase"], e.what.get("problem")) for e in phases(own_house)[-8:]]
    assert told == [
        ("gallery.change", "begun", None),
        ("gallery.change", "ended", "calibration-unknown"),
        ("person.erase", "begun", None),
        ("person.erase", "ended", None),
        ("person.erase", "begun", None),
        ("person.erase", "ended", "person-unknown"),
        ("gallery.delete", "begun", None),
        ("gallery.delete", "ended", None),
    ]
    assert phases(own_house, "gallery.change")[-1].what["calibration"] == "none"
    text = own_house.audit.read_text(encoding="ascii")
    assert "Lovelace" not in text
    assert not re.search(r"embedding|image\"", text)


def phases(house: House, action: str | None = None) -> list[Entry]:
    """The beginnings and ends on record; an erasure has its receipt between them."""
    return [entry for entry in house.entries(action) if "phase" in entry.what]


def test_refusals_are_on_record_once_and_then_counted(guarded: Settings, ring: KeyRing) -> None:
    """However many come, they are two entries a minute: the disk is not a caller's to fill."""
    path = guarded.data / "audit.jsonl"
    with ready_client(create_app(guarded, open_engine=open_drawn)) as client:
        headers = {"X-API-Key": ring.create("desk", ["embed"])}
        for number in range(50):
            client.get(f"/galleries/{number}")
            client.get(f"/galleries/{number}", headers=headers)
        assert len(refusals_in(path)) == 2
    first, second, *counted = refusals_in(path)
    assert (first.actor, first.what["reason"]) == ("nobody", "key-required")
    assert (second.actor, second.what["reason"]) == ("desk", "scope-missing")
    assert second.what["route"] == "/galleries/{gallery}"
    assert [(entry.actor, entry.what["count"]) for entry in counted] == [
        ("nobody", 49),
        ("desk", 49),
    ]


def refusals_in(path: Path) -> list[Entry]:
    return [entry for entry in read_entries(path) if entry.action == "access.refused"]


def test_what_cannot_be_recorded_is_not_done_and_not_told(own_house: House) -> None:
    """On a disk that is full, as /dev/full is; when there is room again it goes on by itself."""
    headers, kept = (
        own_house.key("recognise", "enrol", "administer"),
        own_house.audit.with_name("kept"),
    )
    own_house.audit.rename(kept)
    own_house.audit.symlink_to("/dev/full")
    photo = [drawn_photo(1)]
    for refused in (
        send(own_house.client, "/identify", "json", photo, {"gallery": "staff"}, headers),
        send(own_house.client, "/enroll", "json", photo, {"person_id": "eve"}, headers),
        own_house.client.delete("/galleries/staff/persons/ada", headers=headers),
    ):
        assert (refused.status_code, slug(refused)) == (503, "audit-unavailable")
        assert "No space left" in problem(refused)["detail"]
    assert "No space left" in problem(own_house.client.get("/readyz"))["detail"]
    own_house.audit.unlink()
    kept.rename(own_house.audit)
    assert own_house.client.get("/readyz").status_code == 200
    assert own_house.entries()[-1].action == "audit.resumed"
    people = own_house.client.get("/galleries/staff/persons", headers=headers).json()["items"]
    assert [person["id"] for person in people] == ["ada"]
    assert own_house.client.get("/galleries/default/persons", headers=headers).json()["items"] == []
    assert send(own_house.client, "/identify", "json", photo, {}, headers).status_code == 200
    assert verify(own_house.audit).flaw is None


def test_a_change_whose_end_cannot_be_recorded_says_that_it_is_done(
    own_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, record = own_house.key("administer", "enrol"), Audit.record

    def lose_ends(self: Audit, actor: str, action: str, **what: Any) -> Entry:
        if what.get("phase") == "ended":
            raise AuditUnavailable("No space left on device")
        return record(self, actor, action, **what)

    monkeypatch.setattr(Audit, "record", lose_ends)
    answer = own_house.client.delete("/galleries/staff/persons/ada", headers=headers)
    assert (answer.status_code, slug(answer)) == (503, "audit-incomplete")
    assert problem(answer)["entry"] == phases(own_house)[-1].sequence
    again = own_house.client.delete("/galleries/staff/persons/ada", headers=headers)
    assert (again.status_code, slug(again)) == (404, "person-unknown")


def test_a_change_that_fails_inside_is_on_record_as_such(guarded: Settings, ring: KeyRing) -> None:
    app = create_app(guarded, open_engine=open_drawn)
    with ready_client(app) as client:
        service = app.state.service
        service.engine = dataclasses.replace(service.engine, galleries=None)
        client.__dict__["_transport"].raise_server_exceptions = False
        headers = {"X-API-Key": ring.create("desk", ["administer"])}
        assert client.delete("/galleries/staff", headers=headers).status_code == 500
        last = list(read_entries(guarded.data / "audit.jsonl"))[-1]
        assert (last.action, last.what["phase"], last.what["status"]) == (
            *("gallery.delete", "ended"),
            500,
        )


def test_without_keys_nobody_is_asked_and_nothing_recorded_unless_it_is_wanted(
    settings: Settings,
) -> None:
    for audit in ("auto", "on"):
        given = settings.model_copy(update={"audit": audit})
        with ready_client(create_app(given, open_engine=open_drawn)) as client:
            shown = {"Authorization": "Bearer whatever"}
            assert send(client, "/enroll", "json", [drawn_photo(1)], {}, shown).status_code == 201
            assert client.get("/metrics").status_code == 200
        files = {path.name for path in settings.data.iterdir()}
        assert ("audit.jsonl" in files) == (audit == "on")
        assert not files & {"keys.json", "limits.sqlite3"}
    actors = {entry.actor for entry in read_entries(settings.data / "audit.jsonl")}
    assert actors == {"anyone"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "mien.example"])
def test_where_others_can_reach_it_it_does_not_start_without_keys(
    settings: Settings, host: str
) -> None:
    abroad = settings.model_copy(update={"host": host})
    with pytest.raises(SettingsError, match="mien keys create NAME --scope"):
        create_app(abroad)
    with pytest.raises(SettingsError, match="would serve faces to whoever reaches"):
        create_app(abroad.model_copy(update={"keys": "off"}))
    assert not settings.data.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_loopback_keys_are_asked_for_where_they_are_required(
    settings: Settings, host: str
) -> None:
    here = settings.model_copy(update={"host": host})
    create_app(here)
    create_app(here.model_copy(update={"keys": "off"}))
    with pytest.raises(SettingsError, match="MIEN_KEYS=required"):
        create_app(here.model_copy(update={"keys": "required"}))


def test_a_key_that_comes_as_a_file_has_every_scope(settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    given = settings.model_copy(update={"host": "0.0.0.0", "key_file": str(secret)})
    with pytest.raises(SettingsError, match=r"MIEN_KEY_FILE: .* cannot be read"):
        create_app(given)
    secret.write_text("short\n")
    with pytest.raises(SettingsError, match="32 to 512 characters"):
        create_app(given)
    secret.write_text(f"{'a1' * 32}\n")
    with ready_client(create_app(given, open_engine=open_drawn)) as client:
        headers = {"X-API-Key": "a1" * 32}
        assert client.get("/metrics", headers=headers).status_code == 200
        assert client.delete("/galleries/none", headers=headers).status_code == 404
        secret.write_text(f"{'b2' * 32}\n")
        assert client.get("/metrics", headers=headers).status_code == 401


def test_a_key_that_may_not_identify_is_not_told_whom_a_face_is_like(own_house: House) -> None:
    """Else enrolling a photograph would be a way to ask who it is."""

    def types(*scopes: str, person: str) -> list[str]:
        fields = {"gallery": "staff", "person_id": person}
        photo = drawn_photo(1, take=1)
        answer = send(own_house.client, "/enroll", "raw", [photo], fields, own_house.key(*scopes))
        assert answer.status_code == 201
        return [warning["type"] for warning in answer.json()["warnings"]]

    assert types("enrol", person="one") == []
    assert types("enrol", person="one") == ["photograph-again"]
    assert types("enrol", "recognise", person="two") == ["like-another-person"]
