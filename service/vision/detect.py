"""Faces in a photograph, by MTCNN's cascade of three networks on numpy and OpenCV.

Zhang et al. 2016 (arXiv:1604.02878). P-Net looks at every place on every scale and proposes boxes;
R-Net and O-Net look closer at each, keep some and move them; O-Net adds the landmarks. The findings
are facenet-pytorch 2.6.0's, to the face. That hangs on details that look like slips: float32 where
precision would do no harm, widths that are one more in one place and not in another, rectangles
that start one pixel early. docs/detection.md says what each one is worth.

Boxes are float32 (N, 4) here, x1, y1, x2, y2 in pixels; only faces, at the end, have a Box.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.vision.area import AreaMeans, Floats, Integers, Windows
from service.vision.faces import Box, Face, Photograph

Network = Callable[[Floats], list[NDArray[Any]]]

PYRAMID_FACTOR = 0.709
PNET_SCORE, RNET_SCORE, ONET_SCORE = np.float32(0.6), np.float32(0.7), np.float32(0.7)
OVERLAP_ON_SCALE, OVERLAP = np.float32(0.5), np.float32(0.7)
CELL_PX, STEP_PX = 12, 2  # what one of P-Net's cells sees, and how far off the next one is
RNET_SIDE_PX, ONET_SIDE_PX = 24, 48

# How much is done at once. A network's planes should stay in a core's cache, which is faster than
# one run over everything, and keeps memory in bounds however large the photograph. Pixels are made
# ready in wider pieces than P-Net takes, since numpy likes long rows.
TILE_CELLS = (55, 512)  # down and across
RUN_CELLS = 95  # across, of one of P-Net's runs
CROPS_PX = 9216  # of one of R-Net's or O-Net's runs: 16 crops or 4
FRONT = 64  # boxes that are told apart one by one in a round of _kept


@dataclass(frozen=True)
class Cascade:
    """The three networks, each a callable on float32 NCHW pixel values in [0, 255], RGB.

    pnet: (N, 3, h, w) -> scores (N, h', w'), offsets (N, 4, h', w').
    rnet: (N, 3, 24, 24) -> scores (N,), offsets (N, 4).
    onet: (N, 3, 48, 48) -> scores (N,), offsets (N, 4), landmarks (N, 10).
    N may be 0. export/mtcnn.py says what the outputs mean.
    map: carries out the many runs on one photograph; a thread pool's `map` does them side by side.
    """

    pnet: Network
    rnet: Network
    onet: Network
    map: Callable[..., Iterable[Any]] = map


def detect_faces(photograph: Photograph, cascade: Cascade, *, min_face_px: int = 20) -> list[Face]:
    """The faces of a photograph, largest first; an empty list where there is none.

    min_face_px: the side of the smallest face looked for, at least 12, else ValueError; P-Net's
    work falls with its square. Takes 12 bytes of memory a pixel beside the photograph.
    """
    if min_face_px < CELL_PX:
        raise ValueError(f"min_face_px is {min_face_px}; it must be at least {CELL_PX}")
    means = AreaMeans(photograph)
    boxes = _proposed(means, cascade, min_face_px)
    boxes = _refined(means, cascade, boxes)
    return _concluded(means, cascade, boxes)


def _proposed(means: AreaMeans, cascade: Cascade, min_face_px: int) -> Floats:
    """P-Net's boxes over all scales, moved and made square."""
    scales = _scales(min(means.height, means.width), min_face_px)
    tiles = [tile for scale in scales for tile in _tiles(means, scale)]
    if not tiles:
        return np.empty((0, 4), np.float32)
    runs = cascade.map(lambda tile: _passing_cells(means, cascade.pnet, tile), tiles)
    by_scale = groupby(zip(tiles, runs, strict=True), key=lambda pair: pair[0].scale)
    boxes, scores, offsets = _joined(
        _distinct_on_scale(scale, *_joined(run for _, run in pairs)) for scale, pairs in by_scale
    )
    kept = _distinct(boxes, scores, OVERLAP)
    return _squared(_moved(boxes[kept], offsets[kept], plus=0))


def _refined(means: AreaMeans, cascade: Cascade, boxes: Floats) -> Floats:
    """The boxes that R-Net keeps, moved and made square."""
    boxes, (scores, offsets) = _looked_at(means, cascade, cascade.rnet, boxes, RNET_SIDE_PX)
    passed = np.flatnonzero(scores > RNET_SCORE)
    kept = passed[_distinct(boxes[passed], scores[passed], OVERLAP)]
    return _squared(_moved(boxes[kept], offsets[kept], plus=1))


