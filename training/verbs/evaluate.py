"""python -m training evaluate: the figures of graphs, ours and peers', side by side.

What a graph does is seen by its form, and decides what is measured: recognition, expression or
attributes."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from training.checkpoint import write_text
from training.evaluate import on_celeba, on_ferplus
from training.evaluate.figures import PEOPLE, Measured, evaluate
from training.evaluate.pictures import draw_classifier
from training.evaluate.table import classifier_table, table
from training.graphs import task_of
from training.verbs import Verbs

CLASSIFIERS = {"expression": on_ferplus.evaluate, "attributes": on_celeba.evaluate}
OF_RECOGNITION = ("pairs", "flip", "flip_raw", "picture")  # options that tell classifiers nothing


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "evaluate",
        parents=[places],
        help="figures of graphs, ours and peers', side by side",
        description="Measures ONNX graphs of one task on what --data has for it: recognition on "
        "LFW, identities/ and the --pairs, expression on FERPlus and LFW, attributes on CelebA. "
        "Prints a table with a column a graph.",
    )
    verb.set_defaults(call=run)
    verb.add_argument(
        "graphs",
        type=Path,
        nargs="+",
        metavar="GRAPH.onnx",
        help="recognition: uint8 [n,112,112,3] RGB, or float [n,3,112,112] as InsightFace's; "
        "expression: uint8 [n,S,S,3] RGB, or grey float [1,1,64,64] as FERPlus's authors'; "
        "attributes: uint8 [n,136,112,3] RGB",
    )
    verb.add_argument(
        "--pairs",
        action="append",
        default=[],
        metavar="NAME=CROPS[,PAIRS]",
        help="recognition: one more set to verify: an InsightFace .bin, or a .rec, folder or zip "
        "of aligned crops with pairs in the form of LFW's pairs.txt; may be given several times",
    )
    verb.add_argument(
        "--flip",
        action="store_true",
        help="recognition: verify again, the unit embeddings of crop and mirror image added",
    )
    verb.add_argument(
        "--flip-raw",
        action="store_true",
        help="recognition: so with embeddings as the network gives them, as InsightFace and "
        "CurricularFace do",
    )
    verb.add_argument("--out", type=Path, required=True, help="a json file")
    verb.add_argument("--table", type=Path, help="a markdown file for the table")
    verb.add_argument(
        "--picture", type=Path, help="recognition: a png of the first graph's calibration"
    )
    verb.add_argument("--pictures", type=Path, help="a folder for all plots")


def run(a: argparse.Namespace) -> None:
    tasks = {path: task_of(path) for path in a.graphs}
    if len(set(tasks.values())) > 1:
        said = ", ".join(f"{path} {task}" for path, task in tasks.items())
        raise ValueError(f"graphs of one task are measured side by side, not {said}")
    task = tasks[a.graphs[0]]
    if task in CLASSIFIERS:
        _classifiers(a, task)
    else:
        _recognition(a)


def _classifiers(a: argparse.Namespace, task: str) -> None:
    if asked := [f"--{name.replace('_', '-')}" for name in OF_RECOGNITION if getattr(a, name)]:
        raise ValueError(f"{' and '.join(asked)}: of recognition alone, and this is {task}")
    graphs = CLASSIFIERS[task](a.graphs, a.data, threads=a.threads)
    # A card is made of the first graph's: export reads them at the top.
    write_text(a.out, json.dumps({**graphs[0], "graphs": graphs}, indent=1, allow_nan=False) + "\n")
    if a.pictures:
        for figures in graphs:
            draw_classifier(figures, a.pictures, f"-{_slug(figures['name'])}")
    _show(classifier_table(graphs), a.table)


def _recognition(a: argparse.Namespace) -> None:
    found = evaluate(
        a.graphs,
        a.data,
        a.runs / "cache",
        pairs=a.pairs,
        flip=a.flip,
        flip_raw=a.flip_raw,
        threads=a.threads,
    )
    graphs = [measured.figures for measured in found]
    # A card is made of the first graph's: export.recognition reads them at the top.
    first = ("sha256", "metrics", "calibration", "lfw_failing_pairs")
    figures = {key: graphs[0][key] for key in first if key in graphs[0]} | {"graphs": graphs}
    write_text(a.out, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if a.picture and "calibration" in figures:
        from training.evaluate.plots import draw_calibration

        draw_calibration(figures["calibration"], a.picture)
    if a.pictures:
        _draw(found, a.pictures)
    _show(table(graphs), a.table)


def _show(page: str, path: Path | None) -> None:
    if path:
        write_text(path, page)
    print(page, end="")


def _draw(found: Sequence[Measured], folder: Path) -> None:
    """Every plot that there are figures for. matplotlib takes seconds to load: here alone."""
    from training.evaluate import plots

    for name in dict.fromkeys(name for measured in found for name in measured.curves):
        curves = {measured.figures["name"]: measured.curves[name] for measured in found}
        title = "unseen people, all pairs of crops" if name == PEOPLE else name
        plots.draw_det(curves, title, folder / f"det-{_slug(name)}.png")
        plots.draw_roc(curves, title, folder / f"roc-{_slug(name)}.png")
    searched = [m.figures for m in found if "identification" in m.figures]
    if searched:
        galleries = {f["name"]: f["identification"]["galleries"] for f in searched}
        plots.draw_identification(galleries, folder / "identification.png")
    for figures in (m.figures for m in found if "calibration" in m.figures):
        name = _slug(figures["name"])
        plots.draw_calibration(figures["calibration"], folder / f"calibration-{name}.png")
        if "groups" in figures:
            fmr = figures["groups"]["fmr"]
            groups = {
                g: row
                for part in ("all", "sex", "age", "ethnicity", "sex and ethnicity")
                for g, row in fmr[part].items()
            }
            title = f"{figures['name']} at {figures['groups']['similarity']:.3f}"
            plots.draw_groups(groups, title, folder / f"groups-{name}.png")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
