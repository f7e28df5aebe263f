"""What every experiment's page is made of."""

import json
import math
from collections.abc import Mapping, Sequence
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


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_known(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
