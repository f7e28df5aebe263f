"""Ids in paths: a person's id may hold any character, a slash too, sent as %2F.

Servers decode the path before it is routed, and then a slash inside an id looks like one between
two parts. So `keep_slashes` lets an encoded slash through the router as a control character, which
no id can have, and PersonId puts it back.
"""

from collections.abc import MutableMapping
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator

_SLASH: Final = "\x1f"


def keep_slashes(scope: MutableMapping[str, Any]) -> None:
    """Decodes the path of an ASGI scope from its raw path, an encoded slash into a character."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%" in raw:
        parts = raw.decode("ascii", "replace").replace("%2f", "%2F").split("%2F")
        scope["path"] = _SLASH.join(unquote(part) for part in parts)


def with_slashes(value: str) -> str:
    """A part of a path as it was meant."""
    return value.replace(_SLASH, "/")


GalleryName = Annotated[str, Path(description="a gallery's name")]
PersonId = Annotated[
    str, AfterValidator(with_slashes), Path(description="a person's id, URL-encoded")
]
FaceId = Annotated[str, Path(description="a face's id")]
