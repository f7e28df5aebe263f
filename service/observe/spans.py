"""Requests as OpenTelemetry's spans, sent to a collector by OTLP over HTTP: its home.

A span a request, as HTTP's semantic conventions name it, and in it one for each piece of work of a
stage. They are made of the record when the request is over. Sending goes on in a thread of its own:
what a collector that is gone does not take is dropped, and no request waits for it.
"""

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from service.observe.record import Record
from service.observe.trace import Trace

TIMEOUT_S = 2.0  # of one sending, all its tries together: the longest that a stop waits, twice


class Spans:
    """What sends them to a collector, as http://127.0.0.1:4318; `close` sends what is left."""

    def __init__(self, endpoint: str, *, version: str) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # a trace that is not recorded does not come this far
            resource=Resource.create({"service.name": "mien", "service.version": version}),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("mien", version)

    def send(self, record: Record) -> None:
        """Has the request's spans sent, if its trace is recorded; called from one thread."""
        if not record.trace.sampled:
            return
        self._ids.next = record.trace
        request = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=_caller(record.trace),
            kind=otel.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=record.begun_ns,
        )
        inside = otel.set_span_in_context(request)
        for span in list(record.stages.spans):
            start = _ns(record, span.begun_s)
            stage = self._tracer.start_span(span.stage, context=inside, start_time=start)
            stage.end(_ns(record, span.begun_s + span.seconds))
        if record.status >= 500:
            request.set_status(otel.StatusCode.ERROR)
        request.end(_ns(record, record.begun_s + record.seconds))

    def close(self) -> None:
        """Sends what is left and ends the thread."""
        self._provider.shutdown()


class _Ids(RandomIdGenerator):
    """Random ids; but the next span, and its trace where it begins one, is the request's own."""

    next: Trace | None = None

    def generate_trace_id(self) -> int:
        return int(self.next.trace_id, 16) if self.next else super().generate_trace_id()

    def generate_span_id(self) -> int:
        trace, self.next = self.next, None
        return int(trace.span_id, 16) if trace else super().generate_span_id()


def _caller(trace: Trace) -> Context:
    """The context in which the caller's span is the current one; the empty one without a caller."""
    if trace.parent_id is None:
        return Context()
    parent = otel.SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        is_remote=True,
        trace_flags=otel.TraceFlags(trace.flags),
        trace_state=otel.TraceState.from_header([trace.state]),
    )
    return otel.set_span_in_context(otel.NonRecordingSpan(parent), Context())


def _attributes(record: Record) -> dict[str, str | int]:
    stages = record.stages
    attributes: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "mien.request_id": record.request_id,
        "mien.images": len(stages.images),
        "mien.faces": sum(len(scores) for scores in stages.images if scores is not None),
    }
    if record.problem is not None:
        attributes["error.type"] = record.problem
    return attributes


def _ns(record: Record, at_s: float) -> int:
    """A moment of perf_counter's clock in nanoseconds since 1970."""
    return record.begun_ns + round((at_s - record.begun_s) * 1e9)
