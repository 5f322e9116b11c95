from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from tenfold.report import checklists, figures, look, methods_text, words
from tenfold.report.load import load
from tenfold.report.published import published
from tenfold.report.tables import predictive
from tenfold.report.words import NOT_PROVIDED


@pytest.mark.parametrize(("key", "items", "entries"), [("tripod_ai", 27, 52), ("claim", 44, 44)])
def test_checklists_are_whole(key: str, items: int, entries: int, whole: Path) -> None:
    filled = checklists.fill(load(whole), key)
    assert len(filled.items) == entries
    assert {int(re.sub("[a-z]", "", i.number)) for i in filled.items} == set(range(1, items + 1))
    assert all(i.answer for i in filled.items)


def test_every_answer_function_is_asked_for_and_known() -> None:
    asked = set()
    for key in checklists.CHECKLISTS:
        held = tomllib.loads(resources.files("tenfold.report").joinpath(f"{key}.toml").read_text("utf-8"))
        asked |= {item["answer"] for item in held["items"] if item.get("answer")}
    assert asked == set(checklists.ANSWERS)


def test_an_empty_run_provides_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", "utf-8")
    filled = checklists.fill(load(tmp_path), "tripod_ai")
    ethics = next(i for i in filled.items if i.number == "17")
    assert ethics.answer == NOT_PROVIDED
    assert filled.open > 35


def test_one_answer_of_the_author_fills_both_lists(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", "utf-8")
    (tmp_path / "author.toml").write_text('[tripod_ai]\n18a = "No funding."\n', "utf-8")
    claim = checklists.fill(load(tmp_path), "claim")
    assert next(i for i in claim.items if i.number == "44").answer == "Author: No funding."


def test_thresholds_are_those_of_the_folds(whole: Path) -> None:
    assert words.thresholds(load(whole), "proposed") == [0.40, 0.41, 0.42, 0.43, 0.44]


def test_every_metric_of_the_statistics_has_a_place() -> None:
    from tenfold.stats.metrics import METRICS

    assert set(METRICS) <= set(words.METRICS)


def test_predictive_values_at_another_prevalence() -> None:
    # systems.md 4.2: the published sensitivity and specificity give a PPV of 21 % at 5 % prevalence
    assert predictive(0.967, 0.803, 0.05)[0] == pytest.approx(0.21, abs=0.01)
    assert predictive(1, 1, 0.01) == (1, 1)


def test_published_matrices_give_the_published_rates() -> None:
    for row in published("pneumonia")["rows"]:
        tp, fn, fp, tn = (row[k] for k in ("tp", "fn", "fp", "tn"))
        assert (tp + fn, fp + tn) == (390, 234)
        assert (tp + tn) / 624 == pytest.approx(row["accuracy"], abs=0.0011)
        assert tp / (tp + fp) == pytest.approx(row["precision"], abs=0.0011)
        assert tp / 390 == pytest.approx(row["recall"], abs=0.0011)
        assert tn / 234 == pytest.approx(row["specificity"], abs=0.0011)


def test_methods_name_only_papers_that_are_listed(whole: Path) -> None:
    run = load(whole)
    text = " ".join(methods_text.paragraphs(run))
    assert {r.key for r in methods_text.cited(run)} >= {"DeLong 1988", "Obuchowski 1997", "Van Calster 2025"}
    assert "5-fold cross-validation, grouped by patient" in text
    assert "13 " not in text.split("further arm")[0][-4:]
    assert "12 further arms" in text


def test_figures_are_legible_and_take_the_colour_of_the_page(whole: Path) -> None:
    for name in figures.FIGURES:
        svg = (whole / "figures" / f"{name}.svg").read_text("utf-8")
        sizes = [float(s) for s in re.findall(r"font(?:-size)?: ?(?:bold )?([\d.]+)px", svg)]
        assert sizes, name
        assert min(sizes) >= 8, name
        assert "currentColor" in svg
        assert look.INK not in svg
        assert "<dc:date>" not in svg
        assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) <= 3.5 * 72  # type: ignore[index]
