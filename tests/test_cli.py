"""The command as a user meets it: exit codes, what is printed where, and every kind of bad input."""

from __future__ import annotations

import contextlib
import csv
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tests.calling import Done, call
from tests.modalities.test_dicom import film as dicom
from tests.modalities.test_dicom import write as write_dicom
from tests.study.conftest import small_study

from tenfold.simulate import SIMULATORS

# one arm, one stage, two folds: what the command does around them is what these tests look at
TINY = [
    'stages=[{name="children", epochs=1}]',
    'arms=[{name="proposed"}]',
    "validation.folds=2",
    "validation.holdout=0.0",
    "augment.test_time=1",
    "explain.sanity_cases=0",
]
SETS = [part for change in TINY for part in ("--set", change)]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tenfold.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond a limit: the system refuses to write on, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def picture(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(40, 200, (8, 8)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)


Rows = list[dict[str, str]]


def write_rows(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as handle:
        out = csv.DictWriter(handle, rows[0])
        out.writeheader()
        out.writerows(rows)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Sixteen patients with a picture each, every other one ill, and a study of seconds."""
    folder = tmp_path / "films"
    rows = [
        {"case": f"c{i:02d}", "patient": f"p{i:02d}", "film": f"{i:02d}.png", "outcome": "ill" if i % 2 else "well"}
        for i in range(16)
    ]
    for i, row in enumerate(rows):
        picture(folder / row["film"], i)
    write_rows(folder / "cohort.csv", rows)
    (folder / "study.toml").write_text(
        'preset = "quick"\n'
        "[target]\n"
        'column = "outcome"\n'
        'classes = ["well", "ill"]\n'
        "[inputs.film]\n"
        "size = 32\n"
        'encoder = "image_residual_dilated"\n'
        "options = { width = 4, depths = [1, 1, 1, 1] }\n"
        "[training]\n"
        "epochs = 1\n"
        "[validation]\n"
        "folds = 2\n"
        "bootstraps = 100\n"
        "[explain]\n"
        "cases = 1\n"
        "sanity_cases = 0\n"
    )
    return folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study(tmp_path_factory.mktemp("cli") / "films").parent


@pytest.fixture(scope="session")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A run, made by the command itself; these tests share it and change nothing in it."""
    out = tmp_path_factory.mktemp("cli-run") / "run"
    return out, call("run", cohort, "--out", out, "--threads", 1, "--json", *SETS)


@pytest.fixture
def bundle(finished: tuple[Path, Done], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0] / "bundle", tmp_path / "bundle"))


@pytest.fixture
def film(cohort: Path) -> Path:
    return next(p for p in sorted(cohort.rglob("*.png")) if "mask" not in str(p) and "adults" not in str(p))


# --- what is printed where -------------------------------------------------------------------------------------------


def test_run_prints_json_alone_and_ends_with_0(finished: tuple[Path, Done]) -> None:
    out, done = finished
    assert (done.code, done.err) == (0, "")
    assert set(done.json) == {"report", "bundle", "evaluation"}
    assert done.json["evaluation"] == json.loads((out / "evaluation.json").read_text())
    assert list(done.json["evaluation"]["diagnosis"]) == ["proposed"]
    assert Path(done.json["report"]).is_file()


def test_changes_on_the_command_line_stand_in_the_runs_own_study_file(finished: tuple[Path, Done]) -> None:
    text = (finished[0] / "study.toml").read_text()
    assert "folds = 2" in text
    assert "adults" not in text


def test_usage_ends_with_2(tmp_path: Path) -> None:
    for wrong in (["rum"], ["run"], ["run", tmp_path], ["simulate", "pneumonia", "--out", tmp_path, "--patients", "x"]):
        done = call(*wrong)
        assert done.code == 2, wrong
        assert done.out == ""
        assert "Traceback" not in done.err
    assert call("--help").code == 0


def test_a_refusal_of_the_real_command_is_no_traceback(tmp_path: Path) -> None:
    done = process("import", "kermani", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("tenfold: ")
    assert "did you mean 'kermany'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, films: Path, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tenfold.study.Study.run", interrupted)
    done = call("run", films, "--out", tmp_path / "out")
    assert done.code == 130
    assert "--resume" in done.err


