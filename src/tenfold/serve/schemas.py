"""What the API answers, as JSON Schema, for its description.

It must not know requests or engines; `serve.answer` is what it describes, and a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANYTHING: Schema = {"type": "object"}


def _object(properties: Mapping[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    """An object that has all of these and, but for `more`, nothing else."""
    known = {**properties, **(more or {})}
    return {"type": "object", "required": list(properties), "properties": known, "additionalProperties": False}


def _list(item: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": item, **limits}


def _by_name(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_MODEL = _object({"name": TEXT, "title": TEXT, "digest": TEXT, "version": TEXT, "engine": TEXT})
_CHECK = _object(
    {
        "input": TEXT,
        "picture": _or_null(COUNT),
        "check": TEXT,
        "verdict": {"type": "string", "enum": ["good", "doubtful", "unusable"]},
        "message": TEXT,
    }
)
_SIMILAR = _object({"low": SHARE, "high": SHARE, "n": COUNT, "with_class": _by_name(COUNT)})
_TARGET = _object(
    {
        "name": TEXT,
        "classes": _list(TEXT, minItems=2),
        "positive": _or_null(TEXT),
        "probabilities": _by_name(SHARE),
        "spread": _list(SHARE, minItems=2, maxItems=2),
        "decision": TEXT,
        "threshold": _or_null(SHARE),
        "above_threshold": _or_null({"type": "boolean"}),
        "prediction_set": _or_null(_list(TEXT)),
        "alpha": _or_null(SHARE),
        "sentence": TEXT,
        "set_sentence": _or_null(TEXT),
        "operating_point": _or_null(ANYTHING),
        "prevalence": _or_null(SHARE),
        "similar": _or_null(_SIMILAR),
    }
)
_CONTRIBUTION = _object(
    {
        "input": TEXT,
        "column": TEXT,
        "label": TEXT,
        "value": _or_null({"type": ["number", "string"]}),
        "unit": TEXT,
        "log_odds": {"type": "number"},
    }
)
_PNG = _or_null({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"})
_MAP = _object(
    {"input": TEXT, "picture": COUNT, "target": TEXT, "class": TEXT},
    more={"heat_png": _PNG, "picture_png": _PNG},  # with an explanation
)

ANSWER = _object(
    {
        "model": _MODEL,
        "case": TEXT,
        "result": {"type": "boolean"},
        "reasons": _list(TEXT),
        "quality": _list(_CHECK),
        "missing_inputs": _list(TEXT),
        "missing_cells": _by_name(_list(TEXT)),
        "targets": _list(_TARGET),
        "explained": _or_null(_object({"target": TEXT, "class": TEXT})),
        "shares": _or_null(_by_name(SHARE)),
        "contributions": _list(_CONTRIBUTION),
        "maps": _list(_MAP),
    }
)
_OFFERED = _object(
    {
        "name": TEXT,
        "title": TEXT,
        "system": _or_null(TEXT),
        "digest": TEXT,
        "engine": TEXT,
        "targets": _list(ANYTHING, minItems=1),
        "form": ANYTHING,
        "fields": _list(TEXT),
    }
)
MODELS = _object({"models": _list(_OFFERED)})
HEALTH = _object({"status": {"type": "string", "enum": ["ok", "unwell"]}})
_SAID = {
    "came": {"type": "string", "description": "What was found."},
    "expected": {"type": "string", "description": "What would have been right; may be empty."},
    "do": {"type": "string", "description": "What to do next; may be empty."},
}
ERROR = _object({"error": _object(_SAID)})
