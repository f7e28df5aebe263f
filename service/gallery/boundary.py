"""What enters the gallery is checked here, and refused with FieldInvalid or ValueError.

Text is kept exactly as it was sent; no Unicode normalisation, an id is the caller's own.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldInvalid
from service.gallery.contract import (
    BASES,
    DIMENSIONS,
    LARGEST_PAGE,
    LARGEST_TOP_K,
    LONGEST_RETENTION_DAYS,
    Consent,
    Idempotency,
    NewFace,
)

LONGEST_TEXT: Final = 128
LONGEST_SPACE: Final = 256
LONGEST_KEY: Final = 255
LONGEST_REFERENCE: Final = 512
CLOCKS_APART_S: Final = 300.0  # that a time may lie in the future by our clock
LARGEST_METADATA_BYTES: Final = 16_384
LARGEST_DETAILS_BYTES: Final = 65_536
NORM_TOLERANCE: Final = 1e-3  # a unit length in float16 is still within it

_GALLERY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME_LIMIT: Final = "1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
# RFC 3339's date-time, in capitals; datetime.fromisoformat alone takes more. It drops the digits of
# a fraction beyond microseconds: .NET writes 7, Go and Java 9.
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_CURSOR = re.compile(r"([gpf])([1-9][0-9]{0,18})")
# control characters, lone surrogates (no UTF-8 of them exists), line and paragraph separators
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def gallery_name(value: str) -> str:
    """The name of a gallery to create. Raises FieldInvalid."""
    if not is_gallery_name(value):
        raise FieldInvalid("name", shown(value), _NAME_LIMIT)
    return value


def calibration_name(value: str) -> str:
    """The name of a calibration to bind a gallery to. Raises FieldInvalid."""
    if not is_gallery_name(value):
        raise FieldInvalid("calibration", shown(value), _NAME_LIMIT)
    return value


def population_name(value: str) -> str:
    """The name of a population whose rate decides in a gallery. Raises FieldInvalid."""
    if not is_gallery_name(value):
        raise FieldInvalid("population", shown(value), _NAME_LIMIT)
    return value


def is_gallery_name(value: str) -> bool:
    """Whether a gallery can have this name at all."""
    return _GALLERY_NAME.fullmatch(value) is not None


def person_id(value: str) -> str:
    """The id of a person to create. Raises FieldInvalid; also for an id that a client takes out of
    a path (RFC 3986, 5.2.4), by which nobody could ask for the person or erase them."""
    if value in (".", ".."):
        raise FieldInvalid("person_id", shown(value), "any text but . and .., which paths lose")
    return _text("person_id", value, LONGEST_TEXT)


def person_name(value: str, field: str = "name") -> str:
    """The name of a person. Raises FieldInvalid."""
    return _text(field, value, LONGEST_TEXT)


def space(value: str) -> str:
    """The id of an embedding space. Raises FieldInvalid."""
    return _text("space", value, LONGEST_SPACE)


def idempotency(value: Idempotency | None) -> Idempotency | None:
    """A key that may be stored. Raises FieldInvalid."""
    if value is not None:
        _text("Idempotency-Key", value.key, LONGEST_KEY)
    return value


def is_text(value: str, longest: int = LONGEST_TEXT) -> bool:
    """Whether it is 1 to `longest` printable characters without blanks at the ends."""
    return (
        1 <= len(value) <= longest
        and value == value.strip()
        and not any(unicodedata.category(character) in _UNPRINTABLE for character in value)
    )


def metadata(value: Mapping[str, Any]) -> str:
    """The JSON text of a person's or gallery's metadata. Raises FieldInvalid."""
    return _json_object("metadata", value, LARGEST_METADATA_BYTES)


def details(value: Mapping[str, Any]) -> str:
    """The JSON text of a face's details. Raises FieldInvalid."""
    return _json_object("details", value, LARGEST_DETAILS_BYTES)


def consent(value: Mapping[str, Any], now: float) -> Consent:
    """A record of what allows to keep somebody. Raises FieldInvalid."""
    unknown = sorted(set(value) - {"basis", "time", "reference"})
    if unknown:
        raise FieldInvalid("consent", f"with {shown(unknown[0])}", "basis, time and reference")
    basis, reference = value.get("basis"), value.get("reference")
    if basis not in BASES:
        raise FieldInvalid("consent.basis", _told(basis), f"one of {', '.join(BASES)}")
    if reference is not None:
        if not isinstance(reference, str):
            raise FieldInvalid("consent.reference", _told(reference), "text")
        _text("consent.reference", reference, LONGEST_REFERENCE)
    return Consent(basis, _consent_time(value.get("time"), now), reference)


