"""A person's rights over the wire: consent, retention, export, erasure with a receipt, sealing."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from service.api import schemas
from service.app import create_app
from service.cli import app as cli
from service.gallery.sqlite import SqliteFile
from service.guard.audit import Audit, read_entries, verify
from service.guard.templates import add_template_key
from service.settings import Settings
from tests.api.test_images import exact
from tests.api.wire import FORMS, problem, send, slug
from tests.conftest import open_drawn, ready_client
from tests.drawn import drawn_photo
from tests.service.test_gallery_sqlite import is_in, raw_files

ADA = "/galleries/default/persons/ada-of-the-files"
CONSENT = {"basis": "explicit-consent", "time": "2026-01-31T09:30:00Z", "reference": "form 17"}
KEPT = {**CONSENT, "time": "2026-01-31T09:30:00+00:00"}
TOLD = {"person_id": "ada-of-the-files", "name": "Ada by name", "metadata": {"a": "by metadata"}}


@pytest.fixture
def sealed(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a template key."""
    add_template_key(tmp_path / "template.keys")
    return settings.model_copy(update={"template_key_file": str(tmp_path / "template.keys")})


@pytest.fixture(params=["clear", "sealed"])
def house(request: pytest.FixtureRequest, settings: Settings, sealed: Settings) -> Iterator[Any]:
    """A client of a service that seals people, or does not; with its settings."""
    chosen = sealed if request.param == "sealed" else settings
    with ready_client(create_app(chosen, open_engine=open_drawn)) as client:
        yield client, chosen


def enroll_ada(client: TestClient, **more: Any) -> Any:
    fields = {**TOLD, "consent": CONSENT, **more}
    answer = send(client, "/enroll", "json", [drawn_photo(1)], fields, {"Idempotency-Key": "key"})
    assert answer.status_code == 201
    return answer.json()


# Consent.


@pytest.mark.parametrize("form", FORMS)
def test_a_consent_comes_with_the_enrolment_in_every_form(client: TestClient, form: str) -> None:
    fields = {**TOLD, "consent": CONSENT}
    assert send(client, "/enroll", form, [drawn_photo(1)], fields).status_code == 201
    person = exact(schemas.Person, client.get(ADA))
    assert (person["consent"], person["expires"]) == (KEPT, None)
    wrong = {**TOLD, "consent": {**CONSENT, "basis": "handshake"}}
    refused = send(client, "/enroll", form, [drawn_photo(1)], wrong)
    assert (slug(refused), problem(refused)["field"]) == ("field-invalid", "consent.basis")
    assert "explicit-consent" in problem(refused)["limit"]
    without = {**TOLD, "consent": {"time": CONSENT["time"]}}
    told = problem(send(client, "/enroll", form, [drawn_photo(1)], without))["detail"]
    assert told.startswith("consent.basis is null; it must be one of consent, ")


def test_a_consent_is_given_changed_and_taken_away_with_a_person(client: TestClient) -> None:
    people = "/galleries/default/persons"
    made = exact(schemas.Person, client.post(people, json={"id": "ada", "consent": CONSENT}))
    assert made["consent"] == KEPT
    named = client.patch(f"{people}/ada", json={"name": "Ada"}).json()
    assert (named["consent"], named["name"]) == (KEPT, "Ada")
    other = client.patch(f"{people}/ada", json={"consent": {**CONSENT, "reference": None}})
    assert other.json()["consent"] == {**KEPT, "reference": None}
    assert client.patch(f"{people}/ada", json={"consent": None}).json()["consent"] is None
    listed = client.get(people).json()["items"]
    assert [person["consent"] for person in listed] == [None]


