"""A run's page: its curves as pictures, its recipe, what it ran on and how fast.

Everything comes out of log.jsonl (journal.py says what is in it), several rounds one after the
other too. A log of the loop's earlier form names no recipe; there the network kept beside it does.
"""

import base64
import html
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import rounds_of, write, write_text

# What a curve is called on the page, where its name in the log does not say it.
TITLES = {
    "loss": "loss that is minimised",
    "rate": "learning rate",
    "t": "CurricularFace's t",
    "distance": "1 - cosine to the teacher's answer",
    "margin": "CurricularFace's cross-entropy / s",
    "train_accuracy": "training: accuracy",
    "epoch_accuracy": "training: accuracy over the epoch",
    "train_cross_entropy": "training: cross-entropy of the last zone",
    "images_a_s": "images/s",
    "equal_error_rate": "validation: equal error rate",
    "tar_at_far_1e2": "validation: TAR at FAR 1e-2",
    "tar_at_far_1e3": "validation: TAR at FAR 1e-3",
    "tar_at_1e2": "validation: TAR at FAR 1e-2",
    "tar_at_1e3": "validation: TAR at FAR 1e-3",
}
# What the cross-entropy is over, by a field that the recipes of one task alone have.
CROSS_ENTROPY = {
    "classification": "cross-entropy over people",
    "zones": "validation: cross-entropy over attributes",
    "patches": "validation: cross-entropy over expressions",
    "heads": "validation: cross-entropy over people",
}
ORDER = ("loss", "distance", "cross_entropy", "margin", "t", "rate", "images_a_s")
STILL = ("step", "round", "resumed")
ACROSS = 3  # pictures a row


