"""Who asks: users, sessions, cookies, tokens, proxies."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import png
from tests.serve.serving import PASSWORD, client

from tenfold.errors import Refusal
from tenfold.serve import users as module
from tenfold.serve.auth import Sessions
from tenfold.serve.log_check import records
from tenfold.serve.routes import pages
from tenfold.serve.users import Users, add_user, read_users, remove_user

ASK = {"data": {"model": "pneumonia"}, "files": {"file.film": ("film.png", png())}}


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak argon2: the tests are about who is let in, not about how long a guess takes."""
    monkeypatch.setattr(module, "_hasher", module.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    add_user(tmp_path / "users.toml", "ann", PASSWORD)
    add_user(tmp_path / "users.toml", "bob", PASSWORD + "!")
    return tmp_path / "users.toml"


def token_in(http: TestClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', http.get(path).text)
    assert found
    return found[1]


def enter(http: TestClient, name: str = "ann", password: str = PASSWORD, **fields: str) -> int:
    fields = {"csrf": token_in(http), "user": name, "password": password, **fields}
    return http.post("/login", data=fields).status_code


def basic(name: str = "ann", password: str = PASSWORD) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


# --- the users file --------------------------------------------------------------------------------------------------


def test_the_users_file_is_private_and_holds_no_password(users: Path) -> None:
    assert users.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in users.read_text()
    assert set(read_users(users)) == {"ann", "bob"}
    remove_user(users, "bob")
    assert set(read_users(users)) == {"ann"}
    assert users.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refusal, match="no user 'bob'"):
        remove_user(users, "bob")


def test_a_users_file_that_others_may_read_is_refused(users: Path) -> None:
    for mode in (0o604, 0o644, 0o620, 0o602):
        users.chmod(mode)
        with pytest.raises(Refusal, match="read by others"):
            read_users(users)


@pytest.mark.parametrize("content", ["ann = 1", 'ann = "plain"', "rubbish", '"<b>" = "$argon2id$x"', "[ann]\nx = 1"])
def test_a_users_file_of_another_kind_is_refused(users: Path, content: str) -> None:
    users.write_text(content)
    with pytest.raises(Refusal):
        read_users(users)


@pytest.mark.parametrize(
    ("name", "password"), [("", PASSWORD), ("a b", PASSWORD), ("=cmd", PASSWORD), ("ann", "short"), ("ann", "x" * 1025)]
)
def test_bad_names_and_passwords_are_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(Refusal):
        add_user(tmp_path / "users.toml", name, password)


def test_an_unknown_user_costs_as_much_as_a_known_one(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, checks = Users(users), []
    real = module._matches
    monkeypatch.setattr(module, "_matches", lambda *words: checks.append(words) or real(*words))
    assert not known.check("nobody", PASSWORD)
    assert not known.check("ann", "wrong password")
    assert known.check("ann", PASSWORD)
    assert len(checks) == 3
    assert known.remembers("ann", PASSWORD)
    assert not known.remembers("ann", "wrong password")


def test_a_changed_password_counts_at_once(users: Path) -> None:
    known = Users(users)
    assert known.check("ann", PASSWORD)
    time.sleep(0.01)
    add_user(users, "ann", "another long password")
    assert not known.remembers("ann", PASSWORD)
    assert not known.check("ann", PASSWORD)
    users.unlink()
    assert "ann" not in known


# --- sessions --------------------------------------------------------------------------------------------------------


def test_sessions_end_when_idle_and_in_the_end() -> None:
    class Clock:
        time = 0.0

        def __call__(self) -> float:
            return self.time

    clock = Clock()
    sessions = Sessions(30, 1, clock)
    idle, busy = sessions.begin("ann"), sessions.begin("ann")
    for _ in range(3):
        clock.time += 19 * 60
        assert sessions.user(busy) == "ann"
    assert sessions.user(idle) == ""
    clock.time += 4 * 60
    assert sessions.user(busy) == ""


def test_pages_lead_to_the_login_and_back(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    answer = http.get("/models/pneumonia")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/models/pneumonia")
    assert http.get("/static/tenfold.css").status_code == 200
    assert enter(http) == 303
    assert http.get("/models/pneumonia").status_code == 200


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "\t//evil"]
)
def test_a_login_leads_nowhere_else(tmp_path: Path, users: Path, to: str) -> None:
    http = client(tmp_path, users=users)
    fields = {"csrf": token_in(http), "user": "ann", "password": PASSWORD, "next": to}
    assert http.post("/login", data=fields).headers["location"] == "/"


def test_the_cookie_is_closed_and_renewed_at_login(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    first = http.get("/login").headers["set-cookie"]
    assert all(word in first for word in ("HttpOnly", "SameSite=Lax", "Path=/"))
    assert "Secure" not in first
    before = dict(http.cookies)
    assert enter(http) == 303
    after = dict(http.cookies)
    assert before.keys() == after.keys()
    assert before != after
    http.cookies.clear()
    http.cookies.update(before)  # whoever planted the cookie before the login has nothing of it
    assert http.get("/").status_code == 303


def test_over_https_the_cookie_is_secure(tmp_path: Path, users: Path) -> None:
    cookie = client(tmp_path, users=users, home="https://127.0.0.1").get("/login").headers["set-cookie"]
    assert cookie.startswith("__Host-tenfold_session=")
    assert "Secure" in cookie


def test_logging_out_ends_the_session_and_its_results(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    enter(http)
    sent = http.post("/models/pneumonia", data={"csrf": token_in(http, "/"), "cell.labs.crp": "8"})
    place = sent.headers["location"]
    assert http.get(place).status_code == 200
    cookies = dict(http.cookies)
    assert http.post("/logout", data={"csrf": token_in(http, "/")}).status_code == 303
    assert len(http.app.state.results) == 0
    http.cookies.clear()
    http.cookies.update(cookies)
    assert http.get("/").status_code == 303


def test_a_result_is_its_owners_alone(tmp_path: Path, users: Path) -> None:
    ann = client(tmp_path, users=users)
    bob = TestClient(ann.app, base_url="http://127.0.0.1", follow_redirects=False)
    enter(ann)
    enter(bob, "bob", PASSWORD + "!")
    place = ann.post("/models/pneumonia", data={"csrf": token_in(ann, "/"), "cell.labs.crp": "8"}).headers["location"]
    assert ann.get(place).status_code == 200
    assert bob.get(place).status_code == 404


def test_a_removed_user_is_out(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    enter(http)
    assert http.get("/").status_code == 200
    remove_user(users, "ann")
    assert http.get("/").status_code == 303


def test_guessing_is_slowed_and_logged(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    codes = [enter(http, password="wrong password") for _ in range(7)]
    assert codes[:5] == [401] * 5
    assert codes[5] == 429
    assert enter(http) == 429  # not even the right one, from there
    other = TestClient(http.app, base_url="http://127.0.0.1", client=("127.0.0.2", 1), follow_redirects=False)
    assert enter(other) == 303  # but its owner is not locked out elsewhere
    http.app.state.log.close()
    events = [(record["event"], record.get("user")) for record in records(tmp_path / "log")]
    assert events.count(("refused", "ann")) == 5
    assert events.count(("login", "ann")) == 1


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/models/pneumonia", "/models/pneumonia/examples/0", "/models/pneumonia/batch", "/logout"]
)
def test_no_post_without_its_token(tmp_path: Path, users: Path, path: str) -> None:
    http = client(tmp_path, users=users)
    enter(http)
    for fields in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "ä"}):
        assert http.post(path, data={"case": "1", **fields}).status_code == 403
    assert http.app.state.engine.asked == []


def test_every_page_that_takes_a_post_is_behind_the_gate(tmp_path: Path) -> None:
    http = client(tmp_path)
    posts = {route.path for route in pages.router.routes if "POST" in route.methods}
    assert {"/login", "/logout", "/models/{slug}", "/models/{slug}/batch"} <= posts
    for path in posts:
        where = re.sub(r"\{i\}", "0", re.sub(r"\{slug\}", "pneumonia", path))
        assert http.post(where, data={"case": "1"}).status_code == 403, path


def test_a_token_is_of_one_session(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    early = token_in(http)
    enter(http)
    other = TestClient(http.app, base_url="http://127.0.0.1", follow_redirects=False)
    for token in (early, token_in(other)):
        assert http.post("/models/pneumonia", data={"csrf": token, "cell.labs.crp": "8"}).status_code == 403
    header = {"x-csrf-token": token_in(http, "/")}
    assert http.post("/models/pneumonia", data={"cell.labs.crp": "8"}, headers=header).status_code == 303


def test_a_login_cannot_be_forged(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    assert http.post("/login", data={"user": "ann", "password": PASSWORD}).status_code == 403


# --- the API ---------------------------------------------------------------------------------------------------------


def test_the_api_wants_a_password_and_takes_no_cookie(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    enter(http)
    assert http.get("/").status_code == 200
    for path in ("models", "openapi.json"):
        answer = http.get(f"/api/v1/{path}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert http.get(f"/api/v1/{path}", headers=basic()).status_code == 200
    assert http.post("/api/v1/predict", **ASK).status_code == 401
    assert http.post("/api/v1/predict", headers=basic(), **ASK).status_code == 200
    assert "set-cookie" not in http.get("/api/v1/health").headers


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic YW5u", "Bearer YW5uOng=", "Basic /////w==", "Basic Og=="]
)
def test_a_strange_login_is_a_no(tmp_path: Path, users: Path, header: str) -> None:
    assert client(tmp_path, users=users).get("/api/v1/models", headers={"authorization": header}).status_code == 401


def test_guessing_at_the_api_is_slowed(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    codes = [http.get("/api/v1/models", headers=basic(password=f"guess {i}")).status_code for i in range(7)]
    assert codes[:5] == [401] * 5
    assert codes[5] == 429


# --- a proxy that authenticates --------------------------------------------------------------------------------------

PROXY = {"trusted_header": "X-User", "trusted_hops": ("10.0.0.0/24",)}


def test_the_header_counts_from_the_proxy_alone(tmp_path: Path) -> None:
    inside = client(tmp_path / "a", address="10.0.0.5", **PROXY)
    outside = client(tmp_path / "b", address="10.0.1.5", **PROXY)
    named = {"x-user": "ann"}
    assert inside.get("/", headers=named).status_code == 200
    assert inside.get("/api/v1/models", headers=named).status_code == 200
    assert inside.get("/").status_code == 401
    for path in ("/", "/api/v1/models"):
        assert outside.get(path, headers=named).status_code == 401
    for strange in ("<script>", "a b", "=cmd", ""):
        assert inside.get("/", headers={"x-user": strange}).status_code == 401
    assert inside.get("/", headers=[("x-user", "ann"), ("x-user", "root")]).status_code == 401


def test_the_user_of_the_proxy_is_logged(tmp_path: Path) -> None:
    http = client(tmp_path, address="10.0.0.5", **PROXY)
    assert http.post("/api/v1/predict", headers={"x-user": "ann"}, **ASK).status_code == 200
    http.app.state.log.close()
    assert [record["user"] for record in records(tmp_path / "log") if record["event"] == "predict"] == ["ann"]


def test_behind_a_proxy_addresses_are_told_apart_and_https_is_known(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, address="10.0.0.5", users=users, trusted_hops=("10.0.0.0/24",))
    for i in range(6):
        http.get("/api/v1/models", headers={**basic(password=f"{i}"), "x-forwarded-for": "1.1.1.1, 7.7.7.7, 10.0.0.9"})
    blocked, free = ({**basic(), "x-forwarded-for": who} for who in ("8.8.8.8, 7.7.7.7", "7.7.7.7, 8.8.8.8"))
    assert http.get("/api/v1/models", headers=blocked).status_code == 429
    assert http.get("/api/v1/models", headers=free).status_code == 200
    assert "Secure" in http.get("/login", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    direct = client(tmp_path / "direct", address="10.0.1.5", users=users)
    assert "Secure" not in direct.get("/login", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
