"""The console: the page at / and the files in service/console that it is made of.

The files hold no secret and are open to all: a key, where one is asked, is typed into the page. The
policy lets the page load from here and nowhere else, run no script that is not one of its files,
send no form, and stand in nobody's frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

FOLDER: Final = Path(__file__).parents[1] / "console"
PAGE: Final = "index.html"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "Cache-Control": "no-cache",  # kept, and asked after: a new version is seen at once
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class File:
    """A file of the console. etag: of its content."""

    content: bytes
    kind: str
    etag: str


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _KINDS[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')


FILES: Final[Mapping[str, File]] = MappingProxyType(
    {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _KINDS}
)


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, FILES[PAGE])


@router.get("/console/{file}")
async def file(request: Request, file: str) -> Response:
    """A file of the page. 404 for what is none of them."""
    if file not in FILES:
        raise HTTPException(404)
    return _answer(request, FILES[file])


def _answer(request: Request, file: File) -> Response:
    """The file; 304 without it where the caller has it already."""
    headers = {**HEADERS, "ETag": file.etag}
    known = {tag.strip().removeprefix("W/") for tag in _tags(request)}
    if known & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)


def _tags(request: Request) -> list[str]:
    return request.headers.get("If-None-Match", "").split(",")
