"""POST /expression, /attributes, /analyze: what faces show, and whose they are.

/analyze computes any set of features with one decode and one detection; the other two are the short
way to one of them, each with fields of its own.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Request, Response
from pydantic import Field

from service import analysis
from service.analysis import EMBEDDED, Analysed, FoundFace, Search
from service.api import schemas
from service.api.answers import (
    attributes_of,
    candidates_of,
    embedding_of,
    expression_of,
    face_of,
    identity_of,
    images_of,
    refused_of,
    threshold_of,
)
from service.api.calls import answered, engine_of
from service.api.fields import Fields, NoFields, require_absent
from service.api.identification import IdentifyFields
from service.api.openapi import IMAGE_CALL_PROBLEMS, refuses, takes
from service.api.uploads import Call, Form
from service.look import Engine
from service.observe.stages import Stages

Feature = Literal["expression", "attributes", "quality", "identity", "embedding"]
FEATURES: Final = get_args(Feature)
router = APIRouter(tags=["images"])


class AttributesFields(Fields):
    """Which attributes are answered."""

    include_unreliable: bool = Field(
        False, description="also those attributes that cannot be told well, marked so"
    )


class AnalyzeFields(IdentifyFields, AttributesFields):
    """What is asked of each face; the other fields belong to identity, or to attributes."""

    features: Annotated[
        list[Feature],
        Field(
            min_length=1,
            max_length=len(FEATURES),
            description="repeated, or with commas between",
            json_schema_extra={"uniqueItems": True},
        ),
    ]

    def require_meant(self) -> None:
        """Raises FieldInvalid for a field whose feature is not asked for."""
        for feature, fields in (("identity", IdentifyFields), ("attributes", AttributesFields)):
            if feature not in self.features:
                limit = f"left out, or {feature} be among the features"
                require_absent(self, list(fields.model_fields), limit=limit)

    def search(self) -> Search | None:
        """Where identities are looked for."""
        if "identity" not in self.features:
            return None
        return Search(self.gallery, self.top_k, self.asked())


EXPRESSION_FORM: Final = Form(NoFields)
ATTRIBUTES_FORM: Final = Form(AttributesFields)
ANALYZE_FORM: Final = Form(AnalyzeFields)


@router.post(
    "/expression",
    response_model=schemas.ExpressionAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 403),
    openapi_extra=takes(EXPRESSION_FORM),
)
async def expression(request: Request) -> Response:
    """The expression of each face of each image: its name, and a distribution over all."""
    analysis.require_on(engine_of(request), "expression")  # before the body is read
    return await answered(request, EXPRESSION_FORM, _expression)


@router.post(
    "/attributes",
    response_model=schemas.AttributesAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 403),
    openapi_extra=takes(ATTRIBUTES_FORM),
)
async def attributes(request: Request) -> Response:
    """The attributes of each face of each image: whether each is there, and how sure that is."""
    analysis.require_on(engine_of(request), "attributes")
    return await answered(request, ATTRIBUTES_FORM, _attributes)


@router.post(
    "/analyze",
    response_model=schemas.AnalyzeAnswer,
    responses=refuses(*IMAGE_CALL_PROBLEMS, 403, 404, 409),
    openapi_extra=takes(ANALYZE_FORM),
)
async def analyze(request: Request) -> Response:
    """Any set of features of each face of each image, with one decode and one detection."""
    return await answered(request, ANALYZE_FORM, _analyze)


async def _expression(engine: Engine, call: Call[NoFields], stages: Stages) -> dict[str, Any]:
    found = await analysis.analyze(engine, call.images, stages, ["expression"])
    return {
        "images": _images(found, engine, ["expression"]),
        "model": engine.classifiers["expression"].name,
    }


async def _attributes(
    engine: Engine, call: Call[AttributesFields], stages: Stages
) -> dict[str, Any]:
    found = await analysis.analyze(engine, call.images, stages, ["attributes"])
    return {
        "images": _images(found, engine, ["attributes"], call.fields.include_unreliable),
        "model": engine.classifiers["attributes"].name,
    }


async def _analyze(engine: Engine, call: Call[AnalyzeFields], stages: Stages) -> dict[str, Any]:
    fields = call.fields
    fields.require_meant()
    found = await analysis.analyze(engine, call.images, stages, fields.features, fields.search())
    answer: dict[str, Any] = {
        "images": _images(found, engine, fields.features, fields.include_unreliable),
        "models": _models(engine, fields.features),
    }
    if not EMBEDDED.isdisjoint(fields.features):
        answer["space"] = engine.space
    if found.threshold is not None:
        answer |= {"gallery": fields.gallery, "threshold": threshold_of(found.threshold)}
        answer |= candidates_of(found.top_k, fields.top_k)
    return answer


def _images(
    found: Analysed, engine: Engine, features: Sequence[str], include_unreliable: bool = False
) -> list[schemas.Image[Any]]:
    """The images with what was asked for of each face."""

    def answer(face: FoundFace) -> dict[str, Any]:
        return {**_face(face, engine, features, include_unreliable), "refused": refused_of(face)}

    return images_of(found.looks, lambda i: [answer(face) for face in found.faces[i]])


def _face(
    found: FoundFace, engine: Engine, features: Sequence[str], include_unreliable: bool
) -> dict[str, Any]:
    answer: dict[str, Any] = {**face_of(found.seen)}
    if "expression" in features:
        answer["expression"] = expression_of(found.expression)
    if "attributes" in features:
        answer["attributes"] = attributes_of(
            found.attributes, include_unreliable=include_unreliable
        )
    if "quality" in features:
        answer["quality_gate"] = analysis.gate_details(found.seen)
    if found.identity is not None:
        answer |= identity_of(found.identity)
    if "embedding" in features and found.embedding is not None:
        answer |= {"embedding": embedding_of(found.embedding), "space": engine.space}
    return answer


def _models(engine: Engine, features: Sequence[str]) -> dict[str, str]:
    """The networks that told it, by their task."""
    asked = {name: one.name for name, one in engine.classifiers.items() if name in features}
    return asked | ({} if EMBEDDED.isdisjoint(features) else {"recognition": engine.model})
