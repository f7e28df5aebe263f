"""Detection against facenet-pytorch's MTCNN: the same photographs, one run, findings compared.

    python -m benchmarks.detect [--runs 9] [--threads 1 2] [--golden ../shared/golden]

Times both detectors in turns on photographs of the golden set brought to two sizes, then compares
the findings of both with the golden ones. Writes benchmarks/results/detect.md and detect.json.
Needs the peer, see peers/facenet_mtcnn.py; its times are without the stand-in's for torchvision.
CPU time stands beside wall time, for the machine may have other work. With two threads Mien does
two runs of its networks side by side, the peer has two threads of torch.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.agreement import Agreement, faces_from_corners
from benchmarks.hardware import hardware
from benchmarks.peers.facenet_mtcnn import load_mtcnn
from service.inference.artefact import load_artefact
from service.vision.detect import Cascade, detect_faces
from service.vision.faces import Face, Photograph

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SIZES = ((640, 480), (1280, 1280))
CROWDS = (1, 6, 25)  # faces in the photographs that are timed, or the nearest number there is

Detector = Callable[[Image.Image], list[Face]]


@dataclass(frozen=True)
class Times:
    """Medians over the runs of one detector on one photograph."""

    wall_ms: float
    cpu_ms: float


class Peer:
    """facenet-pytorch's MTCNN; `suppression` holds the seconds of the stand-in."""

    def __init__(self) -> None:
        mtcnn, self.suppression = load_mtcnn()
        self._mtcnn = mtcnn(keep_all=True)

    def __call__(self, image: Image.Image) -> list[Face]:
        return faces_from_corners(*self._mtcnn.detect(image, landmarks=True))


def ours(threads: int) -> Detector:
    """Mien's detector on the shipped graphs, `threads` runs side by side, each on one thread."""
    graphs = load_artefact(ROOT / "service" / "models" / "mtcnn", threads=1).graphs
    runs = (graphs[name].run for name in ("pnet", "rnet", "onet"))
    cascade = Cascade(*runs, map=ThreadPoolExecutor(threads).map if threads > 1 else map)
    return lambda image: detect_faces(Photograph(np.asarray(image)), cascade)


def timed(
    image: Image.Image, peer: Peer, mien: Detector, runs: int
) -> tuple[Times, Times, Agreement]:
    """Both detectors' times on a photograph, in turns after one run unmeasured; do they agree?"""
    agreement = Agreement()
    agreement.add("", mien(image), peer(image))
    clocks: dict[Detector, list[tuple[float, float]]] = {peer: [], mien: []}
    for _ in range(runs):
        for detector, times in clocks.items():
            apart = peer.suppression.seconds
            wall, cpu = time.perf_counter(), time.process_time()
            detector(image)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            apart = peer.suppression.seconds - apart  # zero for ours
            times.append((wall - apart, cpu - apart))
    peers, miens = (_medians(times) for times in clocks.values())
    return peers, miens, agreement


def _medians(times: list[tuple[float, float]]) -> Times:
    wall, cpu = (statistics.median(part) * 1e3 for part in zip(*times, strict=True))
    return Times(wall, cpu)


def speed_rows(golden: Path, peer: Peer, threads: list[int], runs: int) -> Iterator[dict[str, Any]]:
    """One row a photograph, size and number of threads."""
    photographs = [_crowd(golden, faces) for faces in CROWDS]
    for count in threads:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)
        mien = ours(count)
        for size in SIZES:
            for name in photographs:
                image = ImageOps.pad(_opened(golden, name), size, Image.Resampling.BICUBIC)
                peers, miens, agreement = timed(image, peer, mien, runs)
                yield {
                    "size": f"{size[0]}x{size[1]}",
                    "faces": agreement.expected,
                    "threads": count,
                    "peer": vars(peers),
                    "mien": vars(miens),
                    "wall_ratio": peers.wall_ms / miens.wall_ms,
                    "cpu_ratio": peers.cpu_ms / miens.cpu_ms,
                    "equal": not agreement.missed and not agreement.extra,
                }


