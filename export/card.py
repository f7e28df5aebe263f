"""CARD.md: an artefact's manifest as a page for people."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOR_MACHINES = ("golden", "curve", "tail", "populations")  # shown nowhere
# No sections, as lists of numbers are none; pictures and other sections tell it.
TOLD_ELSEWHERE = ("name", "summary", "confusion", "reliability", "reliable")
PICTURES = "pictures"  # {file: what it shows}, files that lie beside the card
PICTURE = "calibration.png"  # what stands in the place of a calibration's curve


def card(manifest: Mapping[str, Any], *, picture: bool = True) -> str:
    """The page of a manifest, Markdown: a title, its facts as a table, its parts as sections.

    A value that is a mapping of mappings, or a list of them, becomes a table with a row each; a
    mapping, a table of two columns, and its inner mappings sections of their own; a list of words,
    a line, and one of sentences, a list; anything else, a row of the facts. Golden inputs and
    outputs, the points of curves and lists of numbers are for machines and are left out.
    `pictures` are shown; `summary`, where there is one, opens the page. picture: that a curve is
    drawn in PICTURE, beside the card.
    """
    facts = {key: value for key, value in manifest.items() if _is_fact(key, value)}
    parts = [f"# {manifest['name']}", manifest.get("summary", ""), _pairs(facts)]
    for key, value in manifest.items():
        if key in facts or key in (*TOLD_ELSEWHERE, *FOR_MACHINES) or not value:
            continue
        if key == PICTURES:
            parts += [f"![{caption}]({file})" for file, caption in value.items()]
        elif not _is_numbers(value):
            section = _section(value)
            if picture and isinstance(value, Mapping) and "curve" in value:
                section.append(f"![FMR and FNMR by threshold]({PICTURE})")
            parts += [f"## {_title(key)}", *section]
    parts.append("Generated from manifest.json; change that, or what made it, and generate again.")
    return "\n\n".join(part for part in parts if part) + "\n"


def git_revision(*made_by: str) -> str:
    """The commit that the tree stands on, `+changes` behind it where the artefact's makers differ.

    made_by: files or folders from the repository's root; export and training where none is named.
    """
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    paths = made_by or ("export", "training")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *paths)
    return (git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else "")


def _is_fact(key: str, value: Any) -> bool:
    return key not in ("name", "summary", *FOR_MACHINES) and not isinstance(value, (Mapping, list))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, (int, float)) for entry in value)


def _section(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        if all(isinstance(entry, Mapping) for entry in value):
            return [_rows({str(i): row for i, row in enumerate(value, 1)}, named=False)]
        if not any(" " in str(entry) for entry in value):
            return [_text(value)]
        return ["\n".join(f"- {_text(entry)}" for entry in value)]
    shown = {key: entry for key, entry in value.items() if key not in FOR_MACHINES}
    if all(isinstance(entry, Mapping) for entry in shown.values()):
        return [_rows(shown)]
    inner = {key: entry for key, entry in shown.items() if _is_table(entry)}
    parts = [_pairs({key: entry for key, entry in shown.items() if key not in inner})]
    for key, entry in inner.items():
        parts += [f"### {_title(key)}", *_section(entry)]
    return parts


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(e, Mapping) for e in value)
    )


def _rows(rows: Mapping[str, Mapping[str, Any]], *, named: bool = True) -> str:
    columns = list(dict.fromkeys(c for row in rows.values() for c in row if c not in FOR_MACHINES))
    head = ["", *(_title(column) for column in columns)]
    lines = [[key, *(_text(row.get(c, "")) for c in columns)] for key, row in rows.items()]
    return _table(head[not named :], [line[not named :] for line in lines])


def _pairs(pairs: Mapping[str, Any]) -> str:
    return _table(["", ""], [[_title(key), _text(value)] for key, value in pairs.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _title(key: str) -> str:
    return key.replace("_", " ")
