"""Every problem a caller can get: error -> slug, status, title, and what to do about it.

An answer that is no success is `application/problem+json` (RFC 9457): type, title, status, detail,
the error's own fields (value, limit, ...) and the request's id. GET /problems/SLUG says what a
problem means. docs/errors.md lists them; a test compares it with the table here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response

from service import errors
from service.observe.record import Record

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
LONGEST_VALUE: Final = 200
LONGEST_DETAIL: Final = 1000


@dataclass(frozen=True)
class Kind:
    """A kind of problem. advice: what the caller can do."""

    slug: str
    status: int
    title: str
    advice: str


def _kind(error: type[errors.MienError], status: int, title: str, advice: str) -> Kind:
    return Kind(error.slug, status, title, advice)


_E = errors
OF_ERROR: Final[dict[type[errors.MienError], Kind]] = {
    error: _kind(error, status, title, advice)
    for error, status, title, advice in [
        (_E.ImageEmpty, 422, "Empty image", "Send the image's bytes."),
        (
            _E.ImageUnreadable,
            422,
            "Not a readable image",
            "Send a whole file in one of the formats that the detail names.",
        ),
        (
            _E.ImageTruncated,
            422,
            "Truncated image",
            "Send the file again; part of it was lost on the way or on the disk.",
        ),
        (
            _E.ImageTooManyBytes,
            413,
            "Image with too many bytes",
            "Send a smaller or more compressed file; the operator sets MIEN_MAX_IMAGE_BYTES.",
        ),
        (
            _E.ImageTooManyPixels,
            413,
            "Image with too many pixels",
            "Scale the image down; the operator sets MIEN_MAX_PIXELS.",
        ),
        (
            _E.ImageIsUrl,
            422,
            "An address where an image is asked",
            "Fetch the image yourself and send its bytes; Mien makes no requests of its own.",
        ),
        (
            _E.ImageNotBase64,
            422,
            "Not base64",
            "Send base64 (plain or url-safe, padded or not) or a data URI with ;base64.",
        ),
        (
            _E.NoFace,
            422,
            "No face",
            "Send an image with a face that is upright, in view and not too small.",
        ),
        (
            _E.SeveralFaces,
            422,
            "Several faces",
            "Cut the image to one of `boxes`, or send face=largest.",
        ),
        (
            _E.FaceQualityTooLow,
            422,
            "Face of too low quality",
            "Send a picture without what `failed` lists, or ask for less with `quality`.",
        ),
        (
            _E.FaceTooSmall,
            422,
            "Face too small",
            "Send a photograph in which the face is larger; its other features are answered.",
        ),
        (
            _E.FieldUnknown,
            422,
            "Unknown field",
            "Leave the field out or correct its name; `known` lists those of this call.",
        ),
        (_E.FieldInvalid, 422, "Invalid field", "Send what `limit` asks for."),
        (_E.FieldMissing, 422, "Missing field", "Send the field."),
        (_E.ImageCount, 422, "Wrong number of images", "Send as many images as `limit` says."),
        (
            _E.BodyUnsupported,
            415,
            "Unsupported content type",
            "Send the body with one of the content types in `accepted`.",
        ),
        (
            _E.BodyCompressed,
            415,
            "Compressed body",
            "Send the body uncompressed; images are compressed already.",
        ),
        (
            _E.BodyBroken,
            400,
            "Broken body",
            "Send a body that is what its content type says.",
        ),
        (
            _E.BodyTooLarge,
            413,
            "Body too large",
            "Send fewer or smaller images a call; the operator sets MIEN_MAX_BODY_BYTES.",
        ),
        (
            _E.BodyTooSlow,
            408,
            "Body too slow",
            "Send the body without a pause; the operator sets MIEN_BODY_TIMEOUT_S.",
        ),
        (
            _E.BodyStalled,
            408,
            "Body stalled",
            "Send the body without pauses; on a slow line, in smaller calls.",
        ),
        (
            _E.IdempotencyKeyReused,
            422,
            "Idempotency-Key used with another request",
            "Make a new key for a new request; repeat a request unchanged.",
        ),
        (
            _E.AnswerErased,
            410,
            "The answer was erased",
            "Use a new Idempotency-Key, as `mien enroll --again` does, to enrol it anew.",
        ),
        (
            _E.KeyRequired,
            401,
            "Key required",
            "Send a key that holds; the operator makes one with `mien keys create`.",
        ),
        (
            _E.ScopeMissing,
            403,
            "Scope missing",
            "Use a key with a scope that `limit` names; docs/keys.md lists what each allows.",
        ),
        (
            _E.GalleryForbidden,
            403,
            "Gallery forbidden",
            "Name a gallery that the key is for, or use another key.",
        ),
        (
            _E.RateLimited,
            429,
            "Rate limited",
            "Try again after the seconds in Retry-After, and ask less often.",
        ),
        (
            _E.QuotaSpent,
            429,
            "Quota spent",
            "Try again after the seconds in Retry-After; the operator sets the key's quota.",
        ),
        (_E.GalleryUnknown, 404, "Unknown gallery", "Create it with POST /galleries."),
        (_E.GalleryExists, 409, "Gallery exists", "Use it, or choose another name."),
        (_E.PersonUnknown, 404, "Unknown person", "Look in GET /galleries/{gallery}/persons."),
        (_E.PersonExists, 409, "Person exists", "Add faces with POST /enroll, or change the id."),
        (
            _E.HostUnknown,
            421,
            "Host unknown",
            "Call it by localhost; the operator names others in MIEN_HOSTS, or uses keys.",
        ),
        (
            _E.OriginForeign,
            403,
            "Origin foreign",
            "Ask from a page of this service, from no page at all, or of a service with keys.",
        ),
        (
            _E.FaceUnknown,
            404,
            "Unknown face",
            "Look in GET /galleries/{gallery}/persons/{person_id}/faces.",
        ),
        (
            _E.SpaceMismatch,
            409,
            "Another embedding space",
            "Enrol the photographs again in a new gallery, or serve the gallery's model.",
        ),
        (
            _E.ReceiptUnknown,
            404,
            "Unknown receipt",
            "Look in the audit log, `mien audit show --action person.erased`.",
        ),
        (
            _E.ConsentRequired,
            422,
            "No record of consent",
            "Send `consent` with the enrolment; to withdraw it, delete the person.",
        ),
        (
            _E.CalibrationUnknown,
            404,
            "Unknown calibration",
            "Measure it with `mien calibrate FOLDER --name NAME`; `known` lists those there are.",
        ),
        (
            _E.CalibrationUnfit,
            409,
            "Calibration that does not fit",
            "Measure it anew with `mien calibrate` and the model that is served.",
        ),
        (
            _E.CalibrationLost,
            409,
            "Calibration lost",
            "Bind the gallery to another calibration, or to none (null), with PATCH "
            "/galleries/{gallery}; or measure it anew.",
        ),
        (
            _E.PopulationUnknown,
            409,
            "Unknown population",
            "Name one of `known` with `population`, or measure the calibration with strangers: "
            "`mien calibrate FOLDER --strangers FOLDER`.",
        ),
        (_E.QueueFull, 503, "Queue full", "Try again after the seconds in Retry-After."),
        (
            _E.BuffersFull,
            503,
            "Buffers full",
            "Try again after the seconds in Retry-After; the operator sets "
            "MIEN_MAX_BUFFERED_BYTES.",
        ),
        (
            _E.ShareUsed,
            503,
            "Share used",
            "Have fewer calls under way at once; try again after the seconds in Retry-After.",
        ),
        (
            _E.CallTimedOut,
            503,
            "Call timed out",
            "Send fewer or smaller images a call; the operator sets MIEN_CALL_TIMEOUT_S.",
        ),
        (
            _E.ConnectionsFull,
            503,
            "Connections full",
            "Try again after the seconds in Retry-After; the operator sets MIEN_MAX_CONNECTIONS.",
        ),
        (_E.NotReady, 503, "Not ready", "Try again when GET /readyz answers 200."),
        (
            _E.OutOfMemory,
            503,
            "Out of memory",
            "Try again after the seconds in Retry-After, with fewer or smaller images.",
        ),
        (_E.StorageFull, 507, "Storage full", "The operator makes room on the disk of MIEN_DATA."),
        (
            _E.StorageUnavailable,
            503,
            "Storage unavailable",
            "Try again; if it stays, the operator looks at the disk of MIEN_DATA.",
        ),
        (
            _E.ErasureIncomplete,
            503,
            "Deleted, not yet wiped",
            "Nothing; the operator looks at the disk of MIEN_DATA.",
        ),
        (
            _E.AuditUnavailable,
            503,
            "Audit log unavailable",
            "Try again; if it stays, the operator looks at the disk of MIEN_DATA.",
        ),
        (
            _E.AuditIncomplete,
            503,
            "Done, not wholly recorded",
            "Look whether it is done; the operator looks at the disk of MIEN_DATA.",
        ),
        (
            _E.EnrolmentRefused,
            422,
            "No face could be enrolled",
            "Look in `refused`: it has the problem of each image.",
        ),
        (_E.ModelUnknown, 404, "Unknown model", "Look in GET /models."),
        (
            _E.FeatureOff,
            403,
            "Feature switched off",
            "Ask for other features; the operator sets MIEN_EXPRESSION and MIEN_ATTRIBUTES.",
        ),
    ]
}
PATH_UNKNOWN: Final = Kind("path-unknown", 404, "Unknown path", "GET /docs lists every call.")
METHOD_UNKNOWN: Final = Kind(
    "method-not-allowed", 405, "Method not allowed", "Use a method of the Allow header."
)
PROBLEM_UNKNOWN: Final = Kind(
    "problem-unknown", 404, "Unknown problem", "docs/errors.md lists every problem."
)
REQUEST_REFUSED: Final = Kind(
    "request-refused", 400, "Request refused", "Send well-formed HTTP, as GET /docs says."
)
HEAD_TOO_SLOW: Final = Kind(
    "head-too-slow",
    408,
    "Head too slow",
    "Send a request's head without a pause; the operator sets MIEN_HEAD_TIMEOUT_S.",
)
INTERNAL: Final = Kind(
    "internal-error",
    500,
    "Internal error",
    "Report it with the request's id; the log has what happened under it.",
)
OF_SLUG: Final[dict[str, Kind]] = {
    kind.slug: kind
    for kind in (
        *OF_ERROR.values(),
        PATH_UNKNOWN,
        METHOD_UNKNOWN,
        PROBLEM_UNKNOWN,
        REQUEST_REFUSED,
        HEAD_TOO_SLOW,
        INTERNAL,
    )
}


def problem_of(error: errors.MienError) -> dict[str, Any]:
    """The problem's fields, fit for JSON: inside an answer, or its body with the request's id."""
    return _problem(OF_ERROR[type(error)], str(error), error.values())


def error_response(error: errors.MienError, request: Request) -> Response:
    """The answer to a call that met a domain error."""
    return _response(problem_of(error), request, _headers(error))


def kind_response(
    kind: Kind, detail: str, request: Request, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a call that did not get as far as a domain error."""
    return _response(_problem(kind, detail, {}), request, headers or {})


