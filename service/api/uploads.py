"""Images and fields out of a call, whichever of its three forms it has.

- multipart/form-data: a part per image, a part per field;
- application/json: images as base64 or data URIs, fields beside them;
- the raw bytes of one image, where a call takes one.

The fields of a call with images may stand in the query in every form. An image that cannot be read
is an error in its place, so that the others of the call go on.
"""

import asyncio
import base64
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from fastapi import Request

from service.api.bodies import (
    LARGEST_FIELD_BYTES,
    Limits,
    Part,
    declared_bytes,
    media_type,
    read_bytes,
    read_parts,
)
from service.api.fields import (
    F,
    Given,
    NoFields,
    brief,
    from_text,
    parse_json,
    query_of,
    read_fields,
    require_known,
    times_of,
)
from service.api.problems import shown
from service.api.visit import admit_fields
from service.errors import (
    BodyBroken,
    BodyTooLarge,
    BodyUnsupported,
    FieldInvalid,
    FieldMissing,
    ImageCount,
    ImageError,
    ImageIsUrl,
    ImageNotBase64,
    ImageTooManyBytes,
)

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"
RAW: Final = ("image/*", "application/octet-stream")
_DATA_URI: Final = re.compile(r"data:[^,]{0,200}?(;base64)?,", re.IGNORECASE)
_FILE_NAME: Final = re.compile(r"@?[^\n\r]{1,1000}\.[A-Za-z0-9]{2,5}\s*")
_PYTHON_BYTES: Final = ("b'", 'b"')
_TO_PLAIN: Final = bytes.maketrans(b"-_", b"+/")

Image = bytes | ImageError


@dataclass(frozen=True)
class Form(Generic[F]):
    """What a call takes. images: () for none, ("image",) for one or several, or a name for each."""

    fields: type[F]
    images: tuple[str, ...] = ("image",)

    @property
    def several(self) -> bool:
        """Whether `image` may be repeated."""
        return self.images == ("image",)

    @property
    def accepted(self) -> list[str]:
        """The content types of its bodies."""
        return [JSON] + [MULTIPART] * bool(self.images) + [*RAW] * self.several

    @property
    def json_images(self) -> tuple[str, ...]:
        """The names that images have in JSON."""
        return ("image", "images") if self.several else self.images


@dataclass(frozen=True)
class Call(Generic[F]):
    """A call, read. images: in the order sent, or in that of the form's names."""

    images: list[Image]
    fields: F


async def read_call(request: Request, form: Form[F], limits: Limits) -> Call[F]:
    """The call's images and fields. Raises a RequestError when it is not as it should be."""
    given = query_of(request, form.fields if form.images else NoFields)
    kind, options = media_type(request)
    if kind == JSON and options.get("charset", "utf-8").lower() in ("utf-8", "utf8"):
        return await _from_json(request, form, limits, given)
    if kind == MULTIPART and form.images:
        return await _from_parts(request, form, limits, given, options.get("boundary"))
    if form.several and (kind.startswith("image/") or kind == "application/octet-stream"):
        return await _from_raw(request, form, limits, given)
    raise BodyUnsupported(str(shown(request.headers.get("content-type", ""))), form.accepted)


async def _from_json(
    request: Request, form: Form[F], limits: Limits, given: list[Given]
) -> Call[F]:
    limit_bytes = limits.body_bytes if form.images else LARGEST_FIELD_BYTES
    body = await read_bytes(request, limits, limit_bytes)

    def read() -> Call[F]:
        value = parse_json(body)
        if not isinstance(value, dict):
            raise BodyBroken("JSON", "it is not an object")
        images = {name: value.pop(name) for name in form.json_images if name in value}
        fields = read_fields(form.fields, [*given, *value.items()], others=form.json_images)
        admit_fields(request, fields)
        texts = _texts(form, limits, images)
        return Call([_decoded(text, limits) for text in texts], fields)

    return await asyncio.to_thread(read)


def _texts(form: Form[Any], limits: Limits, images: dict[str, Any]) -> list[str]:
    """The images' texts in order. Raises what is wrong with their number or kind."""
    if form.several and len(images) == 2:
        raise FieldInvalid("images", "given beside image", "given instead of image")
    if form.several and "images" in images:
        [texts] = images.values()
        if not isinstance(texts, list):
            raise FieldInvalid("images", brief(texts), "a list of base64 texts")
        _require_count(len(texts), limits)
        named = [("images", text) for text in texts]
    else:
        named = list(zip(form.images, _in_order(form, images), strict=True))
    for name, text in named:
        if not isinstance(text, str):
            raise FieldInvalid(name, brief(text), "base64 text or a data URI")
    return [text for _, text in named]


