"""The pages that a clinician sees: from the choice of a model to the printed answer.

It must not know networks or how anything is computed; what the pages say comes from `serve.shown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib import resources
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.types import Scope

from tenfold.errors import CohortError, OutputError, Refusal
from tenfold.report.words import RESEARCH_ONLY, joined, units
from tenfold.serve import batches, shown
from tenfold.serve.answer import Answer, Busy, TargetAnswer
from tenfold.serve.ask import answer_and_log, model_of
from tenfold.serve.auth import LoginNeeded, csrf_token, current_user, log_in, log_out, owner_of
from tenfold.serve.case import Given, Upload
from tenfold.serve.forms import read_form, read_given
from tenfold.serve.guards import Said
from tenfold.serve.markdown import to_html
from tenfold.serve.model import Model
from tenfold.serve.results import Kept
from tenfold.serve.unzip import ZipLimits, safe_unzip

VERSION = version("tenfold")

router = APIRouter(include_in_schema=False)
templates = Environment(
    loader=PackageLoader("tenfold.serve"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters |= {
    name: getattr(shown, name)
    for name in (
        "words",
        "sentence_case",
        "sentence_start",
        "percent",
        "plain",
        "figure",
        "signed",
        "between",
        "ranges",
    )
} | {"units": units}
templates.globals |= {
    "research_only": RESEARCH_ONLY,
    "version": VERSION,
    "static": lambda name: f"/static/{name}?{VERSION}",
}

_GROUPS = (("Measurements", ("number",)), ("Findings", ("yes_no", "category", "ordered")))
_KEPT, _FROM = "keep.", "from"
_BATCH_ZIP = ZipLimits(bytes=256 * 2**20)
_ROW_BYTES = 8 * 2**10  # about what is kept of the answer to one case of a batch
_PNG = "image/png"
_HEADINGS = {
    400: "This cannot be read",
    401: "Please sign in",
    403: "Not allowed",
    404: "There is nothing here",
    405: "This cannot be asked here",
    408: "That took too long",
    413: "That is too much",
    415: "This cannot be read",
    422: "This will not do",
    429: "Too many questions",
    500: "Something went wrong here",
    503: "The server is busy",
}


@dataclass(frozen=True)
class Asked:
    """What is kept beside an answer.

    Attributes:
        given: The case, so that it can be changed and sent again.
        model: Its name.
        made: When it was answered, local time.
    """

    given: Given
    model: str
    made: datetime


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill a template with what every page needs, and with its own values."""
    try:
        user = current_user(request)
    except LoginNeeded:
        user = ""
    state = request.app.state
    about = {
        "models": list(state.engine.models.values()) if user else [],
        "user": user if state.settings.authenticates else "",
        "csrf": csrf_token(request),
        "signs_out": state.settings.users is not None,
    }
    return HTMLResponse(_filled(name, about, values), status)