def _concluded(means: AreaMeans, cascade: Cascade, boxes: Floats) -> list[Face]:
    """The faces that O-Net keeps, largest first."""
    boxes, (scores, offsets, points) = _looked_at(means, cascade, cascade.onet, boxes, ONET_SIDE_PX)
    passed = scores > ONET_SCORE
    boxes, scores, landmarks = boxes[passed], scores[passed], _landmarks(boxes, points)[passed]
    boxes = _moved(boxes, offsets[passed], plus=1)
    kept = _distinct_within(boxes, scores, OVERLAP)
    size = boxes[kept, 2:] - boxes[kept, :2]
    largest_first = kept[np.argsort(size[:, 0] * size[:, 1], kind="stable")[::-1]]
    return [_face(boxes[i], scores[i], landmarks[i]) for i in largest_first]


def _face(box: Floats, score: np.float32, landmarks_52: Floats) -> Face:
    x1, y1, x2, y2 = box.tolist()
    return Face(Box(x1, y1, x2 - x1, y2 - y1), float(score), landmarks_52)


# P-Net over the pyramid


@dataclass(frozen=True)
class _Tile:
    """A part of one scale for one run: its first cell, and the windows of the pixels seen."""

    scale: float
    top: int
    left: int
    rows: Windows
    columns: Windows


def _scales(side_px: int, min_face_px: int) -> Iterator[float]:
    """From the scale on which the smallest face has 12 pixels to that on which the photo has."""
    scale = CELL_PX / min_face_px
    side = side_px * scale
    while side >= CELL_PX:
        yield scale
        scale, side = scale * PYRAMID_FACTOR, side * PYRAMID_FACTOR


def _tiles(means: AreaMeans, scale: float) -> Iterator[_Tile]:
    """The scale in tiles that share ten pixels, for a cell depends on the 12 x 12 that it sees.

    Together they give to the bit what one run over the scale would.
    """
    height, width = int(means.height * scale + 1), int(means.width * scale + 1)
    rows, columns = Windows.over(0, means.height, height), Windows.over(0, means.width, width)
    down, across = TILE_CELLS
    for top in range(0, _cells(height), down):
        for left in range(0, _cells(width), across):
            seen = rows[_seen(top, down)], columns[_seen(left, across)]
            yield _Tile(scale, top, left, *seen)


def _passing_cells(means: AreaMeans, pnet: Network, tile: _Tile) -> tuple[Integers, Floats, Floats]:
    """Row and column (N, 2), score and offsets of the tile's cells that pass."""
    pixels = means.grid(tile.rows, tile.columns)
    runs = []
    for left in range(0, _cells(pixels.shape[3]), RUN_CELLS):
        part = np.ascontiguousarray(pixels[..., _seen(left, RUN_CELLS)])
        (scores,), (offsets,) = pnet(part)
        row, column = np.nonzero(scores >= PNET_SCORE)
        cells = np.stack([row + tile.top, column + (tile.left + left)], axis=1)
        runs.append((cells, scores[row, column], offsets[:, row, column].T))
    cells, passed, moves = _joined(runs)
    return cells, passed, moves


def _distinct_on_scale(
    scale: float, cells: Integers, scores: Floats, offsets: Floats
) -> tuple[Floats, Floats, Floats]:
    """Boxes, scores and offsets of the cells whose boxes don't overlap much."""
    reading = np.lexsort((cells[:, 1], cells[:, 0]))  # equal scores stay in this order
    corner = cells[reading, ::-1].astype(np.float32) * STEP_PX + 1
    ends = np.concatenate([corner, corner + (CELL_PX - 1)], axis=1)
    boxes = np.floor(ends / np.float32(scale))
    kept = _distinct(boxes, scores[reading], OVERLAP_ON_SCALE)
    return boxes[kept], scores[reading[kept]], offsets[reading[kept]]


def _cells(side_px: int) -> int:
    """P-Net's cells along a side: three convolutions of 3, one pooling of 2 that rounds up."""
    return (side_px - 1) // STEP_PX - 4


def _seen(first: int, count: int) -> slice:
    """The pixels that a range of cells sees."""
    return slice(STEP_PX * first, STEP_PX * (first + count) + CELL_PX - STEP_PX)


