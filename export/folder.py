"""An artefact's folder: the graph first; then, of figures measured on it, manifest and card.

Recognition, expression and attributes are exported in the same two steps, with the evaluation of
the graph between them: a card's figures were measured on the graph that it describes, and on no
other. What is written is whole or not written at all.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from export.card import PICTURE, card, git_revision
from export.graph import OPSET
from service.errors import ArtefactError
from service.inference.artefact import describe_graph, load_artefact, space_id
from service.inference.session import open_session
from training.checkpoint import write, write_text

NEEDED_FACTS = ("name", "summary", "licence")


def put_graph(folder: Path, graph: bytes) -> None:
    """model.onnx in the folder. Raises OSError where it cannot be written."""
    write(folder / "model.onnx", lambda part: part.write_bytes(graph))


def put_manifest(folder: Path, facts: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """manifest.json and CARD.md beside model.onnx, once the service accepts the three.

    The card shows the calibration's picture where it is there already (`evaluate --picture`).

    facts: what the manifest says beside what is measured: name, task, licence and so on; not the
    embedding space, whose id follows from the graph. figures: `sha256` of the graph that they are
    of, and what goes into the manifest as it is. Raises
    ValueError where the figures are of another graph or the service would refuse the folder."""
    graph = (folder / "model.onnx").read_bytes()
    [crops] = open_session(graph, threads=1, device="cpu").inputs.values()
    described = describe_graph(graph, (2, *crops["shape"][1:]))
    measured = dict(figures)
    if (of := measured.pop("sha256", None)) != described["sha256"]:
        raise ValueError(f"the figures are of {of}, not of {folder / 'model.onnx'}")
    made = {"bytes": len(graph), "opset": OPSET, "revision": git_revision()}
    manifest = {**facts, **_space_of(facts, described["sha256"]), **described, **made, **measured}
    page = card(manifest, picture=(folder / PICTURE).exists())
    texts = {"CARD.md": page, "manifest.json": manifest_text(manifest)}
    _accepted(folder, graph, texts["manifest.json"])
    for name, text in texts.items():
        write_text(folder / name, text)


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as JSON, a list of numbers on one line: a curve has hundreds."""
    text = json.dumps(manifest, indent=1)
    one_line = re.sub(
        r"\[\s+(-?[\d.][^\[\]{}\"]*)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text
    )
    return one_line + "\n"


def _space_of(facts: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """The manifest's entries about a recognition network's embedding space."""
    return {"space": space_id(facts["name"], sha256)} if facts["task"] == "recognition" else {}


def said_in(path: Path) -> dict[str, Any]:
    """{"ablation": its sentences} of an experiment's json; nothing where it is not there.

    Raises ValueError for a file without `says`, a text or texts."""
    if not path.exists():
        return {}
    says = json.loads(path.read_bytes()).get("says")
    says = [says] if isinstance(says, str) else says
    if not says or not all(isinstance(text, str) for text in says):
        raise ValueError(f"{path} has no `says`, a text or a list of them")
    return {"ablation": says}


def learnt(network: nn.Module, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """How many numbers the network has learnt, from how many crops and by which recipes."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "crops_seen": sum(round_["steps"] * round_["batch"] for round_ in rounds),
        "training": {f"round {i}": round_ for i, round_ in enumerate(rounds, 1)},
    }


def read_facts(path: Path) -> dict[str, Any]:
    """What a json file says of weights beside what is measured.

    Raises ValueError where it is none or lacks name, summary or licence, texts all three."""
    try:
        facts = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not json: {error}") from error
    wrong = [
        k for k in NEEDED_FACTS if not isinstance(facts, dict) or not isinstance(facts.get(k), str)
    ]
    if wrong:
        raise ValueError(f"{path} does not say {', '.join(wrong)}")
    return dict(facts)


def _accepted(folder: Path, graph: bytes, manifest: str) -> None:
    with tempfile.TemporaryDirectory() as trial:
        (Path(trial) / "model.onnx").write_bytes(graph)
        (Path(trial) / "manifest.json").write_text(manifest, encoding="utf-8")
        try:
            load_artefact(Path(trial))
        except ArtefactError as error:
            raise ValueError(f"{folder}: the service would refuse it: {error.reason}") from error


def two_steps(
    module: str,
    description: str | None,
    graph_step: Callable[[argparse.Namespace], None],
    card_step: Callable[[argparse.Namespace], None],
) -> None:
    """The command line of an export in two steps, `graph` and `card`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, dest="step")
    graph = steps.add_parser("graph", help="write model.onnx, proven on real crops")
    card_ = steps.add_parser("card", help="write manifest.json and CARD.md")
    for sub, call in ((graph, graph_step), (card_, card_step)):
        sub.add_argument("weights", type=Path, help="a .safetensors file that training left")
        sub.add_argument("folder", type=Path, help="the artefact's")
        sub.set_defaults(call=call)
    graph.add_argument(
        "--crops", type=Path, required=True, help="images to prove it on: a folder, zip or csv"
    )
    card_.add_argument("figures", type=Path, help="json, measured on the folder's model.onnx")
    card_.add_argument(
        "--facts",
        type=Path,
        help="json: name, summary, licence, terms, data, limits, ...",
    )
    a = parser.parse_args()
    with told_in_words(module):
        a.call(a)


@contextmanager
def told_in_words(module: str) -> Iterator[None]:
    """What a command does: a ValueError or OSError of it is the user's to read."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"python -m {module}: {error}") from error
