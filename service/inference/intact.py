"""Whether the files of models are still what was loaded.

A network that runs lies in memory, and goes on as it was verified whatever happens to its file. But
a process that starts now would load the file, or refuse it: that is told before it happens.
"""

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from service.inference.artefact import Artefact

_Look = tuple[int, int, int]  # a file's size in bytes, time of its last change in ns, and inode


class Intact:
    """The files of artefacts, held to what they were when they were loaded.

    A file is hashed when it is first looked at, and then only when its size, time or inode is
    another than at the last look; so a check costs a `stat` a file.
    """

    def __init__(self, artefacts: Iterable[Artefact]) -> None:
        self._files = {
            path: (artefact.name, digest)
            for artefact in artefacts
            for path, digest in artefact.files.items()
        }
        self._seen: dict[Path, tuple[_Look, bool]] = {}
        self._looking = threading.Lock()

    def check(self) -> list[str]:
        """What is not as it was loaded, a sentence each."""
        with self._looking:
            return [
                f"{path.name} of the model {name} {wrong}"
                for path, (name, digest) in self._files.items()
                if (wrong := self._wrong(path, digest))
            ]

    def _wrong(self, path: Path, digest: str) -> str | None:
        try:
            status = path.stat()
            look = (status.st_size, status.st_mtime_ns, status.st_ino)
            before, same = self._seen.get(path, (None, False))
            if look != before:
                same = hashlib.sha256(path.read_bytes()).hexdigest() == digest
                self._seen[path] = look, same
        except OSError as error:
            self._seen.pop(path, None)
            return f"cannot be read any more: {error.strerror}"
        return None if same else "was changed on disk since it was loaded"
