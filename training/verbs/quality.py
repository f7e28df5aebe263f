"""python -m training quality: what quality components, their score and the gate are worth to a
recognition graph."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.checkpoint import write_text
from training.data.crops import read_crops
from training.evaluate import quality
from training.evaluate.embeddings import open_networks
from training.verbs import Verbs


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "quality",
        parents=[places],
        help="error versus discard: what face quality is worth to a recognition graph",
        description="Discards LFW's mated pairs of the lowest quality first and prints which share "
        "of false non-matches is left, for the score, each component and the gate's levels, at the "
        "threshold of an FMR of 1e-3. LFW is a test: bounds are chosen by --validation.",
    )
    verb.set_defaults(call=run)
    verb.add_argument("graph", type=Path, metavar="GRAPH.onnx", help="uint8 [n,112,112,3] RGB")
    verb.add_argument(
        "--validation",
        action="store_true",
        help="also on identities/validation: the same, and what photographs that are spoilt on "
        "purpose leave of true matches, by which bounds and score were chosen (some minutes)",
    )
    verb.add_argument("--out", type=Path, required=True, help="a json file")
    verb.add_argument("--picture", type=Path, help="a png of LFW's curves")


def run(a: argparse.Namespace) -> None:
    [network] = open_networks([a.graph], a.runs / "cache", threads=a.threads)
    figures: dict[str, Any] = {"name": network.name, "sha256": network.sha256}
    figures["LFW"] = quality.lfw_discards(network, a.data / "lfw")
    if a.validation:
        people = read_crops(a.data / "identities" / "validation.csv", a.runs / "cache")
        figures["validation"] = quality.validation_discards(network, people)
        figures["spoilt"] = quality.spoilt_matches(network, people)
    write_text(a.out, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if a.picture:
        from training.evaluate.plots import draw_discard  # matplotlib takes seconds to load

        title = f"LFW, {network.name}"
        draw_discard(figures["LFW"], title, a.picture)
    for name in ("LFW", "validation"):
        if name in figures:
            print(_discard_page(name, figures[name]))
    if "spoilt" in figures:
        print(_turned_page(figures["validation"]["turned"]))
        print(_spoilt_page(figures["spoilt"]))


def _discard_page(name: str, figures: Mapping[str, Any]) -> str:
    """Tables in markdown: what is left of FNMR by share discarded, and by level of the gate."""
    told = [row["share"] for row in figures["curves"]["score"]["told"]]
    lines = [
        f"{name}: {figures['comparisons']} mated pairs of {figures['people']} people, "
        f"FNMR {figures['fnmr']:.4f} at similarity {figures['similarity']:.4f} (FMR "
        f"{figures['fmr']:g}). What is left of it, with 95 % over people:",
        "",
        _row("component", "1 % to 99 % of the photographs", *(f"{s:.0%} discarded" for s in told)),
        _row(*["---"] * (2 + len(told))),
    ]
    for component, curve in figures["curves"].items():
        low, *_, high = figures["percentiles"][component]
        ratios = [_interval(row, "ratio") for row in curve["told"]]
        lines.append(_row(f"`{component}`", f"{low:.3g} to {high:.3g}", *ratios))
    heads = ("photographs refused", "pairs refused", "FNMR of the rest", "of the FNMR of all")
    lines += ["", _row("gate", *heads), _row(*["---"] * 5)]
    for level, gate in figures["gates"].items():
        pairs, fnmr, ratio = (
            _interval(gate, name) for name in ("comparisons_refused", "fnmr", "ratio")
        )
        lines.append(_row(level, f"{gate['photographs_refused']:.2%}", pairs, fnmr, ratio))
    for level, alone in figures["photographs_refused_by"].items():
        most = sorted(((share, component) for component, share in alone.items()), reverse=True)
        shares = ", ".join(f"{component} {share:.2%}" for share, component in most if share)
        lines += ["", f"{level} refuses by {shares or 'nothing'}"]
    return "\n".join(lines) + "\n"


def _turned_page(turned: Mapping[str, Any]) -> str:
    """What is left of true matches by angle, a line a component."""
    lines = ["left of true matches by the angle of the photograph that is turned more:"]
    for name, rows in turned.items():
        told = (f"{row['degrees']:.0f}: {_interval(row, 'left')}" for row in rows)
        lines.append(f"- `{name}` {'; '.join(told)}")
    return "\n".join(lines) + "\n"


def _spoilt_page(figures: Mapping[str, Any]) -> str:
    """A table in markdown: what is left of true matches, a row a spoiling."""
    lines = [
        f"{figures['photographs']} photographs spoilt:",
        "",
        _row("spoilt", "faces found", "left of true matches", "component: 10 %, 50 %, 90 %"),
        _row(*["---"] * 4),
    ]
    for row in figures["rows"]:
        values = (
            f"`{name}` {', '.join(f'{value:.3g}' for value in found)}"
            for name, found in row["values"].items()
        )
        name = f"{row['kind']} {row['strength']:g}"
        lines.append(_row(name, f"{row['found']:.0%}", _interval(row, "left"), "; ".join(values)))
    return "\n".join(lines) + "\n"


def _interval(row: Mapping[str, Any], name: str) -> str:
    if None in (row[name], row[f"{name}_low"]):
        return "-"
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
