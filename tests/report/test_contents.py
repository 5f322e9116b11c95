from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from tenfold.report import checklists, figures, inputs, look, methods_text, words
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


def test_figures_are_legible_and_take_the_colour_of_the_page(
    whole: Path, fused: Path, several: Path, three: Path
) -> None:
    runs = (whole, fused, several, three)
    for name in figures.FIGURES:
        drawn = next(p for p in (run / "figures" / f"{name}.svg" for run in runs) if p.is_file())
        svg = drawn.read_text("utf-8")
        sizes = [float(s) for s in re.findall(r"font(?:-size)?: ?(?:bold )?([\d.]+)px", svg)]
        assert sizes, name
        assert min(sizes) >= 8, name
        assert "currentColor" in svg
        assert look.INK not in svg
        assert "<dc:date>" not in svg
        assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) <= 3.5 * 72  # type: ignore[index]


def test_optimism_fewer_patients_and_what_was_not_fitted_are_told(fused: Path) -> None:
    text = (fused / "report.html").read_text("utf-8")
    assert "apparent 0.990, on the patients it was trained on; out of fold 0.610; optimism 0.380" in text
    assert "With 64 training patients in a fold the AUC was 0.710" in text
    assert "5% of the training patients: not fitted: one class only" in text
    assert "The labels were not permuted, for its folds cannot be trained together" in text
    assert "permutations of the labels" not in text
    assert "n = 160" in text.split('id="figure-learning"')[1].split("</figcaption>")[0]


def test_marked_figures_of_the_paper_are_impossible_and_no_others() -> None:
    rows = published("nec")["rows"]
    assert len(rows) == 11
    for row in rows:
        accuracy = (
            not min(row["recall"], row["specificity"]) <= row["accuracy"] <= max(row["recall"], row["specificity"])
        )
        f1 = row["f1"] > (row["precision"] + row["recall"]) / 2
        assert row.get("impossible", []) == [name for name, wrong in (("accuracy", accuracy), ("f1", f1)) if wrong]


def test_every_item_of_the_paper_leads_to_a_place_on_the_page(fused: Path) -> None:
    text = (fused / "report.html").read_text("utf-8")
    for entry in published("nec")["beside"]:
        assert f'id="{entry["anchor"]}"' in text, entry["item"]
    assert "Not part of this run" not in text


def test_methods_of_a_fused_run(fused: Path) -> None:
    run = load(fused)
    text = " ".join(methods_text.paragraphs(run))
    assert "imputed by the 5 nearest neighbours" in text
    assert "joined end to end before the head (fusion)" in text
    assert "probability 0.15, never all of them (modality dropout)" in text
    assert "the external set “coast” at 2026-03-04T10:41:00Z" in text
    assert {"Hillis 2007", "Vovk 2012", "Sundararajan 2017"} <= {r.key for r in methods_text.cited(run)}
    claims = {i.number: i.answer for i in checklists.fill(run, "claim").items}
    assert "“coast”: 50 cases of 50 patients" in claims["33"]
    assert "No external validation" not in claims["40"]


def test_difference_is_proposed_minus_other_whichever_way_the_file_has_it(fused: Path) -> None:
    run = load(fused)
    found = inputs.difference(run, "film only")
    assert found is not None
    gap = run.estimates(run.proposed)["auc"].value - run.estimates("film only")["auc"].value
    assert found[0].value == pytest.approx(gap)
    assert found[0].low < found[0].value < found[0].high