def _filled(name: str, about: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Fill a template; what nobody knows yet is empty."""
    nobody: dict[str, Any] = {"models": [], "model": None, "here": "", "user": "", "csrf": "", "signs_out": False}
    return templates.get_template(name).render({**nobody, **about, **values})


def error_page(scope: Scope, said: Said) -> Response:
    """Say no in the look of the other pages; who is not signed in is led to where that is done."""
    request = Request(scope)
    if isinstance(said, LoginNeeded) and request.method in ("GET", "HEAD"):
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login" if here == "/" else f"/login?next={quote(here)}", 303)
    if "browser" not in scope.get("state", {}):  # refused before anybody looked who asks
        return _with_headers(HTMLResponse(_filled("error.html", {}, _in_words(said)), said.status_code), said)
    return _error(request, said)


def _error(request: Request, said: Said, back: str = "/", back_words: str = "All models") -> Response:
    """Render a no, with the way back."""
    told = _in_words(said) | {"back": back, "back_words": back_words}
    return _with_headers(page(request, "error.html", status=said.status_code, **told), said)


def _in_words(said: Said) -> dict[str, Any]:
    """What an error page says."""
    guess = said.expected.startswith(("did you mean", "choose"))  # what `errors.nearest` says
    return {
        "title": _HEADINGS.get(said.status_code, "This was refused"),
        "code": said.status_code,
        "came": shown.sentence_start(said.came),
        "expected": "" if guess else said.expected,
        "guess": shown.sentence_start(said.expected) if guess else "",
        "do": said.do,
        "back": "/",
        "back_words": "All models",
    }


def _with_headers(response: Response, said: Said) -> Response:
    response.headers.update(said.headers or {})
    return response


# --- models ----------------------------------------------------------------------------------------------------------


@router.get("/")
async def choose(request: Request) -> HTMLResponse:
    """Show what is on offer."""
    cards = [
        {
            "model": model,
            "simulated": bool(model.facts.get("simulated")),
            "tells": shown.tells(model),
            "needs": shown.needs(model),
            "patients": shown.patients(model),
            "measured": shown.measured(model),
        }
        for model in request.app.state.engine.models.values()
    ]
    return page(request, "models.html", title="Choose a model", here="models", cards=cards)


@router.get("/models/{slug}")
async def form(request: Request, slug: str) -> HTMLResponse:
    """Show what a model wants to know of a case; filled where a case is to be changed (`?from=` its result)."""
    model = model_of(request, slug)
    source = request.query_params.get(_FROM, "")
    kept = _kept(request, source)
    before = kept.meta.given if kept is not None and kept.meta.model == slug else Given()
    tables = [{"name": table["name"], "groups": _grouped(table["columns"])} for table in model.form["tables"]]
    return page(
        request,
        "form.html",
        title=model.title,
        model=model,
        form={**model.form, "tables": tables},
        tells=shown.tells(model),
        before=before,
        source=source if kept is not None else "",
    )


def _grouped(columns: list[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Put figures first, then what is chosen from a list."""
    groups = ((heading, [c for c in columns if c["kind"] in kinds]) for heading, kinds in _GROUPS)
    return [(heading, some) for heading, some in groups if some]


@router.post("/models/{slug}")
async def ask(request: Request, slug: str) -> Response:
    """Answer one case, and lead to its result."""
    model = model_of(request, slug)
    sent = await read_form(request)
    given = await read_given(_without(sent, _FROM, _KEPT), model)
    return await _answered(request, model, _with_kept(request, sent, given, slug))


def _without(sent: FormData, *own: str) -> FormData:
    """Leave out the fields that only pages know."""
    return FormData([(name, value) for name, value in sent.multi_items() if not name.startswith(own)])


def _with_kept(request: Request, sent: FormData, given: Given, slug: str) -> Given:
    """Take files from the case that was changed, where they were kept and no new ones came."""
    kept = _kept(request, str(sent.get(_FROM, "")))
    if kept is None or kept.meta.model != slug:
        return given
    before: Mapping[str, tuple[Upload, ...]] = kept.meta.given.files
    wanted = {name: files for name, files in before.items() if f"{_KEPT}{name}" in sent}
    return Given(given.case, {**wanted, **given.files}, given.layouts, given.rows, given.beside)


@router.post("/models/{slug}/examples/{i}")
async def example(request: Request, slug: str, i: int) -> Response:
    """Answer one of a model's example cases."""
    model = model_of(request, slug)
    if not 0 <= i < len(model.examples):
        raise Said(404, "there is no such example")
    return await _answered(request, model, model.examples[i].given)


async def _answered(request: Request, model: Model, given: Given) -> Response:
    """Ask, keep the answer for its page, and lead there; where that fails, nothing typed is lost."""
    asked = Asked(given, model.slug, datetime.now().astimezone())
    results = request.app.state.results
    try:
        answer = await answer_and_log(request, model.slug, given, explain=True, user=current_user(request))
    except Said as said:
        again = results.put(owner_of(request), None, asked, size=_size(None, given))
        return _error(request, said, f"/models/{model.slug}?{_FROM}={again}", "Back to the case")
    answer = await run_in_threadpool(_drawn, answer)
    name = results.put(owner_of(request), answer, asked, size=_size(answer, given))
    return RedirectResponse(f"/results/{name}", 303)


def _drawn(answer: Answer) -> Answer:
    """Encode the pictures of an answer, once: they will be looked at, and are kept smaller so."""
    return replace(answer, pictures=dict(answer.pictures), heat=dict(answer.heat))


def _size(answer: Answer | None, given: Given) -> int:
    """Count the bytes that are kept."""
    uploads = sum(len(upload.data) for files in given.files.values() for upload in files)
    pictures = () if answer is None else (*answer.pictures.values(), *answer.heat.values())
    return uploads + sum(len(picture) for picture in pictures)


# --- results ---------------------------------------------------------------------------------------------------------


def _kept(request: Request, name: str) -> Kept[Answer | None] | None:
    """Return what is kept under an id, or None."""
    kept: Kept[Answer | None] | None = request.app.state.results.get(name, owner_of(request)) if name else None
    return kept


def _result(request: Request, name: str) -> tuple[Answer, Asked]:
    """Return a result of this session.

    Raises:
        Said: 404 where it is gone or another's.
    """
    kept = _kept(request, name)
    if kept is None or kept.thing is None:
        raise Said(
            404, "this result is not here any more", do="results are kept for a short time only: send the case again"
        )
    return kept.thing, kept.meta


@router.get("/results/{name}")
async def result(request: Request, name: str) -> HTMLResponse:
    """Show an answer."""
    answer, asked = _result(request, name)
    model = model_of(request, asked.model)
    labels = {view["name"]: view["label"] or view["name"] for view in model.form["images"]}
    most = {view["name"]: view["pictures"] for view in model.form["images"]}
    views = _views(answer, labels)
    until = asked.made + timedelta(minutes=request.app.state.settings.results_minutes)
    return page(
        request,
        "result.html",
        title=answer.case or "Result",
        model=model,
        id=name,
        answer=answer,
        labels=labels,
        verdict=shown.verdict(answer, labels, most),
        targets=[_told(target, answer, request.query_params) for target in answer.targets],
        views=views,
        n_pictures=sum(len(view["pictures"]) for view in views),
        explained=answer.explained["class"] if answer.explained else "",
        checks=shown.checks(answer, labels, most),
        missing=shown.missing(answer, model, labels),
        entered=shown.entered(asked.given, model, labels),
        made=f"{asked.made:%Y-%m-%d %H:%M}",
        until=f"{until:%H:%M}",
    )


def _views(answer: Answer, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Group the pictures by input."""
    views: dict[str, list[dict[str, Any]]] = {}
    for name, i in answer.pictures:
        views.setdefault(name, []).append({"i": i, "heat": (name, i) in answer.heat})
    return [
        {"name": n, "label": labels.get(n, n), "pictures": p, "has_heat": any(one["heat"] for one in p)}
        for n, p in views.items()
    ]


def _told(target: TargetAnswer, answer: Answer, query: Mapping[str, str]) -> dict[str, Any]:
    """Put together what the page says of one target."""
    names = {one.name: _prevalence_field(one.name, answer) for one in answer.targets}
    return {
        "told": target,
        "decided": shown.decided(target),
        "spread_words": shown.spread_words(target),
        "similar_words": shown.similar_words(target),
        "point": shown.point(target, query.get(names[target.name], "")),
        "field": names[target.name],
        "other_prevalences": [(f, query[f]) for t, f in names.items() if t != target.name and f in query],
    }


def _prevalence_field(target: str, answer: Answer) -> str:
    return "prevalence" if len(answer.targets) == 1 else f"prevalence.{target}"


@router.get("/results/{name}/picture/{view}/{i}.png")
async def picture(request: Request, name: str, view: str, i: int) -> Response:
    """Show a picture as the model saw it."""
    return _png(_result(request, name)[0].pictures, view, i)


@router.get("/results/{name}/heat/{view}/{i}.png")
async def heat(request: Request, name: str, view: str, i: int) -> Response:
    """Show a heat map, to be laid over its picture."""
    return _png(_result(request, name)[0].heat, view, i)


def _png(pictures: Mapping[tuple[str, int], bytes], view: str, i: int) -> Response:
    if (view, i) not in pictures:
        raise Said(404, "there is no such picture")
    return Response(pictures[(view, i)], media_type=_PNG)


# --- batches ---------------------------------------------------------------------------------------------------------


@router.get("/models/{slug}/batch")
async def batch_form(request: Request, slug: str) -> HTMLResponse:
    """Show how several cases are sent."""
    model = model_of(request, slug)
    columns = batches.batch_columns(model.form)
    return page(
        request,
        "batch.html",
        title="Several cases",
        model=model,
        most=batches.MOST_CASES,
        columns=[(column.name, column.text) for column in columns],
        files=joined([f"“{column.name}”" for column in columns if column.kind == "files"]),
        several=any(column.pictures > 1 for column in columns),
        minutes=round(request.app.state.settings.results_minutes),
    )


@router.get("/models/{slug}/batch.csv")
async def batch_table(request: Request, slug: str) -> Response:
    """Give the empty table of a batch."""
    return _csv(batches.empty_table(model_of(request, slug).form), f"{slug}.csv")


@router.post("/models/{slug}/batch")
async def batch_start(request: Request, slug: str) -> Response:
    """Start answering several cases, and lead to where they can be watched."""
    model = model_of(request, slug)
    sent = await read_form(request)
    table, zipped = await _content(sent, "table"), await _content(sent, "files")
    user, state = current_user(request), request.app.state

    async def answer(given: Given) -> Answer:
        try:
            return await answer_and_log(request, slug, given, user=user)
        except Said as said:
            if isinstance(said.__cause__, Refusal) and not isinstance(said.__cause__, OutputError):
                raise said.__cause__ from None
            raise

    try:
        async with state.running.reading:  # one zip at a time is unpacked, and only where it can be answered
            state.running.check_room(owner_of(request))
            cases, notes = await run_in_threadpool(_read_batch, model, table, zipped)
            batch, owner = batches.Batch(model, len(cases), notes), owner_of(request)
            state.running.start(owner, batch, cases, answer)
    except Busy as busy:
        said = Said(503, busy.came, do=busy.do, headers={"retry-after": str(busy.retry_after)})
        return _error(request, said, f"/models/{slug}/batch", "Back to the table")
    except Refusal as refusal:
        return _error(request, Said.of(refusal, 422), f"/models/{slug}/batch", "Back to the table")
    name = state.batches.put(owner, batch, datetime.now().astimezone(), size=len(table) + _ROW_BYTES * len(cases))
    return RedirectResponse(f"/batches/{name}", 303)


def _read_batch(model: Model, table: bytes, zipped: bytes) -> tuple[list[Given], tuple[str, ...]]:
    """Read what was sent of a batch."""
    if not table:
        raise CohortError("there is no table", expected="a CSV file")
    return batches.read_cases(model.form, table, safe_unzip(zipped, _BATCH_ZIP) if zipped else {})


async def _content(sent: FormData, field: str) -> bytes:
    """Return the content of a file in a form, nothing where it is not there."""
    value = sent.get(field)
    return await value.read() if isinstance(value, UploadFile) else b""


def _batch(request: Request, name: str) -> Kept[batches.Batch]:
    """Return a batch of this session.

    Raises:
        Said: 404 where it is gone or another's.
    """
    kept: Kept[batches.Batch] | None = request.app.state.batches.get(name, owner_of(request))
    if kept is None:
        raise Said(404, "this batch is not here any more", do="batches are kept for a short time only: send it again")
    return kept


@router.get("/batches/{name}.csv")
async def batch_results(request: Request, name: str) -> Response:
    """Give the answers of a batch as a table."""
    return _csv(batches.results_table(_batch(request, name).thing), "answers.csv")


@router.get("/batches/{name}")
async def batch_run(request: Request, name: str) -> HTMLResponse:
    """Show how far a batch is, and its answers."""
    kept = _batch(request, name)
    batch = kept.thing
    until = kept.meta + timedelta(minutes=request.app.state.settings.results_minutes)
    return page(
        request,
        "batch_run.html",
        title="Several cases",
        model=batch.model,
        id=name,
        batch=batch,
        with_result=sum(bool(row.targets) for row in batch.rows),
        until=f"{until:%H:%M}",
    )


def _csv(text: str, name: str) -> Response:
    """Send a table as a file to keep; the mark at its start tells Excel that it is UTF-8."""
    return Response(
        "\ufeff" + text, media_type="text/csv", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


# --- words -----------------------------------------------------------------------------------------------------------


@router.get("/models/{slug}/card")
async def card(request: Request, slug: str) -> HTMLResponse:
    """Show a model card."""
    model = model_of(request, slug)
    return page(request, "card.html", title="Model card", model=model, card=to_html(model.card))


@router.get("/about")
async def about(request: Request) -> HTMLResponse:
    """Say what this is, and what becomes of what is sent."""
    minutes = round(request.app.state.settings.results_minutes)
    return page(request, "about.html", title="About", here="about", minutes=minutes)


@router.get("/login")
async def login_form(request: Request) -> Response:
    """Ask who is there."""
    if request.app.state.settings.users is None:
        return RedirectResponse("/", 303)
    return page(
        request, "login.html", title="Sign in", complaint="", next=_inside(request.query_params.get("next", ""))
    )


@router.post("/login")
async def login(request: Request) -> Response:
    """Sign in, and lead to where one wanted to go."""
    sent = await read_form(request)
    name, password, onward = (str(sent.get(field, "")) for field in ("user", "password", "next"))
    try:
        if await log_in(request, name, password):
            return RedirectResponse(_inside(onward) or "/", 303)
        said = Said(401, "User and password do not belong together", do="try again")
    except Said as too_often:
        said = too_often
    complaint = f"{shown.sentence_start(said.came)}: {said.do}."
    again = page(
        request, "login.html", status=said.status_code, title="Sign in", complaint=complaint, next=_inside(onward)
    )
    return _with_headers(again, said)


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Sign out; what was asked is forgotten."""
    await request.app.state.running.stop(owner_of(request))
    await log_out(request)
    return RedirectResponse("/login", 303)


def _inside(path: str) -> str:
    """Return a path of this server, nothing for any other address: a login must not lead elsewhere."""
    inside = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if inside and path.isprintable() else ""


# --- what the pages are made of --------------------------------------------------------------------------------------

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC = {
    file.name: (file.read_bytes(), kind)
    for file in resources.files("tenfold.serve").joinpath("static").iterdir()
    if (kind := _KINDS.get(file.name[file.name.rfind(".") :]))
}


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Give the style, the script or the icon."""
    if name not in _STATIC:
        raise Said(404, "there is no such file")
    content, kind = _STATIC[name]
    return Response(content, media_type=kind, headers={"cache-control": "public, max-age=3600"})
