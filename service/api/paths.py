"""Paths as they arrive: the absolute form of a request's target, and ids that hold a slash.

A client that takes the service for a proxy sends the whole address as the target, and a server must
take it (RFC 9112, 3.2.2): its path is the path, and its authority is the host, whatever Host says.

A person's id may hold any character, a slash too, sent as %2F. Servers decode the path before it is
routed, and then a slash inside an id looks like one between two parts. So `keep_slashes` lets an
encoded slash through the router as a control character, which no id can have, and PersonId puts it
back.
"""

import re
from collections.abc import MutableMapping
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator
from starlette.types import Scope

_SLASH: Final = "\x1f"
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(/.*)?", re.IGNORECASE | re.DOTALL)


def origin_form(scope: Scope) -> Scope:
    """The ASGI scope with an absolute target as its path and its Host; else as it is."""
    absolute = _ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
    if absolute is None:
        return scope
    path = absolute[2] or b"/"
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {
        **scope,
        "raw_path": path,
        "path": unquote(path.decode("ascii", "replace")),
        "headers": [(b"host", absolute[1]), *headers],
    }


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
