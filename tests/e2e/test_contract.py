"""The black-box check of the wire contract, against a real server with real photographs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import SHIPPED_MODELS, Settings
from tests.e2e.server import serving
from tests.shared import SHARED, needs_shared
from tests.standin import write_recognition

CHECK = SHARED / "checks" / "contract.py"
TEACHER = SHARED / "data" / "teacher" / "teacher.onnx"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The models that ship; while the recogniser does not, the teacher in its place."""
    recognition = Settings.model_fields["recognition"].default
    if (SHIPPED_MODELS / recognition).exists():
        return {}
    folder = tmp_path_factory.mktemp("models")
    write_recognition(folder / "ecacface", TEACHER.read_bytes(), name="ecacface-teacher")
    (folder / "mtcnn").symlink_to(SHIPPED_MODELS / "mtcnn")
    return {"models": folder, "recognition": "ecacface"}


@needs_shared("checks/contract.py", "data/lfw/photos.zip", "data/teacher/teacher.onnx")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_real_server_keeps_the_wire_contract(
    models: dict[str, Any], tmp_path: Path, workers: int
) -> None:
    with serving(tmp_path / "data", tmp_path / "log", workers=workers, **models) as address:
        done = subprocess.run(
            [sys.executable, CHECK, "--url", address], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")
