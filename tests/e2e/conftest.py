"""What the tests of a real server on real photographs share."""

from typing import Any

import pytest

from service.settings import SHIPPED_MODELS, Settings
from tests.shared import SHARED
from tests.standin import write_recognition

TEACHER = SHARED / "data" / "teacher" / "teacher.onnx"


@pytest.fixture(scope="session")
def face_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for the models that ship; while the recogniser does not, the teacher's instead."""
    if (SHIPPED_MODELS / Settings.model_fields["recognition"].default).exists():
        return {}
    folder = tmp_path_factory.mktemp("models")
    write_recognition(folder / "teacher", TEACHER.read_bytes(), name="teacher")
    (folder / "mtcnn").symlink_to(SHIPPED_MODELS / "mtcnn")
    return {"models": folder, "recognition": "teacher"}
