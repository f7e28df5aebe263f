"""Every way in which Mien says no, as domain errors; HTTP statuses are given in api/problems.py.

MienError
├── ImageError                    one image of a call
│   ├── ImageEmpty                image-empty
│   ├── ImageUnreadable           image-unreadable: no known format, or broken inside
│   ├── ImageTruncated            image-truncated
│   ├── ImageTooManyBytes         image-too-many-bytes
│   ├── ImageTooManyPixels        image-too-many-pixels: told from the header, before decoding
│   ├── ImageIsUrl                image-is-url: Mien never fetches
│   └── ImageNotBase64            image-not-base64
├── FaceError                     the faces of one image
│   ├── NoFace                    no-face
│   ├── SeveralFaces              several-faces
│   ├── FaceQualityTooLow         face-quality-too-low: all that its picture lacks for a level
│   └── FaceTooSmall              face-too-small: for one feature; others of the face are answered
├── RequestError                  the call itself
│   ├── FieldUnknown              field-unknown
│   ├── FieldInvalid              field-invalid
│   ├── FieldMissing              field-missing
│   ├── ImageCount                image-count
│   ├── BodyUnsupported           body-unsupported
│   ├── BodyCompressed            body-compressed
│   ├── BodyBroken                body-broken
│   ├── BodyTooLarge              body-too-large
│   ├── BodyTooSlow               body-too-slow
│   ├── BodyStalled               body-stalled: it comes, and too slowly
│   ├── IdempotencyKeyReused      idempotency-key-reused
│   └── AnswerErased              answer-erased: a repeat of a call whose person was deleted since
├── AccessError                   who asks may not: told before anything is looked at
│   ├── KeyRequired               key-required: none was shown, or none that holds
│   ├── ScopeMissing              scope-missing
│   ├── GalleryForbidden          gallery-forbidden: whether it exists or not
│   ├── RateLimited               rate-limited
│   ├── QuotaSpent                quota-spent
│   ├── HostUnknown               host-unknown: a name that is none of this machine's own
│   └── OriginForeign             origin-foreign: a page of another site asks
├── GalleryError                  what is, or is not, in the store
│   ├── GalleryUnknown            gallery-unknown
│   ├── GalleryExists             gallery-exists
│   ├── PersonUnknown             person-unknown
│   ├── PersonExists              person-exists
│   ├── FaceUnknown               face-unknown
│   ├── ReceiptUnknown            receipt-unknown: no erasure in the audit log has that receipt
│   ├── SpaceMismatch             space-mismatch
│   └── ConsentRequired           consent-required: the gallery asks for a record of it
├── CalibrationError              the user's own calibrations
│   ├── CalibrationUnknown        calibration-unknown
│   ├── CalibrationUnfit          calibration-unfit: damaged, or of another embedding space
│   ├── CalibrationLost           calibration-lost: a gallery is bound to one that cannot be used
│   └── PopulationUnknown         population-unknown: the calibration was not measured on it
├── ServiceError                  not the caller's fault
│   ├── QueueFull                 queue-full
│   ├── BuffersFull               buffers-full: bodies take all the memory that is for them
│   ├── ShareUsed                 share-used: what is free is for other callers
│   ├── CallTimedOut              call-timed-out
│   ├── ConnectionsFull           connections-full: those that are left are kept for probes
│   ├── NotReady                  not-ready
│   ├── OutOfMemory               out-of-memory: the machine's, not the image's fault
│   ├── StorageFull               storage-full: nothing of the call was kept
│   ├── StorageUnavailable        storage-unavailable: locked, read-only or damaged
│   ├── ErasureIncomplete         erasure-incomplete: deleted, but bytes are still on the disk
│   ├── AuditUnavailable          audit-unavailable: what cannot be recorded is not done
│   └── AuditIncomplete           audit-incomplete: done, and only its beginning is recorded
├── EnrolmentRefused              enrolment-refused: no face of the call could be enrolled
├── ModelUnknown                  model-unknown
├── FeatureOff                    feature-off: the deployment has switched it off
├── BackupRefused                 a backup that cannot be made or brought back; a command's alone
├── ImportRefused                 what cannot be imported as a whole; a command's alone
├── TemplateKeysRefused           a template key is missing or another; stops the start
├── GalleryMissing                a gallery that was there is gone or empty; stops the start
├── ArtefactError                 a model file that is not what its manifest says; stops the start
└── SettingsError                 a setting that cannot be used; stops the start
"""

