"""The server put together: pages, API and what guards them, around an engine.

It must not know models, formats or figures.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect

from tenfold.errors import OutputError, Refusal, ServeError
from tenfold.serve.auth import Auth, Browsers, LoginNeeded, page_gate
from tenfold.serve.batches import Batches
from tenfold.serve.guards import Guards, Said, answer_of, set_headers, too_large
from tenfold.serve.log import Log
from tenfold.serve.results import ResultStore
from tenfold.serve.routes import api, pages
from tenfold.serve.settings import Settings
from tenfold.serve.slow import timed

VERSION = version("tenfold")


def create_app(engine: Any, settings: Settings) -> FastAPI:
    """Build the server.

    Args:
        engine: What answers: `models` by name, `await answer(slug, given, explain)`, `close()`.
        settings: Where, for whom, how much.

    Returns:
        The application; `app.state` holds engine, settings, auth, log, results, batches, and the batches at work.

    Raises:
        Refusal: if the users file will not do.
        OutputError: if the log cannot be opened.
    """
    app = FastAPI(
        title="tenfold",
        version=VERSION,
        description="Diagnostic models behind an API. Research use only - not a medical device.",
        docs_url=None,  # the usual pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # /api/v1/openapi.json, for who may ask
        lifespan=_lifespan,
        # FastAPI would send traces, and the words of errors, to whatever the environment names
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    state = app.state
    state.engine, state.settings, state.auth = engine, settings, Auth(settings)
    state.results, state.batches = ResultStore(settings.results_minutes), ResultStore(settings.results_minutes)
    state.running, state.error_page = Batches(), pages.error_page
    state.log = Log(settings.log, retention_days=settings.retention_days)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_upload)
    app.add_middleware(Browsers, settings=settings)
    app.add_middleware(Guards, settings=settings)  # added last, so it stands before the others
    app.include_router(api.router)
    app.include_router(pages.router, include_in_schema=False, dependencies=[Depends(page_gate)])
    for kind in (HTTPException, RequestValidationError, Refusal, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _refuse)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What is logged of the server itself."""
    log, models = app.state.log, app.state.engine.models.values()
    about = {"version": VERSION, "models": {model.slug: model.digest for model in models}}
    await log.write({"event": "start", **about})
    try:
        yield
    finally:
        await app.state.running.close()
        await log.write({"event": "stop"})
        log.close()
        app.state.engine.close()


def _refuse(request: Request, error: Exception) -> Response:
    """One shape for every no."""
    response = answer_of(_said(request, error), request.scope)
    set_headers(MutableHeaders(raw=response.raw_headers), request.url.path)  # a defect is answered outside the guards
    return response


def _said(request: Request, error: Exception) -> Said:
    """Any error as a no with a status."""
    if isinstance(error, LoginNeeded) and request.app.state.settings.users is None:
        return Said(401, "the proxy in front of this server names no user", do="open the page through the proxy")
    if isinstance(error, Said):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 413:
            return too_large(request.app.state.settings)
        came, do = _PLAIN.get(error.status_code, (str(error.detail), ""))
        return Said(error.status_code, came, do=do, headers=error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return Said(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
    if isinstance(error, ClientDisconnect):
        return Said(400, "the request broke off")  # nobody is there to read it
    if isinstance(error, OutputError):
        return Said(503, error.came, error.expected, "tell whoever runs this server")  # not where: a folder of it
    if isinstance(error, Refusal):
        return Said.of(error, 422)
    return Said(500, "something went wrong inside the server", do="try again; tell whoever runs it if it stays so")


_PLAIN = {
    404: ("there is nothing at this address", "begin at /"),
    405: ("this address is not asked in this way", ""),
}


def serve(engine: Any, settings: Settings, announce: Callable[[str], None] = lambda address: None) -> None:
    """Serve until the process is told to stop.

    Args:
        engine: What answers.
        settings: Where, for whom, how much.
        announce: Is told the address as soon as the server listens.

    Raises:
        Refusal: if the users file will not do, or the address is taken.
        OutputError: if the log cannot be opened or written.
    """
    listening = _listen(settings)
    server = uvicorn.Server(server_config(create_app(engine, settings), settings))
    host, port = listening.getsockname()[:2]
    announce(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if not server.started:
        raise OutputError("the server did not start", do="see what was printed above", where=str(settings.log))


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to run.

    Args:
        app: The application.
        settings: How many connections, and how long each part of a request may take.

    Returns:
        A configuration that trusts no header of a client, tells no version and keeps no log of addresses.
    """
    return uvicorn.Config(
        app,
        http=timed(settings.header_seconds, settings.body_seconds),
        ws="none",
        limit_concurrency=settings.connections,
        proxy_headers=False,  # whom to believe is in the settings
        server_header=False,
        access_log=False,
        log_level=logging.WARNING,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=20,
    )


def _listen(settings: Settings) -> socket.socket:
    """Take the address before anything else is opened."""
    try:
        family, *_, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        settings.check_address(str(place[0]))  # a name may lead anywhere
        return socket.create_server(place[:2], family=family, backlog=settings.connections)
    except OSError as error:
        raise ServeError(
            f"the server cannot listen on {settings.host}:{settings.port} ({error.strerror})",
            do="choose another port, or stop what uses this one",
        ) from error
