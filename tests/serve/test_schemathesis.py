"""Schemathesis against the API as it describes itself: with the engine that knows nothing, and with a real bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.serve.conftest import film_bytes
from tests.serve.fake import FakeEngine, png

from tenfold.serve.app import create_app
from tenfold.serve.engine import Engine
from tenfold.serve.settings import Settings

HEALTH = list(HealthCheck)
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


def operations(engine: Any, folder: Path) -> list[Any]:
    """What the description of a server around an engine offers."""
    app = create_app(engine, Settings(folder / "log", rate=10**6, allow_hosts=("testserver",)))
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    return [operation.ok() for operation in schema.get_all_operations()]


def check(case: Any) -> Any:
    """Ask one question: no answer that the description does not know, no error of the server's own."""
    answer = case.call()
    assert answer.status_code < 500, answer.text
    case.validate_response(answer, checks=CHECKS)
    return answer


def judge(operation: Any, mode: GenerationMode, examples: int) -> set[int]:
    """Ask many questions; which statuses were seen."""
    seen = set()

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=HEALTH)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        seen.add(check(case).status_code)

    ask()
    return seen


def right(operation: Any, **body: Any) -> dict[str, Any]:
    """Ask a question that has a result."""
    told: dict[str, Any] = check(operation.Case(body=body, media_type="multipart/form-data")).json()
    assert told["result"]
    return told


def test_any_question_is_answered_as_described(tmp_path: Path) -> None:
    for operation in operations(FakeEngine(), tmp_path):
        assert 200 in judge(operation, GenerationMode.POSITIVE, 25)
        if operation.method == "post":  # what is asked without a body can only be asked rightly
            assert judge(operation, GenerationMode.NEGATIVE, 40) & {400, 415, 422}
            right(operation, model="pneumonia", **{"file.film": png(), "cell.labs.crp": "8"})
            right(operation, model="lymph-nodes", **{"file.b_mode": [png(seed=1), png(seed=2)]})


def test_any_question_to_a_real_bundle_is_answered_as_described(tmp_path: Path, engine: Engine) -> None:
    for operation in operations(engine, tmp_path):
        assert 200 in judge(operation, GenerationMode.POSITIVE, 10)
        if operation.method == "post":
            told = right(operation, model="films-and-labs", **{"file.film": film_bytes(3), "cell.labs.crp": "8"})
            assert bool(told["maps"]) == operation.path.endswith("explain")
            right(operation, model="bag-and-brain", **{"file.scan": [film_bytes(4), film_bytes(5)]})
