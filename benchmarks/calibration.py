"""python -m benchmarks.calibration: what a calibration on few people is worth.

175 people whom no training has seen (identities/calibration of the shared data, ecacface-mobile)
stand for everybody. Some of them are drawn, with a few photographs each, and measured as `mien
calibrate` measures; then the thresholds they gave are held against the comparisons of all 175.
Writes benchmarks/results/calibration.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.hardware import as_line, hardware
from service.calibration.measure import measure_calibration
from service.inference.artefact import load_artefact
from service.settings import SHIPPED_MODELS
from training.data.crops import Crops, read_crops

SIZES = ((10, 2), (10, 4), (20, 5), (40, 10), (80, 10))  # people, photographs each at most
DATA = Path(__file__).parents[2] / "shared" / "data" / "identities" / "calibration.csv"
RESULT = Path(__file__).parent / "results" / "calibration.md"


@dataclass(frozen=True)
class Everybody:
    """The 175. strangers: the similarities of all pairs of two people's crops, rising."""

    embeddings_ND: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    strangers: NDArray[np.float32]

    def fmr(self, similarity: float) -> float:
        """The share of strangers at or above the similarity."""
        return 1 - float(np.searchsorted(self.strangers, similarity)) / len(self.strangers)


def everybody(crops: Crops) -> Everybody:
    session = load_artefact(SHIPPED_MODELS / "ecacface-mobile").graphs["model"]
    rows = [
        session.run(np.ascontiguousarray(crops.pixels_NHWC[i : i + 1]))[0]
        for i in tqdm(range(len(crops)), desc="embedding", leave=False)
    ]
    embeddings_ND = np.concatenate(rows)
    similarity = embeddings_ND @ embeddings_ND.T
    other = crops.labels_N[:, None] < crops.labels_N[None]
    return Everybody(embeddings_ND, crops.labels_N, np.sort(similarity[other]))


def some(them: Everybody, people: int, each: int, seed: int) -> dict[str, Any]:
    """The calibration of some people with some of their crops."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(int(them.labels_N.max()) + 1, people, replace=False)
    rows = [rng.permutation(np.flatnonzero(them.labels_N == person))[:each] for person in chosen]
    labels_N = np.repeat(np.arange(people), [len(own) for own in rows])
    return measure_calibration(
        them.embeddings_ND[np.concatenate(rows)], labels_N, rounds=200, seed=seed
    )


def tables(them: Everybody, draws: int) -> Iterator[str]:
    """The lines of both tables."""
    blocks = {
        (people, each): [
            some(them, people, each, seed)
            for seed in tqdm(range(draws), desc=f"{people} people", leave=False)
        ]
        for people, each in SIZES
    }
    yield "| people | photographs each | smallest FMR measured, median (5 to 95 % of draws) |"
    yield "| --- | --- | --- |"
    for (people, each), measured in blocks.items():
        low, middle, high = np.quantile([b["smallest_fmr"] for b in measured], (0.05, 0.5, 0.95))
        yield f"| {people} | {each} | {middle:.2g} ({low:.2g} to {high:.2g}) |"
    whole = measure_calibration(them.embeddings_ND, them.labels_N, rounds=2)
    yield f"| {whole['people']} | 20 | {whole['smallest_fmr']:.2g} |"
    yield ""
    yield (
        "| people | photographs each | target FMR | draws, of them extrapolated"
        " | FMR among all in targets, median (largest) | under the interval's upper end"
        " | within the interval |"
    )
    yield "| --- " * 7 + "|"
    for (people, each), measured in blocks.items():
        for place, target in enumerate((1e-1, 1e-2, 1e-3, 1e-4, 1e-5)):
            yield f"| {people} | {each} | {target:g} | " + row(
                them, [block["thresholds"][place] for block in measured]
            )


def row(them: Everybody, found: list[dict[str, Any]]) -> str:
    """How one target's thresholds did, over the draws."""
    true = np.array([them.fmr(r["similarity"]) for r in found])
    low, high = (np.array([r[name] for r in found]) for name in ("fmr_low", "fmr_high"))
    times = true / found[0]["target_fmr"]
    return (
        f"{len(found)}, {sum(r['extrapolated'] for r in found)} "
        f"| {np.median(times):.2f} ({times.max():.1f}) "
        f"| {(true <= high).mean():.0%} | {((low <= true) & (true <= high)).mean():.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crops", type=Path, default=DATA, help="a csv beside its zip of crops")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--draws", type=int, default=100)
    a = parser.parse_args()
    facts = as_line(hardware("numpy", "onnxruntime"))
    them = everybody(read_crops(a.crops, a.cache))
    lines = list(tables(them, a.draws))
    page = ["# Calibrations on few people", "", __doc__.strip(), "", *lines, "", facts, ""]
    RESULT.write_text("\n".join(page))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