async def _from_parts(
    request: Request, form: Form[F], limits: Limits, given: list[Given], boundary: str | None
) -> Call[F]:
    if not boundary:
        reason = (
            "its Content-Type has no boundary; leave that header to the HTTP client, which knows "
            "the boundary, or send multipart/form-data; boundary=..."
        )
        raise BodyBroken(MULTIPART, reason)
    parts = await read_parts(request, limits, _doorkeeper(form, limits), boundary)
    images = [part for part in parts if part.name in form.images]
    fields = [_field(form, part) for part in parts if part.name not in form.images]
    typed = read_fields(form.fields, [*given, *fields], others=form.images)
    admit_fields(request, typed)
    if form.several:
        _require_count(len(images), limits)
        return Call([_received(part, limits) for part in images], typed)
    named = {part.name: _received(part, limits) for part in images}
    return Call(_in_order(form, named), typed)


def _doorkeeper(form: Form[Any], limits: Limits) -> Callable[[str], int]:
    """Says of each part, as it begins, how many bytes it may have, or refuses the call."""
    seen: Counter[str] = Counter()

    def admit(name: str) -> int:
        if name not in form.images:
            require_known(form.fields, name, form.images)
        seen[name] += 1
        if form.several and name in form.images:
            if seen[name] > limits.images:
                _require_count(seen[name], limits)
        elif name in form.images:
            if seen[name] > 1:
                raise FieldInvalid(name, "given twice", "given once")
        elif seen[name] > (most := times_of(form.fields, name)):
            raise FieldInvalid(name, f"given {seen[name]} times", f"given at most {most} times")
        return limits.image_bytes if name in form.images else LARGEST_FIELD_BYTES

    return admit


def _field(form: Form[Any], part: Part) -> Given:
    if part.size_bytes > LARGEST_FIELD_BYTES:
        limit = f"at most {LARGEST_FIELD_BYTES} bytes"
        raise FieldInvalid(part.name, f"{part.size_bytes} bytes", limit)
    try:
        return from_text(form.fields, part.name, part.data.decode("utf-8"))
    except UnicodeDecodeError as error:
        value = shown(part.data.decode("utf-8", "replace"))
        raise FieldInvalid(part.name, value, "UTF-8 text") from error


async def _from_raw(request: Request, form: Form[F], limits: Limits, given: list[Given]) -> Call[F]:
    fields = read_fields(form.fields, given)
    admit_fields(request, fields)
    try:
        data = await read_bytes(request, limits, min(limits.image_bytes, limits.body_bytes))
    except BodyTooLarge:
        if limits.body_bytes < limits.image_bytes:
            raise
        value = max(declared_bytes(request), limits.image_bytes + 1)
        return Call([ImageTooManyBytes(value, limits.image_bytes)], fields)
    return Call([_refused_url(data) or data], fields)


def _in_order(form: Form[Any], images: dict[str, Any]) -> list[Any]:
    if missing := [name for name in form.images if name not in images]:
        raise FieldMissing(missing[0])
    return [images[name] for name in form.images]


def _require_count(count: int, limits: Limits) -> None:
    if not 1 <= count <= limits.images:
        raise ImageCount(count, f"1 to {limits.images} (MIEN_MAX_IMAGES)")


def _received(part: Part, limits: Limits) -> Image:
    if part.size_bytes > limits.image_bytes:
        return ImageTooManyBytes(part.size_bytes, limits.image_bytes)
    data = bytes(part.data)
    part.data.clear()  # it is not held twice
    return _refused_url(data) or data


def _decoded(text: str, limits: Limits) -> Image:
    """The image's bytes of a base64 text or data URI."""
    start = text[:2048].encode("utf-8", "replace")
    if error := _refused_url(start):
        return error
    if text[:5].lower() == "data:":
        head = _DATA_URI.match(text)
        if head is None or head[1] is None:
            return ImageNotBase64("a data URI begins with data:image/...;base64,")
        text = text[head.end() :]
    try:
        plain = text.encode("ascii").translate(_TO_PLAIN, b" \t\r\n").rstrip(b"=")
        if len(plain) * 3 // 4 > limits.image_bytes:
            return ImageTooManyBytes(len(plain) * 3 // 4, limits.image_bytes)
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError as error:  # binascii's and Unicode's are some
        if _FILE_NAME.fullmatch(text):
            return ImageNotBase64(f"{str(shown(text))!r} is a file's name; send what is in it")
        if text.startswith(_PYTHON_BYTES):
            return ImageNotBase64("it is Python's form of bytes; decode them to text first")
        return ImageNotBase64(str(shown(str(error))))


def _refused_url(data: bytes) -> ImageIsUrl | None:
    start = data[:300].lstrip()
    if re.match(rb"(https?|ftp|file|s3)://", start, re.IGNORECASE):
        return ImageIsUrl(str(shown(start.decode("utf-8", "replace"))))
    return None


def fingerprint_parts(images: Sequence[Image]) -> list[bytes]:
    """The images as bytes, errors by what they say: for telling one call from another."""
    return [
        image if isinstance(image, bytes) else f"{image.slug}: {image}".encode() for image in images
    ]
