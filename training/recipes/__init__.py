"""Recipes: a module a task, each with RECIPES (name -> function that returns a frozen dataclass)
and `prepare(recipe, sources, machine)`, which reads the data and puts together the loop's Run.

A recipe is everything that decides a run; what it is computed on is machine.py's.
"""

import ast
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sources:
    """Where a run's data are. train, validation: sets as its task reads them; empty or None: the
    recipe's own under `data`. teacher: a graph (.onnx) or stored answers (.npy). cache: a folder
    for what is decoded once. threads: of what is computed before the run."""

    data: Path
    cache: Path
    train: tuple[Path, ...] = ()
    validation: Path | None = None
    teacher: Path | None = None
    threads: int = 2


class DataAbsent(FileNotFoundError):
    """The data that a recipe needs are not there; tells what was expected and what was found."""


def with_settings(recipe: Any, settings: list[str]) -> Any:
    """The recipe with fields replaced, each given as field=value.

    Raises ValueError for an unknown field (listing those that there are) and for a value of another
    type than the field's."""
    known = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    changed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set {setting}: field=value, with a field of {', '.join(known)}")
        changed[name] = _value(setting, text, known[name])
    return replace(recipe, **changed)


def _value(setting: str, text: str, now: Any) -> Any:
    if isinstance(now, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(now, tuple) and isinstance(value, int):
        value = (value,)
    if now is None or isinstance(now, float):
        value = float(value) if type(value) is int else value
    kind = float if now is None else type(now)
    if type(value) is not kind:
        raise ValueError(f"--set {setting}: it is {now!r} now, so {kind.__name__} is wanted")
    return value
