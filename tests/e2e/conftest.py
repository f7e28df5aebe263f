"""What the tests of real server processes share."""

import shutil
from pathlib import Path

import pytest

from tests.standin import NAME


@pytest.fixture
def networks(models: Path, tmp_path: Path) -> dict[str, object]:
    """Settings of a server with a folder of models of its own, quick to start."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copytree(models / NAME, folder / NAME)
    (folder / "mtcnn").symlink_to(models / "mtcnn")
    return {"models": folder, "recognition": NAME, "expression": "off", "attributes": "off"}
