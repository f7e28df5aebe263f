"""The examples of docs/api.md do what the page says, on a real server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lfw import lay_out
from tests.e2e.server import ROOT, serving
from tests.e2e.test_readme import answers
from tests.shared import needs_shared

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def example(call: str) -> str:
    """The block of shell that makes the call."""
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if call in b]
    return str(block)


@needs_shared("data/lfw/photos.zip")
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_examples_of_analyses_answer_what_the_page_says(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "photographs", {"party.jpg": "Kofi_Annan 25"})
    with serving(tmp_path / "data", tmp_path / "log") as address:
        done = subprocess.run(
            ["bash", "-e", "-c", example("/analyze")],
            cwd=folder,
            env={**os.environ, "MIEN": address},
            capture_output=True,
            text=True,
            check=True,
        )
    expression, attributes, analyzed = (
        answer["images"][0]["faces"][0] for answer in answers(done.stdout)
    )
    assert set(expression["expression"]) == {"label", "confidence", "scores"}
    assert len(expression["expression"]["scores"]) == 8
    assert len(attributes["attributes"]) == 40
    assert analyzed["expression"] == expression["expression"]
    assert set(analyzed["quality_gate"]) == {"standard", "strict"}
    assert (analyzed["decision"], analyzed["candidates"]) == ("no_match", [])


def test_the_examples_of_the_three_forms_are_of_calls_that_there_are() -> None:
    paths = set(re.findall(r"(?:localhost:8000|\$MIEN)(/[a-z]+)", PAGE))
    documented = set(re.findall(r"\| `[A-Z]+ (/[a-z]+)` \|", PAGE))
    assert paths
    assert paths <= documented
