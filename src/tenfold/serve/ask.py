"""One question and its line in the log: nothing is answered that is not logged first.

It must not know pages, forms or how answers are shown.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from tenfold.errors import OutputError, Refusal, nearest
from tenfold.serve.answer import Answer, Busy
from tenfold.serve.case import Given
from tenfold.serve.chain import now
from tenfold.serve.guards import Said
from tenfold.serve.log import Log
from tenfold.serve.model import Model
from tenfold.types import finite_or_none


def model_of(request: Request, slug: str) -> Model:
    """The model of a name.

    Raises:
        Said: 404 where there is none.
    """
    models: dict[str, Model] = request.app.state.engine.models
    if slug not in models:
        raise Said(404, f"there is no model '{slug[:80]}'", nearest(slug[:80], models))
    return models[slug]


async def answer_and_log(request: Request, slug: str, given: Given, explain: bool = False, *, user: str) -> Answer:
    """Ask a model, and log what it says before anybody sees it.

    Args:
        request: By which the case came.
        slug: Which model.
        given: The case.
        explain: Whether to say what moved the answer.
        user: Who asks.

    Returns:
        The answer, which may hold no result.

    Raises:
        Said: 404 for an unknown model, 503 with Retry-After where too many cases wait, 422 where the model cannot be
            asked about this case, 503 where the log cannot be written. Its cause is the refusal behind it.
    """
    model, began, log = model_of(request, slug), now(), request.app.state.log
    try:
        answer = await request.app.state.engine.answer(slug, given, explain)
    except Busy as busy:
        raise Said(503, busy.came, busy.expected, busy.do, {"retry-after": str(busy.retry_after)}) from busy
    except Refusal as refusal:
        line = {"event": "refused", "time": began, "user": user, "model": slug, "digest": model.digest}
        await write(log, line | {"ended": now(), "inputs": list(given.hashes)})
        raise Said.of(refusal, 422) from refusal
    await write(log, line_of(log, given, answer, explain) | {"time": began, "user": user})
    return answer


async def write(log: Log, record: dict[str, Any]) -> None:
    """Write one line.

    Raises:
        Said: 503 where it cannot be made durable.
    """
    try:
        await log.write(record)
    except OutputError as error:
        raise Said(503, error.came, error.expected, "tell whoever runs this server") from error


def line_of(log: Log, given: Given, answer: Answer, explain: bool) -> dict[str, Any]:
    """What is logged of an answer: hashes, verdicts, figures; no pixels, no cells, no names of files or persons."""
    cells = json.dumps([given.rows, given.beside], sort_keys=True, default=dict)
    return {
        "event": "explain" if explain else "predict",
        "ended": now(),
        "model": answer.model["name"],
        "digest": answer.model["digest"],
        "version": answer.model["version"],
        "engine": answer.model["engine"],
        "case": log.case_mark(answer.case) if answer.case else "",
        "inputs": list(answer.input_hashes),
        "cells": log.case_mark(cells) if given.rows or given.beside else "",
        "quality": [
            {"input": check.input, "picture": check.picture, "check": check.check, "verdict": check.verdict}
            for check in answer.quality
        ],
        "result": answer.result,
        "outputs": {
            target.name: {name: finite_or_none(p) for name, p in target.probabilities.items()}
            for target in answer.targets
        },
        "decisions": {target.name: target.decision for target in answer.targets},
        "thresholds": {target.name: target.threshold for target in answer.targets},
    }