def test_a_gallery_that_requires_consent_refuses_who_has_none(client: TestClient) -> None:
    made = exact(
        schemas.Gallery,
        client.post("/galleries", json={"name": "staff", "requires_consent": True}),
    )
    assert (made["requires_consent"], made["retention_days"]) == (True, None)
    fields = {"gallery": "staff", "person_id": "ada"}
    refused = send(client, "/enroll", "multipart", [drawn_photo(1)], fields)
    assert (refused.status_code, slug(refused)) == (422, "consent-required")
    assert problem(refused)["gallery"] == "staff"
    with_it = {**fields, "consent": CONSENT}
    assert send(client, "/enroll", "multipart", [drawn_photo(1)], with_it).status_code == 201
    withdrawn = client.patch("/galleries/staff/persons/ada", json={"consent": None})
    assert slug(withdrawn) == "consent-required"
    changed = client.patch("/galleries/staff", json={"requires_consent": False})
    assert changed.json() == {**made, "requires_consent": False, "persons": 1, "faces": 1} | {
        "space": changed.json()["space"]
    }


# Retention.


def test_a_gallery_says_how_long_it_keeps_people_and_a_person_until_when(
    client: TestClient,
) -> None:
    changed = exact(schemas.Gallery, client.patch("/galleries/default", json={"retention_days": 7}))
    assert changed["retention_days"] == 7
    enroll_ada(client)
    person = client.get(ADA).json()
    updated = datetime.fromisoformat(person["updated"])
    assert datetime.fromisoformat(person["expires"]) == updated + timedelta(days=7)
    freed = client.patch("/galleries/default", json={"retention_days": None})
    assert freed.json()["retention_days"] is None
    for days in (0, 36_501, 1.5, "7", True):
        refused = client.patch("/galleries/default", json={"retention_days": days})
        assert (slug(refused), problem(refused)["field"]) == ("field-invalid", "retention_days")


# Export.


def test_an_export_has_all_that_is_kept(house: Any) -> None:
    client, _ = house
    enrolled = enroll_ada(client)
    enroll_other = send(client, "/enroll", "raw", [drawn_photo(2)], {"person_id": "bob"})
    assert enroll_other.status_code == 201
    body = exact(schemas.Export, client.get(f"{ADA}/export"))
    assert body["gallery"] == client.get("/galleries/default").json()
    assert body["person"] == client.get(ADA).json()
    [face] = body["faces"]
    embedding = face.pop("embedding")
    assert [face] == client.get(f"{ADA}/faces").json()["items"]
    assert face["id"] == enrolled["enrolled"][0]["face_id"]
    seen = send(client, "/embeddings", "raw", [drawn_photo(1)]).json()["images"][0]["faces"][0]
    assert embedding == seen["embedding"]
    assert (body["space"], body["model"]) == (enrolled["space"], enrolled["model"])
    assert slug(client.get("/galleries/default/persons/eve/export")) == "person-unknown"


def test_an_export_says_where_the_audit_log_names_the_person(settings: Settings) -> None:
    audited = settings.model_copy(update={"audit": "on"})
    with ready_client(create_app(audited, open_engine=open_drawn)) as client:
        enroll_ada(client)
        client.get(ADA)
        body = client.get(f"{ADA}/export").json()
    assert [entry["action"] for entry in body["audit"]] == ["enroll"]
    last = list(read_entries(audited.data / "audit.jsonl"))[-1]
    assert (last.action, last.what["person_id"]) == ("person.export", "ada-of-the-files")


# Erasure.


def test_an_erasure_is_answered_with_a_receipt_that_can_be_read_again(house: Any) -> None:
    client, settings = house
    enrolled = enroll_ada(client)
    erased = client.delete(ADA)
    receipt = exact(schemas.Receipt, erased)
    assert erased.status_code == 200
    assert (receipt["gallery"], receipt["person_id"]) == ("default", "ada-of-the-files")
    assert receipt["face_ids"] == [face["face_id"] for face in enrolled["enrolled"]]
    key_erased = ["data-key-erased"] * (settings.template_keys is not None)
    assert receipt["done"] == ["deleted", *key_erased, "overwritten", "log-truncated"]
    again = client.get(f"/galleries/default/receipts/{receipt['receipt']}")
    assert exact(schemas.Receipt, again) == receipt
    client.post("/galleries", json={"name": "guests"})
    for path in ("guests/receipts/" + receipt["receipt"], "default/receipts/none"):
        assert slug(client.get(f"/galleries/{path}")) == "receipt-unknown"
    log = settings.data / "audit.jsonl"
    entries = [entry for entry in read_entries(log) if entry.action == "person.erased"]
    assert [entry.sequence for entry in entries] == [receipt["audit"]]
    assert verify(log).flaw is None