# Boxes


def _looked_at(
    means: AreaMeans, cascade: Cascade, network: Network, boxes: Floats, side_px: int
) -> tuple[Floats, list[Floats]]:
    """The boxes that lie on the photograph at least in part, and the network's outputs for them."""
    corners = boxes.astype(np.int64)
    corners[:, :2] = np.maximum(corners[:, :2], 1) - 1
    corners[:, 2:] = np.minimum(corners[:, 2:], (means.width, means.height))
    inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    corners = corners[inside]
    count = CROPS_PX // side_px**2
    runs = cascade.map(
        lambda at: network(means.crops(corners[at : at + count], side_px)),
        range(0, max(len(corners), 1), count),  # without a box, one run on no crop
    )
    return boxes[inside], _joined(runs)


def _joined(runs: Iterable[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """The outputs of several runs, one behind the other."""
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def _moved(boxes: Floats, offsets: Floats, *, plus: int) -> Floats:
    """The boxes moved by offsets in their widths and heights; a width is x2 - x1 + plus."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(plus)
    return boxes + offsets * np.tile(size, 2)


def _squared(boxes: Floats) -> Floats:
    """Squares around the boxes' centres, as wide as the longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side], axis=1)


def _landmarks(boxes: Floats, points: Floats) -> Floats:
    """Landmarks (N, 5, 2) from O-Net's five x and five y in widths and heights of the box."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(1)
    points_N52 = points.reshape(-1, 2, 5).transpose(0, 2, 1)
    return size[:, None] * points_N52 + boxes[:, None, :2] - np.float32(1)


def _distinct(boxes: Floats, scores: Floats, limit: np.float32) -> Integers:
    """The boxes that share at most `limit` of their union with each better one that stays."""
    return _kept(boxes, np.argsort(-scores, kind="stable"), _over_union, limit)


def _distinct_within(boxes: Floats, scores: Floats, limit: np.float32) -> Integers:
    """The same with the share in the smaller box, so that none lies inside another.

    Of equal scores (two boxes with the same crop) the later box is the better one.
    """
    return _kept(boxes, np.argsort(scores, kind="stable")[::-1], _over_smaller, limit)


def _kept(
    boxes: Floats,
    order: Integers,
    overlap: Callable[[Floats, Floats], Floats],
    limit: np.float32,
) -> Integers:
    """Non-maximum suppression: indices in `order` without those that one before them rules out.

    In rounds: a few at the front are compared among themselves one by one, then those of them that
    stay with all the others at once.
    """
    kept = [order[:0]]
    while len(order):
        front, order = order[:FRONT], order[FRONT:]
        clash = overlap(boxes[front], boxes[front]) > limit
        gone, stay = np.zeros(len(front), bool), []
        for i in range(len(front)):
            if not gone[i]:
                stay.append(i)
                gone |= clash[i]
        kept.append(front[stay])
        order = order[~(overlap(boxes[kept[-1]], boxes[order]) > limit).any(axis=0)]
    return np.concatenate(kept)


def _over_union(a: Floats, b: Floats) -> Floats:
    """The shared area of boxes (A, 4) and (B, 4) over their union's, (A, B)."""
    shared, area_a, area_b = _areas(a, b, plus=np.float32(0))
    return _quotient(shared, area_a + area_b - shared)


def _over_smaller(a: Floats, b: Floats) -> Floats:
    """The shared area over the smaller one's, with both ends counted into a side."""
    shared, area_a, area_b = _areas(a, b, plus=np.float32(1))
    return _quotient(shared, np.minimum(area_a, area_b))


def _areas(a: Floats, b: Floats, *, plus: np.float32) -> tuple[Floats, Floats, Floats]:
    """Shared areas (A, B) and the boxes' own, (A, 1) and (B,)."""
    ax1, ay1, ax2, ay2 = np.ascontiguousarray(a.T)[:, :, None]
    bx1, by1, bx2, by2 = np.ascontiguousarray(b.T)
    width = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1) + plus, 0)
    height = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1) + plus, 0)
    area_a = (ax2 - ax1 + plus) * (ay2 - ay1 + plus)
    return width * height, area_a, (bx2 - bx1 + plus) * (by2 - by1 + plus)


def _quotient(shared: Floats, whole: Floats) -> Floats:
    """shared / whole; boxes without an area share nothing."""
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole != 0)
