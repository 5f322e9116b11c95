from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from tenfold.errors import OutputError
from tenfold.report import page, patient
from tenfold.report.model_card import model_card, write_model_card
from tenfold.report.page import ABSENT, FIGURES, write_report

VOID = {"meta", "img", "br", "hr", "link", "input", "path", "use", "rect"}
SECTIONS = set(
    re.findall(
        r"\w+",
        "answer patients audit performance operating beside arms training explanations methods card tripod_ai claim "
        "provenance cite",
    )
)


class Page(HTMLParser):
    """Checks nesting and gathers ids, links and what is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.images_without_words = 0
        self.tables_without_caption = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.ids += [held["id"] or ""] if "id" in held else []
        if tag == "a":
            self.links.append(held.get("href") or "")
        else:
            self.loaded += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data", "srcset")]
        self.images_without_words += tag == "img" and not held.get("alt")
        if self.open and self.open[-1] == "table" and tag != "caption" and self.tables_without_caption >= 0:
            self.tables_without_caption += self.last_table_bare
        if tag == "table":
            self.last_table_bare = True
        if tag == "caption":
            self.last_table_bare = False
        if tag not in VOID:
            self.open.append(tag)

    last_table_bare = False

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def read(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_every_section_is_there_and_reachable(whole: Path) -> None:
    seen = Page(read(whole))
    assert set(seen.ids) >= SECTIONS
    assert {f"#{name}" for name in SECTIONS} <= set(seen.links)
    assert not seen.open


def test_ids_are_unique_and_tables_and_pictures_speak(whole: Path) -> None:
    seen = Page(read(whole))
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.images_without_words == 0
    assert seen.tables_without_caption == 0
    assert read(whole).count('role="img"') == len(list((whole / "figures").glob("*.svg")))


def test_nothing_is_loaded_from_elsewhere(whole: Path) -> None:
    text = read(whole)
    seen = Page(text)
    assert all(u.startswith(("data:image/", "#")) for u in seen.loaded)
    assert all(u.startswith(("#", "https://doi.org/10.", "patients/")) for u in seen.links)
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_failed_arm_says_why(whole: Path) -> None:
    text = read(whole)
    assert "mobilenet v2 failed: loss is no longer a number in epoch 3" in text
    assert "13 arms, 1 failed" in text


def test_the_answer_comes_first_with_interval_and_ceiling(whole: Path) -> None:
    auc = json.loads((whole / "evaluation.json").read_text())["diagnosis"]["proposed"]["auc"]
    said = read(whole).split('id="answer"')[1].split("</section>")[0]
    assert f"AUC of {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}; n = {auc['n']})" in said
    assert "no model can expect more than an AUC of 0.963" in said


def test_core_set_stands_before_accuracy(whole: Path) -> None:
    text = read(whole)
    order = [text.index(f'id="fig-{name}-said"') for name in ("roc", "calibration", "decision", "probabilities")]
    assert max(order) < text.index('<th scope="row">Accuracy</th>')
    assert "They are improper" in text


def test_what_only_the_author_knows(whole: Path, copy: Callable[[], Path], no_figures: None) -> None:
    assert "NOT PROVIDED" in read(whole)
    assert "Author: Approved by the ethics board, no. 12/2025." in read(whole)
    folder = copy()
    (folder / "author.toml").write_text('[claim]\n"99" = "x"\n[tripodai]\n1 = "y"\n', "utf-8")
    text = read(write_report(folder).parent)
    assert "[claim] has no item “99”" in text
    assert "did you mean &#39;tripod_ai&#39;?" in text


def test_same_files_give_the_same_bytes(whole: Path, copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    few = ("flow", "roc")
    monkeypatch.setattr(page, "FIGURES", {n: f if n in few else lambda run: None for n, f in FIGURES.items()})
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    for name in few:
        for ending in ("svg", "png"):
            drawn = f"figures/{name}.{ending}"
            assert (folder / drawn).read_bytes() == (whole / drawn).read_bytes()


def test_only_run_json_is_needed(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", "utf-8")
    text = read(write_report(tmp_path).parent)
    for sentence in ABSENT.values():
        assert sentence in text
    for sentence in ("No audit is recorded", "No case was explained", "No arms were compared", "There is no hold-out"):
        assert sentence in text


@pytest.mark.parametrize("name", ["cohort.json", "curves.json", "explanations.json", "evaluation.json", "folds.json"])
def test_one_broken_part_costs_only_itself(copy: Callable[[], Path], name: str, no_figures: None) -> None:
    folder = copy()
    (folder / name).write_text("{ not json", "utf-8")
    text = read(write_report(folder).parent)
    assert f"{name} cannot be read" in text
    assert "CLAIM 2024, item by item" in text


def test_a_wrong_shape_costs_one_figure(copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    curves = json.loads((folder / "curves.json").read_text())
    curves["diagnosis"]["proposed"]["roc"] = {"fpr": [0, 1], "tpr": [0]}
    (folder / "curves.json").write_text(json.dumps(curves), "utf-8")
    others = {name: (f if name == "roc" else lambda run: None) for name, f in FIGURES.items()}
    monkeypatch.setattr(page, "FIGURES", others)
    assert "The figure “roc” could not be drawn" in read(write_report(folder).parent)


def test_bands_without_numbers_are_gaps(copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy()
    curves = json.loads((folder / "curves.json").read_text())
    for kind in ("calibration", "decision"):
        for side in ("low", "high"):
            held = curves["diagnosis"]["proposed"][kind]
            held[side] = [None] * len(held[side])
    (folder / "curves.json").write_text(json.dumps(curves), "utf-8")
    few = ("calibration", "decision")
    monkeypatch.setattr(page, "FIGURES", {n: f if n in few else lambda run: None for n, f in FIGURES.items()})
    assert "could not be drawn" not in read(write_report(folder).parent)


def test_missing_pictures_and_no_way_out_of_the_folder(copy: Callable[[], Path], no_figures: None) -> None:
    folder = copy()
    secret = folder.parent / "secret.png"
    secret.write_bytes(b"\x89PNG secret")
    held = json.loads((folder / "explanations.json").read_text())
    held["cases"][0]["film"] = "../secret.png"
    held["cases"][1]["overlay"] = "explanations/absent.png"
    (folder / "explanations.json").write_text(json.dumps(held), "utf-8")
    text = read(write_report(folder).parent)
    assert "The film is missing." in text
    assert "The heat map is missing." in text


def test_external_validation(fake_run: ModuleType, tmp_path: Path, no_figures: None) -> None:
    text = read(write_report(fake_run.build(tmp_path / "other", simulated=False, external=True, n=120)).parent)
    assert "External validation report" in text
    assert "In the cohort it was developed on it had 0.965 (0.935 to 0.995)" in text
    assert "Liang G, Zheng L reported 0.953, without an interval" in text
    assert "A frozen bundle was applied unchanged" in text
    assert "cross-validation" not in text.split('id="methods"')[1].split("</section>")[0]
    assert "There is no hold-out" not in text


def test_published_figures_with_their_caveat(whole: Path) -> None:
    text = read(whole)
    assert "377\u00a0/\u00a013\u00a0/\u00a046\u00a0/\u00a0188" in text
    assert "AUC impossible for this matrix" in text
    assert "https://doi.org/10.1016/j.cmpb.2019.06.023" in text


def test_hostile_names_stay_text(copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("flow", "forest")
    monkeypatch.setattr(page, "FIGURES", {n: f if n in few else lambda run: None for n, f in FIGURES.items()})
    folder = copy()
    evil = '"><script>alert(1)</script>$\\frac{$'
    for name in ("run.json", "cohort.json", "explanations.json"):
        held = json.loads((folder / name).read_text())
        if name == "run.json":
            held["title"] = evil
            held["arms"][evil] = {"status": "failed", "reason": evil}
        elif name == "cohort.json":
            held["flow"][1]["reason"] = held["flow"][1]["step"] = evil
        else:
            held["cases"][0]["case"] = evil
        (folder / name).write_text(json.dumps(held), "utf-8")
    text = read(write_report(folder).parent)
    assert "<script" not in text
    assert "could not be drawn" not in text
    assert not Page(text).open


def test_model_card_is_pure_and_says_what_it_is_not(whole: Path) -> None:
    run = json.loads((whole / "run.json").read_text())
    evaluation = json.loads((whole / "evaluation.json").read_text())
    text = model_card(run, evaluation)
    assert text == write_model_card(whole)
    assert "Research use only - not a medical device" in text
    assert "SIMULATED patients" in text
    assert "NOT PROVIDED" in text
    assert "- # x" not in model_card({**run, "title": "a\n# x"}, evaluation)
    assert "No performance was measured." in model_card({}, {})


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no run\.json here"):
        write_report(tmp_path)


def test_report_imports_no_torch() -> None:
    code = "import sys, tenfold.report.page; sys.exit('torch' in sys.modules or 'tenfold.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fused_run_shows_all_its_parts(fused: Path) -> None:
    text = read(fused)
    seen = Page(text)
    assert {"inputs", "external", "readers", "subgroups", "sure"} <= set(seen.ids)
    assert {link[1:] for link in seen.links if link.startswith("#")} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert not seen.open
    assert "could not be drawn" not in text
    assert {p.stem for p in (fused / "figures").glob("*.svg")} >= {
        "matrix",
        "roc_internal",
        "roc_external",
        "roc_readers",
    }


def test_fusion_never_without_its_parts_and_the_test_against_the_better(fused: Path) -> None:
    said = read(fused).split('id="answer"')[1].split("</section>")[0]
    assert "Of the arms with one input, film only was best out of fold" in said
    assert "p = 0.031; paired on the same 160 patients" in said
    assert "picked after its result was seen, which favours it" in said


def test_altered_arms_stand_apart(fused: Path) -> None:
    text = read(fused)
    assert "4 arms." in text
    compared = text.split('id="arms"')[1].split("</section>")[0]
    assert "without film" not in compared
    assert "film taken away" in text
    assert "labs taken away" in text
    assert "film mixed among patients" in text
    roc = (fused / "figures" / "roc.svg").read_text("utf-8")
    assert "3 other arms" in roc


def test_table_2_describes_beside_the_paper(fused: Path) -> None:
    part = read(fused).split('id="table-2"')[1].split("</section>")[0]
    assert "1.28 [0.6\u00a0to\u00a02.7]" in part
    assert "7 / 5" in part
    assert "2.9 → 12.1 ?" in part
    assert "nothing was selected by it" in part
    assert "CRP" not in read(fused).split('id="table-1"')[1].split("</table>")[0]


def test_readers_in_two_ways(fused: Path) -> None:
    part = read(fused).split('id="readers"')[1].split("</section>")[0]
    assert "48 cases of 48 patients (24 NEC) were rated by all" in part
    assert "No difference shown is not equality shown" in part
    assert "other readers, other patients" in part
    assert "Reader 2 skipped two cases." in part


def test_one_page_a_patient(fused: Path) -> None:
    links = [u for u in Page(read(fused)).links if u.startswith("patients/")]
    assert len(links) == len(set(links)) == 8
    cases = json.loads((fused / "explanations.json").read_text())["cases"]
    for case in cases:
        text = (fused / "patients" / f"{case['case']}.html").read_text("utf-8")
        seen = Page(text)
        assert not seen.open
        assert all(u.startswith("data:image/") for u in seen.loaded)
        assert "Research use only" in text
        assert "1 outside: CRP high" in text
        assert "▲ high" in text
        assert "Not measured: IL6" in text
        assert "IL6 (not measured)" in text
        assert ("Answered without film" in text) == (case["film"] is None)


def test_patient_pages_stay_in_their_folder() -> None:
    names = patient.file_names([{"case": c} for c in ("../../x", "A b", "a-b", "", "..", "é/é")])
    assert len({n.lower() for n in names}) == len(names)
    assert all("/" not in n and not n.startswith(".") for n in names)


def test_a_broken_external_set_costs_only_itself(fused: Path, tmp_path: Path, no_figures: None) -> None:
    folder = Path(shutil.copytree(fused, tmp_path / "copy"))
    (folder / "external" / "coast" / "run.json").write_text("{ no", "utf-8")
    text = read(write_report(folder).parent)
    assert "external/coast cannot be read" in text
    assert 'id="inputs"' in text


def test_card_warns_of_neighbours_and_says_what_an_answer_without_an_input_is_worth(fused: Path) -> None:
    text = write_model_card(fused)
    assert "keeps the values of the training patients of labs in the bundle" in text
    assert "without film: AUC" in text
    assert "No external validation is recorded" not in text
