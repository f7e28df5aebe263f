"""The kind of a file by its first bytes: an image that is read, or what it is instead."""

import base64
import re
from typing import Final

from service.errors import ImageUnreadable

ACCEPTED: Final = "JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC, AVIF"
MAX_PARTS: Final = 100_000  # segments, chunks, strips of one file: more are not read

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
# ISO base media files that hold still images (ISO/IEC 23008-12, AVIF 1.1), by their brands.
_STILL_BRANDS: Final = frozenset(
    b"mif1 mif2 msf1 miaf heic heix heim heis hevc hevx hevm hevs avif avis avio avci avcs".split()
)
_CAMERA_RAW: Final = (
    (8, b"CR\x02\0"),  # Canon CR2, in a TIFF
    (4, b"ftypcrx "),  # Canon CR3
    (6, b"HEAPCCDR"),  # Canon CRW
    (0, b"IIRO"),  # Olympus ORF
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),  # Panasonic RW2
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"FOVb"),  # Sigma X3F
    (0, b"\0MRM"),  # Minolta MRW
)
_VIDEO: Final = "a video, not a photograph"
_SOUND: Final = "sound, not a photograph"
_ZIP: Final = "a ZIP archive (or an Office document); send the images themselves"
_OTHERS: Final = (
    (4, b"moov", _VIDEO),
    (4, b"mdat", _VIDEO),
    (4, b"wide", _VIDEO),
    (0, b"\x1a\x45\xdf\xa3", _VIDEO),  # Matroska, WebM
    (8, b"AVI ", _VIDEO),
    (0, b"FLV\x01", _VIDEO),
    (0, b"\0\0\x01\xba", _VIDEO),  # MPEG
    (0, b"\0\0\x01\xb3", _VIDEO),
    (0, b"\x30\x26\xb2\x75", _VIDEO),  # Windows Media
    (0, b"OggS", "Ogg video or sound, not a photograph"),
    (8, b"WAVE", _SOUND),
    (0, b"ID3", _SOUND),
    (0, b"fLaC", _SOUND),
    (0, b"\x1f\x8b", "gzip-compressed data; send the image itself, not compressed again"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data; send the image itself"),
    (0, b"\xfd7zXZ\0", "xz-compressed data; send the image itself"),
    (0, b"BZh", "bzip2-compressed data; send the image itself"),
    (0, b"PK\x03\x04", _ZIP),
    (0, b"7z\xbc\xaf", "a 7-Zip archive; send the images themselves"),
    (0, b"Rar!", "a RAR archive; send the images themselves"),
    (257, b"ustar", "a tar archive; send the images themselves"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"8BPS", "a Photoshop document; export a JPEG"),
    (0, b"gimp xcf", "a GIMP document; export a JPEG"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\x01\0", "a Windows icon"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (0, b"SQLite format 3", "a database"),
)
_FILE_NAME: Final = re.compile(
    r"@?[^\0-\x1f]{1,1000}\.(jpe?g|png|webp|bmp|tiff?|gif|hei[cf]|avif)", re.IGNORECASE
)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")


def unreadable(reason: str) -> ImageUnreadable:
    """The error of an image that cannot be read, with the formats that can."""
    return ImageUnreadable(reason, ACCEPTED)


def camera_raw() -> ImageUnreadable:
    return unreadable("camera raw is not read; export a JPEG")


def kind_of(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The file's kind and the formats that Pillow may try.

    Raises ImageUnreadable, which names what the file is where that can be seen.
    """
    if any(data.startswith(magic, at) for at, magic in _CAMERA_RAW):
        raise camera_raw()
    if (found := _image(data)) is None:
        named = _named(data)
        raise unreadable("it is in no known format" + (f": it is {named}" if named else ""))
    kind, formats = found
    if kind == "HEIC or AVIF" and not _STILL_BRANDS & _brands(data):
        sound = data.startswith((b"M4A ", b"M4B "), 8)
        raise unreadable(f"it is {_SOUND if sound else _VIDEO}")
    return kind, formats


def _image(data: bytes) -> tuple[str, tuple[str, ...]] | None:
    for kind, at, magic, formats in _KINDS:
        if data.startswith(magic, at):
            return kind, formats
    return None


def _brands(data: bytes) -> set[bytes]:
    """The major brand and the compatible ones of an ISO base media file."""
    end = min(int.from_bytes(data[:4], "big"), 1024, len(data))
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def _named(data: bytes) -> str:
    """Kind of a file that is not an image, in words; "" if unknown."""
    for at, magic, name in _OTHERS:
        if data.startswith(magic, at):
            return name
    start = data[:4096]
    if not start.strip(b"\0"):
        return "zero bytes alone"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text in UTF-16"
    try:
        text = start.decode("utf-8-sig", "strict" if len(data) <= 4096 else "ignore").strip()
    except UnicodeDecodeError:
        return ""
    return (
        _named_text(text, len(data)) if text and not re.search(r"[\0-\x08\x0e-\x1f]", text) else ""
    )


def _named_text(text: str, size_bytes: int) -> str:
    if text[:5].lower() == "data:":
        return "a data URI, where the bytes of a file belong; send it as JSON, or decode it"
    if size_bytes <= 1000 and _FILE_NAME.fullmatch(text):
        name = text.removeprefix("@")[:80]
        return f"the text {name!r}, a file's name; send its bytes (curl: -F 'image=@{name}')"
    quoted = text.removeprefix("b'").lstrip("\"'")  # JSON's and Python's marks
    head = _BASE64.match(re.sub(r"\s", "", quoted[:200]).encode())
    if head is not None and (found := _image(_decoded(head[0].rstrip(b"=")))):
        return f"base64 text of a {found[0]}, where its bytes belong; send it as JSON, or decode it"
    low = text[:200].lower()
    if "<svg" in low:
        return "an SVG drawing"
    if low.startswith(("<!doctype html", "<html")):
        return "an HTML page; the address that it came from may have answered with an error"
    return "text, where the bytes of an image belong"


def _decoded(text: bytes) -> bytes:
    text = text.translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(text[: len(text) // 4 * 4])
