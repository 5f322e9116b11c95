"""The pages as a browser without JavaScript gets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import MODELS, FakeEngine, png

from tenfold.serve.app import create_app
from tenfold.serve.routes.pages import _inside
from tenfold.serve.settings import Settings
from tenfold.serve.users import add_user

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
BANNER = "Research use only - not a medical device"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(engine, Settings(log=tmp_path / "log", rate=10_000))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def token(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found, page
    return found[1]


def send(client: TestClient, slug: str = "pneumonia", files: object = (), **fields: str) -> str:
    """Fill a form and return the address that the answer leads to."""
    csrf = token(client.get(f"/models/{slug}").text)
    named = {name.replace("__", "."): value for name, value in fields.items()}
    reply = client.post(f"/models/{slug}", data={"csrf": csrf, **named}, files=files or None, follow_redirects=False)
    assert reply.status_code == 303, reply.text
    return str(reply.headers["location"])


def film(name: str = "film.png", data: bytes | None = None) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file.film", (name, png() if data is None else data, "image/png"))]


@pytest.mark.parametrize("path", ["/", "/about", *(f"/models/{m}{p}" for m in MODELS for p in ("", "/card", "/batch"))])
def test_every_page_says_what_it_is_and_runs_nothing_inline(client: TestClient, path: str) -> None:
    reply = client.get(path)
    page = reply.text
    assert reply.status_code == 200
    assert page.count(BANNER) >= 2
    digests = [m.digest[:16] for m in MODELS.values() if path in ("/", "/about") or m.slug == path.split("/")[2]]
    assert all(digest in page for digest in digests)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|https?://(?!www\.w3\.org)", page)
    assert page.count("<h1") == 1
    assert '<main id="main"' in page


def test_static_files_are_served(client: TestClient) -> None:
    page = client.get("/").text
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert client.get(address).status_code == 200
    assert client.get("/static/../app.py").status_code == 404


def test_form_has_limits_units_and_choices(client: TestClient) -> None:
    page = client.get("/models/pneumonia").text
    crp = re.search(r'<input[^>]*name="cell\.labs\.crp"[^>]*>', page)
    assert crp
    assert 'min="0"' in crp[0]
    assert 'max="600"' in crp[0]
    assert "mg/L" in page
    assert "Reference 0 to 5; in the study 0.3 to 310" in page
    assert '<option value="female">' in page
    labels = set(re.findall(r'<label[^>]* for="([^"]+)"', page))
    ids = set(re.findall(r'<(?:input|select) [^>]*?id="([^"]+)"', page))
    assert ids <= labels, ids - labels


def test_a_case_leads_to_its_result_with_maps(client: TestClient, engine: FakeEngine) -> None:
    address = send(client, files=film(), cell__labs__crp="88", case="P-1")
    page = client.get(address).text
    assert engine.asked[0][1].rows == {"labs": {"crp": "88"}}
    assert engine.asked[0][2]
    assert "P-1" in page
    assert "77 %" in page
    assert "not where disease is" in page
    for address in re.findall(r'<img[^>]* src="([^"]+)"', page):
        reply = client.get(address)
        assert reply.headers["content-type"] == "image/png"
        assert reply.content.startswith(b"\x89PNG")


def test_several_pictures_a_view_each_with_a_map(client: TestClient) -> None:
    files = [("file.b_mode", (f"{i}.png", png(seed=i), "image/png")) for i in range(3)]
    page = client.get(send(client, "lymph-nodes", files, layout__b_mode="north")).text
    assert len(re.findall(r'class="heat"', page)) == 3
    assert "Not given" in page
    assert "CDFI" in page


def test_no_result_says_why_and_shows_no_probability(client: TestClient) -> None:
    page = client.get(send(client, files=film(data=b"bad"))).text
    assert "No result" in page
    assert "the file is not a picture" in page
    assert "77 %" not in page


def test_a_case_can_be_changed_without_typing_it_again(client: TestClient, engine: FakeEngine) -> None:
    address = send(client, files=film("first.png"), cell__labs__crp="999", cell__labs__sex="male", case="P-2")
    name = address.rsplit("/", 1)[-1]
    page = client.get(f"/models/pneumonia?from={name}").text
    assert 'value="999"' in page
    assert '<option value="male" selected>' in page
    assert "first.png" in page
    fields = {"csrf": token(page), "from": name, "keep.film": "1", "cell.labs.crp": "88"}
    assert client.post("/models/pneumonia", data=fields, follow_redirects=False).status_code == 303
    again = engine.asked[-1][1]
    assert [upload.name for upload in again.files["film"]] == ["first.png"]
    assert again.rows == {"labs": {"crp": "88"}}
    del fields["keep.film"]
    client.post("/models/pneumonia", data=fields, follow_redirects=False)
    assert not engine.asked[-1][1].files


def test_prevalence_is_worked_out_without_javascript(client: TestClient) -> None:
    address = send(client, files=film())
    page = client.get(f"{address}?prevalence=10").text
    # Bayes by hand: .95 * .1 / (.95 * .1 + .29 * .9) = .267; .71 * .9 / (.71 * .9 + .05 * .1) = .992
    assert "27 %" in page
    assert "&gt; 99 %" in page
    assert re.search(r'data-out="having">100<', page)
    assert re.search(r'data-out="found">95<', page)
    assert re.search(r'data-out="wrongly">261<', page)
    wrong = client.get(f"{address}?prevalence=abc").text
    assert "must lie between" in wrong


def test_names_and_values_are_escaped(client: TestClient, engine: FakeEngine) -> None:
    engine.models["pneumonia"] = replace(MODELS["pneumonia"], title=EVIL, card=f"# {EVIL}\n\n- {EVIL}\n\n{EVIL}")
    address = send(client, files=film(EVIL.replace("/", "")), case=EVIL)
    pages = [client.get(path).text for path in ("/", "/models/pneumonia", "/models/pneumonia/card", address)]
    for page in [*pages, client.get(f"/models/{EVIL}").text]:
        assert "<script>alert" not in page
        assert "<img src=x" not in page


def test_results_belong_to_the_browser_that_asked(client: TestClient) -> None:
    address = send(client, files=film())
    client.cookies.clear()
    reply = client.get(address)
    assert reply.status_code == 404
    assert "not here any more" in reply.text
    assert client.get(f"{address}/picture/film/0.png").status_code == 404


def test_examples_are_answered(client: TestClient) -> None:
    csrf = token(client.get("/models/pneumonia").text)
    reply = client.post("/models/pneumonia/examples/0", data={"csrf": csrf})
    assert "Pneumonia" in reply.text
    assert str(reply.url.path).startswith("/results/")
    assert client.post("/models/pneumonia/examples/9", data={"csrf": csrf}).status_code == 404
    assert client.post("/models/pneumonia/examples/0", data={"csrf": "no"}).status_code == 403


def test_busy_says_when_and_keeps_what_was_typed(client: TestClient, engine: FakeEngine) -> None:
    engine.busy = True
    csrf = token(client.get("/models/pneumonia").text)
    reply = client.post("/models/pneumonia", data={"csrf": csrf, "cell.labs.crp": "42"}, files=film())
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "3"
    back = re.search(r'href="(/models/pneumonia\?from=[^"]+)"', reply.text)
    assert back
    page = client.get(back[1]).text
    assert 'value="42"' in page
    assert "film.png" in page


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/models/pneumonja", 404), ("/results/x", 404)])
def test_errors_look_like_the_other_pages(client: TestClient, path: str, status: int) -> None:
    reply = client.get(path)
    assert reply.status_code == status
    assert BANNER in reply.text
    assert "tenfold.css" in reply.text


def test_unknown_fields_and_too_many_pictures_are_refused_in_words(client: TestClient) -> None:
    csrf = token(client.get("/models/pneumonia").text)
    reply = client.post("/models/pneumonia", data={"csrf": csrf, "cell.labs.crb": "1"})
    assert reply.status_code == 422
    assert "cell.labs.crp" in reply.text
    assert client.post("/models/pneumonia", data={"csrf": csrf}, files=film() + film()).status_code == 422


def test_who_is_not_signed_in_is_led_there_and_back(engine: FakeEngine, tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    add_user(users, "anna", "correct horse battery")
    app = create_app(engine, Settings(log=tmp_path / "log", users=users))
    with TestClient(app, base_url="http://localhost") as client:
        page = client.get("/models/pneumonia")
        assert page.url.path == "/login"
        assert page.status_code == 200
        assert MODELS["pneumonia"].title not in page.text  # nothing is told to strangers
        fields = {"csrf": token(page.text), "user": "anna", "next": "/models/pneumonia"}
        wrong = client.post("/login", data=fields | {"password": "guess"})
        assert wrong.status_code == 401
        assert "do not belong together" in wrong.text
        fields |= {"csrf": token(wrong.text), "password": "correct horse battery"}
        there = client.post("/login", data=fields)
        assert there.url.path == "/models/pneumonia"
        assert "Sign out" in there.text
        left = client.post("/logout", data={"csrf": token(there.text)})
        assert left.url.path == "/login"
        assert client.get("/", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("onward", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/\nx"])
def test_a_login_leads_nowhere_else(onward: str) -> None:
    assert _inside(onward) == ""
    assert _inside("/models/a?from=b") == "/models/a?from=b"
