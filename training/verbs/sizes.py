"""python -m training sizes: how large every network is, beside what its paper says."""

import argparse
from pathlib import Path

from training.checkpoint import write_text
from training.networks.sizes import SECTIONS, Row, count
from training.verbs import Verbs

HEAD = """# Sizes of the networks

`python -m training sizes --out docs/sizes.md` counts every network and writes this page. MB are
those of the parameters in float32 (10^6 bytes). GFLOP are of one input, a multiplication and an
addition counted as two, of convolutions and matrix products alone (`torch.utils.flop_counter`).
Where a paper gives a size it stands beside ours, in the paper's own unit; what is left between the
two beyond rounding is explained.
"""
COLUMNS = (
    "network",
    "input",
    "parameters",
    "MB",
    "GFLOP",
    "paper",
    "ours",
    "difference",
    "unit",
    "reading; why it differs",
)


def add_to(verbs: Verbs, places: argparse.ArgumentParser) -> None:
    verb = verbs.add_parser("sizes", help="how large every network is, beside what its paper says")
    verb.set_defaults(call=run)
    verb.add_argument("--out", type=Path, metavar="FILE.md", help="a markdown file, beside stdout")


def run(a: argparse.Namespace) -> None:
    text = page()
    if a.out:
        write_text(a.out, text)
    print(text, end="")


def page() -> str:
    """The whole table as markdown, a section a paper."""
    parts = [HEAD]
    for section in SECTIONS:
        lines = [line for row in section.rows for line in lines_of(row)]
        table = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *lines]
        parts.append("\n".join(["", f"## {section.title}", "", section.text, "", *table, ""]))
    return "".join(parts)


def lines_of(row: Row) -> list[str]:
    """The table's lines for a network: one, and one more for each further claim."""
    found = count(row)
    height, width = row.shape[1:]
    megabytes = found.parameters * 4 / 1e6
    network = [
        row.name,
        f"{height} x {width}",
        f"{found.parameters:,}",
        f"{megabytes:.2f}",
        f"{found.flops / 1e9:.3f}",
    ]
    if not row.claims:
        return [_line([*network, "", "", "", "", row.reading])]
    lines = []
    for claim, ours in zip(row.claims, found.ours, strict=True):
        difference = f"{ours - float(claim.figure):+.3f}"
        words = (row.reading if not lines else "", claim.why)
        reading = "; ".join(word for word in words if word)
        start = network if not lines else [""] * len(network)
        lines.append(_line([*start, claim.figure, f"{ours:.3f}", difference, claim.unit, reading]))
    return lines


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
