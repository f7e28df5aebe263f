"""The fields of a call: one validation, whichever of the three forms they came in.

A call's fields are a small strict model. Text (of a form or a query) is first read as what the
field is, an integer, a number, a truth or an object; from there on all forms are the same. A field
may be given several times, as by clients that send it in the query and the body, if its values are
equal; one that is a list has all that are given. As text a list has commas, in every form.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from service.api.problems import shown
from service.calibration.kept import NAME_LIMIT
from service.errors import BodyBroken, FieldInvalid, FieldMissing, FieldUnknown

POPULATION_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MOST_QUERY_FIELDS: Final = 100
_MOST_TIMES: Final = 8  # that a form repeats a value; each is held until all are there
_DEEPEST: Final = 32
_TRUTHS: Final = {"true": True, "false": False}
_MOST_VALUES: Final = 16_384
# What begins a value, or the next. No call needs so many: base64 has none, and the largest metadata
# fewer than its bytes, 16,384.
_MARKS: Final = (b"{", b"[", b",")
_MOST_MARKS: Final = 65_536


class Fields(BaseModel):
    """A call's fields besides its images; what is not one of them is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoFields(Fields):
    """What a call has that takes none."""


F = TypeVar("F", bound=Fields)
Given = tuple[str, Any]


def read_fields(model: type[F], given: Iterable[Given], *, others: Sequence[str] = ()) -> F:
    """The call's fields out of what was given. others: names the call knows besides the fields.

    Raises FieldUnknown, FieldMissing, FieldInvalid, also for a field that was given twice with
    different values, and for a list that names a value twice.
    """
    values: dict[str, Any] = {}
    for name, value in given:
        require_known(model, name, others)
        if limit := _flaw(value):
            raise FieldInvalid(name, brief(value), limit)
        if is_list(model, name):
            values[name] = _extended(name, values.get(name, []), value)
            continue
        if name in values:
            _require_equal(name, values[name], value)
        values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise FieldMissing(name) from wrong
        value = first["input"] if is_list(model, name) else values[name]
        raise FieldInvalid(name, brief(value), limit_of(model, name)) from wrong


def require_known(model: type[Fields], name: str, others: Sequence[str] = ()) -> None:
    """Nothing, when the call has a field of that name; raises FieldUnknown else."""
    if name not in model.model_fields:
        raise FieldUnknown(str(shown(name)), sorted((*model.model_fields, *others)))


def one_of(fields: Fields, *names: str) -> tuple[str, Any] | None:
    """The one field of these that was given, with its value. Raises FieldInvalid for several."""
    given = [(name, value) for name in names if (value := getattr(fields, name)) is not None]
    if len(given) > 1:
        raise FieldInvalid(given[1][0], given[1][1], f"given without {given[0][0]}")
    return given[0] if given else None


def require_absent(fields: Fields, names: Sequence[str], *, limit: str) -> None:
    """Nothing, when none of these was given; raises FieldInvalid with the limit else."""
    for name in names:
        if name in fields.model_fields_set and getattr(fields, name) is not None:
            raise FieldInvalid(name, getattr(fields, name), limit)


def is_list(model: type[Fields], name: str) -> bool:
    """Whether the field is a list, which may be given several times."""
    return bool(properties_of(model).get(name, {}).get("type") == "array")


def times_of(model: type[Fields], name: str) -> int:
    """How many parts of a form may give the field: as many as a list has room, or a few."""
    return int(properties_of(model)[name]["maxItems"]) if is_list(model, name) else _MOST_TIMES


def from_text(model: type[Fields], name: str, text: str) -> Given:
    """A form's or a query's text as the value it stands for; as it is where it stands for none."""
    kind = properties_of(model).get(name, {}).get("type")
    if kind == "integer" and _INTEGER.fullmatch(text):
        return name, int(text)
    if kind == "number" and _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return name, number
    if kind == "boolean" and text in _TRUTHS:
        return name, _TRUTHS[text]
    if kind == "object":
        return name, _object(name, text)
    return name, text


