"""A photograph with what was found of its faces drawn in: boxes, landmarks, and lines of text.

All sizes follow the face's, text is white on a dark plate and lines have a dark rim, so that both
can be seen on any background. OpenCV's own font has Latin, Greek, Cyrillic, Chinese, Japanese and
Korean letters; it sets Arabic and Hebrew the wrong way round and lacks the others: can_draw tells.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.faces import Box, Photograph

_LINE_RGB: Final = (90, 220, 255)
_RIM_RGB: Final = (0, 0, 0)
_TEXT_RGB: Final = (255, 255, 255)
_PLATE: Final = 0.2  # what is left of the light under text
_WEIGHT: Final = 600  # of the letters: half bold
_LEAST_PX: Final = 11  # of text that can still be read
_SCRIPTS: Final = ("LATIN", "GREEK", "CYRILLIC", "CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL")

Pixels = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class Mark:
    """What is drawn of a face. lines: beside its box; where there is no room for them, `short`.

    landmarks_52: (x, y) in pixels of the photograph, as the box.
    """

    box: Box
    landmarks_52: NDArray[Any]
    short: str
    lines: tuple[str, ...]


def draw_faces(photograph: Photograph, marks: Sequence[Mark]) -> Pixels:
    """The photograph's pixels with the marks, uint8 (height, width, 3) RGB.

    Text goes where it covers no face and no other text, and is made shorter where it has no such
    place. Raises ValueError for text that cannot be drawn.
    """
    for text in (text for mark in marks for text in (mark.short, *mark.lines)):
        if not can_draw(text):
            raise ValueError(f"{text!r} has letters that cannot be drawn")
    picture = photograph.pixels_rgb.copy()
    for mark in marks:
        _outline(picture, mark)
    taken = [_rectangle(mark.box) for mark in marks]
    for mark in marks:
        taken.append(_write(picture, mark, taken))
    return picture


def can_draw(text: str) -> bool:
    """Whether the font has every letter of the text, and sets it in the right direction."""
    return all(
        " " <= letter <= "~" or letter in "…·" or unicodedata.name(letter, "").startswith(_SCRIPTS)
        for letter in unicodedata.normalize("NFC", text)
    )


def as_png(pixels_rgb: Pixels) -> bytes:
    """The pixels as a PNG file."""
    encoded: NDArray[np.uint8] = cv2.imencode(".png", pixels_rgb[:, :, ::-1])[1]
    return encoded.tobytes()


def _outline(picture: Pixels, mark: Mark) -> None:
    """The box and the landmarks: a rim first, the line on it."""
    x, y, width, height = _rectangle(mark.box)
    thick = max(1, round(width / 90))
    for colour, more in ((_RIM_RGB, 2), (_LINE_RGB, 0)):
        cv2.rectangle(picture, (x, y), (x + width, y + height), colour, thick + more, cv2.LINE_AA)
        for point in np.rint(mark.landmarks_52).astype(int).tolist():
            cv2.circle(picture, point, thick + more // 2, colour, -1, cv2.LINE_AA)


def _write(picture: Pixels, mark: Mark, taken: Sequence[Rectangle]) -> Rectangle:
    """Writes a mark's text where it is free; where its plate came to be."""
    within = (picture.shape[1], picture.shape[0])
    size_px = max(_LEAST_PX, round(min(mark.box.width * 0.13, min(within) / 12)))
    for lines in (mark.lines, (mark.short,)):
        fitting = tuple(_fit(line, size_px, within[0] - size_px) for line in lines)
        plate = _plate(fitting, size_px)
        for place in _places(_rectangle(mark.box), plate, within):
            if not any(_meet(place, other) for other in taken):
                _put(picture, fitting, size_px, place)
                return place
    x, y, *_ = _rectangle(mark.box)  # a crowd: in the corner of its own box
    place = (x, y, *_plate((mark.short,), _LEAST_PX))
    _put(picture, (mark.short,), _LEAST_PX, place)
    return place


def _places(box: Rectangle, plate: tuple[int, int], within: tuple[int, int]) -> Iterator[Rectangle]:
    """Where a plate may go, beside the box and inside the picture: below, above, right, left."""
    x, y, width, height = box
    beside = max(3, width // 40)
    for left, top in (
        (x, y + height + beside),
        (x, y - plate[1] - beside),
        (x + width + beside, y),
        (x - plate[0] - beside, y),
    ):
        inside = max(0, min(left, within[0] - plate[0])), max(0, min(top, within[1] - plate[1]))
        yield (*inside, *plate)


def _plate(lines: Sequence[str], size_px: int) -> tuple[int, int]:
    """Width and height of a plate for the lines."""
    wide = max((_width(line, size_px) for line in lines), default=0)
    return wide + size_px, round(len(lines) * size_px * 1.3 + size_px * 0.4)


def _put(picture: Pixels, lines: Sequence[str], size_px: int, place: Rectangle) -> None:
    x, y, width, height = place
    plate = picture[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    plate[...] = (plate * _PLATE).astype(np.uint8)
    for number, line in enumerate(lines, 1):
        foot = (x + size_px // 2, round(y + number * size_px * 1.3 - size_px * 0.1))
        text = unicodedata.normalize("NFC", line)
        cv2.putText(picture, text, foot, _TEXT_RGB, _font(), size_px, _WEIGHT)


def _fit(line: str, size_px: int, most_px: int) -> str:
    """The line, cut with an ellipsis where it is longer than the picture is wide."""
    if _width(line, size_px) <= most_px:
        return line
    kept = line
    while kept and _width(kept + "…", size_px) > most_px:
        kept = kept[:-1]
    return kept + "…"


def _width(line: str, size_px: int) -> int:
    text = unicodedata.normalize("NFC", line)
    _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size_px, _WEIGHT)
    return int(width)


def _rectangle(box: Box) -> Rectangle:
    return round(box.x), round(box.y), max(1, round(box.width)), max(1, round(box.height))


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


@cache
def _font() -> Any:
    return cv2.FontFace("sans")
