"""A reader study from a file to JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tenfold.errors import CohortError, StatisticsError
from tenfold.stats.reader_study import reader_study
from tenfold.stats.readers import read_readings

DATA = Path(__file__).parent / "data"


@pytest.fixture
def study(tmp_path):
    """Write rows (reader, case, rating[, modality]) and read them back."""

    def make(rows, modality: bool = False):
        path = tmp_path / "readers.csv"
        with path.open("w", newline="") as handle:
            out = csv.writer(handle)
            out.writerow(["reader", "case", "rating"] + ["modality"] * modality)
            out.writerows(rows)
        return read_readings(path)

    return make


@pytest.fixture(scope="module")
def oracle():
    """Readers' rows, the machine and the truth of ai_readers.csv."""
    with (DATA / "ai_readers.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    truth = {r["case"]: r["truth"] == "1" for r in rows}
    machine = {r["case"]: float(r["rating"]) for r in rows if r["reader"] == "AI"}
    return [(r["reader"], r["case"], r["rating"]) for r in rows if r["reader"] != "AI"], machine, truth


def checks(found):
    return {x["check"]: x for x in found["findings"]}


def test_machine_against_readers_from_the_file(study, oracle):
    rows, machine, truth = oracle
    found = reader_study(study(rows), machine, truth, called_from=3, threshold=0.5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (only,) = found["modalities"]
    test = only["against_machine"]["auc"]["random_readers"]
    assert test["difference"]["value"] == pytest.approx(0.136699507389, abs=1e-12)
    assert test["p"] == pytest.approx(0.0178074712714, abs=1e-12)
    per_reader = only["against_machine"]["auc"]["per_reader"]
    assert per_reader[0]["reader"] == "R1"
    assert per_reader[0]["p"] == pytest.approx(0.00400919219679, abs=1e-13)
    assert per_reader[0]["p_holm"] > per_reader[0]["p"]
    sensitivity = only["against_machine"]["sensitivity"]["fixed_readers"]
    mean = np.mean([r["sensitivity"]["value"] for r in only["readers"]])
    assert sensitivity["machine"] == found["machine"]["sensitivity"]
    assert sensitivity["difference"]["value"] == pytest.approx(found["machine"]["sensitivity"]["value"] - mean)
    assert set(only["agreement"]) == {"fleiss_kappa", "pairs", "icc", "fleiss_kappa_of_answers"}
    assert len(only["agreement"]["pairs"]) == 15
    assert found["between"] is None
    assert found["cases"]["complete"] == found["cases"]["predicted"] == 100
    assert found["findings"] == []


def test_two_modalities(study):
    with (DATA / "mrmc.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    truth = {r["case"]: r["truth"] == "1" for r in rows}
    named = {"1": "aided", "2": "unaided"}
    readings = study([(r["reader"], r["case"], r["rating"], named[r["modality"]]) for r in rows][::-1], modality=True)
    found = reader_study(readings, dict.fromkeys(truth, 0.5) | {"1": 0.9}, truth, called_from=3, covariance="delong")
    assert [m["modality"] for m in found["modalities"]] == ["aided", "unaided"]
    between = found["between"]
    assert (between["first"], between["second"]) == ("aided", "unaided")
    assert between["auc"]["random_readers_random_cases"]["p"] == pytest.approx(0.243400450084, abs=1e-11)
    assert between["auc"]["fixed_readers_random_cases"]["p"] == pytest.approx(0.218065148705, abs=1e-11)
    assert between["specificity"]["random_readers_random_cases"]["statistic"] == pytest.approx(0.625, abs=1e-12)
    tested = {row["reader"]: row["p"] for row in between["auc"]["per_reader"]}
    assert tested["1"] == pytest.approx(0.0887989571059, abs=1e-11)
    json.dumps(found, allow_nan=False)


def test_skipped_cases_are_left_out_for_all(study, oracle):
    rows, machine, truth = oracle
    skipped = [(r, c, "" if (r, c) in {("R1", "3"), ("R2", "3"), ("R2", "50")} else x) for r, c, x in rows]
    found = reader_study(study(skipped), machine, truth)
    kept = [row for row in rows if row[1] not in ("3", "50")]
    whole = reader_study(study(kept), machine, truth)
    assert found["modalities"] == whole["modalities"]
    assert found["machine"] == whole["machine"]
    assert found["cases"]["complete"] == 98
    assert found["readers"][1]["reader"] == "R2"
    assert (found["readers"][1]["skipped"], set(found["readers"][1]["skipped_cases"])) == (2, {"3", "50"})
    warned = [x for x in found["findings"] if x["check"] == "reader_skipped_cases"]
    assert [set(x["cases"]) for x in warned] == [{"3"}, {"3", "50"}]
    assert "no_rating_threshold" in checks(found)


def test_unknown_outcomes_are_left_out(study, oracle):
    rows, machine, truth = oracle
    known = {case: value for case, value in truth.items() if case not in ("7", "90")}
    found = reader_study(study(rows), machine, known)
    assert found["cases"]["unknown_outcome"] == 2
    assert checks(found)["unknown_outcome"]["cases"] == ("7", "90")
    assert found["cases"]["complete"] == 98


def test_a_reader_upside_down_is_warned_of(study, oracle):
    rows, machine, truth = oracle
    turned = [(r, c, 6 - int(x) if r == "R4" else x) for r, c, x in rows]
    warning = checks(reader_study(study(turned), machine, truth))["scale_upside_down"]
    assert warning["severity"] == "warning"
    assert "R4" in warning["message"]
    assert warning["value"] == pytest.approx(1 - 0.917692939245, abs=1e-12)


def test_binary_ratings(study, oracle):
    rows, machine, truth = oracle
    found = reader_study(study([(r, c, int(int(x) >= 3)) for r, c, x in rows]), machine, truth)
    assert found["scale"] == {"low": 0.0, "high": 1.0, "levels": 2, "binary": True, "called_from": 1.0}
    assert "binary_ratings" in checks(found)
    (only,) = found["modalities"]
    reader = only["readers"][0]
    assert reader["auc"]["value"] == pytest.approx(
        (reader["sensitivity"]["value"] + reader["specificity"]["value"]) / 2
    )
    assert only["agreement"]["pairs"][0]["weights"] == "none"
    assert "icc" not in only["agreement"]


def test_patients_with_several_cases_widen_the_interval(study, oracle):
    rows, machine, truth = oracle
    doubled = [(r, f"{c}{s}", x) for r, c, x in rows for s in "ab"]
    patients = {f"{c}{s}": c for c in truth for s in "ab"}
    twice = [{f"{c}{s}": v for c, v in x.items() for s in "ab"} for x in (machine, truth)]
    once = reader_study(study(rows), machine, truth)
    found = reader_study(study(doubled), *twice, patients=patients)
    a, b = (x["modalities"][0]["against_machine"]["auc"]["random_readers"] for x in (once, found))
    assert b["difference"]["low"] == pytest.approx(a["difference"]["low"], abs=1e-9)
    assert b["difference"]["n"] == 100
    assert "agreement_by_case" in checks(found)


def test_one_reader(study, oracle):
    rows, machine, truth = oracle
    found = reader_study(study([row for row in rows if row[0] == "R1"]), machine, truth)
    (only,) = found["modalities"]
    assert set(only["against_machine"]["auc"]) == {"fixed_readers", "per_reader"}
    assert only["agreement"] is None
    assert "One reader" in checks(found)["few_readers"]["message"]


def test_refusals(study, oracle):
    rows, machine, truth = oracle
    with pytest.raises(CohortError, match=r"1 ratings of cases that are not in the cohort: 101 \(reader R1, row 2\)"):
        reader_study(study([("R1", "101", 3), *rows]), machine, truth)
    with pytest.raises(StatisticsError, match="no case of known outcome was rated by every reader"):
        reader_study(study([("A", "1", 1), ("A", "2", 2), ("B", "3", 3)]), machine, truth)
    with pytest.raises(CohortError, match="3 modalities: a, b, c"):
        reader_study(study([("A", "1", 1, m) for m in "abc"], modality=True), machine, truth)
    with pytest.raises(StatisticsError, match="ratings run from 1 to 5"):
        reader_study(study(rows), machine, truth, called_from=50)
    with pytest.raises(StatisticsError, match="no number from 0 to 1"):
        reader_study(study(rows), machine | {"5": float("nan")}, truth)