import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)


@dataclass(eq=False)
class MienError(Exception):
    """The root: `slug` is stable, `str(error)` is the detail, the fields go into the problem."""

    slug: ClassVar[str]
    text: ClassVar[str]

    def __str__(self) -> str:
        return self.text.format(**{k: _in_words(v) for k, v in self.values().items()})

    def values(self) -> dict[str, Any]:
        """The error's own fields by name (value, limit, ...); `image` only where there is one."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in named.items() if (k, v) != ("image", None)}


def without_frames(error: E) -> E:
    """The error, fit to be kept as a value.

    A traceback holds every frame that the error came through, with all that these worked on: the
    decoder and the pixels of a broken photograph, for as long as somebody has the error.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _in_words(value: Any) -> Any:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else value


@dataclass(eq=False)
class ImageError(MienError):
    """One image cannot be used; in a call of several images the others go on.

    image: the field it came in, where a call names its images (image_a, image_b).
    """

    image: str | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class ImageEmpty(ImageError):
    slug = "image-empty"
    text = "the image has no bytes"


@dataclass(eq=False)
class ImageUnreadable(ImageError):
    slug = "image-unreadable"
    text = "the image cannot be read: {reason}; accepted are {accepted}"
    reason: str
    accepted: str


@dataclass(eq=False)
class ImageTruncated(ImageError):
    slug = "image-truncated"
    text = "the {format} image ends before its pixels do, after {value} bytes"
    format: str
    value: int


@dataclass(eq=False)
class ImageTooManyBytes(ImageError):
    slug = "image-too-many-bytes"
    text = "the image has {value} bytes; the limit is {limit} (MIEN_MAX_IMAGE_BYTES)"
    value: int
    limit: int


@dataclass(eq=False)
class ImageTooManyPixels(ImageError):
    slug = "image-too-many-pixels"
    text = (
        "the image declares {width} x {height} = {value} pixels; "
        "the limit is {limit} (MIEN_MAX_PIXELS)"
    )
    width: int
    height: int
    value: int
    limit: int


@dataclass(eq=False)
class ImageIsUrl(ImageError):
    slug = "image-is-url"
    text = "an image is sent as bytes or base64; Mien fetches no address (got {value!r})"
    value: str


@dataclass(eq=False)
class ImageNotBase64(ImageError):
    slug = "image-not-base64"
    text = "the image is not base64: {reason}"
    reason: str


@dataclass(eq=False)
class FaceError(MienError):
    """The faces of one image do not fit what was asked. image: as in ImageError."""

    image: str | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class NoFace(FaceError):
    slug = "no-face"
    text = "no face of at least {limit} pixels was found in the image"
    limit: int


@dataclass(eq=False)
class SeveralFaces(FaceError):
    slug = "several-faces"
    text = "{value} faces were found where one is asked; face=largest takes the largest"
    value: int
    limit: int
    boxes: list[dict[str, float]]


@dataclass(eq=False)
class FaceQualityTooLow(FaceError):
    slug = "face-quality-too-low"
    text = "quality={level} asks for a better picture of the face: {words}"
    level: str
    failed: list[dict[str, Any]]  # each: component, value, limit, reason

    def __str__(self) -> str:
        words = (
            "{component} is {value:g}, at {} {limit:g} is asked".format(
                "most" if one["value"] > one["limit"] else "least", **one
            )
            for one in self.failed
        )
        return self.text.format(level=self.level, words="; ".join(words))


@dataclass(eq=False)
class FaceTooSmall(FaceError):
    slug = "face-too-small"
    text = (
        "the face's eyes are {value:.4g} pixels apart in the photograph; {feature} asks for at "
        "least {limit:g}, below which its answers were measured to go wrong"
    )
    feature: str
    value: float
    limit: float


class RequestError(MienError):
    """The call itself is wrong; nothing of it was done."""


