"""The README's session does, as printed, what the README says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lfw import lay_out
from tests.e2e.server import ROOT, serving
from tests.shared import needs_shared

README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = {
    "ada/1.jpg": "Halle_Berry 6",
    "ada/2.jpg": "Halle_Berry 7",
    "ben/1.jpg": "Kofi_Annan 8",
    "cleo/1.jpg": "Julianne_Moore 9",
    "unknown.jpg": "Kofi_Annan 25",
}


def session() -> str:
    """The block of shell that enrols."""
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "/enroll" in b]
    return str(block)


def answers(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand in the text one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        answer, end = decoder.raw_decode(text)
        found.append(answer)
        text = text[end:]
    return found


@needs_shared("data/lfw/photos.zip")
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_session_enrols_three_people_and_knows_them(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "photographs", FILES)
    with serving(tmp_path / "data", tmp_path / "log") as address:
        done = subprocess.run(
            ["bash", "-e", "-c", session()],
            cwd=folder,
            env={**os.environ, "MIEN": address},
            capture_output=True,
            text=True,
            check=True,
        )
    *enrolled, persons, identified, again, verified = answers(done.stdout)
    assert [answer["person"]["name"] for answer in enrolled] == ["Ada", "Ben", "Cleo"]
    assert [person["id"] for person in persons["items"]] == ["ada", "ben", "cleo"]
    for answer in (identified, again):
        [face] = answer["images"][0]["faces"]
        assert face["candidates"][0]["person_id"] == "ben"
        assert len(face["candidates"]) == 3
        assert face["decision"] == "match"
    assert identified["threshold"]["target"] <= again["threshold"]["target"]
    assert verified["decision"] == "match"


def test_the_session_is_of_ten_lines() -> None:
    assert len(session().splitlines()) == 10


def test_what_the_readme_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target
    for module in re.findall(r"python -m ([\w.]+)", README):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
