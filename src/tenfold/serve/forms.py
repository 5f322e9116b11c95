"""The form that a case arrives in, from a page or a client, read into a `Given`.

It must not know who sends it or what becomes of it.

One multipart form: ``file.<input>``, ``layout.<input>``, ``cell.<table>.<column>``, ``beside.<connectome>.<column>``,
``case``, ``explain``; beside them ``model`` and ``csrf``, which are read elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from tenfold.errors import nearest
from tenfold.serve.case import LONGEST_CELL, Given, Upload
from tenfold.serve.guards import Said
from tenfold.serve.model import Model

LONGEST_CASE = 200
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
MultiPartParser.spool_max_size = sys.maxsize  # what is uploaded never touches a disk; `guards` says how much may come
_MEANT = (b"multipart/form-data", b"application/x-www-form-urlencoded")


async def read_form(request: Request, *, of_stranger: bool = False) -> FormData:
    """Read the body as a form, within the limits of the settings; once a request.

    Args:
        request: Whose body it is.
        of_stranger: Whether nobody knows yet who sends it: then a few short fields, no files.

    Raises:
        Said: 415 where it is no form, 400 where it is malformed or has too many parts, 408, 413 and 503 by the guards.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    # some of Python's encodings take quadratic time, others raise what no parser expects
    if kind not in _MEANT or options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Said(415, f"the question is sent as '{kind[:80].decode('latin-1')}'", "multipart/form-data in UTF-8")
    if of_stranger:
        return await request.form(max_files=0, max_fields=8, max_part_size=8192)
    limits = request.app.state.settings
    return await request.form(max_files=limits.max_files, max_fields=limits.max_fields, max_part_size=limits.max_field)


async def read_given(form: FormData, model: Model) -> Given:
    """Read one case.

    Args:
        form: As `read_form` returns it.
        model: Whose inputs and columns it may name.

    Returns:
        The case; inputs without a file or a filled cell are left out.

    Raises:
        Said: 422 where a field is unknown, given twice, or of the wrong kind.
    """
    places = dict(_places(model))
    files: dict[str, list[Upload]] = {}
    cells: dict[str, dict[str, dict[str, str]]] = {"cell": {}, "beside": {}}
    layouts: dict[str, str] = {}
    seen: set[str] = set()
    for field, value in form.multi_items():
        if field in ("case", "explain", "model", "csrf"):
            continue
        place = places.get(field)
        if place is None:
            raise Said(422, f"the field '{field[:200]}' is unknown", nearest(field[:200], places) if places else "")
        kind, name, column, most = place
        if isinstance(value, UploadFile) != (kind == "file"):
            raise Said(422, f"the field '{field}' is of the wrong kind", "a file" if kind == "file" else "text")
        if isinstance(value, UploadFile):
            if value.filename or value.size:  # a browser sends an empty part for a picker that was not used
                files.setdefault(name, []).append(Upload(value.filename or "", await value.read()))
            if len(files.get(name, ())) > most:
                raise Said(422, f"'{name}' comes with more than {most} files", f"{most} at most")
            continue
        if field in seen:
            raise Said(422, f"the field '{field}' is given twice", "once")
        seen.add(field)
        if kind == "layout":
            layouts[name] = _layout(model, name, value)
        elif len(value) > LONGEST_CELL:
            raise Said(422, f"the field '{field}' holds {len(value)} characters", f"{LONGEST_CELL} at most")
        elif value.strip():
            cells[kind].setdefault(name, {})[column] = value.strip()
    return Given(
        case=_case(form),
        files={name: tuple(uploads) for name, uploads in files.items()},
        layouts={name: site for name, site in layouts.items() if site},
        rows=cells["cell"],
        beside=cells["beside"],
    )


def wants_explanation(form: FormData) -> bool:
    """Whether the form asks for maps and shares.

    Raises:
        Said: 422 where the field "explain" is neither yes nor no.
    """
    told = form.get("explain", "")
    if not isinstance(told, str) or told.lower() not in (*YES, *NO):
        raise Said(422, "the field 'explain' is neither yes nor no", "true or false")
    return told.lower() in YES


def fields_of(model: Model) -> dict[str, dict[str, Any]]:
    """The fields a model's form takes, as JSON Schema, for the description of the API."""
    binary = {"type": "string", "format": "binary"}
    schemas: dict[str, dict[str, Any]] = {}
    for part in model.form["images"]:
        many = {"type": "array", "items": binary, "maxItems": part["pictures"]}
        schemas[f"file.{part['name']}"] = many if part["pictures"] > 1 else binary
        if part["layouts"]:
            schemas[f"layout.{part['name']}"] = {"type": "string", "enum": ["", *part["layouts"]]}
    for part in model.form["connectomes"]:
        schemas[f"file.{part['name']}"] = binary
        schemas |= {f"beside.{part['name']}.{column}": {"type": "string"} for column in part["needs"]}
    for table in model.form["tables"]:
        for column in table["columns"]:
            words = ", ".join(str(column[key]) for key in ("label", "unit") if column[key])
            schemas[f"cell.{table['name']}.{column['name']}"] = {"type": "string", "description": words}
    return schemas


def _places(model: Model) -> Iterator[tuple[str, tuple[str, str, str, int]]]:
    """Every field a model's form may hold: kind, input, column, most files."""
    for part in model.form["images"]:
        yield f"file.{part['name']}", ("file", part["name"], "", part["pictures"])
        yield f"layout.{part['name']}", ("layout", part["name"], "", 0)
    for part in model.form["connectomes"]:
        yield f"file.{part['name']}", ("file", part["name"], "", 1)
        for column in part["needs"]:
            yield f"beside.{part['name']}.{column}", ("beside", part["name"], column, 0)
    for table in model.form["tables"]:
        for column in table["columns"]:
            yield f"cell.{table['name']}.{column['name']}", ("cell", table["name"], column["name"], 0)


def _layout(model: Model, name: str, site: str) -> str:
    """A site that the input has a layout for, or none."""
    sites = next(part["layouts"] for part in model.form["images"] if part["name"] == name)
    if site and site not in sites:
        raise Said(422, f"'{name}' has no layout '{site[:80]}'", nearest(site[:80], sites) if sites else "no layout")
    return site


def _case(form: FormData) -> str:
    """The name of the case, on one line."""
    name = form.get("case", "")
    if not isinstance(name, str) or len(name) > LONGEST_CASE:
        raise Said(422, "the name of the case will not do", f"text of at most {LONGEST_CASE} characters")
    return " ".join(name.split())
