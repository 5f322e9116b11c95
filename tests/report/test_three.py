from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tenfold.report import (
    checklists,
    classes,
    gallery,
    grid,
    methods_text,
    sites,
    words,
)
from tenfold.report.load import Run, load
from tenfold.report.model_card import write_model_card
from tenfold.report.page import write_report
from tenfold.report.tabular import Table

PROPOSED = "resnet18 fused pre-trained"


class Ids(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images_without_words = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.ids += [held["id"] or ""] if "id" in held else []
        self.links += [(held["href"] or "")[1:]] if (held.get("href") or "").startswith("#") and tag == "a" else []
        self.images_without_words += tag == "img" and not held.get("alt")


def read(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


def there(table: Table | None) -> Table:
    assert table is not None
    return table


@pytest.fixture
def changed(three: Path, tmp_path: Path, no_figures: None) -> Callable[..., Path]:
    """Give a copy of the run in which one file was changed; nothing is drawn in it."""

    def make(name: str, change: Callable[[Any], Any]) -> Path:
        left_out = shutil.ignore_patterns("figures", "report.html", "patients")
        folder = Path(shutil.copytree(three, tmp_path / "copy", ignore=left_out))
        held = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(change(held)), "utf-8")
        return folder

    return make


def test_all_parts_are_there_once_and_reachable(three: Path) -> None:
    text = read(three)
    seen = Ids(text)
    assert {"classes", "grid", "sites"} <= set(seen.ids)
    assert {"classes", "grid", "sites"} <= set(seen.links) <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.images_without_words == 0
    assert "could not be drawn" not in text


def test_the_macro_auc_leads_with_interval_n_and_ceiling(three: Path) -> None:
    e = classes.estimates(load(three), PROPOSED)["macro_ovo_auc"]
    lead = re.findall(r'<p class="lead">(.*?)</p>', section(read(three), "answer"))[0]
    assert "told benign, lymphoma and metastatic apart" in lead
    assert f"{words.number(e.value)} ({words.interval(e)}; n = 240)" in lead
    assert "no model can expect more than 0.966 from what this one sees" in section(read(three), "answer")


def test_the_yes_or_no_is_never_told_as_that_of_all_classes(three: Path) -> None:
    text = read(three)
    assert "told metastatic from the rest (benign and lymphoma) with an AUC" in text
    for name in ("performance", "operating"):
        part = section(text, name)
        assert "metastatic against the rest</h2>" in part
        captions = re.findall(r"<caption><span>(.*?)</span>", part) + re.findall(
            r"<figcaption>(.*?)</figcaption>", part
        )
        assert captions
        assert all(caption.startswith("Metastatic against the rest") for caption in captions)
    whole = re.findall(r"<figcaption>(.*?)</figcaption>", section(text, "classes") + section(text, "grid"))
    assert len(whole) == 6
    assert not any(caption.startswith("Metastatic") for caption in whole)
    assert "Effects and p compare all 3 classes at once" in section(text, "patients")


def test_two_classes_have_none_of_it(whole: Path) -> None:
    text = read(whole)
    run = load(whole)
    assert not {"classes", "grid", "sites"} & set(Ids(text).ids)
    assert "against the rest" not in text
    assert (words.versus(run), grid.cells(run), sites.table(run), classes.headline(run)) == ("", [], None, [])


def test_by_class_table_gives_each_its_own_n_and_method(three: Path) -> None:
    table = there(classes.each(load(three)))
    assert table.columns == ("", "benign", "lymphoma", "metastatic", "n", "Method")
    rows = {row[0]: row for row in table.rows}
    cohort = json.loads((three / "cohort.json").read_text("utf-8"))["by_class"]
    assert rows["Sensitivity"][4].split("\u00a0/\u00a0") == [str(c["patients"]) for c in cohort.values()]
    assert rows["AUC, this class against the rest"][4] == "240"
    assert rows["Sensitivity"][5] == "Wilson 95 %"


def test_confusion_counts_every_case_in_words_too(three: Path) -> None:
    cells = json.loads((three / "classes.json").read_text("utf-8"))["node"]["arms"][PROPOSED]["confusion"]
    part = section(read(three), "classes")
    assert sum(map(sum, cells)) == 240
    assert f"truth lymphoma: {cells[1][0]} called benign, {cells[1][1]} called lymphoma" in part
    assert f"{cells[1][1] / sum(cells[1]):.0%}" in (three / "figures" / "classes_confusion.svg").read_text("utf-8")


def test_every_cell_of_the_grid_is_told_and_the_failed_one_with_its_reason(three: Path) -> None:
    run = load(three)
    table = there(grid.table(run))
    assert len(table.rows) == len(grid.cells(run)) == 32
    (row,) = [row for row in table.rows if row[0] == "vit_small, cdfi, scratch"]
    assert row[1] == "failed: loss is no longer a number in epoch 2"
    assert [table.rows[i][0] for i in table.strong] == ["resnet18, fused, pre-trained"]
    assert "vit_small, cdfi, scratch: failed: loss is no longer a number in epoch 2" in section(read(three), "grid")
    assert "scratch: failed" in (three / "figures" / "grid.svg").read_text("utf-8")
    assert "n = 240" in section(read(three), "grid").split('id="figure-grid"')[1].split("</figcaption>")[0]


def test_a_cell_stands_in_the_order_of_its_axes_and_is_its_arm(three: Path) -> None:
    run = load(three)
    cells = grid.cells(run)
    assert [c.view for c in cells[:8:2]] == ["b_mode", "cdfi", "elastography", "fused"]
    rows = there(grid.table(run)).rows
    for cell, row in zip(cells, rows, strict=True):
        found = classes.estimates(run, cell.arm).get("macro_ovo_auc")
        assert (found is None) == row[1].startswith("failed")
        assert found is None or row[1] == words.with_interval(found)


def test_paired_tests_are_shown_as_they_were_made(three: Path) -> None:
    run = load(three)
    held = json.loads((three / "grid.json").read_text("utf-8"))["node"]["comparisons"]
    table = there(grid.tests_table(run))
    assert len(table.rows) == len(held) == 27
    first = next(row for row in table.rows if row[:2] == ["fused against cdfi", "resnet18"])
    (mine,) = [c for c in held if (c["question"], c["network"]) == ("fused against cdfi", "resnet18")]
    assert first[2] == words.number(mine["difference"]["value"])


def test_a_grid_of_two_classes_takes_the_auc(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    cells = [{"network": "r", "view": "film", "start": s, "arm": a} for s, a in (("scratch", "vgg16"), ("x", "gone"))]
    facts["grid"] = {"networks": ["r"], "views": ["film"], "starts": ["scratch", "x"], "cells": cells}
    (folder / "run.json").write_text(json.dumps(facts), "utf-8")
    run = load(folder)
    table = there(grid.table(run))
    assert table.columns[1] == "AUC"
    assert table.rows[0][1] == words.with_interval(run.estimates("vgg16")["auc"])
    assert table.rows[1][1] == "not run"
    assert grid.ablation(run) is not None


def test_each_hospital_stands_beside_the_folds(three: Path) -> None:
    run = load(three)
    table = there(sites.table(run))
    folds = classes.estimates(run, PROPOSED)["macro_ovo_auc"]
    assert [row[0] for row in table.rows][:3] == ["north", "south", "west"]
    assert table.rows[-1][:3] == ["Grouped folds, for comparison", "240", words.number(folds.value)]
    assert "lowest macro one-vs-one AUC in west" in section(read(three), "sites")


def test_a_hospital_of_one_class_says_why(changed: Callable[..., Path]) -> None:
    def change(held: Any) -> Any:
        held["node"][1]["macro_ovo_auc"] = {"value": None, "low": None, "high": None, "method": "one class", "n": 80}
        return held

    table = there(sites.table(load(changed("sites.json", change))))
    assert table.rows[1] == ["south", "80", "–", "–", "one class"]


def test_gallery_shows_one_row_a_patient_by_class_and_decision(three: Path) -> None:
    run, part = load(three), section(read(three), "explanations")
    assert len(gallery.patients(run)) == 9
    assert all(len(p["views"]) == 4 for p in gallery.patients(run))
    headings = re.findall(r"<h4>(.*?)</h4>", part)
    assert headings[:2] == ["metastatic, called benign", "metastatic, called metastatic"]
    assert len(headings) == 6
    first = part.split("<figure>")[1].split("</figure>")[0]
    assert first.count("<img") == 8
    names = ["b mode", "cdfi", "elastography, picture 1", "elastography, picture 2"]
    assert re.findall(r'<p class="view">(.*?)</p>', first) == names
    assert "probability of benign 0.70, decision benign" in first
    pages = list((three / "patients").glob("*.html"))
    assert len(pages) == 9
    assert all(page.read_text("utf-8").count("<img") == 8 for page in pages)
    wrong = (three / "patients" / f"{gallery.patients(run)[0]['case']}.html").read_text("utf-8")
    assert "Probability of lymphoma 0.70, the likeliest of benign, lymphoma, metastatic" in wrong
    assert "Pictures and heat maps of lymphoma" in wrong


def test_an_entry_without_a_view_stays_a_patient_of_its_own(whole: Path) -> None:
    run = load(whole)
    assert len(gallery.patients(run)) == len(run.explanations["cases"])
    assert all(len(p["views"]) == 1 and not p["views"][0].name for p in gallery.patients(run))


def test_methods_cite_hand_and_till_and_say_how_it_was_decided(three: Path, whole: Path) -> None:
    run = load(three)
    text = " ".join(methods_text.paragraphs(run))
    assert "both directions averaged (Hand & Till 2001)" in text
    assert "decided for its likeliest class" in text
    assert "Paired tests on the same patients asked about pre-training, fused against b_mode" in text
    assert "one hospital left out at a time" in text
    assert "Hand & Till 2001" in {r.key for r in methods_text.cited(run)}
    assert "Hand & Till" not in " ".join(methods_text.paragraphs(load(whole)))


def test_card_and_checklists_tell_all_classes(three: Path) -> None:
    card = write_model_card(three)
    assert "## Performance, all classes" in card
    assert "## Performance, metastatic against the rest" in card
    e = classes.of_class(load(three), PROPOSED, "lymphoma")["sensitivity"]
    assert f"sensitivity {words.with_interval(e)}, n = {e.n}" in card
    filled = {i.number: i.answer for i in checklists.fill(load(three), "tripod_ai").items}
    assert any("macro one-vs-one AUC" in answer for answer in filled.values())


@pytest.mark.parametrize("name", ["classes.json", "grid.json", "sites.json"])
def test_a_broken_file_costs_only_itself(changed: Callable[..., Path], name: str) -> None:
    folder = changed(name, lambda held: held)
    (folder / name).write_text("{ not json", "utf-8")
    text = read(write_report(folder).parent)
    assert f"{name} cannot be read" in text
    assert 'id="performance"' in text


def test_chance_and_ceilings_speak_of_the_same_question(three: Path, changed: Callable[..., Path]) -> None:
    run = load(three)
    assert classes.ceiling(run, PROPOSED) == 0.966
    assert classes.ceiling(run, "vit_small cdfi pre-trained") == 0.727
    assert words.ceiling(run) is None
    assert words.ceiling_of(run, "vit_small cdfi pre-trained") is None

    def change(held: Any) -> Any:
        held["node"][PROPOSED]["auc"] |= {"value": 0.6, "low": 0.45, "high": 0.75}
        return held

    folder = changed("evaluation.json", change)
    text = read(write_report(folder).parent)
    assert "Node (metastatic against the rest) cannot be told from chance" in section(text, "answer")
    assert "node (metastatic against the rest) cannot be told from chance" in write_model_card(folder)


def test_small_figures_leave_the_rest_of_the_grid_to_its_own(three: Path) -> None:
    run: Run = load(three)
    assert len(run.elsewhere_in_grid) == 28
    assert PROPOSED not in run.elsewhere_in_grid
    assert "Other networks and starts of the grid stand in its own figure." in section(read(three), "arms")


def test_ways_that_differ_in_a_number_are_told_once() -> None:
    assert classes.one_way(["a, 95 %, at 0.44; n", "a, 95 %, at 0.19; n"]) == "a, 95 %, at 0.44 / 0.19; n"
    assert classes.one_way(["Wilson", "DeLong", "Wilson"]) == "Wilson; DeLong"
    assert classes.one_way([]) == ""
