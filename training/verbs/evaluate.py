"""python -m training evaluate: the figures of recognition graphs, ours and peers', side by side."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from training.evaluate.figures import PEOPLE, Measured, evaluate
from training.evaluate.table import table
from training.verbs import Verbs


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser(
        "evaluate",
        parents=[places],
        help="figures of recognition graphs, ours and peers', side by side",
        description="Measures ONNX graphs on LFW and identities/ of --data, as far as they are "
        "there, and on the --pairs. Prints a table with a column a graph.",
    )
    verb.set_defaults(call=run)
    verb.add_argument(
        "graphs",
        type=Path,
        nargs="+",
        metavar="GRAPH.onnx",
        help="uint8 [n,112,112,3] RGB, or float [n,3,112,112] as InsightFace's",
    )
    verb.add_argument(
        "--pairs",
        action="append",
        default=[],
        metavar="NAME=CROPS[,PAIRS]",
        help="one more set to verify: an InsightFace .bin, or a .rec, folder or zip of aligned "
        "crops with pairs in the form of LFW's pairs.txt; may be given several times",
    )
    verb.add_argument(
        "--flip", action="store_true", help="verify again with the mirror image added"
    )
    verb.add_argument("--out", type=Path, required=True, help="a json file")
    verb.add_argument("--table", type=Path, help="a markdown file for the table")
    verb.add_argument("--picture", type=Path, help="a png of the first graph's calibration")
    verb.add_argument("--pictures", type=Path, help="a folder for all plots")


def run(a: argparse.Namespace) -> None:
    found = evaluate(
        a.graphs, a.data, a.runs / "cache", pairs=a.pairs, flip=a.flip, threads=a.threads
    )
    graphs = [measured.figures for measured in found]
    # A card is made of the first graph's: export.recognition reads them at the top.
    first = ("sha256", "metrics", "calibration", "lfw_failing_pairs")
    figures = {key: graphs[0][key] for key in first if key in graphs[0]} | {"graphs": graphs}
    _write(a.out, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if a.picture and "calibration" in figures:
        from training.evaluate.plots import draw_calibration

        draw_calibration(figures["calibration"], a.picture)
    if a.pictures:
        _draw(found, a.pictures)
    page = table(graphs)
    if a.table:
        _write(a.table, page)
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


def _write(path: Path, text: str) -> None:
    """Beside its name first, so that a full disk leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
