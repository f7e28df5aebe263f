"""The users' own calibrations: files in a folder, one a calibration, NAME.json.

`mien calibrate` writes them and the service reads them, each whenever it is asked for: who measures
anew, or takes a file away, needs no restart. A file holds the block that measure.py makes and the
facts that it was made of (model, space, graph_sha256, measured, counts), and no name or path of
anybody's photograph. What another program did to a file is never passed over: it is refused.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.decision import Calibration
from service.errors import CalibrationUnfit, CalibrationUnknown

SUFFIX: Final = ".json"
NAME_LIMIT: Final = "1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Kept:
    """A calibration as it was written. space: of the embeddings that it was measured on; facts: the
    whole of the file."""

    name: str
    space: str
    facts: Mapping[str, Any]
    calibration: Calibration

    def fit(self, space: str) -> Calibration:
        """The calibration, for embeddings of a space. Raises CalibrationUnfit for another one."""
        if self.space != space:
            reason = f"it was measured in the embedding space {self.space!r}, not in {space!r}"
            raise CalibrationUnfit(self.name, reason)
        return self.calibration


def is_name(name: str) -> bool:
    """Whether a calibration can have this name at all."""
    return _NAME.fullmatch(name) is not None


class Calibrations:
    """The calibrations in a folder, which need not be there while there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The names of all, damaged ones too, in order."""
        if not self.folder.is_dir():
            return []
        files = (path for path in self.folder.iterdir() if path.suffix == SUFFIX)
        return sorted(path.stem for path in files if is_name(path.stem))

    def get(self, name: str) -> Kept:
        """The calibration, as it is on the disk now. Raises CalibrationUnknown, CalibrationUnfit
        where the file is damaged."""
        if not is_name(name):
            raise CalibrationUnknown(name[:200], self.names())
        try:
            text = (self.folder / f"{name}{SUFFIX}").read_bytes()
            facts = json.loads(text, parse_constant=_refuse)
            calibration = Calibration.from_manifest(facts, name=name)
            return Kept(name, str(facts["space"]), facts, calibration)
        except FileNotFoundError as error:
            raise CalibrationUnknown(name, self.names()) from error
        except OSError as error:
            raise CalibrationUnfit(name, f"its file cannot be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CalibrationUnfit(name, f"its file is damaged: {error}") from error

    def keep(self, name: str, facts: Mapping[str, Any]) -> Path:
        """The file, whole and on disk, in the place of an earlier one of that name.

        Raises ValueError for a name that cannot be, OSError where the disk will not have it.
        """
        if not is_name(name):
            raise ValueError(f"a calibration's name is {NAME_LIMIT}, not {name[:200]!r}")
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{name}{SUFFIX}"
        descriptor, beside = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(facts, file, ensure_ascii=False, allow_nan=False, indent=1)
                file.flush()
                os.fsync(descriptor)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise
        _sync_entries(self.folder)
        return path


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _sync_entries(folder: Path) -> None:
    """Has the folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
