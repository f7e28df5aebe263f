"""The sizes in which HEIC's and AVIF's pictures are coded, whatever size the file declares.

Of the file (ISO/IEC 14496-12 and 23008-12) are read the items that make the primary picture, the
first sample of each track of a sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from service.imagefile.coded import Reader, av1_sizes, hevc_sizes
from service.imagefile.kinds import MAX_PARTS, unreadable

_CODED: Final = {b"av01": "AV1", b"hvc1": "HEVC", b"hev1": "HEVC"}
_DERIVED: Final = (b"grid", b"iovl", b"iden", b"tmap")
_MAX_DEPTH: Final = 8  # of items that are made of others; a tone-mapped grid has three
_VISUAL_ENTRY_BYTES: Final = 78  # of a sample entry, before its own boxes


@dataclass
class _Meta:
    """The tables of a file's items."""

    primary: int = 0
    types: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # method, at, size
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    inside: bytes = b""  # its idat box

    def data_of(self, item: int, file: bytes) -> bytes:
        parts, size_bytes = [], 0
        for method, at, size in self.extents.get(item, []):
            source = (file, self.inside)[method]
            parts.append(source[at : at + size] if size else source[at:])
            size_bytes += len(parts[-1])
            if size_bytes > len(file):
                raise unreadable("an item has more bytes than its file")
        return b"".join(parts)

    def properties_of(self, item: int, name: bytes) -> list[bytes]:
        numbers = self.associated.get(item, [])
        kept = [self.properties[i - 1] for i in numbers if 0 < i <= len(self.properties)]
        return [content for kind, content in kept if kind == name]


def require_coded_sizes(data: bytes, most_pixels: int) -> None:
    """Raises ImageUnreadable if what makes the primary picture is coded in more pixels than that.

    Raises ValueError for boxes and headers that end early.
    """
    for name, start, end in _boxes(data, 0, len(data)):
        if name == b"meta":
            _require_items(data, _read_meta(data, start + 4, end), most_pixels)
        if name == b"moov":
            for track, at, stop in _boxes(data, start, end):
                if track == b"trak":
                    _require_track(data, at, stop, most_pixels)


def _require_items(data: bytes, meta: _Meta, most_pixels: int) -> None:
    size_bytes, needed = 0, _needed(meta)
    pixels: dict[int, int] = {}  # of each item, at most
    for item in needed:
        pixels[item] = _declared(meta.properties_of(item, b"ispe"))
        kind = meta.types.get(item, b"")
        if kind in _CODED:
            coded = meta.data_of(item, data)
            size_bytes += len(coded)
            if size_bytes > len(data):
                raise unreadable("its items have more bytes than the file")
            largest = _require_coded(kind, meta.properties_of(item, b"hvcC"), coded, most_pixels)
            pixels[item] = max(pixels[item], largest)
        elif kind not in _DERIVED:
            raise unreadable(f"its picture is coded as {kind.decode('latin-1')!r}, not HEVC or AV1")
    for kind, item, inputs in meta.references:
        if kind != b"dimg" or item not in needed or meta.types.get(item) not in _DERIVED:
            continue
        width, height = _canvas(meta, item, data)
        made = max(width * height, sum(pixels[part] for part in inputs))
        if made > most_pixels:
            raise unreadable(f"its parts make {made} pixels; {most_pixels} are read")


def _needed(meta: _Meta) -> set[int]:
    """The primary item, what it is made of, and their alphas."""
    needed = {meta.primary}
    for _ in range(_MAX_DEPTH):
        more: set[int] = set()
        for kind, item, others in meta.references:
            if kind == b"dimg" and item in needed:
                more.update(others)
            if kind == b"auxl" and not needed.isdisjoint(others):
                more.add(item)
        if more <= needed:
            return needed
        needed |= more
    raise unreadable(f"its items are made of each other over more than {_MAX_DEPTH} levels")


def _declared(sizes: list[bytes]) -> int:
    """The pixels that an item's properties of its size declare, at most."""
    sides = (
        (int.from_bytes(ispe[4:8], "big"), int.from_bytes(ispe[8:12], "big")) for ispe in sizes
    )
    return max((width * height for width, height in sides), default=0)


def _canvas(meta: _Meta, item: int, data: bytes) -> tuple[int, int]:
    """The size of what a grid or an overlay is put together to."""
    kind, head = meta.types[item], Reader(meta.data_of(item, data))
    if kind not in (b"grid", b"iovl"):
        return 0, 0
    head.take(1)
    word = 4 if head.number(1) & 1 else 2
    head.take(2 if kind == b"grid" else 8)
    return head.number(word), head.number(word)


