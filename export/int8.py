"""The int8 variant of a recognition artefact, measured beside the float32 one.

    python -m export.int8 service/models/ecacface-mobile --out FOLDER \\
        --crops ../shared/data/identities/train.csv [--data ../shared/data] \\
        [--report benchmarks/results/int8.md]

Weights are int8 with a scale a channel, maps uint8 with a scale a map, all set beforehand: ONNX
Runtime's static quantisation. The ranges of maps come from training crops: neither LFW's nor those
of the people whom --data keeps for choosing and for thresholds, which are what the loss is then
measured on. FOLDER becomes an artefact of its own, with `int8` in its manifest: what was lost and
won. It pays where the processor multiplies int8 in one instruction (VNNI, AMX); on others maps may
even overflow, so measure there.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.card import PICTURE
from export.folder import put_graph, put_manifest, told_in_words
from export.graph import Images, prove_rows, runner
from export.recognition import FIGURES, strangers
from service.inference.artefact import load_artefact
from service.inference.session import runtime_version
from training.checkpoint import write_text
from training.data.crops import Crops
from training.data.sets import read_set
from training.evaluate.figures import evaluate
from training.journal import hardware

CROPS = 64  # that the ranges are taken from
TOGETHER = 8  # of them whose maps are held at once
# Of validation crops by ecacface-mobile/1, mean cosine to float32: 0.9912 with ranges that hold
# everything seen, 0.985 with 99.9 % of it, 0.9969 with 99.99 %, 0.9972 with 99.999 %.
PERCENTILE = 99.999
KINDS = ["Conv", "Relu", "Add", "Mul", "MaxPool", "AveragePool", "Sigmoid", "Gemm"]
ROWS_APART = 0.05  # of an embedding's element: float32's rounding may move a map by one step
SHOWN = {  # what is told of each graph: name, place in evaluate's figures
    "validation TAR@FAR=1e-2": ("validation", "tar_at_far_1e2"),
    "validation TAR@FAR=1e-3": ("validation", "tar_at_far_1e3"),
    "validation EER": ("validation", "equal_error_rate"),
    "LFW accuracy": ("lfw", "accuracy"),
    "LFW TAR@FAR=1e-3": ("lfw", "tar_at_far_1e3"),
    "LFW EER": ("lfw", "equal_error_rate"),
}


def quantised(graph: bytes, crops: Images) -> bytes:
    """The graph with int8 arithmetic, between the same input and output.

    crops: uint8 (n, 112, 112, 3), n a multiple of 8, that the ranges of maps are taken from. What
    comes before the first block (the weights of `stem`) stays float32: a tenth less is lost, for
    a hundredth of the time. Raises ValueError for another number of crops, and where rows of what
    came out see each other."""
    if not len(crops) or len(crops) % TOGETHER:
        raise ValueError(f"{len(crops)} crops: a multiple of {TOGETHER} is needed")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        given, source, target = (Path(folder) / f"{n}.onnx" for n in ("given", "folded", "int8"))
        given.write_bytes(graph)
        quant_pre_process(str(given), str(source), skip_symbolic_shape=True)
        quantize_static(
            str(source),
            str(target),
            _Reader(onnx.load(source).graph.input[0].name, crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=KINDS,
            nodes_to_exclude=_stem(onnx.load(source)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": TOGETHER},
        )
        model = onnx.load(target)
    del model.metadata_props[:]
    int8: bytes = model.SerializeToString()
    prove_rows(runner(int8), crops[:TOGETHER], difference=ROWS_APART)
    return int8


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Crops one by one, a stretch of them at a time."""

    def __init__(self, name: str, crops: Images) -> None:
        self._name, self._crops = name, crops
        self.set_range(0, len(crops))

    def __len__(self) -> int:
        return len(self._crops)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left: Iterator[int] = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Images] | None:
        place = next(self._left, None)
        return None if place is None else {self._name: self._crops[place : place + 1]}


def _stem(model: onnx.ModelProto) -> list[str]:
    """The nodes before the first that takes a weight of another part than the stem."""
    names: list[str] = []
    for node in model.graph.node:
        if any(n.startswith("network.") and not n.startswith("network.stem.") for n in node.input):
            break
        names.append(node.name)
    return names


