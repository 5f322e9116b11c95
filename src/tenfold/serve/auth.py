"""Who asks, and whether their own page asked: sessions, passwords, the header of a proxy, tokens against forgery.

It must not know models or answers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenfold.serve.forms import read_form
from tenfold.serve.guards import SAFE, BackOff, Buckets, Said, is_api
from tenfold.serve.settings import Settings
from tenfold.serve.users import NAME, Users

LOCAL = "local"
COOKIE = "tenfold_session"
LOGIN = "/login"
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class LoginNeeded(Said):
    """A page that needs to know who asks, and does not."""

    def __init__(self) -> None:
        super().__init__(401, "you are not logged in", do="log in")


@dataclass
class Browser:
    """One browser, by its cookie.

    Attributes:
        id: Random; also the owner of what it asked.
        set_cookie: Whether the cookie is to be sent with the answer.
    """

    id: str
    set_cookie: bool


class Sessions:
    """Who is logged in.

    Args:
        minutes: How long a session lasts that is not used.
        hours: How long it lasts at most.
        clock: Seconds, for tests.
    """

    def __init__(self, minutes: float, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle, self._most, self._clock = minutes * 60, hours * 3600, clock
        self._open: dict[str, tuple[str, float, float]] = {}

    def begin(self, user: str) -> str:
        """Begin a session under a fresh id."""
        moment = self._clock()
        self._open = {key: one for key, one in self._open.items() if self._alive(one, moment)}
        name = secrets.token_urlsafe(32)
        self._open[name] = (user, moment, moment)
        return name

    def user(self, name: str) -> str:
        """Whose session it is, empty if nobody's; looking counts as use."""
        one, moment = self._open.get(name), self._clock()
        if one is None or not self._alive(one, moment):
            self._open.pop(name, None)
            return ""
        self._open[name] = (one[0], one[1], moment)
        return one[0]

    def end(self, name: str) -> None:
        """End a session."""
        self._open.pop(name, None)

    def _alive(self, one: tuple[str, float, float], moment: float) -> bool:
        return moment - one[2] < self._idle and moment - one[1] < self._most


class Auth:
    """What the server knows of who asks.

    Args:
        settings: How it is to be found out.

    Raises:
        Refusal: if the users file will not do.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = Users(settings.users) if settings.users else None
        self.sessions = Sessions(settings.session_minutes, settings.session_hours)
        self.buckets = Buckets(settings.rate)
        self.back_off, self.back_off_address = BackOff(), BackOff(free=20)
        self.key = secrets.token_bytes(32)
        self._one_at_a_time = asyncio.Lock()

    def by_header(self, request: HTTPConnection) -> str:
        """The user a trusted proxy names; empty where there is none."""
        header = self.settings.trusted_header
        if not header or not self.settings.trusts(_peer(request)):
            return ""
        named = request.headers.getlist(header)
        return named[0] if len(named) == 1 and NAME.fullmatch(named[0]) else ""

    def by_session(self, request: HTTPConnection) -> str:
        """The user whose session the cookie names; empty where there is none, the user gone or the password another."""
        let_in = self.sessions.user(browser_of(request).id)
        user = let_in.partition(" ")[0]
        return user if user and let_in == self.proven(user) else ""

    def proven(self, user: str) -> str:
        """A user as a session knows them: with what they were let in by, which changes with the password."""
        return f"{user} {self.users.hash_of(user)}" if self.users is not None and user in self.users else ""

    async def check(self, request: HTTPConnection, name: str, password: str) -> bool:
        """Check a password, slower and slower for who guesses.

        Raises:
            Said: 429 while the address must wait.
        """
        if self.users is None:
            return False
        address = address_of(request, self.settings)
        keys = ((self.back_off, f"{address} {name[:64].lower()}"), (self.back_off_address, address))
        async with self._one_at_a_time:  # so that tries sent at once cannot outrun the count
            _refuse_wait(max(one.wait(key) for one, key in keys), "too many wrong passwords")
            if self.users.remembers(name, password):  # only now: who must wait could try passwords on it
                return True
            right = await run_in_threadpool(self.users.check, name, password)
            if right:  # the address keeps its count: an account of one's own must not buy more guesses
                self.back_off.forget(keys[0][1])
            else:
                for one, key in keys:
                    one.failed(key)
        return right

    def named(self, name: str) -> str:
        """A name for the log: a user's; nothing for any other, which may be a password in the wrong field."""
        return name if self.users is not None and name in self.users else ""

    def count(self, request: HTTPConnection, user: str) -> None:
        """Count one question of a user, or of an address where nobody is named.

        Raises:
            Said: 429 where they ask too often.
        """
        key = f"user {user}" if user not in ("", LOCAL) else address_of(request, self.settings)
        _refuse_wait(self.buckets.take(key), "too many questions in a short time")


def _refuse_wait(seconds: float, came: str) -> None:
    """Refuse while a time has not passed."""
    if seconds > 0:
        whole = str(math.ceil(seconds))
        raise Said(429, came, do=f"try again in {whole} s", headers={"retry-after": whole})


# --- pages: sessions and tokens --------------------------------------------------------------------------------------


def auth_of(request: HTTPConnection) -> Auth:
    """The server's `Auth`."""
    return request.app.state.auth


def browser_of(request: HTTPConnection) -> Browser:
    """The browser that a page is asked by."""
    return request.scope["state"]["browser"]


def owner_of(request: HTTPConnection) -> str:
    """Under which name a page's results are kept: this browser and this user, nobody else."""
    return f"{browser_of(request).id} {current_user(request)}"