def _require_track(data: bytes, start: int, end: int, most_pixels: int) -> None:
    """The same of a track's first sample."""
    boxes: dict[bytes, bytes] = {}
    for name, at, stop in _within(data, start, end):
        if name in boxes and name in (b"stsd", b"stco", b"co64", b"stsz"):
            raise unreadable(f"its box {name.decode()} is there twice")
        boxes[name] = data[at:stop]
    entries = boxes.get(b"stsd", b"")
    for kind, at, stop in _boxes(entries, 8, len(entries)):
        if kind not in _CODED:
            continue
        inner = _boxes(entries, at + _VISUAL_ENTRY_BYTES, stop)
        configs = [entries[a:b] for name, a, b in inner if name == b"hvcC"]
        chunks = Reader(boxes.get(b"co64") or boxes.get(b"stco", b""), 8)
        sizes = Reader(boxes.get(b"stsz", b""), 4)
        first, same = chunks.number(8 if boxes.get(b"co64") else 4), sizes.number(4)
        sizes.take(4)
        size = same or sizes.number(4)
        _require_coded(kind, configs, data[first : first + size], most_pixels)


def _require_coded(kind: bytes, configs: list[bytes], coded: bytes, most_pixels: int) -> int:
    """The largest size in pixels that the coded data ask for."""
    if kind == b"av01":
        sizes = list(av1_sizes(coded))
    else:
        sizes = [size for config in configs for size in hevc_sizes(config, coded)]
    if not sizes:
        raise ValueError("its coded data have no size")
    for width, height in sizes:
        if width * height > most_pixels:
            name = _CODED[kind]
            raise unreadable(
                f"its {name} data are coded in {width} x {height} pixels; {most_pixels} are read"
            )
    return max(width * height for width, height in sizes)


# Boxes


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of the content of each box."""
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        size, name, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        stop = min(at + size, end) if size else end
        if stop < at + head:
            return
        yield name, at + head, stop
        at = stop
    raise unreadable(f"it has more than {MAX_PARTS} boxes")


def _within(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a track's sample table."""
    for name, at, stop in _boxes(data, start, end):
        if name in (b"mdia", b"minf", b"stbl"):
            yield from _within(data, at, stop)
        else:
            yield name, at, stop


def _read_meta(data: bytes, start: int, end: int) -> _Meta:
    meta = _Meta()
    seen: set[bytes] = set()
    for name, at, stop in _boxes(data, start, end):
        if name in seen and name in (b"pitm", b"iinf", b"iloc", b"iprp", b"iref", b"idat"):
            raise unreadable(f"its box {name.decode()} is there twice")
        seen.add(name)
        content = Reader(data[at:stop])
        if name == b"pitm":
            wide = content.number(4) >> 24
            meta.primary = content.number(4 if wide else 2)
        elif name == b"iinf":
            _read_types(meta, data, at, stop)
        elif name == b"iloc":
            _read_places(meta, content)
        elif name == b"iprp":
            _read_properties(meta, data, at, stop)
        elif name == b"iref":
            _read_references(meta, data, at, stop)
        elif name == b"idat":
            meta.inside = data[at:stop]
    return meta


def _read_types(meta: _Meta, data: bytes, start: int, end: int) -> None:
    for name, at, stop in _boxes(data, start + (8 if data[start] else 6), end):
        if name == b"infe":
            entry = Reader(data[at:stop])
            version = entry.number(4) >> 24
            item = entry.number(4 if version >= 3 else 2)
            entry.take(2)
            if meta.types.setdefault(item, kind := entry.take(4)) != kind:
                raise unreadable(f"its item {item} has two types")


def _read_places(meta: _Meta, content: Reader) -> None:
    version = content.number(4) >> 24
    sizes, more = content.number(1), content.number(1)
    word = 4 if version == 2 else 2
    for _ in range(content.number(word)):
        item = content.number(word)
        method = content.number(2) & 15 if version else 0
        content.take(2)
        base = content.number(more >> 4)
        for _ in range(content.number(2)):
            content.take(more & 15 if version else 0)
            at, size = base + content.number(sizes >> 4), content.number(sizes & 15)
            if method > 1:
                raise unreadable("its items are made of pieces of others")
            meta.extents.setdefault(item, []).append((method, at, size))


def _read_properties(meta: _Meta, data: bytes, start: int, end: int) -> None:
    for name, at, stop in _boxes(data, start, end):
        if name == b"ipco":
            meta.properties += [(kind, data[a:b]) for kind, a, b in _boxes(data, at, stop)]
        if name == b"ipma":
            content = Reader(data[at:stop])
            flags = content.number(4)
            for _ in range(content.number(4)):
                item = content.number(4 if flags >> 24 else 2)
                word = 2 if flags & 1 else 1
                numbers = [content.number(word) for _ in range(content.number(1))]
                mask = (1 << (8 * word - 1)) - 1  # without the bit that says: essential
                meta.associated.setdefault(item, []).extend(number & mask for number in numbers)


def _read_references(meta: _Meta, data: bytes, start: int, end: int) -> None:
    word = 4 if data[start] else 2
    for name, at, stop in _boxes(data, start + 4, end):
        content = Reader(data[at:stop])
        item = content.number(word)
        others = [content.number(word) for _ in range(content.number(2))]
        meta.references.append((name, item, others))