@dataclass(frozen=True)
class Round:
    """opening: the recipe and the facts, {} where nothing tells them. rows: by step, ascending."""

    opening: dict[str, Any]
    rows: list[dict[str, float]]

    @property
    def steps(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def batch(self) -> int:
        return int(self.opening.get("recipe", {}).get("batch", 0))


def report(source: Path, out: Path) -> None:
    """Writes the page of a run: HTML with its picture inside, Markdown with a PNG beside, or the
    PNG alone, for another page to show.

    source: a run's folder or a log.jsonl. out: PAGE.html, .md or .png. Raises FileNotFoundError
    without a log, ValueError for a line that is no row (naming it) and for another kind of page."""
    log = source / "log.jsonl" if source.is_dir() else source
    rounds = read_log(log)
    if out.suffix not in (".html", ".md", ".png"):
        raise ValueError(f"{out}: a page is .html, .md with its picture beside, or .png alone")
    picture = draw(rounds)
    if out.suffix != ".html":
        write(out.with_suffix(".png"), lambda part: part.write_bytes(picture))
    if out.suffix == ".png":
        return
    title = rounds[-1].opening.get("recipe", {}).get("name", source.stem)
    if out.suffix == ".md":
        parts = [f"# {title}", f"![Curves of the run]({out.with_suffix('.png').name})"]
        parts += [f"## {name}\n\n{_markdown(rows)}" for name, rows in _tables(rounds)]
        write_text(out, "\n\n".join(parts) + "\n")
        return
    inside = base64.b64encode(picture).decode()
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [f'<img alt="Curves of the run" src="data:image/png;base64,{inside}">']
    body += [f"<h2>{html.escape(name)}</h2>{_html(rows)}" for name, rows in _tables(rounds)]
    write_text(out, PAGE.format(title=html.escape(title), body="\n".join(body)))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ border: 1px solid #ccc; padding: .2rem .6rem; text-align: left }}
</style>
{body}
</html>
"""


def read_log(log: Path) -> list[Round]:
    """The rounds of a log; a step that was run twice counts as it was the last time."""
    rounds: list[Round] = []
    first, last = 0, 0
    for number, line in enumerate(log.read_text(errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{log}, line {number} is no row of a log: {line[:60]}") from error
        first = first or step
        # Without an opening row, a round begins where the steps begin anew.
        if "round" in row or not rounds or ("round" not in row and step == first and step < last):
            rounds.append(Round(row.get("round", {}), []))
        if "round" not in row and "resumed" not in row:
            rounds[-1].rows.append(row)
        last = step
    merged = [Round(r.opening, list(_merged(r.rows))) for r in rounds]
    found = [r for r in merged if r.rows or r.opening]
    if not found:
        raise ValueError(f"{log} holds no row")
    return _with_recipes(found, log)


def _merged(rows: list[dict[str, float]]) -> Iterator[dict[str, float]]:
    """One row a step, a training row and a validation of the same step in one."""
    by_step: dict[int, dict[str, float]] = {}
    for row in rows:
        by_step[int(row["step"])] = by_step.get(int(row["step"]), {}) | row
    for step in sorted(by_step):
        yield by_step[step]


def _with_recipes(rounds: list[Round], log: Path) -> list[Round]:
    """Rounds that name no recipe get that of the network beside, where it had as many rounds."""
    kept = [
        log.with_name("network.safetensors"),
        log.with_name(log.name.removesuffix(".log.jsonl") + ".safetensors"),
    ]
    recipes = next((rounds_of(path) for path in kept if path.exists()), [])
    if len(recipes) != len(rounds):
        return rounds
    return [
        r if "recipe" in r.opening else Round({**r.opening, "recipe": recipe}, r.rows)
        for r, recipe in zip(rounds, recipes, strict=True)
    ]


def draw(rounds: list[Round]) -> bytes:
    """A PNG with a picture a curve, against thousands of crops seen (steps where the batch is not
    known); dotted lines stand between rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves, ends, crops = _curves(rounds)
    titles = {**TITLES, "cross_entropy": cross_entropy_title(rounds)}
    down = -(-len(curves) // ACROSS)
    figure, grid = pyplot.subplots(
        down, ACROSS, figsize=(12, 2.7 * down), layout="constrained", squeeze=False
    )
    for axes, (name, points) in zip(grid.flat, curves.items(), strict=False):
        few = len(points) < 40
        axes.plot(*zip(*points, strict=True), color="#1f5c99", marker="." if few else None)
        for end in ends[:-1]:
            axes.axvline(end, color="grey", linestyle=":")
        axes.set_title(titles.get(name, f"validation: {name}"), fontsize=10)
        axes.set_xlabel("thousand crops seen" if crops else "steps", fontsize=8)
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


def cross_entropy_title(rounds: list[Round]) -> str:
    """Over what the run's cross-entropy is, by its recipe; the bare word where none is known."""
    recipes = [r.opening.get("recipe", {}) for r in rounds]
    named = (title for field, title in CROSS_ENTROPY.items() if any(field in r for r in recipes))
    return next(named, "cross-entropy")


def _curves(
    rounds: list[Round],
) -> tuple[dict[str, list[tuple[float, float]]], list[float], bool]:
    """({name: points}, where each round ends, whether places are thousands of crops)."""
    crops = all(r.batch for r in rounds)
    curves: dict[str, list[tuple[float, float]]] = {}
    ends = [0.0]
    for r in rounds:
        unit = r.batch / 1000 if crops else 1
        for row in r.rows:
            for name in row.keys() - set(STILL):
                curves.setdefault(name, []).append((ends[-1] + unit * row["step"], row[name]))
        ends.append(ends[-1] + unit * r.steps)
    names = sorted(curves, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    return {name: curves[name] for name in names}, ends[1:], crops


def _tables(rounds: list[Round]) -> Iterator[tuple[str, dict[str, str]]]:
    for i, r in enumerate(rounds, 1):
        of = f", round {i} of {len(rounds)}" if len(rounds) > 1 else ""
        facts = {k: v for k, v in r.opening.items() if k != "recipe" and v is not None}
        yield f"Measured{of}", {**_ends(r), **{k: _text(v) for k, v in facts.items()}}
        if "recipe" in r.opening:
            yield f"Recipe{of}", {k: _text(v) for k, v in r.opening["recipe"].items()}


def _ends(r: Round) -> dict[str, str]:
    """What the round came to: the last value of every curve, and its speed's median."""
    last: dict[str, float] = {}
    for row in r.rows:
        last |= row
    speeds = sorted(row["images_a_s"] for row in r.rows if "images_a_s" in row)
    said = {name: f"{last[name]:.6g}" for name in last if name not in (*STILL, "images_a_s")}
    steps = {"steps": f"{r.steps:,}"} | (
        {"crops seen": f"{r.steps * r.batch:,}"} if r.batch else {}
    )
    median = {"images/s, median": f"{speeds[len(speeds) // 2]:.1f}"} if speeds else {}
    return {**steps, **median, **{f"last {name}": value for name, value in said.items()}}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _markdown(rows: dict[str, str]) -> str:
    body = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *body])


def _html(rows: dict[str, str]) -> str:
    cells = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    ]
    return f"<table>{''.join(cells)}</table>"