def _crowd(golden: Path, faces: int) -> str:
    """The largest photograph of the golden set whose number of faces is nearest."""
    images = json.loads((golden / "mtcnn.json").read_text())["images"]
    return min(images, key=lambda i: (abs(len(i["boxes"]) - faces), -i["width"] * i["height"]))[
        "file"
    ]


def _opened(golden: Path, name: str) -> Image.Image:
    return Image.open(golden / "photos" / name).convert("RGB")


def golden_agreement(golden: Path, detector: Detector) -> Agreement:
    """A detector's findings on the golden photographs against the golden findings."""
    agreement = Agreement()
    for entry in json.loads((golden / "mtcnn.json").read_text())["images"]:
        expected = faces_from_corners(entry["boxes"], entry["probs"], entry["landmarks"])
        agreement.add(entry["file"], detector(_opened(golden, entry["file"])), expected)
    return agreement


def summary(agreement: Agreement) -> dict[str, Any]:
    """An agreement as JSON."""
    return {
        "faces": agreement.expected,
        "found": len(agreement.overlaps),
        "overlap_mean": statistics.mean(agreement.overlaps),
        "overlap_least": min(agreement.overlaps),
        "landmarks_px_most": max(agreement.landmarks_px),
        "confidence_most": max(agreement.confidences),
        "missed": [_difference(*entry) for entry in agreement.missed],
        "extra": [_difference(*entry) for entry in agreement.extra],
    }


def _difference(photograph: str, box: Any, confidence: float, best: float) -> dict[str, Any]:
    corner_size = [round(value, 2) for value in (box.x, box.y, box.width, box.height)]
    return {
        "photograph": photograph,
        "box": corner_size,
        "confidence": round(confidence, 6),
        "overlap": round(best, 4),
    }


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["# Detection: Mien against facenet-pytorch's MTCNN", ""]
    lines += [f"{key}: {value}  " for key, value in result["hardware"].items()]
    lines += ["", "Medians in ms; `times` is the peer's time over Mien's.", ""]
    lines += _table(
        "size, faces, threads, peer wall, Mien wall, times, peer CPU, Mien CPU, times, findings",
        [
            [
                row["size"],
                row["faces"],
                row["threads"],
                *_pair(row, "wall"),
                *_pair(row, "cpu"),
                "equal" if row["equal"] else "differ",
            ]
            for row in result["speed"]
        ],
    )
    lines += ["", "## Findings on the golden photographs", ""]
    both = result["golden"]
    keys = [key for key, value in both["mien"].items() if not isinstance(value, list)]
    lines += _table(
        "detector, " + ", ".join(key.replace("_", " ") for key in keys),
        [[name, *(_figure(agreement[key]) for key in keys)] for name, agreement in both.items()],
    )
    lines += ["", "Each difference from the golden findings:", ""]
    lines += _table(
        "detector, kind, photograph, box, confidence, best overlap",
        [
            [name, kind, d["photograph"], d["box"], d["confidence"], d["overlap"]]
            for name, agreement in both.items()
            for kind in ("missed", "extra")
            for d in agreement[kind]
        ],
    )
    return "\n".join(lines) + "\n"


def _pair(row: dict[str, Any], clock: str) -> list[str]:
    times = [f"{row[who][f'{clock}_ms']:.1f}" for who in ("peer", "mien")]
    return [*times, f"{row[f'{clock}_ratio']:.1f}"]


def _figure(value: float) -> str:
    return f"{value:.7g}"


def _table(head: str, rows: list[list[Any]]) -> list[str]:
    columns = head.split(", ")
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden")
    arguments = parser.parse_args()
    peer = Peer()
    speed = list(speed_rows(arguments.golden, peer, arguments.threads, arguments.runs))
    torch.set_num_threads(1)
    result = {
        "hardware": hardware("numpy", "onnxruntime", "opencv-python-headless", "torch"),
        "speed": speed,
        "golden": {
            "mien": summary(golden_agreement(arguments.golden, ours(1))),
            "peer here": summary(golden_agreement(arguments.golden, peer)),
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "detect.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "detect.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
