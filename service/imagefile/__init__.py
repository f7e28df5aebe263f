"""Photographs out of image files: the one home of Pillow and pillow-heif.

Pillow decodes every still format of users' photographs and tells an image's size from its header,
before the pixels; docs/adr/0001 says why that is not left to OpenCV, in vision. What comes out:

- upright: EXIF's orientation is applied, never XMP's, and the turn that HEIC and AVIF have
- 8-bit RGB: 16 bits a sample are scaled; grey, palette, CMYK and YCbCr are converted; colour
  profiles are not applied
- transparency laid over white, as a page shows it: what files hide behind it is often black
- of an animation the first frame, of several pictures the first or primary one
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import (  # imported for what they register; Pillow's other formats are never loaded
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from pillow_heif import register_heif_opener

from service.errors import (
    ImageEmpty,
    ImageError,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageTruncated,
    OutOfMemory,
)
from service.imagefile.bmp import read_bmp
from service.imagefile.heif import require_coded_sizes
from service.imagefile.jpeg import END_MARK, read_jpeg_header
from service.imagefile.kinds import kind_of, unreadable
from service.imagefile.pixels import mend_palette, rgb_of
from service.imagefile.png import is_png_cut, read_png
from service.imagefile.tiff import TiffPage, as_first_page, read_tiff_page, unread_layout
from service.imagefile.webp import read_webp_size
from service.memory import lacks_memory
from service.vision.faces import Photograph

# Put where a JPEG lacks its end mark: the pixels depend on it if they lack anything else.
_FILLERS: Final = (b"\x5a\xa5\x33\xcc" * 16, b"\xa5\x33\xcc\x5a" * 16)
_CODED_MARGIN_PX: Final = 1 << 20  # of HEIC and AVIF, whose tiles reach beyond the picture
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
# Pillow's own reader scrambles planes of 16 bits and makes an object of each strip.
TiffImagePlugin.READ_LIBTIFF = True
warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of broken EXIF and the like: the picture counts


def read_photograph(data: bytes, *, max_bytes: int, max_pixels: int) -> Photograph:
    """The upright photograph in an image file's bytes; may be called from many threads at once.

    Raises ImageEmpty, ImageTooManyBytes, ImageTooManyPixels (told from the header, with nothing
    decoded), ImageTruncated, ImageUnreadable; OutOfMemory; and nothing else.
    """
    if not data:
        raise ImageEmpty()
    if len(data) > max_bytes:
        raise ImageTooManyBytes(len(data), max_bytes)
    kind, formats = kind_of(data)
    try:
        file = _read_header(kind, data, max_pixels)
        with Image.open(io.BytesIO(file.data), formats=formats) as image:
            if file.page is not None:
                mend_palette(image, file.page)
            _keep_limits(image.size, max_pixels)
            _forget_xmp(image)
            if file.twins and len({_digest(form) for form in (file.data, *file.twins)}) > 1:
                raise ImageTruncated(kind, len(data))
            image.load()
            _keep_limits(image.size, max_pixels)  # what HEIC says may be too little
            pixels = np.asarray(_upright(image, kind, file.page))
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever the bytes lead them into
        if lacks_memory(error):  # what they ask for was bounded by their headers
            raise OutOfMemory from None
        raise _broken(kind, data, error) from error
    return Photograph(np.ascontiguousarray(pixels))


def _keep_limits(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooManyPixels(width, height, width * height, max_pixels)
    if width < 1 or height < 1:
        raise unreadable(f"it declares {width} x {height} pixels")


# Headers


@dataclass(frozen=True)
class _File:
    """An image file as its decoder is given it. page: of a TIFF. twins: other forms of
    a file without an end mark, which are decoded to the same pixels if it lacks none."""

    data: bytes
    page: TiffPage | None = None
    twins: tuple[bytes, ...] = ()


def _read_header(kind: str, data: bytes, max_pixels: int) -> _File:
    """The file's part that makes the picture. Raises ImageError for what is not read."""
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "PNG":
        picture = read_png(data)
        if picture is None:
            raise _broken(kind, data, SyntaxError("no header"))
        return _File(picture)
    if kind == "TIFF":
        page = read_tiff_page(data)
        if page is None:
            raise ImageTruncated(kind, len(data))
        return _File(as_first_page(data, page), page)
    if kind == "BMP":
        return _File(read_bmp(data))
    if kind == "WebP" and (size := read_webp_size(data)) is not None:
        _keep_limits(size, max_pixels)
    if kind == "HEIC or AVIF":
        require_coded_sizes(data, 2 * max_pixels + _CODED_MARGIN_PX)
    return _File(data)


def _jpeg(data: bytes) -> _File:
    header = read_jpeg_header(data)
    if header.ended:
        return _File(data)
    if not header.complete:
        raise ImageTruncated("JPEG", len(data))
    rows = data.rstrip(b"\0")  # zeros may stand where rows were
    rows += b"\0" * rows.endswith(b"\xff")  # which is an escape, and not the end of rows
    return _File(data + END_MARK, twins=tuple(rows + filler + END_MARK for filler in _FILLERS))


def _digest(jpeg: bytes) -> bytes:
    """A digest of a file's decoded samples, which are not kept."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return hashlib.blake2b(np.asarray(image).tobytes()).digest()


def _forget_xmp(image: Image.Image) -> None:
    """Orientation is EXIF's alone, as in browsers; Pillow would look for it in XMP too."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)


# Pixels


def _upright(image: Image.Image, kind: str, page: TiffPage | None) -> Image.Image:
    """The loaded image as 8-bit RGB, turned and mirrored as its EXIF asks.

    TIFF and HEIC are upright once they are loaded, and then ask for nothing; AVIF's own turn comes
    as if EXIF had asked for it.
    """
    turn = _turn(image)
    rgb = rgb_of(image, kind, page)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        return _UPRIGHT.get(exif.get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return None


# What was wrong


def _broken(kind: str, data: bytes, error: Exception) -> ImageError:
    """The error for bytes that a decoder gave up on."""
    if _is_cut(kind, data) or "truncated" in str(error).lower():
        return ImageTruncated(kind, len(data))
    page = read_tiff_page(data) if kind == "TIFF" else None
    if page is not None and isinstance(error, UnidentifiedImageError):
        return unread_layout(page)
    if kind == "BMP" and str(error).startswith("Unsupported BMP"):
        return unreadable(f"{str(error)[0].lower()}{str(error)[1:]}")
    return unreadable(f"its {kind} data are broken")


def _is_cut(kind: str, data: bytes) -> bool:
    """True if the file lacks its end: its end mark, or bytes that it declares."""
    if kind == "JPEG":
        return not read_jpeg_header(data).ended
    if kind == "PNG":
        return is_png_cut(data)
    if kind == "GIF":
        return not data.rstrip(b"\0\r\n").endswith(b";")
    return len(data) < _declared_bytes(kind, data)


def _declared_bytes(kind: str, data: bytes) -> int:
    """How many bytes the file says it has, at least."""
    if kind == "WebP":
        return 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little")
    if kind == "TIFF":
        page = read_tiff_page(data)
        return len(data) + 1 if page is None else page.end_bytes
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
