"""What every experiment's page is made of."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.checkpoint import write_text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machines(found: Sequence[Mapping[str, Any]]) -> str:
    """The hardware that the runs had, each kind once: `cpu ...; cores 2; ...`."""
    kinds = [
        "; ".join(f"{name} {value}" for name, value in run["hardware"].items() if value is not None)
        for run in found
    ]
    return ". ".join(dict.fromkeys(kinds))


def put(path: Path, text: str, facts: Mapping[str, Any]) -> None:
    """Writes the page, and its facts for other pages as JSON beside it; NaN becomes null."""
    write_text(path, text)
    write_text(path.with_suffix(".json"), json.dumps(_known(facts), indent=1) + "\n")


def say_again(
    path: Path, says: Callable[[Mapping[str, Any]], list[str]], differences: Callable[..., str]
) -> None:
    """Writes a committed page's sentences and the text about its differences once more, by what its
    JSON holds: for where the rules of what is said have changed and the runs are no longer there.

    says: the sentences, of the page's facts. differences: the section's text, of the facts. Figures
    and pictures stay. Raises ValueError without the page or its JSON, and where a section is not
    there."""
    if not (path.exists() and path.with_suffix(".json").exists()):
        raise ValueError(f"no run is finished, and {path} is not there with its JSON to say again")
    facts = _read(path.with_suffix(".json"))
    facts["says"] = says(facts)
    text = path.read_text(encoding="utf-8")
    sections = {
        "## What may be said": "\n".join(f"- {sentence}" for sentence in facts["says"]),
        "## Differences": differences(facts),
    }
    for title, body in sections.items():
        head, found, rest = text.partition(f"{title}\n")
        if not found:
            raise ValueError(f"{path} has no section {title!r}")
        _, mark, after = rest.partition("\n## ")
        text = f"{head}{title}\n\n{body}\n{mark}{after}"
    put(path, text, facts)


def _read(path: Path) -> dict[str, Any]:
    """A page's facts, null as the NaN that it was."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: numbers(entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [numbers(entry) for entry in value]
        return math.nan if value is None else value

    facts: dict[str, Any] = numbers(json.loads(path.read_bytes()))
    return facts


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_known(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
