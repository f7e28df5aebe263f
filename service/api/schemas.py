"""What a caller sees: the answers' shapes, for the types of the code and for the OpenAPI document.

Boxes and landmarks are pixels of the upright image (EXIF applied), x right, y down, origin at the
top left. A similarity is the cosine of two embeddings.
"""

from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_exact = with_config(ConfigDict(extra="forbid"))
Decision = Literal["match", "no_match", "uncertain"]
Unit = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]


@with_config(ConfigDict(extra="allow"))
class Problem(TypedDict):
    """An error (RFC 9457); more fields (value, limit, ...) by its type."""

    type: Annotated[str, Field(pattern="^/problems/[a-z0-9-]+$")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str


@_exact
class Box(TypedDict):
    """A rectangle; it may reach beyond the image."""

    x: float
    y: float
    width: float
    height: float


@_exact
class Quality(TypedDict):
    """What a face's picture is worth: components as ISO/IEC 29794-5 names them, measured in our way
    (docs/quality.md), and a score of them."""

    score: Unit
    sharpness: float
    luminance_mean: Unit
    under_exposure_prevention: Unit
    over_exposure_prevention: Unit
    dynamic_range: float
    inter_eye_distance: float
    leftward_crop_of_the_face_image: float
    rightward_crop_of_the_face_image: float
    margin_above_of_the_face_image: float
    margin_below_of_the_face_image: float
    face_area_cut_off: Unit
    head_pose_yaw: float
    head_pose_pitch: float
    head_pose_roll: float


Point = Annotated[list[float], Field(min_length=2, max_length=2)]


@_exact
class Face(TypedDict):
    """A face. landmarks: left eye, right eye, nose, left and right mouth corner, left as seen."""

    box: Box
    confidence: Unit
    landmarks: Annotated[list[Point], Field(min_length=5, max_length=5)]
    quality: Quality


@_exact
class EmbeddedFace(Face):
    """A face with its embedding, of unit length, in an embedding space."""

    embedding: Annotated[list[float], Field(min_length=512, max_length=512)]
    space: str


@_exact
class Candidate(TypedDict):
    """A person who a face may be, by the most similar of their faces."""

    person_id: str
    name: str | None
    face_id: str
    similarity: Cosine


@_exact
class IdentifiedFace(Face):
    """A face with the people most like it, most similar first, and what follows from that."""

    decision: Decision
    candidates: list[Candidate]


@_exact
class Expression(TypedDict):
    """What a face shows. scores: of every class, a distribution; confidence: the label's."""

    label: str
    confidence: Unit
    scores: dict[str, Unit]


@_exact
class Attribute(TypedDict):
    """Whether an attribute is there, and the confidence of that answer. reliable: false where it
    cannot be told well, and was asked for all the same; else it is not there."""

    present: bool
    confidence: Unit
    reliable: NotRequired[bool]


@_exact
class Check(TypedDict):
    """A component of quality beside the bounds of a gate. reason: a code, null where it passed."""

    component: str
    value: float
    least: float | None
    most: float | None
    passed: bool
    reason: str | None


@_exact
class Gate(TypedDict):
    """Whether a face passes a gate, and by which checks."""

    passed: bool
    checks: list[Check]


@_exact
class Gates(TypedDict):
    """The gates that /enroll knows, at which a face fares so."""

    standard: Gate
    strict: Gate


@_exact
class RefusedFeature(TypedDict):
    """A feature that is not answered for a face, which is then null, and why."""

    feature: str
    problem: Problem


@_exact
class ExpressionFace(Face):
    """A face with its expression."""

    expression: Expression | None
    refused: list[RefusedFeature]


@_exact
class AttributesFace(Face):
    """A face with its attributes."""

    attributes: dict[str, Attribute] | None
    refused: list[RefusedFeature]


@_exact
class AnalyzedFace(Face):
    """A face with what was asked for of it."""

    expression: NotRequired[Expression | None]
    attributes: NotRequired[dict[str, Attribute] | None]
    quality_gate: NotRequired[Gates]
    decision: NotRequired[Decision]
    candidates: NotRequired[list[Candidate]]
    embedding: NotRequired[Annotated[list[float], Field(min_length=512, max_length=512)]]
    space: NotRequired[str]
    refused: list[RefusedFeature]


FaceKind = TypeVar("FaceKind")


@_exact
class Image(TypedDict, Generic[FaceKind]):
    """Result of an image: faces, largest first, or its error.

    truncated: there are more faces than MIEN_MAX_FACES, of which these are the largest; absent
    where these are all.
    """

    index: int
    width: int | None
    height: int | None
    error: Problem | None
    faces: list[FaceKind]
    truncated: NotRequired[bool]


@_exact
class Threshold(TypedDict):
    """The similarity from which it is a match; interval: of the target, at 95 %.

    extrapolated: fewer than 30 pairs of people stand behind the rate. calibration: the user's own
    that decided, null where it was the model's. population: the strangers that the rate is of,
    `calibration` for the calibration's own people. fnmr: how often two photographs of one of the
    calibration's people are less alike than that, with its interval.
    """

    similarity: float
    by: Literal["threshold", "target_fmr", "target_fpir"]
    target: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    extrapolated: bool
    calibration: str | None
    population: str
    fnmr: Unit
    fnmr_interval: Annotated[list[float], Field(min_length=2, max_length=2)]


Timings = dict[str, float]


@_exact
class DetectAnswer(TypedDict):
    """The faces of each image."""

    images: list[Image[Face]]
    timings_ms: Timings
    request_id: str


@_exact
class EmbeddingsAnswer(TypedDict):
    """The faces of each image with their embeddings."""

    images: list[Image[EmbeddedFace]]
    model: str
    space: str
    timings_ms: Timings
    request_id: str


@_exact
class IdentifyAnswer(TypedDict):
    """The faces of each image with who they may be. candidates_per_face: where a call has so many
    faces that each has no more than these, and not `top_k`."""

    images: list[Image[IdentifiedFace]]
    gallery: str
    model: str
    space: str
    threshold: Threshold
    candidates_per_face: NotRequired[int]
    timings_ms: Timings
    request_id: str


@_exact
class ExpressionAnswer(TypedDict):
    """The faces of each image with their expressions."""

    images: list[Image[ExpressionFace]]
    model: str
    timings_ms: Timings
    request_id: str


@_exact
class AttributesAnswer(TypedDict):
    """The faces of each image with their attributes."""

    images: list[Image[AttributesFace]]
    model: str
    timings_ms: Timings
    request_id: str


@_exact
class AnalyzeAnswer(TypedDict):
    """The faces of each image with what was asked for. models: the networks that told it, by task;
    space: where embeddings, gallery and threshold: where identities were asked for;
    candidates_per_face: as in IdentifyAnswer."""

    images: list[Image[AnalyzedFace]]
    models: dict[str, str]
    space: NotRequired[str]
    gallery: NotRequired[str]
    threshold: NotRequired[Threshold]
    candidates_per_face: NotRequired[int]
    timings_ms: Timings
    request_id: str


@_exact
class VerifyAnswer(TypedDict):
    """Whether two faces are of one person."""

    similarity: Cosine
    decision: Decision
    threshold: Threshold
    faces: Annotated[list[Face], Field(min_length=2, max_length=2)]
    model: str
    space: str
    timings_ms: Timings
    request_id: str


@_exact
class EnrolledPerson(TypedDict):
    """A person as they are after an enrolment."""

    id: str
    name: str | None
    metadata: dict[str, Any]
    faces: int


@_exact
class EnrolledFace(TypedDict):
    """A face that was enrolled. image: the index of its image in the call."""

    image: int
    face_id: str
    box: Box
    quality: Quality


@_exact
class RefusedImage(TypedDict):
    """An image of which no face was enrolled. image: its index in the call."""

    image: int
    problem: Problem


@_exact
class EnrollWarning(TypedDict):
    """A probable mistake of the caller; it refuses nothing. image: its index in the call.

    photograph-again: it was enrolled for this person before, as face_id, or stands twice in the
    call. like-another-person: /identify would take the face for person_id, by face_id, from limit
    on; told to keys with the scope recognise alone. unlike-own-faces: none of this person's other
    faces reaches limit. new-person: no person_id was given, person_id was made. not-compared: the
    calibration that the gallery is bound to cannot be used.
    """

    type: Literal[
        "photograph-again",
        "like-another-person",
        "unlike-own-faces",
        "new-person",
        "not-compared",
    ]
    detail: str
    image: NotRequired[int]
    person_id: NotRequired[str]
    face_id: NotRequired[str]
    similarity: NotRequired[Cosine]
    limit: NotRequired[Cosine]


@_exact
class EnrollAnswer(TypedDict):
    """The person, and what became of each image."""

    gallery: str
    person: EnrolledPerson
    enrolled: list[EnrolledFace]
    refused: list[RefusedImage]
    warnings: list[EnrollWarning]
    model: str
    space: str
    timings_ms: Timings
    request_id: str


@_exact
class Gallery(TypedDict):
    """A gallery. space: the embedding space that its first face pinned; calibration: the user's own
    that decides in it, null where the model's does; population: the strangers whose false match
    rate decides in it, null where MIEN_POPULATION says; retention_days: after which a person is
    erased, null where they are kept until they are."""

    name: str
    space: str | None
    calibration: str | None
    population: str | None
    metadata: dict[str, Any]
    persons: int
    faces: int
    retention_days: int | None
    requires_consent: bool
    created: str


@_exact
class Consent(TypedDict):
    """What allows to keep a person's face, since when, and where it is written down."""

    basis: str
    time: str
    reference: str | None


@_exact
class Person(EnrolledPerson):
    """A person of a gallery. faces: how many; expires: when the gallery keeps them no longer, null
    where they are kept until they are erased."""

    created: str
    updated: str
    consent: Consent | None
    expires: str | None


@_exact
class PersonFace(TypedDict):
    """An enrolled face: where it was, and its quality as it was measured and named, when it was
    enrolled; null of one whose embedding was imported."""

    box: Box | None
    confidence: Unit | None
    landmarks: Annotated[list[Point], Field(min_length=5, max_length=5)] | None
    quality: dict[str, float] | None
    id: str
    person_id: str
    created: str


@_exact
class ExportedFace(PersonFace):
    """An enrolled face with its embedding, of unit length."""

    embedding: Annotated[list[float], Field(min_length=512, max_length=512)]


@_exact
class AuditMention(TypedDict):
    """That the audit log names a person: the number of its entry, when and what was done."""

    sequence: int
    time: str
    action: str


@_exact
class Export(TypedDict):
    """All that is kept of a person; no image is. model: what made the embeddings, null where it is
    not served any more; audit: where the audit log names them."""

    gallery: Gallery
    person: Person
    faces: list[ExportedFace]
    space: str | None
    model: str | None
    audit: list[AuditMention]


@_exact
class Receipt(TypedDict):
    """What was erased of a person: how many faces, the ids of at most 1000 of them, when, and how
    far. incomplete: why it is not all done; audit: its entry in the audit log, null where that
    could not be written."""

    receipt: str
    gallery: str
    person_id: str | None
    faces: int
    face_ids: list[str]
    erased: str
    done: list[Literal["deleted", "data-key-erased", "overwritten", "log-truncated"]]
    incomplete: str | None
    audit: int | None


Item = TypeVar("Item")


@_exact
class Page(TypedDict, Generic[Item]):
    """Some items; `next` is the cursor of the page behind it, null at the end."""

    items: list[Item]
    next: str | None


@_exact
class Model(TypedDict):
    """A network that is served, as its manifest says."""

    name: str
    task: str
    space: str | None
    provider: str
    threads: int
    manifest: dict[str, Any]


@_exact
class Models(TypedDict):
    """The networks that are served."""

    items: list[Model]


@_exact
class OperatingPoint(TypedDict):
    """What a target FMR asks for and costs, with 95 % intervals over people.

    extrapolated: fewer than 30 pairs of people stand behind the target.
    """

    target_fmr: Unit
    similarity: Cosine
    similarity_low: Cosine
    similarity_high: Cosine
    fmr: Unit
    fmr_low: Unit
    fmr_high: Unit
    fnmr: Unit
    fnmr_low: Unit
    fnmr_high: Unit
    extrapolated: bool


@_exact
class FalseMatches(TypedDict):
    """How often strangers of a population match at the threshold that a calibration's own people
    have for a target FMR, with its 95 % interval."""

    target_fmr: Unit
    similarity: Cosine
    fmr: Unit
    fmr_low: Unit
    fmr_high: Unit


@with_config(ConfigDict(extra="allow"))
class Population(TypedDict):
    """Strangers that a calibration's FMR was measured on, with what its file says of them.

    crops: how many photographs. thresholds: for this population; the FNMR there is that of the
    calibration's people. at_calibration_thresholds: what the calibration's own thresholds give.
    """

    name: str
    crops: int
    smallest_fmr: Unit
    thresholds: list[OperatingPoint]
    at_calibration_thresholds: list[FalseMatches]


@with_config(ConfigDict(extra="allow"))
class OwnCalibration(TypedDict):
    """A calibration of the user's own, with what its file says of how it was measured.

    galleries: those bound to it. problem: why it cannot decide, null where it can.
    """

    name: str
    galleries: list[str]
    problem: Problem | None
    thresholds: list[OperatingPoint]
    populations: list[Population]


@with_config(ConfigDict(extra="allow"))
class Calibration(TypedDict, total=False):
    """A model's own calibration, and the user's of its embedding space; nothing where a network is
    not calibrated."""

    people: int
    crops: int
    smallest_fmr: Unit
    thresholds: list[OperatingPoint]
    curve: dict[str, list[float]]
    populations: list[Population]
    calibrations: list[OwnCalibration]


@_exact
class State(TypedDict):
    """How the service is. degraded: a sentence about each worker process that cannot be started."""

    status: str
    degraded: NotRequired[list[str]]


@_exact
class ProblemKind(TypedDict):
    """What a kind of problem means, and what a caller can do about it."""

    type: str
    title: str
    status: int
    advice: str
