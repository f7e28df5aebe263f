"""From the weights that a run left to an artefact that names what it sees: what expression and
attributes share.

Three steps, each a command, and `make` for all of them:

    keep   WEIGHTS KEPT            the weights in half precision, with the temperature they need
    graph  KEPT FOLDER             model.onnx, proven on crops of the validation part
    card   KEPT FOLDER FIGURES     manifest.json, CARD.md and pictures; FIGURES is what
                                   `python -m training evaluate` measures on model.onnx
    make   WEIGHTS KEPT FOLDER     one after the other, FIGURES beside WEIGHTS as figures.json

Weights are rounded before anything is fitted or measured: graph and figures are those of the values
that are kept.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export.folder import (
    learnt,
    put_graph,
    put_manifest,
    read_facts,
    said_in,
    told_in_words,
)
from export.graph import PROOF_CROPS, Images, temperature_of
from export.kept import Fitted, Rounds, fitted_of, halved, put
from training.checkpoint import write_text
from training.data.pixels import Pixels
from training.evaluate.pictures import draw_classifier
from training.verbs import counted

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = ROOT / "docs"
MEASURED = {  # of the manifest's entries, by task: they come with the figures, not with the facts
    "expression": ("min_inter_eye_px",),
    "attributes": ("min_inter_eye_px", "reliable"),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "weights": {"type": Path, "help": "a .safetensors file that training left"},
    "kept": {"type": Path, "help": "the .safetensors file that is kept"},
    "folder": {"type": Path, "help": "the artefact's"},
    "figures": {"type": Path, "help": "json, measured on the folder's model.onnx"},
    "--facts": {"type": Path, "help": "json: name, summary, licence, terms, data, limits, ..."},
    "--data": {"type": Path, "default": ROOT.parent / "shared" / "data", "help": "ferplus/, ..."},
    "--threads": {"type": counted, "default": 2, "help": "2, unless named"},
}


@dataclass(frozen=True)
class Task:
    """What differs between the two.

    name: the task, and of the ablation's page below docs. read: the network that weights hold, in
    evaluation mode, the rounds that it went through, and its classes. held_out: the faces of the
    folder of data that nothing is learnt from, as `fit` takes them. fit: of the network as trained
    and as kept, and those faces. proof: some of them as crops that the graph takes. graph: of the
    network, such crops and what was fitted. evaluate: figures of graphs on the folder of data.
    tables: what the manifest shows of a graph's figures. facts: what is said of weights made from
    the papers' data, by their rounds."""

    name: str
    read: Callable[[Path], tuple[nn.Module, Rounds, list[str]]]
    held_out: Callable[[Path], Any]
    fit: Callable[[Any, Any, Any], Fitted]
    proof: Callable[[Any, Any], Images]
    graph: Callable[[Any, Images, Fitted], bytes]
    evaluate: Callable[..., list[dict[str, Any]]]
    tables: Callable[[Mapping[str, Any]], dict[str, Any]]
    facts: Callable[[Rounds], dict[str, Any]]


def keep(task: Task, weights: Path, kept: Path, data: Path) -> None:
    """The weights rounded, with what was fitted to them. Raises as the task's read and fit and
    kept.halved do."""
    network, rounds, _ = task.read(weights)
    rounded = halved(network)
    put(kept, rounded, rounds, task.fit(network, rounded, task.held_out(data)))


def write_graph(task: Task, kept: Path, folder: Path, data: Path) -> None:
    """model.onnx in the folder, proven on real crops first. Raises as the task's graph does."""
    network, _, _ = task.read(kept)
    crops = task.proof(network, task.held_out(data))
    put_graph(folder, task.graph(network, crops, fitted_of(kept)))


