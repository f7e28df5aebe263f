"""Photographs out of image files: the one home of Pillow and pillow-heif.

Pillow decodes every still format of users' photographs and tells an image's size from its header,
before the pixels; docs/adr/0001 says why that is not left to OpenCV, in vision. What comes out:

- upright: EXIF's orientation is applied, and the turn that HEIC and AVIF have of their own
- 8-bit RGB: 16 bits a sample are scaled; grey, palette, CMYK and YCbCr are converted; colour
  profiles are not applied
- transparency laid over white, as a page shows it: what files hide behind it is often black
- of an animation the first frame, of several pictures the first or primary one
"""

import io
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import (  # imported for what they register; Pillow's other formats are never loaded
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)
from pillow_heif import register_heif_opener

from service.errors import (
    ImageEmpty,
    ImageError,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageTruncated,
    ImageUnreadable,
)
from service.vision.faces import Photograph

ACCEPTED: Final = "JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC, AVIF"
MAX_SCANS: Final = 100  # of a JPEG: a camera writes a dozen, each may cost a pass over all pixels

# How a file of each kind begins (at which byte, with what) and which of Pillow's formats read it.
_KINDS: Final = (
    ("JPEG", 0, b"\xff\xd8\xff", ("JPEG",)),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n", ("PNG",)),
    ("WebP", 8, b"WEBP", ("WEBP",)),
    ("GIF", 0, b"GIF8", ("GIF",)),
    ("BMP", 0, b"BM", ("BMP",)),
    ("TIFF", 0, b"II*\0", ("TIFF",)),
    ("TIFF", 0, b"MM\0*", ("TIFF",)),
    ("TIFF", 0, b"II+\0", ("TIFF",)),
    ("TIFF", 0, b"MM\0+", ("TIFF",)),
    ("HEIC or AVIF", 4, b"ftyp", ("AVIF", "HEIF")),
)
_END_MARKS: Final = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

register_heif_opener(thumbnails=False)
Image.MAX_IMAGE_PIXELS = None  # read_photograph has a limit of its own, with an error of its own
warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of broken EXIF and the like: the picture counts


def read_photograph(data: bytes, *, max_bytes: int, max_pixels: int) -> Photograph:
    """The upright photograph in an image file's bytes; may be called from many threads at once.

    Raises ImageEmpty, ImageTooManyBytes, ImageTooManyPixels (told from the header, with nothing
    decoded), ImageTruncated, ImageUnreadable, and nothing else.
    """
    if not data:
        raise ImageEmpty()
    if len(data) > max_bytes:
        raise ImageTooManyBytes(len(data), max_bytes)
    kind, formats = _kind(data)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _keep_limits(kind, data, image.size, max_pixels)
            image.load()
            _keep_limits(kind, data, image.size, max_pixels)  # what HEIC says may be too little
            pixels = np.asarray(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever the bytes lead them into
        raise _broken(kind, data, error) from error
    return Photograph(np.ascontiguousarray(pixels))


def _kind(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The file's kind and the formats that Pillow may try."""
    for kind, at, magic, formats in _KINDS:
        if data.startswith(magic, at):
            return kind, formats
    raise _unreadable("it is in no known format")


def _keep_limits(kind: str, data: bytes, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooManyPixels(width, height, width * height, max_pixels)
    if width < 1 or height < 1:
        raise _unreadable(f"it declares {width} x {height} pixels")
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise _unreadable(f"it has more than {MAX_SCANS} scans")


# Pixels


def _upright(image: Image.Image) -> Image.Image:
    """The loaded image as 8-bit RGB, turned and mirrored as its EXIF asks.

    TIFF and HEIC are upright once they are loaded, and then ask for nothing; AVIF's own turn comes
    as if EXIF had asked for it.
    """
    turn = _turn(image)
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        raise _unreadable("its pixels have 32 bits; 8 and 16 are accepted")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(rgba, mask=rgba)
    return page


def _eight_bits(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Samples in [0, 65535] as the nearest in [0, 255]."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


# What was wrong


def _unreadable(reason: str) -> ImageUnreadable:
    return ImageUnreadable(reason, ACCEPTED)


def _broken(kind: str, data: bytes, error: Exception) -> ImageError:
    """The error for bytes that a decoder gave up on."""
    if isinstance(error, MemoryError):
        return _unreadable(f"its {kind} data ask for more memory than there is")
    if _is_cut(kind, data) or "truncated" in str(error).lower():
        return ImageTruncated(kind, len(data))
    return _unreadable(f"its {kind} data are broken")


def _is_cut(kind: str, data: bytes) -> bool:
    """Whether the file lacks its end: its end mark, or bytes that it declares."""
    if kind in _END_MARKS:
        return not data.rstrip(b"\0\r\n").endswith(_END_MARKS[kind])
    return len(data) < _declared_bytes(kind, data)


def _declared_bytes(kind: str, data: bytes) -> int:
    """How many bytes the file says it has, at least."""
    if kind == "WebP":
        return 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little")
    if kind == "TIFF":  # the table of its fields often comes last
        return 2 + int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big")
    return _end_of_boxes(data)


def _end_of_boxes(data: bytes) -> int:
    """Where the last of an ISO base media file's outer boxes ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:  # the size is in the next eight bytes
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0: to the end of the file
            break
        at += size
    return at
