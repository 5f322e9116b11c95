from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tenfold.report import beside, classes, words
from tenfold.report.load import Run, load
from tenfold.report.published import headline, published

THEIRS = "Published: pre-trained ResNet on elastography, the best"


def lymph_nodes(folder: Path) -> Run:
    run = load(folder)
    return replace(run, facts={**run.facts, "system": "lymphnode"})


def test_a_macro_figure_is_never_the_auc_of_a_yes_or_no(three: Path) -> None:
    (row,) = published("lymphnode")["rows"]
    assert row[classes.MACRO] == 0.925
    assert "auc" not in row
    assert headline("lymphnode", "diagnosis") == {}
    assert not any("0.925" in said for said in words.answer(lymph_nodes(three)))


def test_the_macro_figure_stands_below_the_arm_that_is_the_same(three: Path) -> None:
    table = beside.table(lymph_nodes(three))
    assert table is not None
    names = [row[0] for row in table.rows]
    assert names[0] == "This run: resnet18 fused pre-trained"
    assert names[names.index(THEIRS) - 1] == "resnet18 elastography pre-trained"
    assert table.rows[names.index(THEIRS)][1] == "0.925"
    assert not any("vit_small" in name for name in names)


def test_two_classes_have_no_macro_figure_to_set_beside(whole: Path) -> None:
    assert beside.table(lymph_nodes(whole)) is None


def test_items_of_the_paper_lead_to_places_on_the_page(three: Path) -> None:
    page = (three / "report.html").read_text("utf-8")
    for item in beside.items(lymph_nodes(three)):
        assert not item.ours or f'id="{item.anchor}"' in page, item.item