@dataclass(eq=False)
class FieldUnknown(RequestError):
    slug = "field-unknown"
    text = "the field {field!r} is unknown here; known are {known}"
    field: str
    known: list[str]


@dataclass(eq=False)
class FieldInvalid(RequestError):
    slug = "field-invalid"
    text = "{field} is {value}; it must be {limit}"
    field: str
    value: Any
    limit: str

    def __str__(self) -> str:
        value = self.value  # of JSON: its null, true and false have no quotation marks
        told = json.dumps(value) if isinstance(value, bool | None) else repr(value)
        return self.text.format(field=self.field, value=told, limit=self.limit)


@dataclass(eq=False)
class FieldMissing(RequestError):
    slug = "field-missing"
    text = "the field {field!r} is missing"
    field: str


@dataclass(eq=False)
class ImageCount(RequestError):
    slug = "image-count"
    text = "the call has {value} images; it takes {limit}"
    value: int
    limit: str


@dataclass(eq=False)
class BodyUnsupported(RequestError):
    slug = "body-unsupported"
    text = "the content type {value!r} is not accepted; accepted are {accepted}"
    value: str
    accepted: list[str]


@dataclass(eq=False)
class BodyCompressed(RequestError):
    slug = "body-compressed"
    text = "the body is compressed ({value}); send it as it is, without Content-Encoding"
    value: str


@dataclass(eq=False)
class BodyBroken(RequestError):
    slug = "body-broken"
    text = "the body is not valid {kind}: {reason}"
    kind: str
    reason: str


@dataclass(eq=False)
class BodyTooLarge(RequestError):
    slug = "body-too-large"
    text = "the body has more than {limit} bytes"
    limit: int


@dataclass(eq=False)
class BodyTooSlow(RequestError):
    slug = "body-too-slow"
    text = "the body was not there after {limit:g} seconds"
    limit: float


@dataclass(eq=False)
class BodyStalled(RequestError):
    slug = "body-stalled"
    text = (
        "of the body {value} bytes came in the last {seconds:g} seconds; at least {limit} are "
        "asked: send it without pauses, over a better line or in smaller parts"
    )
    value: int
    limit: int
    seconds: float


@dataclass(eq=False)
class IdempotencyKeyReused(RequestError):
    slug = "idempotency-key-reused"
    text = "the Idempotency-Key {value!r} was used with another request"
    value: str


@dataclass(eq=False)
class AnswerErased(RequestError):
    slug = "answer-erased"
    text = (
        "what was enrolled under the Idempotency-Key {value!r} was deleted since, the person or a "
        "face; nothing is enrolled again: use a new key to enrol it anew"
    )
    value: str


class AccessError(MienError):
    """Who asks may not do that, or not now; nothing of what there is was looked at."""


@dataclass(eq=False)
class KeyRequired(AccessError):
    slug = "key-required"
    text = "a key that holds is needed here: send it as Authorization: Bearer KEY"


@dataclass(eq=False)
class ScopeMissing(AccessError):
    slug = "scope-missing"
    text = "the key has not the scope that this call needs: {limit}"
    limit: str


@dataclass(eq=False)
class GalleryForbidden(AccessError):
    slug = "gallery-forbidden"
    text = "the key is not for the gallery {value!r}"
    value: str


@dataclass(eq=False)
class RateLimited(AccessError):
    slug = "rate-limited"
    text = "the key's rate is {limit}; there is room again in {retry_after_s} s"
    limit: str
    retry_after_s: int


@dataclass(eq=False)
class QuotaSpent(AccessError):
    slug = "quota-spent"
    text = "the key's quota, {limit}, is spent; there is a new one in {retry_after_s} s"
    limit: str
    retry_after_s: int


@dataclass(eq=False)
class HostUnknown(AccessError):
    slug = "host-unknown"
    text = (
        "without keys this service answers to localhost and to names in MIEN_HOSTS, not {value!r}"
    )
    value: str


@dataclass(eq=False)
class OriginForeign(AccessError):
    slug = "origin-foreign"
    text = "without keys this service answers pages of its own alone, and this is of {value!r}"
    value: str


