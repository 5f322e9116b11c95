"""The API: its answers, its refusals, its description, and what it leaves in the log."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import png
from tests.serve.serving import client

from tenfold.errors import OutputError
from tenfold.serve.log_check import records, verify

FILM = ("Mustermann, Erika.png", png())


@pytest.fixture
def http(tmp_path: Path) -> TestClient:
    return client(tmp_path)


def ask(http: TestClient, path: str = "predict", files: Any = None, **fields: str) -> Any:
    data = {"model": "pneumonia", **fields}
    return http.post(f"/api/v1/{path}", data=data, files=files if files is not None else {"file.film": FILM})


def lines(http: TestClient, tmp_path: Path) -> list[dict[str, Any]]:
    http.app.state.log.close()
    assert verify(tmp_path / "log") == ()
    return list(records(tmp_path / "log"))


def test_health_tells_nothing_else(http: TestClient) -> None:
    answer = http.get("/api/v1/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_models_tell_what_they_ask_for(http: TestClient) -> None:
    told = {model["name"]: model for model in http.get("/api/v1/models").json()["models"]}
    assert set(told) == {"pneumonia", "lymph-nodes"}
    assert "cell.labs.crp" in told["pneumonia"]["fields"]
    assert told["lymph-nodes"]["form"]["images"][0]["pictures"] == 3


def test_a_case_is_read_and_answered(http: TestClient) -> None:
    answer = ask(http, case="  study \t 17 ", **{"cell.labs.crp": " 88 ", "cell.labs.sex": ""})
    assert answer.status_code == 200
    told = answer.json()
    assert told["targets"][0]["probabilities"] == {"normal": 0.23, "pneumonia": 0.77}
    assert "picture_png" not in json.dumps(told)
    slug, given, explained = http.app.state.engine.asked[0]
    assert (slug, explained, given.case) == ("pneumonia", False, "study 17")
    assert given.rows == {"labs": {"crp": "88"}}
    assert given.files["film"][0].data == FILM[1]


def test_several_pictures_and_a_layout(http: TestClient) -> None:
    files = [("file.b_mode", (f"{i}.png", png(seed=i))) for i in range(3)]
    fields = {"model": "lymph-nodes", "layout.b_mode": "north"}
    assert ask(http, files=files, **fields).status_code == 200
    given = http.app.state.engine.asked[0][1]
    assert [upload.name for upload in given.files["b_mode"]] == ["0.png", "1.png", "2.png"]
    assert given.layouts == {"b_mode": "north"}
    assert ask(http, files=[*files, files[0]], **fields).status_code == 422
    assert ask(http, files=files, **(fields | {"layout.b_mode": "west"})).status_code == 422


def test_a_picker_that_was_not_used_is_no_file(http: TestClient) -> None:
    fields = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\npneumonia\r\n'
    picker = b'--b\r\ncontent-disposition: form-data; name="file.film"; filename=""\r\n\r\n\r\n--b--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert http.post("/api/v1/predict", content=fields + picker, headers=kind).status_code == 200
    assert http.app.state.engine.asked[0][1].files == {}


def test_an_explanation_brings_its_maps(http: TestClient) -> None:
    for answer in (ask(http, "explain"), ask(http, explain="true")):
        (one,) = answer.json()["maps"]
        for key in ("heat_png", "picture_png"):
            assert base64.b64decode(one[key]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "pneumonie"}, 404, "did you mean 'pneumonia'"),
        ({"model": ""}, 422, "missing"),
        ({"cell.labs.crb": "8"}, 422, "did you mean 'cell.labs.crp'"),
        ({"file.film": "text"}, 422, "wrong kind"),
        ({"explain": "perhaps"}, 422, "neither yes nor no"),
        ({"case": "x" * 201}, 422, "200 characters"),
        ({"../../etc/passwd": "x"}, 422, "unknown"),
        ({"__proto__": "x"}, 422, "unknown"),
    ],
)
def test_a_wrong_field_is_a_clear_no(http: TestClient, fields: dict[str, str], status: int, words: str) -> None:
    answer = ask(http, **fields)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"came", "expected", "do"}
    assert words in " ".join(answer.json()["error"].values())
    assert http.app.state.engine.asked == []


def test_a_field_given_twice_is_a_no(http: TestClient) -> None:
    data = {"model": "pneumonia", "cell.labs.crp": ["8", "80"]}
    assert http.post("/api/v1/predict", data=data, files={"file.film": FILM}).status_code == 422


def test_an_unusable_input_is_an_answer(http: TestClient) -> None:
    told = ask(http, files={"file.film": ("f", b"bad")}).json()
    assert (told["result"], told["targets"]) == (False, [])
    assert told["reasons"]


def test_when_too_many_wait_it_says_when_to_come_again(http: TestClient, tmp_path: Path) -> None:
    http.app.state.engine.busy = True
    answer = ask(http)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert "error" in answer.json()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/predict", 405), ("GET", "/api/v1/none", 404), ("GET", "/api", 404), ("GET", "/docs", 404),
     ("GET", "/redoc", 404), ("GET", "/openapi.json", 404)],
)  # fmt: skip
def test_other_addresses(http: TestClient, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    if path.startswith("/api"):
        assert "error" in answer.json()
    assert status != 405 or answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/....//app.py",
     "/models/..%2f..%2fetc%2fpasswd", "/results/../../etc/passwd", "/results/x/picture/..%2f/0.png"],
)  # fmt: skip
def test_no_path_leads_out(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "create_app" not in answer.text


# --- the description -------------------------------------------------------------------------------------------------


def test_the_description_names_every_field_and_an_example(http: TestClient) -> None:
    told = http.get("/api/v1/openapi.json").json()
    assert set(told["paths"]) == {f"/api/v1/{name}" for name in ("health", "models", "predict", "explain")}
    for name in ("predict", "explain"):
        operation = told["paths"][f"/api/v1/{name}"]["post"]
        (body,) = operation["requestBody"]["content"].values()
        fields = body["schema"]["properties"]
        assert fields["model"]["enum"] == ["lymph-nodes", "pneumonia"]
        assert fields["file.b_mode"] == {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "maxItems": 3,
        }
        assert body["examples"]["pneumonia"]["value"]["cell.labs.crp"] == "88"
        assert {"200", "400", "401", "403", "404", "413", "422", "429", "503"} <= set(operation["responses"])


# --- the log ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_logged_without_names_cells_or_pixels(http: TestClient, tmp_path: Path) -> None:
    ask(http, case="Erika Mustermann", **{"cell.labs.crp": "88.125"})
    ask(http, "explain", files={"file.film": ("f", b"bad")})
    *_, first, second = lines(http, tmp_path)
    assert (first["event"], first["user"], first["model"]) == ("predict", "local", "pneumonia")
    assert first["outputs"] == {"diagnosis": {"normal": 0.23, "pneumonia": 0.77}}
    assert first["thresholds"] == {"diagnosis": 0.4}
    assert len(first["inputs"][0]) == len(first["case"]) == 64
    assert first["time"] <= first["ended"]
    assert (second["event"], second["result"], second["outputs"]) == ("explain", False, {})
    assert second["quality"] == [{"input": "film", "picture": 0, "check": "readable", "verdict": "unusable"}]
    text = "".join(place.read_text() for place in (tmp_path / "log").glob("log-*"))
    assert not [word for word in ("Mustermann", "Erika", "88.125", "IHDR") if word in text]


def test_nothing_is_answered_that_cannot_be_logged(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(record: object) -> str:
        raise OutputError("The log cannot be written (No space left on device)", do="make room")

    monkeypatch.setattr(http.app.state.log, "write", full)
    answer = ask(http)
    assert answer.status_code == 503
    assert "0.77" not in answer.text
    assert "cannot be written" in answer.json()["error"]["came"]


def test_what_the_engine_refuses_is_logged(http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise OutputError("not this one")

    monkeypatch.setattr(http.app.state.engine, "answer", refuse)
    assert ask(http).status_code == 422
    assert lines(http, tmp_path)[-1]["event"] == "refused"
