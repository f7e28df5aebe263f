"""Where the shared data lie that tests measure against; they are never in the repository.

`needs_shared("golden/mtcnn.json")` marks a test that is skipped, with its reason, where the file is
not there.
"""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def needs_shared(*names: str) -> pytest.MarkDecorator:
    """A mark that skips the test unless every named file or folder of SHARED is there."""
    absent = [name for name in names or ("",) if not (SHARED / name).exists()]
    return pytest.mark.skipif(bool(absent), reason=f"../shared lacks {', '.join(absent) or '-'}")