def calibration_crops(path: Path, data: Path, cache: Path) -> Images:
    """CROPS of a set, taken evenly. Raises ValueError where one of its people is also one of those
    in data/identities that the loss and the thresholds are measured on, naming one."""
    crops = read_set(path, cache)
    for part in ("validation", "calibration"):
        listing = data / "identities" / f"{part}.csv"
        both = _people(crops) & _people(read_set(listing, cache)) if listing.exists() else set()
        if both:
            raise ValueError(f"{path}: {min(both)} is among {listing}'s people, kept for measuring")
    if len(crops) < CROPS:
        raise ValueError(f"{path} has {len(crops)} crops; {CROPS} are needed")
    return np.asarray(crops.pixels_NHWC[np.arange(CROPS) * len(crops) // CROPS])


def _people(crops: Crops) -> set[str]:
    return {crops.people[label] for label in np.unique(crops.labels_N) if label >= 0}


def times_ms(
    graphs: Sequence[bytes], crops: Images, *, batches: Sequence[int] = (1, 16), rounds: int = 25
) -> list[dict[str, float]]:
    """CPU milliseconds a crop of each graph on one thread, by the batch: medians over rounds in
    which the graphs take turns, so that what else the machine does falls on all alike. A run whose
    time counts follows one of its own kind, as in a service at work."""
    runs = [runner(graph) for graph in graphs]
    taken: list[dict[str, list[float]]] = [{f"batch {b}": [] for b in batches} for _ in runs]
    for _ in range(rounds):
        for run, found in zip(runs, taken, strict=True):
            for batch in batches:
                run(crops[:batch])
                start = time.thread_time()
                run(crops[:batch])
                found[f"batch {batch}"].append((time.thread_time() - start) * 1e3 / batch)
    return [{batch: float(np.median(ms)) for batch, ms in found.items()} for found in taken]


def make(folder: Path, out: Path, crops: Images, data: Path, cache: Path) -> dict[str, Any]:
    """The int8 variant of an artefact, and its report: figures, bytes, times, hardware.

    Writes model.onnx, manifest.json, CARD.md and its picture into out. Raises ArtefactError for a
    folder that the service would refuse, ValueError for another task, and as evaluate does."""
    artefact = load_artefact(folder)
    if artefact.task != "recognition":
        raise ValueError(f"{folder} is for {artefact.task}; its loss is not measured here")
    before = (folder / "model.onnx").read_bytes()
    after = quantised(before, crops)
    put_graph(out, after)
    paths = [folder / "model.onnx", out / "model.onnx"]
    figures = [measured.figures for measured in evaluate(paths, data, cache)]
    times = times_ms([before, after], crops)
    report = {
        "graphs": {
            name: {**_shown(figure), "bytes": len(graph), "ms": ms}
            for name, figure, graph, ms in zip(
                ("float32", "int8"), figures, (before, after), times, strict=True
            )
        },
        "hardware": {**hardware(), "onnxruntime": runtime_version(), "int8": instructions()},
    }
    block = int8_block(report, artefact.manifest["sha256"])
    measured_before = (*FIGURES, *strangers({"graphs": figures[:1]}), "space", "space_of")
    kept = {k: v for k, v in artefact.manifest.items() if k not in measured_before}
    facts = {
        **kept,
        "name": f"{artefact.name}-int8",
        **strangers({"graphs": figures[1:]}),
        "int8": block,
    }
    put_manifest(out, facts, {key: figures[1][key] for key in FIGURES if key in figures[1]})
    if "calibration" in figures[1]:
        from training.evaluate.plots import draw_calibration  # matplotlib takes seconds to load

        draw_calibration(figures[1]["calibration"], out / PICTURE)
    return report


def int8_block(report: Mapping[str, Any], of: str) -> dict[str, Any]:
    """What the manifest says of the quantisation: what was lost and won against graph `of`."""
    float32, int8 = report["graphs"]["float32"], report["graphs"]["int8"]
    return {
        "of": of,
        "ranges": f"of {CROPS} training crops, {PERCENTILE} % of what was seen",
        "differences": {name: int8[name] - float32[name] for name in SHOWN if name in int8},
        "bytes": int8["bytes"] / float32["bytes"],
        "times as fast": {b: float32["ms"][b] / int8["ms"][b] for b in int8["ms"]},
        "measured on": f"{report['hardware']['cpu']}; {report['hardware']['int8']}",
    }


def instructions() -> str:
    """The processor's instructions for int8 products, as Linux names them; "none" without."""
    facts = Path("/proc/cpuinfo")
    words = set(facts.read_text().split()) if facts.exists() else set()
    return ", ".join(sorted(words & {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp"})) or "none"


def page(report: Mapping[str, Any], command: str) -> str:
    """The report as Markdown."""
    float32, int8 = report["graphs"]["float32"], report["graphs"]["int8"]
    rows = [
        (name, float32[name], int8[name], int8[name] - float32[name])
        for name in SHOWN
        if name in int8
    ]
    lines = [f"| {n} | {100 * a:.2f} % | {100 * b:.2f} % | {100 * c:+.2f} |" for n, a, b, c in rows]
    size = [graph["bytes"] / 1e6 for graph in (float32, int8)]
    lines.append(f"| size | {size[0]:.2f} MB | {size[1]:.2f} MB | x {size[1] / size[0]:.2f} |")
    for batch, ms in float32["ms"].items():
        fast = int8["ms"][batch]
        lines.append(
            f"| CPU a crop, {batch} | {ms:.2f} ms | {fast:.2f} ms | {ms / fast:.2f} times as fast |"
        )
    facts = "; ".join(f"{name} {fact}" for name, fact in report["hardware"].items() if fact)
    return "\n".join(
        [
            "# int8 against float32",
            "",
            f"`{command}`",
            "",
            f"Ranges of {CROPS} training crops. Validation is identities/validation, all pairs; "
            "LFW is a test and decided nothing. Times: one thread, both graphs in turn, medians.",
            "",
            "| | float32 | int8 | |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
            facts,
            "",
        ]
    )


def _shown(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of SHOWN that there are: too few pairs carry none (verification.supported)."""
    metrics = figures.get("metrics", {})
    found = {name: metrics[of][key] for name, (of, key) in SHOWN.items() if of in metrics}
    return {name: figure for name, figure in found.items() if figure is not None}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m export.int8",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a recognition artefact")
    parser.add_argument("--crops", type=Path, required=True, help="training crops, for the ranges")
    parser.add_argument("--out", type=Path, required=True, help="the int8 artefact's folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"))
    parser.add_argument("--report", type=Path, help="a .md file; a .json is put beside it")
    a = parser.parse_args()
    command = f"python -m export.int8 {a.folder} --crops {a.crops} --out {a.out}"
    with told_in_words("export.int8"):
        crops = calibration_crops(a.crops, a.data, a.cache)
        report = make(a.folder, a.out, crops, a.data, a.cache)
        text = page(report, command)
        if a.report:
            write_text(a.report, text)
            kept = json.dumps({"command": command, **report}, indent=1) + "\n"
            write_text(a.report.with_suffix(".json"), kept)
    print(text, end="")


if __name__ == "__main__":
    main()
