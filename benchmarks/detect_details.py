"""What each detail of the cascade is worth: golden faces missed and added without it.

    python -m benchmarks.detect_details [--golden ../shared/golden]

One at a time, a detail is put back to what one would write without knowing the peer. Prints the
table of docs/detection.md.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import onnx

from benchmarks.agreement import Agreement
from benchmarks.detect import ROOT, golden_agreement, ours
from service.inference.session import open_session
from service.vision import detect
from service.vision.area import AreaMeans
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Photograph

MODELS = ROOT / "service" / "models" / "mtcnn"


@contextmanager
def opencv_area() -> Iterator[None]:
    """Resizing by cv2.INTER_AREA, which weighs the pixels at a window's edge."""
    init, passing_cells = AreaMeans.__init__, detect._passing_cells

    def keeping_pixels(self: Any, photograph: Photograph) -> None:
        init(self, photograph)
        self.pixels = photograph.pixels_rgb.astype(np.float32)

    def cells(means: Any, pnet: Any, tile: Any) -> Any:
        size = (int(means.width * tile.scale + 1), int(means.height * tile.scale + 1))
        resized = cv2.resize(means.pixels, size, interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        rows = slice(2 * tile.top, 2 * tile.top + len(tile.rows.start))
        columns = slice(2 * tile.left, 2 * tile.left + len(tile.columns.start))
        part = resized[None, :, rows, columns]
        return passing_cells(SimpleNamespace(grid=lambda *_: part), pnet, tile)

    def crops(self: Any, corners: Any, side: int) -> Any:
        parts = [self.pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in corners]
        resized = [cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts]
        return np.array(resized, np.float32).reshape(-1, side, side, 3).transpose(0, 3, 1, 2)

    with (
        patch.object(AreaMeans, "__init__", keeping_pixels),
        patch.object(AreaMeans, "crops", crops),
        patch.object(detect, "_passing_cells", cells),
    ):
        yield


def boxes_in_double(scale: float, cells: Any, scores: Any, offsets: Any) -> Any:
    """P-Net's boxes in float64 before they are rounded down."""
    corner = cells[:, ::-1] * 2.0 + 1
    boxes = np.floor(np.concatenate([corner, corner + 11], axis=1) / scale).astype(np.float32)
    kept = detect._distinct(boxes, scores, detect.OVERLAP_ON_SCALE)
    return boxes[kept], scores[kept], offsets[kept]


def widths_alike() -> Any:
    """Widths of x2 - x1 everywhere, never one more."""
    moved = detect._moved
    return patch.object(detect, "_moved", lambda boxes, moves, plus: moved(boxes, moves, plus=0))


def crops_where_boxes_start() -> Any:
    """Crops from the box's own first pixel, not from the one before."""
    crops = AreaMeans.crops

    def later(self: Any, corners: Any, side: int) -> Any:
        room = (corners[:, :2] > 0) & (corners[:, :2] + 1 < corners[:, 2:])
        return crops(self, corners + np.hstack([room, np.zeros_like(room)]), side)

    return patch.object(AreaMeans, "crops", later)


def with_sigmoid() -> Cascade:
    """The cascade on graphs whose scores come from ONNX's Sigmoid."""

    def run(name: str) -> Any:
        model = onnx.load(MODELS / f"{name}.onnx")
        nodes = {node.op_type: node for node in model.graph.node}
        nodes["Reciprocal"].op_type = "Sigmoid"
        nodes["Sigmoid"] = nodes["Reciprocal"]
        nodes["Sigmoid"].input[0] = nodes["Neg"].input[0]
        return open_session(model.SerializeToString(), threads=1, device="cpu").run

    return Cascade(run("pnet"), run("rnet"), run("onet"))


DETAILS = {
    "all as it is": nullcontext(),
    "resizing by cv2.INTER_AREA": opencv_area(),
    "P-Net's boxes rounded down in float64": patch.object(
        detect, "_distinct_on_scale", boxes_in_double
    ),
    "widths without the one more": widths_alike(),
    "crops that start with the box": crops_where_boxes_start(),
    "the last suppression by union": patch.object(detect, "_distinct_within", detect._distinct),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden")
    golden = parser.parse_args().golden
    print("| put back | missed | extra | mean overlap | landmarks apart, px |")
    print("| --- | --- | --- | --- | --- |")
    for name, detail in DETAILS.items():
        with detail:
            print_row(name, golden_agreement(golden, ours(1)))
    sigmoid = with_sigmoid()
    found = golden_agreement(
        golden, lambda image: detect_faces(Photograph(np.asarray(image)), sigmoid)
    )
    print_row("scores by ONNX's Sigmoid", found)


def print_row(name: str, agreement: Agreement) -> None:
    figures = f"{np.mean(agreement.overlaps):.6f} | {max(agreement.landmarks_px):.3f}"
    print(f"| {name} | {len(agreement.missed)} | {len(agreement.extra)} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
