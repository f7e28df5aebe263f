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


# Counts that nothing can be done without; where a recipe's own is 0, that has a meaning.
AT_LEAST_ONE = ("batch", "embedding", "epochs", "steps", "validate_every")


class DataAbsent(FileNotFoundError):
    """The data that a recipe needs are not there; tells what was expected and what was found."""


def with_settings(recipe: Any, settings: list[str]) -> Any:
    """The recipe with fields replaced, each given as field=value.

    Raises ValueError for an unknown field (listing those that there are), for a value of another
    type than the field's, for a count below the least and for a name that no folder can have."""
    known = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    changed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set {setting}: field=value, with a field of {', '.join(known)}")
        changed[name] = _value(setting, text, known[name])
        _require_within_limits(setting, name, changed[name], known[name])
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


def _require_within_limits(setting: str, name: str, value: Any, now: Any) -> None:
    if name == "name" and ("/" in value or not value.strip(".")):
        raise ValueError(f"--set {setting}: it names the run's folder below --runs")
    if isinstance(value, tuple) and not all(type(entry) is int for entry in value):
        raise ValueError(f"--set {setting}: it is {now!r} now, so whole numbers are wanted")
    least = 1 if now and name in AT_LEAST_ONE else 0
    if type(value) is int and value < least:
        raise ValueError(f"--set {setting}: {least} is the least")
