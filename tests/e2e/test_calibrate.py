"""Measuring people with the networks that ship, beside a running server that takes it up.

LFW's photographs are here to run the command: no figure is taken from them.
"""

import json
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.e2e.lfw import PHOTOS, lay_out
from tests.e2e.server import serving
from tests.e2e.test_cli import told
from tests.shared import needs_shared

PEOPLE = 11


def two_each() -> dict[str, str]:
    """Two photographs each of the first people of LFW who have two, by our own names."""
    numbers: dict[str, list[str]] = defaultdict(list)
    with ZipFile(PHOTOS) as photos:
        for name in sorted(photos.namelist()):
            who, _, number = name.rsplit("/", 1)[1].removesuffix(".jpg").rpartition("_")
            numbers[who].append(number)
    several = [(who, own) for who, own in numbers.items() if len(own) >= 2][:PEOPLE]
    return {
        f"people/{place}/{n}.jpg": f"{who} {number}"
        for place, (who, own) in enumerate(several)
        for n, number in enumerate(own[:2])
    }


def asked(address: str, path: str, method: str = "GET", **fields: Any) -> Any:
    request = urllib.request.Request(
        address + path,
        method=method,
        data=json.dumps(fields).encode() if fields else None,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@needs_shared("data/lfw/photos.zip")
def test_a_running_server_takes_up_what_was_measured_beside_it(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, two_each())
    settings = {"data": tmp_path / "data"}
    one = folder / "people" / "0" / "0.jpg"
    with serving(tmp_path / "data", tmp_path / "log") as address:
        report = told("calibrate", folder / "people", "--name", "lfw", settings=settings)
        assert report["calibration"]["people"] == PEOPLE
        assert report["left_out"] == []
        before = told("identify", one, "--url", address, settings=settings)
        asked(address, "/galleries/default", "PATCH", calibration="lfw")
        after = told("identify", one, "--url", address, settings=settings)
        [own] = asked(address, "/models/ecacface-mobile/calibration")["calibrations"]
    assert before[0]["answer"]["threshold"]["calibration"] is None
    assert after[0]["answer"]["threshold"]["calibration"] == "lfw"
    assert (own["name"], own["galleries"], own["problem"]) == ("lfw", ["default"], None)
    assert own["thresholds"] == report["calibration"]["thresholds"]
    wanted = {row["target_fmr"]: row for row in own["thresholds"]}[1e-2]
    assert after[0]["answer"]["threshold"]["similarity"] == pytest.approx(
        wanted["similarity"], abs=1e-4
    )
