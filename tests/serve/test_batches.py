"""Several cases from a table and a zip, and the table that comes back."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import MODELS, FakeEngine, column, png

from tenfold.errors import CohortError
from tenfold.serve.answer import Answer, Busy
from tenfold.serve.app import create_app
from tenfold.serve.batches import Batch, Batches, batch_columns, empty_table, read_cases, results_table
from tenfold.serve.case import Given
from tenfold.serve.settings import Settings

FORM = MODELS["pneumonia"].form
HEADER = "case,film,crp,sex,fever\n"
FILES = {"scans/a.png": b"a", "scans/b.png": b"b"}


def test_the_empty_table_has_the_columns_that_are_read() -> None:
    header = next(csv.reader(io.StringIO(empty_table(FORM))))
    assert header == ["case", "film", "crp", "sex", "fever"]
    assert [c.name for c in batch_columns(MODELS["lymph-nodes"].form)][:3] == ["case", "b_mode", "b_mode_scanner"]


def test_columns_of_the_same_name_are_told_apart() -> None:
    tables = [{"name": name, "columns": [column("crp", "")]} for name in ("admission", "discharge")]
    names = [c.name for c in batch_columns({**FORM, "tables": tables})]
    assert names == ["case", "film", "admission.crp", "discharge.crp"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cases_get_their_files_and_cells(separator: str) -> None:
    table = (HEADER + "1,a.png,88,male,\n\n2,scans/b.png,,,yes\n").replace(",", separator)
    cases, notes = read_cases(FORM, b"\xef\xbb\xbf" + table.encode(), FILES)
    assert [case.case for case in cases] == ["1", "2"]
    assert cases[0].files["film"][0].data == b"a"
    assert cases[1].files["film"][0].data == b"b"
    assert cases[0].rows["labs"] == {"crp": "88", "sex": "male", "fever": ""}
    assert notes == ()


def test_files_that_no_row_names_are_told() -> None:
    _, notes = read_cases(FORM, (HEADER + "1,a.png,,,\n").encode(), FILES)
    assert notes[0].startswith("1 file of the zip")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (HEADER, "no cases"),
        ("case,film,crp,sex\n1,,,\n", "no column fever"),
        ("case,film,crb,crp,sex,fever\n1,,,,,\n", "did you mean 'crp'"),
        (HEADER + "1,c.png,,,\n", "no file 'c.png'"),
        (HEADER + "1,a.png;b.png,,,\n", "2 files in film"),
        (HEADER + "1,,,,\n1,,,,\n", "twice"),
        (HEADER + ",,1,,\n", "no name"),
        (HEADER + "1,2\n", "row 2"),
        (HEADER + "".join(f"{i},,,,\n" for i in range(9)), "more than 8 cases"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(table: str, words: str) -> None:
    with pytest.raises(CohortError, match=re.escape(words)):
        read_cases(FORM, table.encode(), FILES, most=8)


def test_latin_1_is_refused_in_words() -> None:
    with pytest.raises(CohortError, match="UTF-8"):
        read_cases(FORM, (HEADER + "Müller,,,,\n").encode("latin-1"), {})


def test_busy_is_waited_for_and_a_refusal_is_a_row() -> None:
    engine, asked = FakeEngine(), list[str]()

    async def ask(given: Given) -> Answer:
        asked.append(given.case)
        if asked == ["1"]:
            raise Busy(0)
        if given.case == "2":
            raise CohortError("crp is no number")
        return await engine.answer("pneumonia", given)

    async def run() -> Batch:
        batch = Batch(MODELS["pneumonia"], 3)
        cases = [Given(str(i), rows={"labs": {"crp": "1"}}) for i in (1, 2, 3)]
        batches = Batches()
        batches.start("me", batch, cases, ask)
        with pytest.raises(Busy):
            batches.start("me", batch, cases, ask)
        while not batch.ended:
            await asyncio.sleep(0.005)
        return batch

    batch = asyncio.run(run())
    assert asked == ["1", "1", "2", "3"]
    assert [bool(row.targets) for row in batch.rows] == [True, False, True]
    assert "crp is no number" in batch.rows[1].remarks[0]


def test_no_cell_of_the_answers_is_a_formula() -> None:
    engine = FakeEngine()

    async def run() -> Batch:
        batch, batches = Batch(MODELS["pneumonia"], 4), Batches()
        names = ("=1+1", "+1", "-1", "@SUM(A1)")
        cases = [Given(name, rows={"labs": {"crp": "1"}}) for name in names]
        batches.start("me", batch, cases, lambda given: engine.answer("pneumonia", given))
        while not batch.ended:
            await asyncio.sleep(0.005)
        return batch

    lines = list(csv.reader(io.StringIO(results_table(asyncio.run(run())))))
    assert [line[0] for line in lines[1:]] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)"]
    assert lines[1][:5] == ["'=1+1", "yes", "pneumonia", "0.2300", "0.7700"]
    assert all(line[-1] == MODELS["pneumonia"].digest for line in lines[1:])


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_a_batch_from_the_page_to_the_table(tmp_path: Path) -> None:
    app = create_app(FakeEngine(), Settings(log=tmp_path / "log", rate=1000))
    with TestClient(app, base_url="http://localhost") as client:
        found = re.search(r'name="csrf" value="([^"]+)"', client.get("/models/pneumonia/batch").text)
        assert found
        assert client.get("/models/pneumonia/batch.csv").text.lstrip("\ufeff").startswith("case,film,crp")
        table = HEADER + "P-1,a.png,88,male,yes\nP-2,bad.png,,,\n"
        files = {"table": ("t.csv", table.encode()), "files": ("f.zip", _zip({"a.png": png(), "bad.png": b"bad"}))}
        page = client.post("/models/pneumonia/batch", data={"csrf": found[1]}, files=files)
        assert page.url.path.startswith("/batches/")
        for _ in range(100):
            page = client.get(page.url.path)
            if "Download as CSV" in page.text:
                break
            assert 'http-equiv="refresh"' in page.text
            time.sleep(0.02)
        assert "2 of 2 cases answered, 1 with a result" in page.text
        lines = list(csv.DictReader(io.StringIO(client.get(f"{page.url.path}.csv").text.lstrip("\ufeff"))))
        assert [line["result"] for line in lines] == ["yes", "no"]
        assert "not a picture" in lines[1]["remarks"]

        evil = {"table": ("t.csv", table.encode()), "files": ("f.zip", _zip({"../../etc/x.png": png()}))}
        refused = client.post("/models/pneumonia/batch", data={"csrf": found[1]}, files=evil)
        assert refused.status_code == 422
        assert "stay inside" in refused.text

        address = page.url.path
        client.cookies.clear()
        assert client.get(address).status_code == 404