class GalleryError(MienError):
    """What the call names is not there, is there already, or does not fit."""


@dataclass(eq=False)
class GalleryUnknown(GalleryError):
    slug = "gallery-unknown"
    text = "there is no gallery {value!r}"
    value: str


@dataclass(eq=False)
class GalleryExists(GalleryError):
    slug = "gallery-exists"
    text = "there is a gallery {value!r} already"
    value: str


@dataclass(eq=False)
class PersonUnknown(GalleryError):
    slug = "person-unknown"
    text = "the gallery {gallery!r} has no person {value!r}"
    gallery: str
    value: str


@dataclass(eq=False)
class PersonExists(GalleryError):
    slug = "person-exists"
    text = "the gallery {gallery!r} has a person {value!r} already"
    gallery: str
    value: str


@dataclass(eq=False)
class FaceUnknown(GalleryError):
    slug = "face-unknown"
    text = "the person {person!r} of gallery {gallery!r} has no face {value!r}"
    gallery: str
    person: str
    value: str


@dataclass(eq=False)
class SpaceMismatch(GalleryError):
    slug = "space-mismatch"
    text = (
        "the gallery {gallery!r} holds embeddings of space {limit!r}, the service makes {value!r}; "
        "embeddings of two spaces cannot be compared: enrol again in a new gallery"
    )
    gallery: str
    value: str
    limit: str


@dataclass(eq=False)
class ReceiptUnknown(GalleryError):
    slug = "receipt-unknown"
    text = "there is no receipt {value!r} of anybody of the gallery {gallery!r}"
    gallery: str
    value: str


@dataclass(eq=False)
class ConsentRequired(GalleryError):
    slug = "consent-required"
    text = (
        "the gallery {gallery!r} keeps nobody's face without a record of their consent, or of "
        "what else allows it: give `consent`"
    )
    gallery: str


class CalibrationError(MienError):
    """A user's own calibration cannot decide; the model's own never steps in unasked."""


@dataclass(eq=False)
class CalibrationUnknown(CalibrationError):
    slug = "calibration-unknown"
    text = "there is no calibration {value!r} in MIEN_DATA/calibrations"
    value: str
    known: list[str]


@dataclass(eq=False)
class CalibrationUnfit(CalibrationError):
    slug = "calibration-unfit"
    text = "the calibration {value!r} cannot be used: {reason}"
    value: str
    reason: str


@dataclass(eq=False)
class CalibrationLost(CalibrationError):
    slug = "calibration-lost"
    text = "the gallery {gallery!r} is bound to a calibration, and {reason}; nobody is identified"
    gallery: str
    value: str
    reason: str


@dataclass(eq=False)
class PopulationUnknown(CalibrationError):
    """calibration: the user's own that lacks it, None where it is the model's."""

    slug = "population-unknown"
    text = (
        "{which} has no population {value!r}; it has {known}: name one of these, or measure it "
        "with other strangers (mien calibrate FOLDER --strangers FOLDER)"
    )
    value: str
    calibration: str | None
    known: list[str]

    def __str__(self) -> str:
        which = "the model's calibration"
        if self.calibration is not None:
            which = f"the calibration {self.calibration!r}"
        known = ", ".join(self.known)
        return self.text.format(which=which, value=self.value, known=known)


class ServiceError(MienError):
    """The service cannot do it now; the caller may try again."""


@dataclass(eq=False)
class QueueFull(ServiceError):
    slug = "queue-full"
    text = "{value} requests are waiting; the limit is {limit}: try again in a moment"
    value: int
    limit: int


@dataclass(eq=False)
class BuffersFull(ServiceError):
    slug = "buffers-full"
    text = (
        "the bodies of calls hold {value} bytes; the limit is {limit} (MIEN_MAX_BUFFERED_BYTES): "
        "try again in a moment"
    )
    value: int
    limit: int


@dataclass(eq=False)
class ConnectionsFull(ServiceError):
    slug = "connections-full"
    text = (
        "all connections are in use; the limit is {limit}, and the last ones are kept for "
        "/healthz, /readyz and /metrics: try again in a moment"
    )
    limit: int


