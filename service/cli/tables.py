"""Answers as tables for people."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.folder import Outcome

_out: Final = Console(highlight=False)


def print_json(value: Any) -> None:
    """The value, for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_outcome(outcome: Outcome) -> None:
    """What became of a folder's files."""
    before = sum(entry["before"] for entry in outcome.enrolled)
    persons = len({entry["person_id"] for entry in outcome.enrolled})
    _out.print(
        f"{len(outcome.enrolled) - before} photographs enrolled, {before} there before "
        f"({persons} persons, gallery {outcome.gallery}); "
        f"{len(outcome.refused)} refused, {len(outcome.skipped)} files skipped",
        markup=False,
        soft_wrap=True,
    )
    if outcome.refused:
        rows = [[e["file"], e["problem"]["title"], e["problem"]["detail"]] for e in outcome.refused]
        print_table(("refused", "why", "more"), rows)
    if outcome.skipped:
        reasons = Counter(entry["reason"] for entry in outcome.skipped)
        print_table(("files skipped", "why"), [[n, why] for why, n in reasons.most_common()])


def print_identities(found: Sequence[dict[str, Any]]) -> None:
    """Who is in each photograph."""
    answers = [entry for entry in found if entry["answer"]]
    print_table(
        ("photograph", "face", "decision", "most like", "similarity", "then"),
        [row for entry in answers for row in _identity_rows(entry)],
    )
    if answers:
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


def print_threshold(threshold: dict[str, Any]) -> None:
    """What decided."""
    low, high = threshold["interval"]
    _out.print(
        f"match from {threshold['similarity']:.3f} on, by {threshold['by']} "
        f"{threshold['target']} (95 %: {low} to {high})",
        markup=False,
        soft_wrap=True,
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under columns."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")  # a name cut short is no name
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    _out.print(table)
