"""service/guard/receipts.py, mentions.py: what the log has of somebody, found where it stands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.errors import StorageUnavailable
from service.guard import mentions
from service.guard.audit import Audit
from service.guard.receipts import ERASED, Receipts


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    """Receipts of a log that has other entries too."""
    audit = Audit(tmp_path / "audit.jsonl")
    audit.record("desk", "identify", gallery="staff", faces=1)
    audit.record("desk", "enroll", gallery="staff", person_id="ada")
    return Receipts(audit)


def erased(receipts: Receipts, person_id: str, gallery: str = "staff") -> dict[str, Any]:
    """The receipt of an erasure."""
    told = receipts.draft(
        gallery=gallery,
        person_id=person_id,
        faces=["face"],
        time=datetime.now(UTC),
        done=["deleted"],
        incomplete=None,
    )
    return receipts.record("desk", ERASED, told)


def actions_of(receipts: Receipts, person_id: str, gallery: str = "staff") -> list[str]:
    return [entry["action"] for entry in receipts.of_person(gallery, person_id)]


def test_a_receipt_is_found_by_its_id_in_its_gallery(receipts: Receipts) -> None:
    ada, eve = erased(receipts, "ada"), erased(receipts, "eve")
    assert receipts.find("staff", ada["receipt"]) == ada
    assert receipts.find("staff", eve["receipt"]) == eve
    assert receipts.find("guests", ada["receipt"]) is None
    assert receipts.find("staff", "ada") is None


def test_a_person_s_entries_are_those_of_their_gallery_and_imports_are_among_them(
    receipts: Receipts,
) -> None:
    receipts.audit.record("cli:me", "import", gallery="staff", person_ids=["bob", "ada"])
    receipts.audit.record("desk", "enroll", gallery="guests", person_id="ada")
    assert actions_of(receipts, "ada") == ["enroll", "import"]
    assert actions_of(receipts, "bob") == ["import"]
    assert actions_of(receipts, "ada", "guests") == ["enroll"]
    assert actions_of(receipts, "eve") == []


def test_the_log_is_not_read_from_its_beginning_twice(
    receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second question reads the lines that answer it, and what was appended since the first."""
    for number in range(50):
        receipts.audit.record("desk", "enroll", gallery="staff", person_id=f"p{number}")
    assert actions_of(receipts, "p7") == ["enroll"]
    receipts.audit.record("desk", "person.change", gallery="staff", person_id="p7")
    parsed, entry_of = [], mentions.entry_of
    monkeypatch.setattr(mentions, "entry_of", lambda line: (parsed.append(line), entry_of(line))[1])
    assert actions_of(receipts, "p7") == ["enroll", "person.change"]
    assert len(parsed) == 1 + 2


def test_what_lies_in_files_that_were_put_aside_is_found(receipts: Receipts) -> None:
    ada = erased(receipts, "ada")
    for name in ("audit-1.jsonl", "audit-2.jsonl"):
        receipts.audit.path.rename(receipts.audit.path.with_name(name))
        assert receipts.find("staff", ada["receipt"]) == ada
        receipts.audit.record("desk", "enroll", gallery="staff", person_id="ada")
    assert actions_of(receipts, "ada") == ["enroll", ERASED, "enroll", "enroll"]


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_line_that_is_damaged_or_torn_hides_no_other(
    receipts: Receipts, asked_before: bool
) -> None:
    ada, path = erased(receipts, "ada"), receipts.audit.path
    if asked_before:
        receipts.find("staff", ada["receipt"])
    lines = path.read_bytes().splitlines(keepends=True)
    edited = lines[1].replace(b"enroll", b"enrolx")
    path.write_bytes(b"".join([lines[0], edited, *lines[2:], lines[1][:40]]))
    assert actions_of(receipts, "ada") == [ERASED]
    receipts.audit.record("desk", "enroll", gallery="staff", person_id="ada")
    assert actions_of(receipts, "ada") == [ERASED, "enroll"]
    path.write_bytes(lines[0] + lines[2])
    assert actions_of(receipts, "ada") == [ERASED]


def test_a_log_that_cannot_be_read_is_told_without_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StorageUnavailable) as told:
        Receipts(Audit(tmp_path / "audit.jsonl")).find("staff", "none")
    assert told.value.reason == "the audit log cannot be read: Is a directory"


def test_without_a_log_there_is_nothing_in_it(tmp_path: Path) -> None:
    receipts = Receipts(Audit(tmp_path / "none" / "audit.jsonl"))
    assert receipts.find("staff", "none") is None
    assert receipts.of_person("staff", "ada") == []