@dataclass(eq=False)
class ShareUsed(ServiceError):
    slug = "share-used"
    text = (
        "this key or address holds {value} {what}; it may hold as many as are free for others, "
        "now {limit}: wait for answers before sending more"
    )
    what: str
    value: int
    limit: int


@dataclass(eq=False)
class CallTimedOut(ServiceError):
    slug = "call-timed-out"
    text = (
        "the call was not done after {limit:g} seconds (MIEN_CALL_TIMEOUT_S), and nothing of it "
        "was kept: send fewer or smaller images a call, or try again when there are fewer calls"
    )
    limit: float


@dataclass(eq=False)
class NotReady(ServiceError):
    slug = "not-ready"
    text = "the service is not ready: {reasons}"
    reasons: list[str]


@dataclass(eq=False)
class OutOfMemory(ServiceError):
    slug = "out-of-memory"
    text = (
        "the service ran out of memory over this call; nothing is known to be wrong with it: "
        "try again, with fewer or smaller images if it stays"
    )


@dataclass(eq=False)
class StorageFull(ServiceError):
    slug = "storage-full"
    text = "the disk of MIEN_DATA is full; nothing of this call was kept"


@dataclass(eq=False)
class StorageUnavailable(ServiceError):
    slug = "storage-unavailable"
    text = "the store cannot be used now: {reason}; nothing of this call was kept"
    reason: str


@dataclass(eq=False)
class ErasureIncomplete(ServiceError):
    slug = "erasure-incomplete"
    text = (
        "it is deleted and found no more, but {reason}; "
        "the bytes are wiped from the disk with the next write or start that can"
    )
    reason: str
    receipt: str | None = field(default=None, kw_only=True)  # its id, where there is one
    erasure: Any = field(default=None, kw_only=True)  # of a person: the gallery's record of it

    def values(self) -> dict[str, Any]:
        return {"reason": self.reason, "receipt": self.receipt}


@dataclass(eq=False)
class AuditUnavailable(ServiceError):
    slug = "audit-unavailable"
    text = "the audit log cannot be written: {reason}; what cannot be recorded is not done"
    reason: str


@dataclass(eq=False)
class AuditIncomplete(ServiceError):
    slug = "audit-incomplete"
    text = (
        "it is done, but the audit log has only its beginning (entry {entry}) and cannot be "
        "written now: {reason}; look before you ask for it again"
    )
    entry: int
    reason: str


@dataclass(eq=False)
class EnrolmentRefused(MienError):
    slug = "enrolment-refused"
    text = "none of the {value} images could be enrolled; `refused` says why for each"
    value: int
    refused: list[dict[str, Any]]


@dataclass(eq=False)
class ModelUnknown(MienError):
    slug = "model-unknown"
    text = "there is no model {value!r}; there are {known}"
    value: str
    known: list[str]


@dataclass(eq=False)
class FeatureOff(MienError):
    slug = "feature-off"
    text = "{feature} is switched off here ({setting}=off): {reason}"
    feature: str
    setting: str
    reason: str


@dataclass(eq=False)
class BackupRefused(MienError):
    slug = "backup-refused"
    text = "{path}: {reason}"
    path: str
    reason: str


@dataclass(eq=False)
class ImportRefused(MienError):
    slug = "import-refused"
    text = "{path}: {reason}"
    path: str
    reason: str


@dataclass(eq=False)
class TemplateKeysRefused(MienError):
    slug = "template-keys-refused"
    text = "the templates cannot be opened: {reason}"
    reason: str


@dataclass(eq=False)
class GalleryMissing(MienError):
    slug = "gallery-missing"
    text = (
        "{path} is missing or empty, and {beside} beside it shows that there was one: bring it "
        "back (docs/backup.md), or begin an empty one with `mien serve --new-gallery`"
    )
    path: str
    beside: str


@dataclass(eq=False)
class ArtefactError(MienError):
    slug = "artefact-refused"
    text = "the model in {folder} is refused: {reason}"
    folder: str
    reason: str


@dataclass(eq=False)
class SettingsError(MienError):
    slug = "settings-refused"
    text = "{variable}: {reason}"
    variable: str
    reason: str