def current_user(request: HTTPConnection) -> str:
    """Who asks for a page.

    Returns:
        The user; "local" where the server is open to this machine alone.

    Raises:
        LoginNeeded: where nobody is logged in.
    """
    auth = auth_of(request)
    if not auth.settings.authenticates:
        return LOCAL
    user = auth.by_header(request) or auth.by_session(request)
    if not user:
        raise LoginNeeded
    return user


def csrf_token(request: HTTPConnection) -> str:
    """What a page's forms must send back in their field "csrf" (or the header X-CSRF-Token)."""
    auth = auth_of(request)
    try:
        user = current_user(request)
    except LoginNeeded:
        user = ""
    return hmac.new(auth.key, f"{browser_of(request).id} {user}".encode(), hashlib.sha256).hexdigest()


async def check_csrf(request: Request) -> None:
    """Refuse a POST that no page of this server sent.

    Raises:
        Said: 403.
    """
    if request.method in SAFE:
        return
    given = request.headers.get("x-csrf-token")
    if given is None:
        field = (await read_form(request, of_stranger=request.scope["path"] == LOGIN)).get("csrf")
        given = field if isinstance(field, str) else ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), csrf_token(request).encode()):
        raise Said(403, "the form is too old, or of another session", do="open the page again and send it once more")


async def page_gate(request: Request) -> AsyncIterator[None]:
    """What every page asks first: who (but for the login itself), how often, and whether its own form sent it.

    Raises:
        Said: 401, 403 or 429.
    """
    if request.scope["path"].startswith("/static/"):
        yield
        return
    user = "" if request.scope["path"] == LOGIN else current_user(request)
    if request.method not in SAFE:
        auth_of(request).count(request, user)
        await check_csrf(request)
    try:
        yield
    finally:
        await request.close()  # what was uploaded is let go with the answer


async def log_in(request: Request, name: str, password: str) -> bool:
    """Log in: a fresh session where name and password belong together; both outcomes are logged.

    Raises:
        Said: 429 after too many wrong passwords.
        OutputError: if the log cannot be written.
    """
    auth, log, browser = auth_of(request), request.app.state.log, browser_of(request)
    right = await auth.check(request, name, password)
    await log.write({"event": "login" if right else "refused", "user": auth.named(name)})
    if right:
        auth.sessions.end(browser.id)
        browser.id, browser.set_cookie = auth.sessions.begin(auth.proven(name)), True
    return right


async def log_out(request: Request) -> None:
    """End the session and forget what it asked."""
    auth, browser, state = auth_of(request), browser_of(request), request.app.state
    owner = owner_of(request)
    state.results.drop(owner)
    state.batches.drop(owner)
    auth.sessions.end(browser.id)
    browser.id, browser.set_cookie = secrets.token_urlsafe(32), True


class Browsers:
    """Middleware: each browser has a cookie, for pages alone.

    Args:
        app: What comes behind it.
        settings: Whom to believe that the page came over https.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the browser, and send it its cookie where that is new."""
        if scope["type"] != "http" or is_api(scope["path"]) or scope["path"].startswith("/static/"):
            await self.app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        secure = is_https(request, self.settings)
        name = f"__Host-{COOKIE}" if secure else COOKIE  # no neighbour on the same domain can set that name
        known = request.cookies.get(name, "")
        fresh = not _ID.fullmatch(known)
        browser = Browser(secrets.token_urlsafe(32) if fresh else known, fresh)
        scope.setdefault("state", {})["browser"] = browser

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and browser.set_cookie:
                rest = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
                MutableHeaders(scope=message).append("set-cookie", f"{name}={browser.id}{rest}")
            await send(message)

        await self.app(scope, receive, send_with_cookie)


# --- API: a password or the header of a proxy with every question; never a cookie ------------------------------------


async def api_user(request: Request) -> str:
    """Who asks the API.

    Returns:
        The user; "local" where the server is open to this machine alone.

    Raises:
        Said: 401, or 429 where they ask too often or guess passwords.
    """
    auth = auth_of(request)
    user = await _api_user(auth, request)
    auth.count(request, user)
    return user


async def _api_user(auth: Auth, request: Request) -> str:
    if not auth.settings.authenticates:
        return LOCAL
    user = auth.by_header(request)
    if user:
        return user
    asks = {"www-authenticate": 'Basic realm="tenfold", charset="UTF-8"'} if auth.users is not None else {}
    name, password = _basic(request.headers.get("authorization", ""))
    if auth.users is None or not name:
        raise Said(401, "the question does not say who asks", "name and password (HTTP Basic)", headers=asks)
    if not await auth.check(request, name, password):
        await request.app.state.log.write({"event": "refused", "user": auth.named(name)})
        raise Said(401, "name and password do not belong together", headers=asks)
    return name


def _basic(header: str) -> tuple[str, str]:
    """Name and password of HTTP Basic; empty where the header is none."""
    kind, _, rest = header.partition(" ")
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return (name, password) if kind.lower() == "basic" and colon else ("", "")


# --- where a request comes from --------------------------------------------------------------------------------------


def _peer(request: HTTPConnection) -> str:
    """The address at the other end of the connection."""
    return request.client.host if request.client else ""


def address_of(request: HTTPConnection, settings: Settings) -> str:
    """The address of who asks: behind trusted proxies the last that is none of them; of IPv6 the network of 64 bits.

    Whoever has one address of such a network has all of them, and could guess from each.
    """
    address = _peer(request)
    told = [part.strip() for part in ",".join(request.headers.getlist("x-forwarded-for")).split(",") if part.strip()]
    while told and settings.trusts(address):
        address = told.pop()
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def is_https(request: HTTPConnection, settings: Settings) -> bool:
    """Whether the page travels encrypted, here or up to a trusted proxy."""
    told = request.headers.get("x-forwarded-proto", "") if settings.trusts(_peer(request)) else ""
    return "https" in (request.scope.get("scheme"), told.strip().lower())