def write_card(
    task: Task,
    kept: Path,
    folder: Path,
    figures: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """manifest.json, CARD.md and pictures beside model.onnx.

    figures: of the graph, as the task's evaluate measures them. facts: what is to be said of other
    weights than this repository's, whose ablation (docs/NAME.json) is quoted where it is there.
    Raises ValueError for figures that lack something and as folder.put_manifest does; then nothing
    is written."""
    needed = ("sha256", "metrics", *MEASURED[task.name])
    if missing := [name for name in needed if name not in figures]:
        raise ValueError(f"the figures lack {', '.join(missing)}: a card needs them")
    network, rounds, classes = task.read(kept)
    graph = (folder / "model.onnx").read_bytes()
    with tempfile.TemporaryDirectory() as drawn:
        pictures = draw_classifier(figures, Path(drawn))
        manifest = {
            "task": task.name,
            **(facts or task.facts(rounds)),
            "temperature": temperature_of(graph),
            **task.tables(figures),
            **fitted_of(kept).facts,
            **({} if facts else said_in(ABLATIONS / f"{task.name}.json")),
            "pictures": pictures,
            "classes": classes,
            **learnt(network, rounds),
            "training": _by_field(rounds),
        }
        put_manifest(folder, manifest, {"sha256": figures["sha256"]})
        for name in pictures:
            shutil.copyfile(Path(drawn) / name, folder / name)


def make(
    task: Task,
    weights: Path,
    kept: Path,
    folder: Path,
    data: Path,
    *,
    facts: Mapping[str, Any] | None = None,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> None:
    """The whole way. Raises as its steps do; what was written before stays."""
    say(f"{kept}: rounding {weights} and fitting its temperature")
    keep(task, weights, kept, data)
    say(f"{folder / 'model.onnx'}: exporting the graph and proving it")
    write_graph(task, kept, folder, data)
    measured = weights.with_name("figures.json")
    say(f"{measured}: measuring the graph, some minutes")
    graphs = task.evaluate([folder / "model.onnx"], data, threads=threads, say=say)
    text = json.dumps({**graphs[0], "graphs": graphs}, indent=1, allow_nan=False) + "\n"
    write_text(measured, text)
    say(f"{folder}: manifest, card and pictures")
    write_card(task, kept, folder, graphs[0], facts)


def by_size(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The card's table of face_size: the rule, and a row a size with a column a set."""
    size = figures["face_size"]
    rows: dict[str, dict[str, float]] = {}
    for name, curve in size["curves"].items():
        *smaller, full = curve
        for row in smaller:
            rows.setdefault(f"{row['inter_eye_px']:g} px", {})[name] = row[size["figure"]]
        rows.setdefault("as they are", {})[name] = full[size["figure"]]
        rows["as they are"][f"{name}, px"] = full["inter_eye_px"]
    last = rows.pop("as they are")
    table = {"pixels between the eyes": {**_rising(rows), "as they are": last}}
    return {f"{size['figure']}_by_face_size": {"rule": size["rule"], **table}}


def known(figures: Any) -> Any:
    """The figures without those that are None, which a card would show as such."""
    if not isinstance(figures, Mapping):
        return figures
    return {name: known(value) for name, value in figures.items() if value is not None}


def spread(pixels: Pixels) -> Images:
    """Some of the crops, evenly taken, as many as a graph is proven on."""
    places = np.linspace(0, len(pixels) - 1, PROOF_CROPS).round().astype(int)
    return np.ascontiguousarray(pixels[places])


def commands(task: Task, description: str | None) -> None:
    """The task's command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m export.{task.name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def step(name: str, said: str, call: Callable[[Any], None], *arguments: str) -> None:
        added = steps.add_parser(name, help=said)
        for argument in arguments:
            added.add_argument(argument, **ARGUMENTS[argument])
        added.set_defaults(call=call)

    step(
        "keep",
        "round the weights and fit their temperature",
        lambda a: keep(task, a.weights, a.kept, a.data),
        *("weights", "kept", "--data"),
    )
    step(
        "graph",
        "write model.onnx, proven on real crops",
        lambda a: write_graph(task, a.kept, a.folder, a.data),
        *("kept", "folder", "--data"),
    )
    step(
        "card",
        "write manifest.json, CARD.md and pictures",
        lambda a: write_card(
            task, a.kept, a.folder, json.loads(a.figures.read_bytes()), _facts(a.facts)
        ),
        *("kept", "folder", "figures", "--facts"),
    )
    step(
        "make",
        "all of it",
        lambda a: make(
            task, a.weights, a.kept, a.folder, a.data, facts=_facts(a.facts), threads=a.threads
        ),
        *("weights", "kept", "folder", "--data", "--facts", "--threads"),
    )
    arguments = parser.parse_args()
    torch.set_num_threads(getattr(arguments, "threads", 2))
    with told_in_words(f"export.{task.name}"):
        arguments.call(arguments)


def _facts(path: Path | None) -> dict[str, Any] | None:
    return read_facts(path) if path else None


def _by_field(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """{field: {round 1: its value, ...}}, which makes a table of few columns."""
    names = dict.fromkeys(name for round_ in rounds for name in round_)
    numbered = dict(enumerate(rounds, 1))
    return {
        name: {f"round {i}": round_[name] for i, round_ in numbered.items() if name in round_}
        for name in names
    }


def _rising(rows: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return dict(sorted(rows.items(), key=lambda row: float(row[0].removesuffix(" px"))))