def _consent_time(value: Any, now: float) -> datetime:
    limit = "a time of RFC 3339 with its offset, as 2026-07-31T09:30:00Z, and not in the future"
    given = _told(value)
    if not isinstance(value, str) or _TIME.fullmatch(capitals := value.upper()) is None:
        raise FieldInvalid("consent.time", given, limit)
    try:
        time = datetime.fromisoformat(capitals).astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of June; an hour in the year 0
        raise FieldInvalid("consent.time", given, limit) from None
    if time.timestamp() > now + CLOCKS_APART_S:
        raise FieldInvalid("consent.time", given, limit)
    return time


def retention_days(value: int) -> int:
    """How long a gallery may keep its people. Raises FieldInvalid."""
    if not 1 <= value <= LONGEST_RETENTION_DAYS:
        limit = f"1 to {LONGEST_RETENTION_DAYS} days"
        raise FieldInvalid("retention_days", value, limit)
    return value


def page_limit(value: int) -> int:
    """How many items a page may have. Raises FieldInvalid."""
    if not 1 <= value <= LARGEST_PAGE:
        raise FieldInvalid("limit", value, f"1 to {LARGEST_PAGE}")
    return value


def top_k(value: int) -> int:
    """How many candidates may be asked. Raises FieldInvalid."""
    if not 1 <= value <= LARGEST_TOP_K:
        raise FieldInvalid("top_k", value, f"1 to {LARGEST_TOP_K}")
    return value


def cursor(kind: str, number: int) -> str:
    """An opaque cursor: the items of this kind (g, p or f) after row `number` follow."""
    return base64.urlsafe_b64encode(f"{kind}{number}".encode()).decode().rstrip("=")


def cursor_number(kind: str, value: str | None) -> int:
    """The row after which a page begins; 0, before all rows, for None. Raises FieldInvalid."""
    if value is None:
        return 0
    try:
        padded = value.encode("ascii") + b"=" * (-len(value) % 4)
        match = _CURSOR.fullmatch(base64.b64decode(padded, b"-_", validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        match = None
    if (
        match is None
        or match[1] != kind
        or int(match[2]) >= 2**63
        or cursor(*_parts(match)) != value
    ):
        raise FieldInvalid("cursor", shown(value), "`next` of an earlier page")
    return int(match[2])


def new_embeddings(faces: Sequence[NewFace]) -> NDArray[np.float32]:
    """The faces' embeddings (N, 512), N > 0. Raises ValueError."""
    if not faces:
        raise ValueError("there is no face to enrol")
    return queries(np.stack([np.asarray(face.embedding) for face in faces]))


def queries(embeddings_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """The embeddings as they are. Raises ValueError unless float32 (N, 512) of unit length."""
    if embeddings_ND.dtype != np.float32 or embeddings_ND.shape[1:] != (DIMENSIONS,):
        what = f"{embeddings_ND.dtype} {embeddings_ND.shape}"
        raise ValueError(f"embeddings are float32 (N, {DIMENSIONS}), not {what}")
    if not are_unit(embeddings_ND).all():
        raise ValueError(
            f"an embedding is not of unit length: off by {_off(embeddings_ND).max():.3g}"
        )
    return embeddings_ND


def are_unit(embeddings_ND: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the embeddings are of unit length, (N,): none with a number that is not finite."""
    return _off(embeddings_ND) <= NORM_TOLERANCE


def _off(embeddings_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths_N = np.linalg.norm(embeddings_ND.astype(np.float64), axis=1)
        off_N: NDArray[np.float64] = np.abs(lengths_N - 1)
        return off_N


def shown(value: str) -> str:
    """The value as an answer may show it: encodable, and not longer than needed to know it."""
    return value[:200].encode("utf-8", "replace").decode()


def _told(value: Any) -> Any:
    """A value of JSON as an error may name it; of a list or an object only that it is one."""
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    return shown(value) if isinstance(value, str) else value


def _parts(match: re.Match[str]) -> tuple[str, int]:
    return match[1], int(match[2])


def _text(field: str, value: str, longest: int) -> str:
    if not is_text(value, longest):
        limit = f"1 to {longest} characters without control characters or blanks at the ends"
        raise FieldInvalid(field, shown(value), limit)
    return value


def _json_object(field: str, value: Mapping[str, Any], largest_bytes: int) -> str:
    limit = f"a JSON object of at most {largest_bytes} bytes"
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size_bytes = len(text.encode())
    except (TypeError, ValueError, RecursionError):  # no JSON, NaN, a lone surrogate, too deep
        told = "an object with what JSON cannot hold, as a number that is not finite"
        raise FieldInvalid(field, told, limit) from None
    if size_bytes > largest_bytes:
        raise FieldInvalid(field, f"{size_bytes} bytes", limit)
    return text