def test_schema_is_json(films: Path) -> None:
    done = call("schema")
    assert done.code == 0
    assert "inputs" in done.json["properties"]


# --- the verbs -------------------------------------------------------------------------------------------------------


def _kermany(source: Path) -> Path:
    for k in range(4):
        picture(source / "NORMAL" / f"IM-{k:04d}-0001.jpeg", k)
        picture(source / "PNEUMONIA" / f"person{k}_bacteria_1.jpeg", 100 + k)
    return source


def test_import_makes_a_cohort_and_a_study_that_check_takes(tmp_path: Path) -> None:
    done = call("import", "kermany", _kermany(tmp_path / "source"), "--out", tmp_path / "films", "--json")
    assert done.code == 0
    assert done.err == ""
    assert Path(done.json["cohort"]).is_file()
    assert Path(done.json["study"]).is_file()
    assert any("8 films" in text for text in done.json["note"])
    found = call("check", tmp_path / "films", "--set", "validation.folds=2", "--json")
    assert not [f for f in found.json["findings"] if f["severity"] == "refusal"]


def test_import_folders_takes_a_pattern(tmp_path: Path) -> None:
    for k in range(2):
        picture(tmp_path / "source" / "ill" / f"p{k}_1.png", k)
        picture(tmp_path / "source" / "well" / f"q{k}_1.png", 10 + k)
    pattern = "(?P<patient>[^_]+)_"
    done = call("import", "folders", tmp_path / "source", "--out", tmp_path / "out", "--patient", pattern, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    with (tmp_path / "out" / "cohort.csv").open(newline="") as handle:
        assert [r["patient"] for r in csv.DictReader(handle)] == ["p0", "p1", "q0", "q1"]


@pytest.mark.parametrize(("layout", "options"), [("folders", []), ("kermany", ["--patient", "(?P<patient>.*)"])])
def test_an_option_that_a_layout_lacks_or_needs_is_a_refusal(tmp_path: Path, layout: str, options: list[str]) -> None:
    source = _kermany(tmp_path / "source")
    done = call("import", layout, source, "--out", tmp_path / "out", *options)
    assert done.code in (1, 2)
    assert "--patient" in done.err
    assert not (tmp_path / "out").exists()


def test_check_lists_what_must_be_mended_and_ends_with_1(films: Path) -> None:
    shutil.copyfile(films / "01.png", films / "02.png")
    done = call("check", films)
    assert done.code == 1
    assert "duplicate" in done.out
    assert "refusal" in done.out
    with (films / "findings.csv").open(newline="") as handle:
        refusals = [r for r in csv.DictReader(handle) if r["severity"] == "refusal"]
    assert refusals
    assert any("p01" in r["patients"] and "p02" in r["patients"] for r in refusals)


def test_check_as_json_and_in_silence(films: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "findings.csv"
    done = call("check", films, "--json", "--findings", place)
    assert done.code == 0
    assert all(set(f) == {"severity", "check", "message"} for f in done.json["findings"])
    assert done.json["sample_size"]["outcome"]["patients"] == {"positives": 8, "negatives": 8}
    assert place.is_file()
    assert not (films / "findings.csv").exists()
    silent = call("check", films / "study.toml", "--quiet")
    assert (silent.code, silent.out, silent.err) == (0, "", "")


def test_predict_as_json(bundle: Path, film: Path, tmp_path: Path) -> None:
    done = call("predict", bundle, film, film, "--json", "--heatmap", tmp_path / "maps")
    assert (done.code, done.err) == (0, "")
    rows = done.json
    assert [r["case"] for r in rows] == [str(film)] * 2
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)
    assert rows[0]["decision"] in ("normal", "pneumonia")
    maps = [Path(r["heatmaps"][0]) for r in rows]
    assert len(set(maps)) == 2
    for path in maps:
        with Image.open(path) as drawn:
            assert drawn.format == "PNG"
            assert min(drawn.size) >= 32


def test_predict_for_people_and_in_silence(bundle: Path, film: Path) -> None:
    shown = call("predict", bundle, film)
    assert shown.code == 0
    assert "probability" in shown.out
    assert "Research use only" in shown.out
    silent = call("predict", bundle, film, "--quiet", "--member", "fold-0-1")
    assert (silent.code, silent.out, silent.err) == (0, "", "")
    assert "did you mean 'fold-0-1'" in call("predict", bundle, film, "--member", "fold-0-11").words


def test_films_that_cannot_be_read_leave_the_others_their_answer(bundle: Path, film: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    done = call(
        "predict", bundle, tmp_path / "gone.png", film, tmp_path / "empty.png", "--json", "--heatmap", tmp_path / "maps"
    )
    assert done.code == 1
    rows = done.json
    assert [r["decision"] is None for r in rows] == [True, False, True]
    assert "no such file" in rows[0]["error"]
    assert "0 bytes" in rows[2]["error"]
    assert len(list((tmp_path / "maps").iterdir())) == 1
    shown = call("predict", bundle, tmp_path / "gone.png", film)
    assert shown.code == 1
    assert "no such file" in shown.words
    assert "no result" in shown.out


def test_pictures_of_every_kind_are_answered(bundle: Path, film: Path, tmp_path: Path) -> None:
    with Image.open(film) as opened:
        grey = opened.convert("L")
    kinds = {
        "deep.png": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "palette.png": grey.convert("RGB").quantize(128),
        "cmyk.jpg": grey.convert("RGB").convert("CMYK"),
    }
    for name, kind in kinds.items():
        kind.save(tmp_path / name)
    plain, *others = call("predict", bundle, film, *(tmp_path / n for n in kinds), "--json").json
    for row in others:
        assert row["error"] is None
        assert row["probabilities"]["pneumonia"] == pytest.approx(plain["probabilities"]["pneumonia"], abs=0.05)


def test_report_is_redrawn_without_torch_to_the_same_bytes(finished: tuple[Path, Done], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished[0], tmp_path / "run"))
    (copy / "report.html").unlink()
    code = (
        "import sys\nfrom tenfold.cli import main\n"
        f"sys.argv = ['tenfold', 'report', {str(copy)!r}, '--json']\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"report": str(copy / "report.html")}
    assert (copy / "report.html").read_bytes() == (finished[0] / "report.html").read_bytes()


def test_evaluate_writes_the_files_of_a_run(bundle: Path, tmp_path: Path) -> None:
    SIMULATORS["pneumonia"](tmp_path / "other", patients=24, adults=20, seed=77, size=64)
    out = tmp_path / "out"
    done = call("evaluate", bundle, tmp_path / "other" / "cohort.csv", "--out", out, "--threads", 1, "--json")
    assert (done.code, done.err) == (0, "")
    assert set(done.json) == {"report", "evaluation"}
    assert done.json["evaluation"]["diagnosis"]["proposed"]["auc"]["n"] == 24
    with (out / "predictions" / "diagnosis.csv").open(newline="") as handle:
        assert {r["split"] for r in csv.DictReader(handle)} == {"external"}


def test_evaluate_refuses_what_it_cannot_use(bundle: Path, cohort: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, words in (
        ([bundle, cohort / "cohort.csv"], "were in the study"),
        ([bundle, films / "cohort.csv"], "diagnosis"),
        ([bundle, films / "cohort.csv", "--column", "outcom"], "did you mean 'outcome'"),
        ([bundle, films / "cohort.csv", "--column", "outcome"], "'well' is not a class"),
        ([bundle, tmp_path / "nowhere.csv"], "nowhere.csv"),
    ):
        done = call("evaluate", *arguments, "--out", out, "--threads", 1)
        assert done.code == 1, words
        assert words in done.words
        assert not out.exists()


def test_simulate_writes_a_study_or_leaves_a_folder_alone(tmp_path: Path) -> None:
    done = call("simulate", "pneumonia", "--patients", 20, "--adults", 20, "--out", tmp_path / "sim", "--json")
    assert (done.code, done.err) == (0, "")
    assert Path(done.json["study"]).is_file()
    assert 0.5 < done.json["ceiling_auc"] < 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    again = call("simulate", "pneumonia", "--patients", 20, "--adults", 20, "--out", tmp_path / "mine")
    assert again.code == 1
    assert "empty" in again.words
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    unknown = call("simulate", "pnemonia", "--out", tmp_path / "x")
    assert unknown.code == 1
    assert "did you mean 'pneumonia'" in unknown.words


# --- bad input: a named refusal that says which row, exit code 1, nothing half-written -------------------------------


def _file(content: Callable[[Path], object]) -> Callable[[Path, Rows], None]:
    return lambda folder, rows: (content(folder / rows[3]["film"]), None)[1]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _dicom(**tags: Any) -> Callable[[Path], object]:
    pixels = np.random.default_rng(5).integers(0, 255, (40, 40), dtype=np.uint8)
    return lambda path: write_dicom(path, dicom(tags.pop("pixels", pixels), **tags))


def _cell(column: str, value: str, row: int = 3) -> Callable[[Path, Rows], None]:
    def change(_: Path, rows: Rows) -> None:
        rows[row][column] = value

    return change


def _outside(folder: Path, rows: Rows) -> None:
    picture(folder.parent / "outside.png", 99)
    rows[3]["film"] = "../outside.png"


def _one_class(_: Path, rows: Rows) -> None:
    for row in rows:
        row["outcome"] = "ill"


def _few(_: Path, rows: Rows) -> None:
    del rows[2:]


FRAMES = np.random.default_rng(6).integers(0, 255, (3, 40, 40), dtype=np.uint8)
BAD_COHORTS: dict[str, tuple[Callable[[Path, Rows], None], str]] = {
    "missing image": (_file(Path.unlink), "row 5, patient p03.*no such file"),
    "truncated image": (_file(_truncate), "row 5, patient p03.*damaged or truncated"),
    "zero-byte image": (_file(lambda p: p.write_bytes(b"")), "row 5, patient p03.*0 bytes"),
    "text named .png": (_file(lambda p: p.write_text("see archive")), "row 5, patient p03.*not a picture"),
    "DICOM without pixels": (_file(_dicom(PixelData=None)), "row 5, patient p03.*no pixel data"),
    "multi-frame DICOM": (_file(_dicom(pixels=FRAMES, Modality="XA")), "row 5, patient p03.*3 frames"),
    "DICOM of another modality": (_file(_dicom(Modality="CT")), "row 5, patient p03.*CT"),
    "deflated DICOM": (_file(_dicom(syntax=DeflatedExplicitVRLittleEndian)), "row 5, patient p03.*deflated"),
    "path outside the folder": (_outside, "row 5, patient p03.*outside"),
    "duplicate case": (_cell("case", "c00"), "row 5, patient p03.*row 2"),
    "empty patient": (_cell("patient", ""), "row 5.*patient is empty"),
    "one class only": (_one_class, "'well'"),
    "label not in the study": (_cell("outcome", "il"), "row 5, patient p03.*'il'.*did you mean 'ill'"),
    "NaN label": (_cell("outcome", "NaN"), "row 5, patient p03.*'NaN'"),
    "empty label": (_cell("outcome", ""), "row 5, patient p03.*missing"),
    "fewer patients than folds": (_few, "patients"),
}


@pytest.mark.parametrize("name", BAD_COHORTS)
def test_a_bad_cohort_is_refused_by_its_row(films: Path, tmp_path: Path, name: str) -> None:
    change, words = BAD_COHORTS[name]
    with (films / "cohort.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    change(films, rows)
    write_rows(films / "cohort.csv", rows)
    done = call("run", films, "--out", tmp_path / "out", "--threads", 1, "--quiet")
    assert done.code == 1
    assert done.out == ""
    assert _matches(words, done.words), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("validation.folts=5", "unknown key 'folts'.*did you mean 'folds'"),
        ("inputs.film.encoder=image_tim", "did you mean 'image_timm'"),
        ("training.monitor=acu", "'acu'.*'auc'"),
        ("inputs.film.options.widht=4", "did you mean 'width'"),
        ("target.column=outcom", "did you mean 'outcome'"),
        ("validation.folds=9", "patients"),
        ("preset=quik", "did you mean 'quick'"),
        ("folds", "changes nothing"),
    ],
)
def test_an_impossible_study_is_refused(films: Path, tmp_path: Path, change: str, words: str) -> None:
    done = call("run", films, "--out", tmp_path / "out", "--threads", 1, "--quiet", "--set", change)
    assert (done.code, done.out) == (1, "")
    assert _matches(words, done.words), done.err
    assert not (tmp_path / "out").exists()


def test_no_study_and_no_device(films: Path, tmp_path: Path) -> None:
    assert "study.toml" in call("run", tmp_path / "nowhere", "--out", tmp_path / "out").words
    assert "did you mean 'cpu'" in call("run", films, "--out", tmp_path / "out", "--device", "cpux").words
    assert not (tmp_path / "out").exists()


OUT_VERBS: dict[str, Callable[[Path, Path], list[object]]] = {
    "run": lambda films, _: ["run", films, "--threads", 1],
    "import": lambda films, _: ["import", "kermany", _kermany(films.parent / "source")],
    "simulate": lambda _, __: ["simulate", "pneumonia", "--patients", 20, "--adults", 20],
    "evaluate": lambda films, bundle: ["evaluate", bundle, films / "cohort.csv", "--column", "outcome"],
}


@pytest.mark.parametrize("verb", list(OUT_VERBS))
def test_an_out_that_is_taken_or_cannot_be_is_refused(films: Path, bundle: Path, tmp_path: Path, verb: str) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    arguments = OUT_VERBS[verb](films, bundle)
    # a file as parent stands for a folder without permission, which does not bind the superuser
    for out, words in (
        (taken, "empty"),
        (taken / "thesis.txt", "a folder that"),
        (taken / "thesis.txt" / "out", "writ"),
    ):
        done = call(*arguments, "--out", out)
        assert done.code == 1, out
        assert words in done.words
        assert [p.name for p in taken.iterdir()] == ["thesis.txt"]
        assert (taken / "thesis.txt").read_text() == "mine"


def test_other_places_that_cannot_be_written_to(films: Path, bundle: Path, film: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (
        ["check", films, "--findings", tmp_path / "file" / "findings.csv"],
        ["predict", bundle, film, "--heatmap", tmp_path / "file" / "maps"],
    ):
        done = call(*arguments)
        assert done.code == 1
        assert "writ" in done.words
    assert (tmp_path / "file").read_bytes() == b""


def test_a_changed_or_foreign_bundle_is_refused(bundle: Path, film: Path, films: Path, tmp_path: Path) -> None:
    weights = next((bundle / "weights").glob("fold-*"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    for place, words in (
        (bundle, "was changed"),
        (films, "not a tenfold bundle"),
        (tmp_path / "gone", "no such folder"),
    ):
        done = call("predict", place, film, "--heatmap", tmp_path / "maps", "--json")
        assert (done.code, done.out) == (1, "")
        assert words in done.words
        evaluated = call("evaluate", place, films / "cohort.csv", "--out", tmp_path / "out", "--threads", 1)
        assert evaluated.code == 1
        assert words in evaluated.words
    assert not (tmp_path / "maps").exists()
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_run_has_no_report(films: Path) -> None:
    before = sorted(films.iterdir())
    done = call("report", films)
    assert done.code == 1
    assert "run.json" in done.words
    assert sorted(films.iterdir()) == before


@pytest.mark.parametrize("verb", ["import", "simulate"])
def test_a_full_disk_leaves_nothing(films: Path, tmp_path: Path, verb: str) -> None:
    arguments = OUT_VERBS[verb](films, tmp_path)
    before = sorted(tmp_path.iterdir())
    with full_disk(500):
        done = call(*arguments, "--out", tmp_path / "out")
    assert done.code == 1
    assert "free space" in done.words
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_on_a_full_disk_goes_on_when_there_is_space(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with full_disk(12_000):
        done = call("run", films, "--out", out, "--threads", 1)
    assert done.code == 1
    assert "free space" in done.words
    assert not (out / "report.html").exists()
    assert not (out / "bundle").exists()
    assert not [p for p in out.rglob("*") if p.is_file() and p.stat().st_size == 0]
    resumed = call("run", films, "--out", out, "--threads", 1, "--resume", "--quiet")
    assert (resumed.code, resumed.err) == (0, "")
    assert (out / "report.html").is_file()


def _matches(words: str, text: str) -> bool:
    """Tell whether the parts stand in the text in this order; they are words, not patterns."""
    for part in words.split(".*"):
        _, found, text = text.partition(part)
        if not found:
            return False
    return True
