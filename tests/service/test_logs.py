"""service/observe/logs.py: one form for all lines, and no text of an exception in any."""

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from service.observe.logs import configure, log, write
from service.observe.record import Record
from service.observe.trace import trace_of
from tests.logged import restored_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with restored_logging():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def told(record: Record, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    configure("json")
    write(record)
    [line] = lines(capsys)
    return line


def a_record(**changes: Any) -> Record:
    given = {"route": "/identify", "status": 200, **changes}
    return Record("the-id", "POST", trace_of([], [], recorded=False), **given)


def test_a_request_is_one_line_with_what_it_was_and_came_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = a_record()
    with record.stages.measure("decode"):
        pass
    record.stages.saw((0.5, 0.6))
    record.stages.saw(None)
    for decision in ("no_match", "match", "no_match"):
        record.stages.decided(decision)
    record.end()
    line = told(record, capsys)
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "the-id",
        "trace_id": record.trace.trace_id,
        "method": "POST",
        "route": "/identify",
        "status": 200,
        "ms": round(record.seconds * 1e3, 3),
        "stages": record.stages.spent_ms(),
        "images": 2,
        "faces": 2,
        "decisions": {"match": 1, "no_match": 2},
    }


def test_a_form_that_is_broken_is_no_line_beside_that_of_its_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("json")
    form = MultipartParser(b"boundary")
    with pytest.raises(MultipartParseError):
        form.write(b"no boundary")
    assert lines(capsys) == []


def test_a_request_without_images_says_nothing_of_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert not {"stages", "images", "faces", "decisions", "problem"} & set(told(a_record(), capsys))


def test_a_request_that_was_refused_is_told_with_its_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = told(a_record(status=503, problem="queue-full"), capsys)
    assert (line["status"], line["problem"]) == (503, "queue-full")


def fail() -> None:
    try:
        {}["Telltale"]
    except KeyError as error:
        raise ValueError(f"{error} is of no use") from error


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", ["mien", "uvicorn.error", "asyncio"])
def test_a_failure_is_told_by_types_and_places_and_never_by_its_text(
    form: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(form)
    name_of_the_test = __name__.rpartition(".")[2]
    for tell in (log.exception, logging.getLogger(name).exception):
        try:
            raise LookupError("Telltale")
        except LookupError:
            try:
                fail()
            except ValueError:
                tell("it failed")
        output = capsys.readouterr().err
        assert "it failed" in output
        assert "ValueError" in output
        assert "KeyError" in output
        assert name_of_the_test in output
        assert "Telltale is" not in output
        assert "'Telltale'" not in output


def test_what_servers_and_libraries_say_has_the_same_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("json")
    logging.getLogger("uvicorn.error").info("up on %s", "8000", extra={"color_message": "x"})
    logging.getLogger("some.library").warning("careful")
    logging.getLogger("some.library").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("json")
        warnings.warn("old", stacklevel=1)
    events = lines(capsys)
    assert [(line["level"], line["event"]) for line in events[:2]] == [
        *(("info", "up on 8000"), ("warning", "careful"))
    ]
    assert "old" in events[2]["event"]
    assert len(events) == 3
    assert all(set(line) == {"time", "level", "event"} for line in events)


def test_events_have_fields_and_people_get_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console")
    log.warning("no setting of Mien", variable="MIEN_PROT")
    output = capsys.readouterr().err
    assert "no setting of Mien" in output
    assert "variable=MIEN_PROT" in output
    assert "\x1b[" not in output  # colours are for terminals


@pytest.mark.parametrize(("terminal", "is_json"), [(True, False), (False, True)])
def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(
    terminal: bool,
    is_json: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    configure("auto")
    log.warning("here")
    assert capsys.readouterr().err.startswith('{"time"') == is_json


def test_without_a_form_nothing_is_written_of_requests(capsys: pytest.CaptureFixture[str]) -> None:
    """As in the command line's own process, where nobody asked for a log."""
    write(a_record())
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_requests_that_are_not_http_are_one_line_a_minute_with_their_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("service.observe.logs.monotonic", lambda: now_s[0])
    configure("json")
    server = logging.getLogger("uvicorn.error")
    for after_s in (0, 1, 58, 2, 1):
        now_s[0] += after_s
        server.warning("Invalid HTTP request received.")
        server.warning("something else")
    malformed = [line["event"] for line in lines(capsys) if "Invalid" in line["event"]]
    assert malformed == [
        "Invalid HTTP request received.",
        "Invalid HTTP request received. (2 more like it since the last line)",
    ]
