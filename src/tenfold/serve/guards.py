"""What stands before every page and question: headers, host, origin, size, time, rate.

It must not know models, answers or who the users are.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenfold.errors import Refusal
from tenfold.serve.settings import Settings

CSP = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SAFE = ("GET", "HEAD", "OPTIONS")
MOST_KEYS = 10_000
AT_ONCE = 8  # requests of the largest size that are held in memory together
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


class Said(HTTPException):
    """A no with a status, in the words of a refusal.

    Args:
        status: HTTP status, 4xx or 503.
        came: What was found.
        expected: What would have been right.
        do: What to do next.
        headers: To send along.
    """

    def __init__(
        self, status: int, came: str, expected: str = "", do: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, came, dict(headers or {}))
        self.came, self.expected, self.do = came, expected, do

    @classmethod
    def of(cls, refusal: Refusal, status: int) -> Said:
        """A refusal of another part of the package, with a status."""
        came = f"{refusal.where}: {refusal.came}" if refusal.where else refusal.came
        return cls(status, came, refusal.expected, refusal.do)


def is_api(path: str) -> bool:
    """Whether a path belongs to the API, which answers in JSON and takes no cookies."""
    return path == "/api" or path.startswith("/api/")


def answer_of(said: Said, scope: Scope) -> Response:
    """A no as JSON (API) or as a page."""
    if is_api(scope["path"]):
        shape = {"came": said.came, "expected": said.expected, "do": said.do}
        return JSONResponse({"error": shape}, said.status_code, headers=said.headers)
    page: Response = scope["app"].state.error_page(scope, said)
    return page


class Guards:
    """Middleware: what can be refused before anything is read, and the headers of every answer.

    Args:
        app: What comes behind it.
        settings: Names, sizes and times.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings, self.hosts = app, settings, settings.hosts
        self.held = _Held(AT_ONCE * settings.max_upload)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                set_headers(MutableHeaders(scope=message), scope["path"])
            await send(message)

        said = self._refusal(scope)
        if said is not None:
            await answer_of(said, scope)(scope, receive, send_with_headers)
            return
        body = _Body(receive, self.settings.body_seconds, self.held)
        try:
            await self.app(scope, body, send_with_headers)
        finally:
            self.held.bytes -= body.bytes

    def _refusal(self, scope: Scope) -> Said | None:
        """Why a request is refused by its head alone."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self.hosts:
            return Said(
                400,
                "the request names a host that this server does not go by",
                "one of the names it was started for",
                "use its own address; whoever runs it can add a name with --allow-host",
            )
        if not self._same_site(scope, headers, hosts[0]):
            return Said(403, "the request comes from another site", "a page of this server, or a program")
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may have believed the other one
            return Said(400, "the request says its length in two ways", headers={"connection": "close"})
        if int(headers.get("content-length") or 0) > self.settings.max_upload:
            return too_large(self.settings)
        return None

    def _same_site(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether no foreign page is behind a request.

        Links from elsewhere may open pages. A page's own form sends the origin "null" (no referrer is told), so there
        the token decides; to the API nothing is sent by forms.
        """
        api = is_api(scope["path"])
        if not api and scope["method"] in SAFE:
            return True
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        if origin is None or (origin == "null" and not api):
            return True
        return origin.lower() in {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}


@dataclass
class _Held:
    """Bytes of all bodies that are here now, and how many there may be."""

    most: int
    bytes: int = 0


class _Body:
    """A body that must have arrived by a time, and for which there must be room beside the others."""

    def __init__(self, receive: Receive, seconds: float, held: _Held) -> None:
        self.receive, self.deadline = receive, asyncio.get_running_loop().time() + seconds
        self.whole, self.held, self.bytes = False, held, 0

    async def __call__(self) -> Message:
        """The next part of the body."""
        if self.whole:
            return await self.receive()
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.receive()
        except TimeoutError:
            raise Said(
                408, "the request did not arrive in time", do="send it again, over a faster line or in smaller parts",
                headers={"connection": "close"},
            ) from None  # fmt: skip
        self.whole = not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.bytes += size
        self.held.bytes += size
        if self.held.bytes > self.held.most:
            raise Said(503, "too much is being sent at once", do="try again in 5 s", headers={"retry-after": "5"})
        return message


def too_large(settings: Settings) -> Said:
    """The no to a body over the limit."""
    return Said(
        413, "the request is too large", f"{settings.max_upload / 2**20:.0f} MiB at most", "send fewer or smaller files"
    )


def set_headers(headers: MutableHeaders, path: str) -> None:
    """Add the headers of every answer."""
    for name, value in HEADERS.items():
        headers[name] = value
    if not path.startswith("/static/"):
        headers["cache-control"] = "no-store"


def host_name(host: str) -> str:
    """The name in a Host header without its port, in lower case; empty where it is none."""
    found = _HOST.fullmatch(host.lower())
    return found["name"].strip("[]") if found else ""


class Buckets:
    """A token bucket for each key: so many a minute, and as many at once after a pause.

    Args:
        rate: Tokens a minute.
        clock: Seconds, for tests.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.clock = rate, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token.

        Returns:
            0, or the seconds until there is one again.
        """
        moment = self.clock()
        left, since = self._left.get(key, (float(self.rate), moment))
        left = min(self.rate, left + (moment - since) * self.rate / 60)
        wait = 0.0 if left >= 1 else (1 - left) * 60 / self.rate
        _remember(self._left, key, (left - (wait == 0), moment))
        return wait


class BackOff:
    """Waiting times that double with every failure in a row.

    Args:
        free: Failures without a wait.
        longest: Seconds of the longest wait.
        clock: Seconds, for tests.
    """

    def __init__(self, free: int = 5, longest: float = 900.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.free, self.longest, self.clock = free, longest, clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until another try is heard."""
        return max(0.0, self._failures.get(key, (0, 0.0))[1] - self.clock())

    def failed(self, key: str) -> None:
        """Count a failure."""
        count, until = self._failures.get(key, (0, 0.0))
        if self.clock() - until > 2 * self.longest:
            count = 0
        pause = min(self.longest, 2.0 ** (count + 1 - self.free)) if count + 1 >= self.free else 0.0
        _remember(self._failures, key, (count + 1, self.clock() + pause))

    def forget(self, key: str) -> None:
        """A success ends the row."""
        self._failures.pop(key, None)


def _remember(table: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Set a key; the one not used for longest goes when there are too many."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > MOST_KEYS:
        table.popitem(last=False)
