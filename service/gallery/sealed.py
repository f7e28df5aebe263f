"""Sealing: what tells of a person, unreadable without their data key, which itself lies wrapped.

AES-256-GCM (NIST SP 800-38D) by `cryptography`, its one home. A content is sealed with 96 random
bits of nonce and keeps its length, so that it can be sealed in the place where it lies in the file;
nonce and tag, the seal, stand in the row that refers to it. What it belongs to is bound to it (the
associated data): moved to another person, face or gallery, it does not open.

A data key seals what one person has, and a master key wraps data keys: either stays far below the
2^32 messages up to which random nonces are safe (SP 800-38D, 8.3).
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_FORM: Final = "mien/1"  # bound to all that is sealed, should the form ever change

MasterKeys = Callable[[], Mapping[str, bytes]]  # by their ids, the newest first; as they are now


class SealBroken(Exception):
    """It was sealed for something else, or under another key, or was changed since."""


class PersonGone(Exception):
    """A person was erased while they were being read: a transaction begun now does not see them."""


def about(kind: str, gallery: str, person: bytes, part: str = "") -> bytes:
    """What a content is bound to. person: their row's hash; part: which of theirs it is."""
    return "\0".join((_FORM, kind, gallery, person.hex(), part)).encode()


def sealed(key: bytes, content: bytes, bound: bytes) -> tuple[bytes, bytes]:
    """The seal, 28 bytes, and the content made unreadable, of the length it had."""
    nonce = os.urandom(NONCE_BYTES)
    text = AESGCM(key).encrypt(nonce, content, bound)
    return nonce + text[-TAG_BYTES:], text[:-TAG_BYTES]


def opened(key: bytes, seal: bytes | None, content: bytes, bound: bytes) -> bytes:
    """The content as it was before it was sealed. Raises SealBroken, also where there is none."""
    if seal is None or len(seal) != NONCE_BYTES + TAG_BYTES:
        raise SealBroken
    try:
        return AESGCM(key).decrypt(seal[:NONCE_BYTES], content + seal[NONCE_BYTES:], bound)
    except InvalidTag:
        raise SealBroken from None


def wrapped(master: bytes, data_key: bytes, key_id: bytes) -> bytes:
    """The data key under the master key, 60 bytes, bound to its own id."""
    seal, text = sealed(master, data_key, about("data key", "", key_id))
    return seal + text


def unwrapped(master: bytes, wrapping: bytes, key_id: bytes) -> bytes:
    """The data key, 32 bytes. Raises SealBroken."""
    cut = NONCE_BYTES + TAG_BYTES
    seal, text = wrapping[:cut], wrapping[cut : cut + KEY_BYTES]
    return opened(master, seal, text, about("data key", "", key_id))