def query_of(request: Request, model: type[Fields]) -> list[Given]:
    """What the query gives, name by name. Raises FieldUnknown, BodyBroken."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_QUERY_FIELDS,
        )
    except ValueError as error:
        raise BodyBroken(
            "query", f"not URL-encoded UTF-8 of at most {_MOST_QUERY_FIELDS} fields"
        ) from error
    for name, _ in pairs:
        require_known(model, name)
    return [from_text(model, name, text) for name, text in pairs]


def parse_json(text: bytes) -> Any:
    """The value of a JSON text. Raises BodyBroken, FieldInvalid for a name of different values.

    Of many small values it is refused before it is read: `[],` takes three bytes, and 64 once read.
    """
    if (marks := sum(map(text.count, _MARKS))) > _MOST_MARKS:
        raise BodyBroken("JSON", f"it has {marks} of {{ [ and commas; the limit is {_MOST_MARKS}")
    try:
        return json.loads(
            text.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_once
        )
    except UnicodeDecodeError as error:
        raise BodyBroken("JSON", f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise BodyBroken("JSON", "it is nested too deeply") from error
    except ValueError as error:
        reason = str(error).partition(";")[0]  # what follows is advice on Python, of a long number
        raise BodyBroken("JSON", str(shown(reason))) from error


def limit_of(model: type[Fields], name: str) -> str:
    """What a field must be, in words: `an integer from 1 to 100`."""
    entry = properties_of(model)[name]
    if "pattern" in entry:  # the one that there is: of a gallery, and of a calibration
        return NAME_LIMIT
    if "maxLength" in entry:
        return f"text of {entry['minLength']} to {entry['maxLength']} characters"
    if "enum" in entry:
        return f"one of {', '.join(entry['enum'])}"
    if entry["type"] == "array":
        return f"one or more of {', '.join(entry['items']['enum'])}"
    noun = {
        "integer": "an integer",
        "number": "a number",
        "object": "a JSON object",
        "boolean": "true or false",
    }
    what = noun.get(entry["type"], "text")
    low, above = entry.get("minimum"), entry.get("exclusiveMinimum")
    high, below = entry.get("maximum"), entry.get("exclusiveMaximum")
    if above is not None:
        return f"{what} between {above} and {below}, without them"
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    return what


def _extended(name: str, before: list[Any], value: Any) -> list[Any]:
    """A list's values, with the new ones of those that it is given now.

    Raises FieldInvalid if these name one twice.
    """
    more = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    values = more if isinstance(more, list) else [more]
    counts = Counter(entry for entry in values if isinstance(entry, str))
    if twice := [entry for entry, count in counts.items() if count > 1]:
        raise FieldInvalid(name, f"{shown(twice[0])} twice", "a list that names each once")
    known = {entry for entry in before if isinstance(entry, str)}
    return [*before, *(e for e in values if not (isinstance(e, str) and e in known))]


def _object(name: str, text: str) -> Any:
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except BodyBroken as error:
        limit = f'the JSON text of an object, as {{"key": "value"}}; {error.reason}'
        raise FieldInvalid(name, shown(text), limit) from error


def _require_equal(name: str, one: Any, other: Any) -> None:
    """Raise FieldInvalid if a field that was given twice has not the same value both times."""
    if not _equal(one, other):
        words = [json.dumps(shown(brief(value), 60), ensure_ascii=False) for value in (one, other)]
        different = words[0] != words[1]
        as_these = f", as {words[0]} and as {words[1]}" if different else ", with different values"
        raise FieldInvalid(name, f"given twice{as_these}", "given once")


def _equal(one: Any, other: Any) -> bool:
    """True if two values of JSON are the same; 1 and 1.0 are, and true is neither."""
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other)]
    if all(numbers):
        return bool(one == other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def brief(value: Any) -> Any:
    """The value as an error may name it; of a list or an object only that it is one."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list" if value else "an empty list"
    return shown(value)


def _flaw(value: Any) -> str | None:
    """What a value must be for others to walk it and write it without fear, where it is not so."""
    left, seen = [(value, 0)], 0
    while left:
        entry, depth = left.pop()
        if isinstance(entry, str) and not _is_unicode(entry):
            return "Unicode text, without lone surrogates"
        entries = [*entry, *entry.values()] if isinstance(entry, dict) else entry
        if isinstance(entries, list):
            seen += len(entries)
            if depth >= _DEEPEST or seen > _MOST_VALUES:
                return f"of at most {_MOST_VALUES} values, nested at most {_DEEPEST} deep"
            left += [(e, depth + 1) for e in entries]
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            _require_equal(str(shown(name)), values[name], value)
        values[name] = value
    return values


@cache
def properties_of(model: type[Fields]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each of a model's fields, a field that may be null as if it may not."""
    plain = {}
    for name, entry in model.model_json_schema()["properties"].items():
        options = [e for e in entry.pop("anyOf", []) if e["type"] != "null"]
        plain[name] = {**entry, **(options[0] if options else {})}
    return plain