def test_after_an_erasure_no_file_has_the_person(house: Any) -> None:
    client, settings = house
    enroll_ada(client)
    found = client.get(f"{ADA}/export").json()["faces"][0]["embedding"]
    embedding = np.array(found, np.float32)
    before = raw_files(settings.data)
    assert is_in(embedding, before) == (settings.template_keys is None)
    assert (b"Ada by name" in before) == (settings.template_keys is None)
    assert client.delete(ADA).status_code == 200
    after = raw_files(settings.data)
    assert not is_in(embedding, after)
    assert [told for told in (b"Ada by name", b"by metadata", b"form 17") if told in after] == []
    repeated = send(
        client,
        "/enroll",
        "json",
        [drawn_photo(1)],
        {**TOLD, "consent": CONSENT},
        {"Idempotency-Key": "key"},
    )
    assert (repeated.status_code, slug(repeated)) == (410, "answer-erased")


def test_an_erasure_that_a_reader_holds_up_has_its_receipt_in_the_log(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll_ada(client)
    with closing(sqlite3.connect(settings.data / "gallery.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM faces").fetchall()
        for store in _stores(client):
            monkeypatch.setattr(store._file, "_patience_s", 0.1)
        refused = client.delete(ADA)
    assert (refused.status_code, slug(refused)) == (503, "erasure-incomplete")
    told = problem(refused)
    assert "erasure" not in told
    receipt = client.get(f"/galleries/default/receipts/{told['receipt']}").json()
    assert (receipt["done"], receipt["faces"]) == (["deleted"], 1)
    assert receipt["incomplete"] == told["reason"]
    assert slug(client.get(ADA)) == "person-unknown"


def _stores(client: TestClient) -> list[Any]:
    return [client.app.state.service.engine.galleries]  # type: ignore[attr-defined]


def test_an_erasure_that_cannot_be_recorded_is_done_and_says_so(
    client: TestClient, settings: Settings
) -> None:
    enroll_ada(client)
    (settings.data / "audit.jsonl").symlink_to("/dev/full")
    receipt = exact(schemas.Receipt, client.delete(ADA))
    assert (receipt["audit"], receipt["faces"]) == (None, 1)


def test_a_person_of_very_many_faces_has_a_receipt_that_fits_the_log(tmp_path: Path) -> None:
    from service.guard.receipts import ERASED, FACES_LISTED, Receipts

    receipts = Receipts(Audit(tmp_path / "audit.jsonl"))
    told = receipts.draft(
        gallery="g" * 128,
        person_id="\N{GRINNING FACE}" * 128,
        faces=[f"{n:026d}" for n in range(5000)],
        time=datetime.now().astimezone(),
        done=["deleted"],
        incomplete="x" * 1000,
    )
    receipt = receipts.record("somebody", ERASED, told)
    assert (receipt["faces"], len(receipt["face_ids"])) == (5000, FACES_LISTED)


# What is never kept.


def test_no_photograph_is_kept(house: Any) -> None:
    client, settings = house
    photo = drawn_photo(1, 2)
    fields = {"person_id": "ada", "face": "largest"}
    for form in FORMS:
        answer = send(client, "/enroll", form, [photo], fields, {"Idempotency-Key": form})
        assert answer.status_code == 201
        send(client, "/identify", form, [photo])
    raw = raw_files(settings.data)
    runs = [photo[at : at + 24] for at in range(64, len(photo) - 24, 97)]
    varied = [run for run in runs if len(set(run)) > 8]  # not the grey, nor zeros
    assert len(varied) > 20
    assert not any(run in raw for run in varied)


# Sealed.


def test_a_start_without_its_template_key_is_refused_and_names_the_key(
    sealed: Settings, settings: Settings, tmp_path: Path
) -> None:
    with ready_client(create_app(sealed, open_engine=open_drawn)) as client:
        enroll_ada(client)
    add_template_key(tmp_path / "other.keys")
    other = settings.model_copy(update={"template_key_file": str(tmp_path / "other.keys")})
    for wrong, reason in ((settings, "names no file"), (other, "which the file lacks")):
        with (
            pytest.raises(Exception, match=reason),
            TestClient(create_app(wrong, open_engine=open_drawn)),
        ):
            pass


def test_a_face_that_was_tampered_with_is_named_by_readyz_and_others_are_found(
    sealed: Settings,
) -> None:
    with ready_client(create_app(sealed, open_engine=open_drawn)) as client:
        face = enroll_ada(client)["enrolled"][0]["face_id"]
        send(client, "/enroll", "raw", [drawn_photo(2)], {"person_id": "bob"})
    with closing(sqlite3.connect(sealed.data / "gallery.sqlite3")) as file, file:
        file.execute("UPDATE faces SET seal = zeroblob(28) WHERE id = ?", (face,))
    app = create_app(sealed, open_engine=open_drawn)
    with TestClient(app) as client:
        while "does not open" not in (answer := client.get("/readyz")).text:
            assert answer.status_code == 503
        assert face in problem(answer)["detail"]
        found = send(client, "/identify", "raw", [drawn_photo(2)]).json()["images"][0]["faces"][0]
        assert [candidate["person_id"] for candidate in found["candidates"]] == ["bob"]
        assert client.delete(f"{ADA}/faces/{face}").status_code == 204
        assert client.get("/readyz").status_code == 200


# The command line.


@pytest.fixture
def commanded(sealed: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, which the commands take too."""
    for name in ("models", "recognition", "data", "template_key_file"):
        monkeypatch.setenv(f"MIEN_{name.upper()}", str(getattr(sealed, name)))
    monkeypatch.setenv("MIEN_PORT", "0")
    monkeypatch.setattr("service.app.open_everything", open_drawn)
    return sealed


def test_the_commands_export_erase_and_sweep(commanded: Settings) -> None:
    def mien(*words: str) -> str:
        result = CliRunner().invoke(cli, list(words))
        assert result.exit_code == 0, result.output
        return result.output

    with ready_client(create_app(commanded, open_engine=open_drawn)) as client:
        enroll_ada(client)
        send(client, "/enroll", "raw", [drawn_photo(2)], {"person_id": "bob"})
    assert '"name": "Ada by name"' in mien("export-person", "ada-of-the-files")
    assert "1 faces erased" in mien("erase", "ada-of-the-files")
    absent = CliRunner().invoke(cli, ["erase", "ada-of-the-files"])
    assert (absent.exit_code, "no person" in absent.output) == (2, True)
    assert '"receipts": []' in mien("sweep", "--json")
    [old] = mien("template-keys", "list", "--json").split('"key": "')[1:]
    new = mien("template-keys", "new", commanded.template_key_file).strip()
    assert f"1 data keys are wrapped anew, all of them under {new}" in mien(
        "template-keys", "rotate"
    )
    assert new not in old
    told = mien("template-keys", "list", "--json")
    assert told.index('"people": 1') < told.index('"people": 0')


def test_an_erasure_without_an_entry_in_the_audit_log_says_so(commanded: Settings) -> None:
    with ready_client(create_app(commanded, open_engine=open_drawn)) as client:
        enroll_ada(client)
    (commanded.data / "audit.jsonl").unlink(missing_ok=True)
    (commanded.data / "audit.jsonl").symlink_to("/dev/full")
    result = CliRunner().invoke(cli, ["erase", "ada-of-the-files"])
    assert "the audit log cannot be written" in result.stderr
    assert "1 faces erased" in result.stdout
    assert "None" not in result.stdout


def test_a_write_ahead_log_of_the_data_keys_is_emptied_too(
    sealed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiped: list[str] = []
    wipe = SqliteFile.wipe

    def note(file: SqliteFile) -> None:
        wiped.append(file._path.name)
        wipe(file)

    monkeypatch.setattr(SqliteFile, "wipe", note)
    with ready_client(create_app(sealed, open_engine=open_drawn)) as client:
        enroll_ada(client)
        client.delete(ADA)
        assert wiped == ["data-keys.sqlite3", "gallery.sqlite3"]
        assert (sealed.data / "data-keys.sqlite3-wal").stat().st_size == 0
        assert (sealed.data / "gallery.sqlite3-wal").stat().st_size == 0