def problem_bytes(kind: Kind, detail: str) -> bytes:
    """The body of an answer to what did not become a request, and so has no id."""
    return json.dumps(_problem(kind, detail, {}), ensure_ascii=False).encode()


def shown(value: Any, longest: int = LONGEST_VALUE) -> Any:
    """A value as a problem may show it: plain JSON, encodable, and not longer than need be."""
    if isinstance(value, str):
        text = value if len(value) <= longest else value[:longest] + "…"
        return text.encode("utf-8", "replace").decode()
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else f"{value:.6g}" if abs(value) < 2**1000 else "huge"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, errors.MienError):
        return problem_of(value)
    if isinstance(value, Mapping):
        return {shown(str(key)): shown(entry) for key, entry in list(value.items())[:1000]}
    if isinstance(value, list | tuple):
        return [shown(entry) for entry in value[:1000]]
    return shown(str(value))


def _headers(error: errors.MienError) -> dict[str, str]:
    match error:
        case errors.KeyRequired():
            return {"WWW-Authenticate": 'Bearer realm="mien"'}
        case errors.RateLimited() | errors.QuotaSpent():
            return {"Retry-After": str(error.retry_after_s)}
        case errors.BodyTooSlow() | errors.BodyStalled():
            return {"Connection": "close"}  # else the rest would be read, as slowly
    return {"Retry-After": str(RETRY_AFTER_S)} if OF_ERROR[type(error)].status == 503 else {}


def _problem(kind: Kind, detail: str, values: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: shown(value) for name, value in values.items()}
    return {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": shown(detail, LONGEST_DETAIL),
        **plain,
    }


def _response(problem: dict[str, Any], request: Request, headers: Mapping[str, str]) -> Response:
    record: Record = request.state.record
    record.problem = problem["type"].rsplit("/", 1)[1]
    body = {**problem, "request_id": record.request_id}
    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return Response(text, problem["status"], dict(headers), MEDIA_TYPE)
