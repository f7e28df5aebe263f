"""A person's safe: what tells of them goes into its slot, and out of it, through here."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from service.errors import StorageUnavailable
from service.gallery import slots
from service.gallery.sealed import PersonGone, SealBroken, about, opened, sealed

KeysOf = Callable[[Iterable[bytes | None]], Mapping[bytes | None, bytes | None]]


@dataclass(frozen=True)
class Safe:
    """Where what one person has is kept. key: their data key, None where nothing is sealed.

    person: the hash of their id; gallery: its name.
    """

    key: bytes | None
    person: bytes
    gallery: str

    def put(self, kind: str, content: bytes, part: str = "") -> tuple[bytes | None, bytes]:
        """The seal and what goes into the slot."""
        if self.key is None:
            return None, content
        return sealed(self.key, slots.padded(content), self._about(kind, part))

    def take(self, kind: str, seal: bytes | None, content: bytes, part: str = "") -> bytes:
        """The content, padded, out of the slot. Raises SealBroken."""
        if self.key is None and seal is None:
            return content
        if self.key is None:
            raise SealBroken
        return opened(self.key, seal, content, self._about(kind, part))

    def _about(self, kind: str, part: str) -> bytes:
        return about(kind, self.gallery, self.person, part)


def safe(
    keys: Mapping[bytes | None, bytes | None], data_key: bytes | None, person: bytes, gallery: str
) -> Safe:
    """The safe of a person. Raises PersonGone when their data key is erased."""
    key = keys[data_key]
    if data_key is not None and key is None:
        raise PersonGone
    return Safe(key, person, gallery)


@contextlib.contextmanager
def broken_told(theirs: Safe) -> Iterator[None]:
    """A seal that is broken becomes StorageUnavailable, which names the row by its hash."""
    try:
        yield
    except SealBroken as error:
        reason = (
            f"a person of gallery {theirs.gallery!r} does not open"
            f" (id_hash {theirs.person.hex()}): the row was changed or moved by another program"
        )
        raise StorageUnavailable(reason) from error
