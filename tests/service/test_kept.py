"""Calibrations as files: what is written, what is read, and what another program did to them."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from service.calibration.kept import Calibrations
from service.errors import CalibrationUnfit, CalibrationUnknown
from tests.standin import SPACE, calibration


def facts(**changes: Any) -> dict[str, Any]:
    """What a file holds."""
    return {"model": "stand-in", "space": SPACE, **calibration(), **changes}


@pytest.fixture
def kept(tmp_path: Path) -> Calibrations:
    return Calibrations(tmp_path / "data" / "calibrations")


def test_what_is_kept_is_read_again_with_its_name(kept: Calibrations) -> None:
    assert kept.names() == []
    path = kept.keep("staff", facts())
    found = kept.get("staff")
    assert (found.name, found.space, found.facts) == ("staff", SPACE, facts())
    assert (found.calibration.name, found.calibration.people) == ("staff", 100)
    assert found.fit(SPACE) is found.calibration
    assert kept.names() == ["staff"]
    assert [p.name for p in path.parent.iterdir()] == ["staff.json"]


def test_it_is_nobody_else_s(kept: Calibrations) -> None:
    path = kept.keep("staff", facts())
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_one_that_is_kept_again_is_read_as_it_is_now(kept: Calibrations) -> None:
    kept.keep("staff", facts())
    kept.keep("staff", facts(people=7))
    assert kept.get("staff").calibration.people == 7


def test_what_cannot_be_written_leaves_the_earlier_one_and_nothing_beside_it(
    kept: Calibrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept.keep("staff", facts())

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        kept.keep("staff", facts(people=7))
    assert [p.name for p in path.parent.iterdir()] == ["staff.json"]
    assert kept.get("staff").calibration.people == 100


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../gallery", ".staff", "a b", "a\n", "ä"])
def test_a_name_that_is_none_finds_and_writes_nothing(kept: Calibrations, name: str) -> None:
    kept.keep("staff", facts())
    (kept.folder.parent / "gallery.json").write_text(json.dumps(facts()))
    with pytest.raises(CalibrationUnknown) as unknown:
        kept.get(name)
    assert unknown.value.known == ["staff"]
    with pytest.raises(ValueError, match="a calibration's name is"):
        kept.keep(name, facts())


def test_files_that_are_no_calibrations_are_not_named(kept: Calibrations) -> None:
    path = kept.keep("staff", facts())
    (path.parent / ".staff.json").write_text("{}")
    (path.parent / "notes.txt").write_text("x")
    assert kept.names() == ["staff"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**facts(), "space": None}).replace('"space": null, ', "").encode(),
        json.dumps({**facts(), "curve": {}}).encode(),
        json.dumps({**facts(), "people": float("nan")}).encode(),
        json.dumps({**facts(), "note": float("inf")}).encode(),
        json.dumps(facts()).encode()[:-40],
    ],
)
def test_a_damaged_file_is_refused_and_still_named(kept: Calibrations, text: bytes) -> None:
    kept.keep("staff", facts()).write_bytes(text)
    with pytest.raises(CalibrationUnfit, match="'staff' cannot be used: its file is damaged"):
        kept.get("staff")
    assert kept.names() == ["staff"]


def test_one_that_cannot_be_read_is_refused(kept: Calibrations) -> None:
    kept.folder.mkdir(parents=True)
    (kept.folder / "staff.json").mkdir()
    with pytest.raises(CalibrationUnfit, match="cannot be read: Is a directory"):
        kept.get("staff")


def test_one_of_another_embedding_space_does_not_fit(kept: Calibrations) -> None:
    kept.keep("staff", facts())
    with pytest.raises(CalibrationUnfit, match="space 'stand-in/1', not in 'other/1'"):
        kept.get("staff").fit("other/1")
