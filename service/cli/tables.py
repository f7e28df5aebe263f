"""Answers as tables for people."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.calibrate import Report
from service.cli.folder import Outcome
from service.decision import OWN_PEOPLE

_MOST_ROWS: Final = 20  # of what is only listed; --json has all
_out: Final = Console(highlight=False)


def print_json(value: Any) -> None:
    """The value, for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_outcome(outcome: Outcome) -> None:
    """What became of a folder's files."""
    before = sum(entry["before"] for entry in outcome.enrolled)
    persons = len({entry["person_id"] for entry in outcome.enrolled})
    _print(
        f"{len(outcome.enrolled) - before} photographs enrolled, {before} there before "
        f"({persons} persons, gallery {outcome.gallery}); "
        f"{len(outcome.refused)} refused, {len(outcome.skipped)} files skipped"
    )
    if outcome.refused:
        rows = [[e["file"], e["problem"]["title"], e["problem"]["detail"]] for e in outcome.refused]
        print_table(("refused", "why", "more"), rows)
    if outcome.erased:
        _print(
            f"{len(outcome.erased)} of the refused were erased after they had been enrolled: run "
            "it again with --again to enroll those that are not there; those that an earlier "
            "--again enrolled are there"
        )
    if outcome.otherwise:
        _print_some(
            ("enrolled before with options that ask for less",),
            [[entry["file"]] for entry in outcome.otherwise],
        )
        _print(
            "--face, --quality and --consent as given now were not applied to these: erase their "
            "faces and run it again with --again, or leave them"
        )
    _print_some(
        ("enrolled, but", "warning"),
        [[e["file"], warning["detail"]] for e in outcome.enrolled for warning in e["warnings"]],
    )
    _print_skipped(outcome.skipped)


def _print_skipped(skipped: Sequence[dict[str, Any]]) -> None:
    """How many files were skipped, by reason; a system's folders and files are named in theirs."""
    if skipped:
        reasons = Counter(entry["reason"] for entry in skipped)
        print_table(("files skipped", "why"), [[n, why] for why, n in reasons.most_common()])


def print_identities(found: Sequence[dict[str, Any]]) -> None:
    """Who is in each photograph."""
    answers = [entry for entry in found if entry["answer"]]
    if not answers:
        return
    print_table(
        ("photograph", "face", "decision", "most like", "similarity", "then"),
        [row for entry in answers for row in _identity_rows(entry)],
    )
    print_threshold(answers[0]["answer"]["threshold"])


def _identity_rows(entry: dict[str, Any]) -> Iterator[list[Any]]:
    faces = entry["answer"]["images"][0]["faces"]
    if not faces:
        yield [entry["file"], "no face", "", "", "", ""]
    for face in faces:
        where = "{x:.0f},{y:.0f} {width:.0f}x{height:.0f}".format(**face["box"])
        like = [(c["name"] or c["person_id"], f"{c['similarity']:.3f}") for c in face["candidates"]]
        first, *rest = like or [("nobody", "")]
        yield [entry["file"], where, face["decision"], *first, ", ".join(map(" ".join, rest))]


def print_calibration(report: Report) -> None:
    """What was measured, what was not, and what looks wrong."""
    made = report.calibration
    _print(
        f"{made['crops']} photographs of {made['people']} people measured "
        f"({made['mated_pairs']} pairs of one person, {made['non_mated_pairs']} of two); "
        f"{made['left_out']} left out, {len(report.skipped)} files skipped; in "
        f"{made['several_faces']} with several faces the largest was taken"
    )
    _print_some(("left out", "why"), [[e["file"], e["reason"]] for e in report.left_out])
    _print_skipped(report.skipped)
    _print_some(
        ("hardly like another of its person", "similarity"),
        [[e["file"], f"{e['similarity']:.3f}"] for e in report.unlike],
    )
    _print_some(
        ("of two people, and as like as one", "the other", "similarity"),
        [[*e["files"], f"{e['similarity']:.3f}"] for e in report.alike],
    )
    if report.unlike or report.alike:
        _print("These may lie in the wrong folder: look, put them right, and measure again.")
    _print_some(
        ("of two strangers, and as like as one", "the other", "similarity"),
        [[*e["files"], f"{e['similarity']:.3f}"] for e in report.alike_strangers],
    )
    if report.alike_strangers:
        _print("These strangers may be one person: look, take one of them away, and measure again.")
    columns = ("target FMR", "threshold", "FMR there", "FNMR there", "")
    print_table(columns, [_threshold_row(row) for row in made["thresholds"]])
    for name, one in made.get("populations", {}).items():
        _print(
            f"for the population {name}, {one['crops']} photographs ({one['non_mated_pairs']} "
            f"pairs; measured down to an FMR of {one['smallest_fmr']:g}); FNMR of the people above:"
        )
        print_table(columns, [_threshold_row(row) for row in one["thresholds"]])
    _print(
        f"in brackets: 95 %, by a bootstrap over people; extrapolated: fewer than 30 pairs of "
        f"people stand behind it, which is below an FMR of {made['smallest_fmr']:g}"
    )
    _print(f"{'replaced' if report.replaced else 'written'}: {report.file}")
    _print(f'bind a gallery to it: PATCH /galleries/NAME {{"calibration": "{report.name}"}}')


def _threshold_row(row: dict[str, Any]) -> list[str]:
    values = [f"{row['target_fmr']:g}"]
    for name, form in (("similarity", ".3f"), ("fmr", ".2g"), ("fnmr", ".2g")):
        value, low, high = (format(row[name + end], form) for end in ("", "_low", "_high"))
        values.append(f"{value} ({low} to {high})")
    return [*values, "extrapolated" if row["extrapolated"] else ""]


def _print_some(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        print_table(columns, rows[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        _print(f"and {len(rows) - _MOST_ROWS} more; --json lists all")


def _print(text: str) -> None:
    _out.print(text, markup=False, soft_wrap=True)


def print_threshold(threshold: dict[str, Any]) -> None:
    """What decided."""
    low, high = threshold["interval"]
    whose = threshold["calibration"] and f", calibration {threshold['calibration']}"
    of = f", population {threshold['population']}" if threshold["population"] != OWN_PEOPLE else ""
    _print(
        f"match from {threshold['similarity']:.3f} on, by {threshold['by']} "
        f"{threshold['target']} (95 %: {low} to {high}"
        f"{', extrapolated' if threshold['extrapolated'] else ''}){whose or ''}{of}"
    )
    low, high = threshold["fnmr_interval"]
    _print(f"FNMR there {threshold['fnmr']:.2g} (95 %: {low:.2g} to {high:.2g})")


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None
) -> None:
    """Rows under columns. title: a line above; rows, which may have many lines, are then ruled."""
    if title is not None:
        _print(title)
    table = Table(show_lines=title is not None)
    for column in columns:
        table.add_column(column, overflow="fold")  # a name cut short is no name
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    _out.print(table)
