"""A page's rows: as many as were asked for, of no more bytes than a page may have."""

from collections.abc import Iterable
from typing import Any

from service.gallery import boundary
from service.gallery.contract import LARGEST_PAGE_BYTES, Item, Page


def first_rows(rows: Iterable[tuple[Any, ...]], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of a page, and whether there are more behind; no further row is read.

    At least one, if there is any. Bytes are counted before metadata become objects, which take
    many times as much.
    """
    taken: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in rows:
        size_bytes += sum(map(_bytes_of, row))
        if len(taken) == limit or (taken and size_bytes > LARGEST_PAGE_BYTES):
            return taken, True
        taken.append(row)
    return taken, False


def page_of(kind: str, items: list[tuple[int, Item]], more: bool) -> Page[Item]:
    """The page of these items, each with its number. kind: as in `boundary.cursor`."""
    next_cursor = boundary.cursor(kind, items[-1][0]) if more else None
    return Page([item for _, item in items], next_cursor)


def _bytes_of(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    return len(value) if isinstance(value, bytes) else 0
