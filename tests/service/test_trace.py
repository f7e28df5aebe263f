"""service/observe/trace.py: W3C Trace Context, read and written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observe.trace import Trace, trace_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def read(parent: str, *states: str, recorded: bool = False) -> Trace:
    return trace_of([parent], states, recorded=recorded)


def test_a_trace_that_comes_in_goes_on_with_a_span_of_our_own() -> None:
    trace = read(GIVEN)
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, PARENT, True)
    assert re.fullmatch(r"[0-9a-f]{16}", trace.span_id)
    assert trace.span_id != PARENT
    assert trace.headers() == {"traceparent": f"00-{TRACE}-{trace.span_id}-01"}


def test_a_caller_who_does_not_record_is_not_recorded() -> None:
    assert not read(GIVEN[:-1] + "0", recorded=True).sampled


def test_flags_that_nobody_knows_are_not_handed_on() -> None:
    assert read(GIVEN[:-2] + "ff").headers()["traceparent"].endswith("-03")


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    trace = read(f"cc-{TRACE}-{PARENT}-01-what-comes-then")
    assert (trace.trace_id, trace.parent_id) == (TRACE, PARENT)
    assert trace.headers()["traceparent"].startswith("00-")


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        ["nonsense"],
        [GIVEN, GIVEN],
        [GIVEN + "-more"],
        [GIVEN + "."],
        [GIVEN.upper()],
        [GIVEN.replace(TRACE, "0" * 32)],
        [GIVEN.replace(PARENT, "0" * 16)],
        [GIVEN.replace(PARENT, PARENT[1:])],
        ["ff" + GIVEN[2:]],
        [" " + GIVEN],
    ],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_what_is_no_traceparent_begins_a_new_trace(parents: list[str], recorded: bool) -> None:
    trace = trace_of(parents, ["rojo=1"], recorded=recorded)
    assert re.fullmatch(r"[0-9a-f]{32}", trace.trace_id)
    assert trace.trace_id != TRACE
    assert (trace.parent_id, trace.state, trace.sampled) == (None, "", recorded)


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_is_sent_the_headers_are_well_formed(parent: str, state: str) -> None:
    headers = trace_of([parent], [state], recorded=True).headers()
    assert trace_of([headers["traceparent"]], [], recorded=False).parent_id is not None
    assert headers.get("tracestate", "").isascii()


def test_a_tracestate_is_handed_on_from_all_its_headers() -> None:
    trace = read(GIVEN, "rojo=00f067aa0ba902b7, ,congo=t61rcWkgMzE", "fw529a3039@dt=a b;c")
    expected = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,fw529a3039@dt=a b;c"
    assert trace.headers()["tracestate"] == expected


@pytest.mark.parametrize(
    "state",
    [
        "novalue",
        "Upper=1",
        "a=1,a=2",
        "a=\n",
        "a=b=c",
        ",".join(f"k{i}=1" for i in range(33)),
    ],
)
def test_a_tracestate_that_is_not_well_formed_is_left_out_and_the_trace_goes_on(
    state: str,
) -> None:
    trace = read(GIVEN, state)
    assert (trace.trace_id, trace.state) == (TRACE, "")
