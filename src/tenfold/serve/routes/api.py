"""The API: `/api/v1`, in JSON, for programs.

It must not know pages, cookies or sessions.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from tenfold.serve.answer import Answer
from tenfold.serve.ask import answer_and_log, model_of
from tenfold.serve.auth import api_user
from tenfold.serve.forms import fields_of, read_form, read_given, wants_explanation
from tenfold.serve.guards import Said
from tenfold.serve.model import Model
from tenfold.serve.schemas import ANSWER, ERROR, HEALTH, MODELS, Schema

User = Annotated[str, Depends(api_user)]
_REASONS = {
    400: "The request is malformed, or names a foreign host.",
    401: "It does not say who asks.",
    403: "It comes from a page of another site.",
    404: "There is no such model.",
    405: "Not by this method.",
    408: "It did not arrive in time.",
    413: "It is too large.",
    415: "It is no form.",
    422: "A field is unknown or of the wrong kind.",
    429: "Too many questions; see Retry-After.",
    503: "Too many cases wait (see Retry-After), or the log cannot be written.",
}
_EXAMPLE_ERROR = {
    "error": {
        "came": "the field 'cell.labs.crb' is unknown",
        "expected": "did you mean 'cell.labs.crp'?",
        "do": "",
    }
}


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What the description of the API says of refusals."""
    content = {"application/json": {"schema": ERROR, "example": _EXAMPLE_ERROR}}
    return {code: {"description": _REASONS[code], "content": content} for code in codes}


def _told(description: str, schema: Schema, *codes: int) -> dict[int | str, dict[str, Any]]:
    """What the description of the API says of an answer and of refusals."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}, **_errors(*codes)}


_ASKING = _told("What the model says, or why it says nothing.", ANSWER, *_REASONS)
_OFFERED = _told("The models.", MODELS, 400, 401, 403, 429)
_WELL = _told("The server is up.", HEALTH, 400, 403)
_WELL[503] = {"description": "It answers nothing, for the log cannot be written.", "content": _WELL[200]["content"]}
router = APIRouter(prefix="/api/v1", tags=["api"])


@router.get("/health", summary="Whether the server answers", responses=_WELL)
async def health(request: Request) -> JSONResponse:
    """Say that the server is up; no login, no details."""
    well = not request.app.state.log.broken
    return JSONResponse({"status": "ok" if well else "unwell"}, 200 if well else 503)


@router.get("/models", summary="The models on offer", responses=_OFFERED)
async def models(request: Request, user: User) -> JSONResponse:
    """List every model: its name, what it tells, what it asks for."""
    return JSONResponse({"models": [told_of(model) for model in request.app.state.engine.models.values()]})


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request, user: User) -> JSONResponse:
    """Describe the API itself (OpenAPI)."""
    return JSONResponse(describe(request))


@router.post("/predict", summary="Ask a model about one case", responses=_ASKING)
async def predict(request: Request, user: User) -> JSONResponse:
    """Answer with quality verdicts and calibrated probabilities.

    With `explain` the answer is that of `/explain`. An input that cannot be used is no error: the answer then has
    `result: false` and the reasons.
    """
    return await _ask(request, user)


@router.post("/explain", summary="Ask a model, and what moved its answer", responses=_ASKING)
async def explain(request: Request, user: User) -> JSONResponse:
    """Answer as `/predict` does, with heat maps (PNG in base64), shares of the inputs and contributions of cells."""
    return await _ask(request, user, explain=True)


async def _ask(request: Request, user: str, *, explain: bool = False) -> JSONResponse:
    """One question."""
    form = await read_form(request)
    try:
        model = _chosen(request, form.get("model"))
        explained = wants_explanation(form) or explain
        given = await read_given(form, model)
    finally:
        await form.close()
    answer = await answer_and_log(request, model.slug, given, explained, user=user)
    return JSONResponse(with_pictures(answer) if explained else answer.to_dict())


def _chosen(request: Request, named: object) -> Model:
    """The model a form names; the only one, where it names none."""
    models = request.app.state.engine.models
    if named in (None, "") and len(models) == 1:
        return next(iter(models.values()))
    if not isinstance(named, str) or not named:
        raise Said(422, "the field 'model' is missing", f"one of: {', '.join(sorted(models))}")
    return model_of(request, named)


def told_of(model: Model) -> dict[str, Any]:
    """What the API tells of a model."""
    return {
        "name": model.slug,
        "title": model.title,
        "system": model.system or None,
        "digest": model.digest,
        "engine": model.engine_name,
        "targets": [dict(target) for target in model.targets],
        "form": dict(model.form),
        "fields": sorted(fields_of(model)),
    }


def with_pictures(answer: Answer) -> dict[str, Any]:
    """An answer with its heat maps and the pictures they lie on, as PNG in base64."""
    told = answer.to_dict()
    for one in told["maps"]:
        place = (one["input"], one["picture"])
        one["heat_png"], one["picture_png"] = _text(answer.heat, place), _text(answer.pictures, place)
    return told


def _text(pictures: Mapping[tuple[str, int], bytes], place: tuple[str, int]) -> str | None:
    """A picture as text; None where there is none."""
    return base64.b64encode(pictures[place]).decode() if place in pictures else None


# --- the description -------------------------------------------------------------------------------------------------


def describe(request: Request) -> dict[str, Any]:
    """The OpenAPI description, with the fields of the models that are loaded."""
    app = request.app
    described: dict[str, Any] = app.openapi()
    loaded = app.state.engine.models
    content = {"multipart/form-data": {"schema": form_schema(loaded), "examples": form_examples(loaded)}}
    for path in ("/predict", "/explain"):
        described["paths"][f"/api/v1{path}"]["post"]["requestBody"] = {"required": True, "content": content}
    return described


def form_schema(models: Mapping[str, Model]) -> dict[str, Any]:
    """The form, whose fields are those of every model."""
    fields: dict[str, Any] = {
        "model": {"type": "string", "enum": sorted(models)},
        "case": {"type": "string", "maxLength": 80, "description": "A study number, never the name of a patient."},
        "explain": {"type": "string", "enum": ["true", "false"]},
    }
    for model in models.values():
        fields |= fields_of(model)
    required = ["model"] if len(models) > 1 else []
    return {"type": "object", "required": required, "properties": fields, "additionalProperties": False}


def form_examples(models: Mapping[str, Model]) -> dict[str, Any]:
    """One example a model; files are named, not shown."""
    examples: dict[str, Any] = {}
    for model in models.values():
        value: dict[str, Any] = {"model": model.slug, "case": "study number 17"}
        for example in model.examples[:1]:
            given = example.given
            value |= {f"file.{name}": "(the file)" for name in given.files}
            for table, row in given.rows.items():
                value |= {f"cell.{table}.{column}": text for column, text in row.items()}
        examples[model.slug] = {"summary": model.title, "value": value}
    return examples
