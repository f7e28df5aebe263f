"""The black-box check of the wire contract, against a real server with real photographs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.server import serving
from tests.shared import SHARED, needs_shared

CHECK = SHARED / "checks" / "contract.py"


@needs_shared("checks/contract.py", "data/lfw/photos.zip")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_server_keeps_the_wire_contract(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path / "data", tmp_path / "log", workers=workers) as address:
        done = subprocess.run(
            [sys.executable, CHECK, "--url", address], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")
