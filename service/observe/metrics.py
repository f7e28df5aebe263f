"""What is counted while requests are answered; docs/metrics.md lists it, exposition.py shows it.

prometheus_client's home, with exposition.py. Labels take few values each: a template for a path, a
slug for a reason, and `other` or `unknown` for what anyone may make up.

The buckets follow what was measured. Of a call (43 ms, p95 48: benchmarks/results/identify.md;
with a crowd in its photograph 0.1 to 0.3 s: detect.md there; MIEN_BODY_TIMEOUT_S, 60 s, bounds an
upload): close about 60 ms, which /identify is held to, and up to a minute. Of a stage: to decide
takes 0.01 ms, to align 0.7, to decode 1.5, to search 1 ms among 10,000 faces (gallery.md there) and
15 among 100,000, to embed 7, to detect 27 to 260; so each bound is two or three times the one
before, from 0.1 ms, below which nothing is worth a look, to 10 s, which only the faces of a crowd
in a full house take.
"""

import gc
from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from service.observe.record import Record

REQUEST_BUCKETS_S: Final = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
STAGE_BUCKETS_S: Final = (
    *(0.0001, 0.0003, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
# A GPU takes up to MIEN_BATCH, at most 1024; a CPU 1 unless it is told otherwise.
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FACES_BUCKETS: Final = (0, 1, 2, 3, 5, 8, 13, 25, 50, 100, 250)
# Fine where thresholds lie: ecacface-mobile's are 0.27 (FMR 1 %) to 0.63 (FPIR 1 %, 100,000 faces).
SIMILARITY_BUCKETS: Final = (
    *(-0.2, -0.1, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    *(0.65, 0.7, 0.75, 0.8, 0.9, 1.0),
)
QUALITY_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # as many series again
REGISTRY: Final = CollectorRegistry()

_REQUESTS: Final = Counter(
    "mien_requests",
    "Requests that were answered.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
_REQUEST_S: Final = Histogram(
    "mien_request_seconds",
    "From a request's first byte to its answer's last, the upload included.",
    ["route"],
    buckets=REQUEST_BUCKETS_S,
    registry=REGISTRY,
)
_STAGE_S: Final = Histogram(
    "mien_stage_seconds",
    "Time of a stage for one image, or for one call where it is done once a call.",
    ["stage"],
    buckets=STAGE_BUCKETS_S,
    registry=REGISTRY,
)
_BATCH_SIZE: Final = Histogram(
    "mien_batch_size",
    "Crops that ran together.",
    ["model"],
    buckets=BATCH_BUCKETS,
    registry=REGISTRY,
)
_QUEUE_DEPTH: Final = Gauge(
    "mien_queue_depth",
    "Crops that wait for a network.",
    ["model"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
_QUEUE_WAIT_S: Final = Histogram(
    "mien_queue_wait_seconds",
    "From when the faces of an image came in line until the first of them ran.",
    ["model"],
    buckets=STAGE_BUCKETS_S,
    registry=REGISTRY,
)
_REFUSED: Final = Counter(
    "mien_refused",
    "Requests that were answered with a problem, by its slug.",
    ["reason"],
    registry=REGISTRY,
)
_CONNECTIONS: Final = Gauge(
    "mien_connections",
    "Connections that are open.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
_CONNECTIONS_ENDED: Final = Counter(
    "mien_connections_ended",
    "Connections that the service ended before their caller did, by reason.",
    ["reason"],
    registry=REGISTRY,
)
# full: refused, since all were in use. idle: ended for another while nearly all were in use.
# head, write: the caller did not send a request's head, or read an answer, in its time.
ENDED: Final = ("full", "idle", "head", "write")
for _reason in ENDED:
    _CONNECTIONS_ENDED.labels(_reason)  # zero until the first, as a rate needs it
_FACES: Final = Histogram(
    "mien_faces_per_image",
    "Faces that were found in an image.",
    buckets=FACES_BUCKETS,
    registry=REGISTRY,
)
_DECISIONS: Final = Counter(
    "mien_decisions",
    "Decisions about faces (identify, analyze) and pairs of faces (verify).",
    ["decision"],
    registry=REGISTRY,
)
_TOP1: Final = Histogram(
    "mien_top1_similarity",
    "Cosine of a face and its best candidate in the gallery, by what was decided.",
    ["decision"],
    buckets=SIMILARITY_BUCKETS,
    registry=REGISTRY,
)
_QUALITY: Final = Histogram(
    "mien_quality_score",
    "Quality score of a face that was found.",
    buckets=QUALITY_BUCKETS,
    registry=REGISTRY,
)
_COLLECTIONS: Final = Counter(
    "mien_gc_collections",
    "Runs of Python's garbage collector.",
    ["generation"],
    registry=REGISTRY,
)


class _Garbage:
    """Counts the garbage collector's runs since it was last asked; called from one thread.

    The collector's own callbacks would count inside of a collection, which may begin while the
    counter is locked by the very same thread.
    """

    def __init__(self) -> None:
        self._runs = [0, 0, 0]

    def count(self) -> None:
        runs = [generation["collections"] for generation in gc.get_stats()]
        for generation, (now, before) in enumerate(zip(runs, self._runs, strict=True)):
            _COLLECTIONS.labels(str(generation)).inc(now - before)
        self._runs = runs


_GARBAGE: Final = _Garbage()


def count(record: Record) -> None:
    """Counts a request that is over."""
    _REQUESTS.labels(record.route, record.method, str(record.status)).inc()
    _REQUEST_S.labels(record.route).observe(record.seconds)
    if record.problem is not None:
        _REFUSED.labels(record.problem).inc()
    stages = record.stages
    for span in list(stages.spans):
        _STAGE_S.labels(span.stage).observe(span.seconds)
    for scores in stages.images:
        if scores is not None:
            _FACES.observe(len(scores))
            for score in scores:
                _QUALITY.observe(score)
    for decision in stages.decisions:
        _DECISIONS.labels(decision).inc()
    for decision, similarity in stages.top1:
        _TOP1.labels(decision).observe(similarity)
    _GARBAGE.count()


def connections_are(count: int) -> None:
    """Note how many connections are open now."""
    _CONNECTIONS.set(count)


def connection_ended(reason: str) -> None:
    """Count a connection that the service ended; reason: one of ENDED."""
    _CONNECTIONS_ENDED.labels(reason).inc()


class Queue:
    """What is seen of the line before a network; called from its threads."""

    def __init__(self, model: str) -> None:
        self._depth = _QUEUE_DEPTH.labels(model)
        self._size = _BATCH_SIZE.labels(model)
        self._wait_s = _QUEUE_WAIT_S.labels(model)

    def line_is(self, crops: int) -> None:
        """Notes how many crops are in line now."""
        self._depth.set(crops)

    def batch_begins(self, crops: int, waits_s: Sequence[float]) -> None:
        """Notes a batch that begins, and how long each caller had waited whom it serves first."""
        self._size.observe(crops)
        for wait_s in waits_s:
            self._wait_s.observe(wait_s)
