"""Three classes: against scikit-learn, against yes/no machinery that is tested elsewhere, and by patient."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk
from statsmodels.stats.multitest import multipletests

from tenfold.errors import StatisticsError
from tenfold.stats.class_metrics import (
    CLASS_METRICS,
    class_samples,
    macro_ovo_auc,
    ovo_deviations,
    recall_deviations,
)
from tenfold.stats.classes import BY_CLASS, COMPARED, compare_classes, evaluate_classes
from tenfold.stats.evaluate import evaluate
from tenfold.types import PredictionTable

CLASSES = ("normal", "benign", "malignant")


def predictions(n=90, arms=("net",), patient=None, repeat=0, seed=0, shift=1.2) -> PredictionTable:
    """Rounded probabilities, so that there are ties; classes of different sizes."""
    random = np.random.default_rng(seed)
    y = random.choice(3, n, p=(0.25, 0.3, 0.45))
    parts = []
    for number, arm in enumerate(arms):
        score = random.normal(size=(n, 3))
        score[np.arange(n), y] += shift + number
        p = np.exp(score).round(1) + 0.1
        parts.append(
            PredictionTable(
                case=np.array([f"c{i}" for i in range(n)]),
                patient=(np.arange(n) if patient is None else np.asarray(patient)).astype(str),
                site=np.full(n, ""),
                split=np.full(n, "out_of_fold"),
                repeat=np.full(n, repeat),
                fold=np.arange(n) % 5,
                arm=np.full(n, arm),
                label=np.array(CLASSES)[y],
                probabilities=p / p.sum(axis=1, keepdims=True),
                classes=CLASSES,
            )
        )
    return PredictionTable.concatenate(parts)


def index_of(table: PredictionTable) -> np.ndarray:
    return np.array([CLASSES.index(name) for name in table.label])


def overall(table: PredictionTable, arm="net", **asked) -> dict:
    return evaluate_classes(table, reference=arm, **{"bootstraps": 60, **asked})["arms"][arm]["overall"]


def test_figures_over_all_classes_are_those_of_scikit_learn():
    table = predictions()
    y, p = index_of(table), table.probabilities
    found = evaluate_classes(table, reference="net", bootstraps=60)["arms"]["net"]
    decided = p.argmax(axis=1)
    expected = {
        "macro_ovo_auc": sk.roc_auc_score(y, p, multi_class="ovo", average="macro"),
        "macro_ovr_auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "accuracy": sk.accuracy_score(y, decided),
        "balanced_accuracy": sk.balanced_accuracy_score(y, decided),
        "macro_f1": sk.f1_score(y, decided, average="macro"),
        "log_loss": sk.log_loss(y, p),
        "brier": sum(np.mean((p[:, k] - (y == k)) ** 2) for k in range(3)),
    }
    assert list(found["overall"]) == list(CLASS_METRICS) == list(expected)
    assert {name: e["value"] for name, e in found["overall"].items()} == pytest.approx(expected)
    assert all(e["low"] < e["value"] < e["high"] for e in found["overall"].values())
    assert macro_ovo_auc(y, p) == pytest.approx(expected["macro_ovo_auc"])
    assert np.mean([pair["value"] for pair in found["pairs"].values()]) == pytest.approx(expected["macro_ovo_auc"])
    assert found["confusion"] == sk.confusion_matrix(y, decided).tolist()
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, decided)
    for k, name in enumerate(CLASSES):
        own = found["by_class"][name]
        assert [own[m]["value"] for m in ("ppv", "sensitivity", "f1")] == pytest.approx(
            [precision[k], recall[k], f1[k]]
        )


def test_a_class_against_the_rest_is_a_yes_or_no():
    table = predictions(patient=np.arange(90) // 2)
    found = evaluate_classes(table, reference="net", bootstraps=60)["arms"]["net"]
    points = {("net", 0, fold): 0.5 for fold in range(5)}
    for name in CLASSES:
        own = evaluate(table, positive=name, thresholds=points, bootstraps=60)["net"]
        assert list(found["by_class"][name]) == list(BY_CLASS)
        # What asks for no decision is the same, interval and all.
        for metric in ("auc", "calibration_slope", "calibration_intercept", "ici", "net_benefit"):
            assert found["by_class"][name][metric] == own[metric].to_dict()
        assert set(found["decision"][name]) == {"threshold", "model", "low", "high", "treat_all"}
        assert found["calibration"][name]["bins"]
        assert found["roc"][name]["tpr"][-1] == 1


def test_a_pair_counted_by_hand():
    # Of normal and benign: by p(normal) 3 of 4 pairs are right and one is tied; by p(benign) 2.5 of 4.
    p = np.array([[0.6, 0.3], [0.4, 0.2], [0.4, 0.6], [0.3, 0.2], [0.1, 0.1]])
    p = np.column_stack([p, 1 - p.sum(axis=1)])
    y = np.array([0, 0, 1, 1, 2])
    pairs = {
        (0, 1): (3.5 / 4 + 2.5 / 4) / 2,
        (0, 2): 1.0,
        (1, 2): 1.0,
    }
    assert macro_ovo_auc(y, p) == pytest.approx(np.mean(list(pairs.values())))
    table = replace(predictions(5), label=np.array(CLASSES)[y], probabilities=p)
    found = evaluate_classes(table, reference="net", bootstraps=0)["arms"]["net"]["pairs"]
    assert [e["value"] for e in found.values()] == pytest.approx(list(pairs.values()))
    assert list(found) == ["normal | benign", "normal | malignant", "benign | malignant"]
    assert "perfect separation" in found["normal | malignant"]["method"]


@pytest.mark.parametrize("of", [ovo_deviations, recall_deviations])
def test_the_variance_is_that_of_leaving_patients_out(of):
    patient = np.random.default_rng(4).integers(0, 70, 150)
    table = predictions(150, patient=patient)
    names = np.unique(table.patient)

    def of_table(part: PredictionTable):
        return of(tuple(class_samples(part, "net").values()), len(names))

    whole = of_table(table)
    without = np.array([of_table(table.where(table.patient != name)).value for name in names])
    jackknife = (len(names) - 1) / len(names) * ((without - without.mean()) ** 2).sum()
    assert whole.variance == pytest.approx(jackknife, rel=0.1)
    metric = "macro_ovo_auc" if of is ovo_deviations else "balanced_accuracy"
    assert whole.value == pytest.approx(overall(table)[metric]["value"])


def test_intervals_are_by_patient():
    """Four copies of each examination tell no more than one; taken for patients they would seem to."""
    once = predictions(60)
    rows = np.repeat(np.arange(60), 4)
    copied = replace(once.where(rows), case=np.array([f"c{i}" for i in range(240)]))
    apart = replace(copied, patient=copied.case)
    first, second, third = (overall(t, bootstraps=300) for t in (once, copied, apart))
    for name in CLASS_METRICS:
        widths = [e[name]["high"] - e[name]["low"] for e in (first, second, third)]
        assert widths[1] == pytest.approx(widths[0], rel=0.02)
        assert widths[2] < 0.7 * widths[1]
        assert (second[name]["n"], third[name]["n"]) == (60, 240)


def test_unknown_outcomes_are_left_out_and_rows_may_come_in_any_order():
    table = predictions()
    more = predictions(20, seed=5)
    unknown = replace(more, case=np.char.add("u", more.case), label=np.full(20, ""))
    mixed = PredictionTable.concatenate([table, unknown]).where(np.random.default_rng(1).permutation(110))
    assert overall(mixed)["macro_ovo_auc"] == overall(table)["macro_ovo_auc"]


def test_repeats_are_averaged():
    first, second = predictions(), replace(predictions(seed=0), repeat=np.full(90, 1))
    second = replace(second, probabilities=np.roll(second.probabilities, 1, axis=0))
    apart = [overall(t, bootstraps=0) for t in (first, second)]
    for name, estimate in overall(PredictionTable.concatenate([first, second])).items():
        assert estimate["value"] == pytest.approx(np.mean([found[name]["value"] for found in apart]))
        assert "mean of 2 repeats" in estimate["method"]
        assert estimate["n"] == 90


def test_a_class_that_is_absent_or_rare_is_said():
    table = predictions()
    two = table.where(table.label != "benign")
    found = evaluate_classes(two, reference="net", bootstraps=60)["arms"]["net"]
    assert found["overall"]["macro_ovo_auc"]["value"] is None
    assert "no case of the class 'benign'" in found["overall"]["macro_ovo_auc"]["method"]
    assert found["overall"]["accuracy"]["value"] > 0
    assert found["pairs"]["normal | benign"]["value"] is None
    assert found["pairs"]["normal | malignant"]["value"] > 0.5
    assert found["by_class"]["benign"]["auc"]["value"] is None
    assert sum(found["confusion"][1]) == 0
    json.dumps(found, allow_nan=False)
    benign = np.flatnonzero(table.label == "benign")
    rare = table.where(np.setdiff1d(np.arange(90), benign[2:]))
    estimate = overall(rare, bootstraps=200)["macro_ovo_auc"]
    dropped = int(estimate["method"].split("(")[1].split()[0])
    assert 0.05 < dropped / 200 < 0.25  # about exp(-2) of the draws have neither
    assert estimate["low"] < estimate["value"] <= estimate["high"]


def test_arms_are_compared_on_the_same_draws():
    table = predictions(arms=("net", "better", "best", "same"))
    same = table.arm == "same"
    probabilities = table.probabilities.copy()
    probabilities[same] = probabilities[table.arm == "net"]
    table = replace(table, probabilities=probabilities)
    found = evaluate_classes(table, reference="net", bootstraps=200)["comparisons"]
    assert compare_classes(table, reference="net", bootstraps=200) == found
    assert [(c["arm"], c["metric"]) for c in found] == [(a, m) for a in ("better", "best", "same") for m in COMPARED]
    of = {(c["arm"], c["metric"]): c for c in found}
    for metric in COMPARED:
        best, alike = of["best", metric], of["same", metric]
        arms = [overall(table.select(arm=arm), arm)[metric]["value"] for arm in ("best", "net")]
        assert best["difference"]["value"] == pytest.approx(arms[0] - arms[1])
        assert best["difference"]["low"] > 0
        assert best["p"] < 0.01
        assert (alike["difference"]["value"], alike["p"], alike["p_adjusted"]) == (0, None, None)
        p = [of[arm, metric]["p"] for arm in ("better", "best")]
        assert [of[arm, metric]["p_adjusted"] for arm in ("better", "best")] == pytest.approx(
            multipletests(p, method="holm")[1]
        )
    json.dumps(found, allow_nan=False)


def test_the_test_and_the_interval_of_a_difference_agree():
    table = predictions(200, arms=("net", "better"), patient=np.arange(200) // 2)
    for line in evaluate_classes(table, reference="better", bootstraps=800)["comparisons"]:
        gap = line["difference"]
        spread = (gap["high"] - gap["low"]) / 2 / 1.96
        z = abs(gap["value"]) / spread
        assert gap["value"] < 0
        assert np.log10(line["p"]) == pytest.approx(np.log10(2 * norm.sf(z)), rel=0.25)


def test_only_shared_cases_are_compared():
    table = predictions(arms=("net", "better"))
    dropped = np.array([f"c{i}" for i in range(0, 90, 4)])
    partial = table.where(~((table.arm == "better") & np.isin(table.case, dropped)))
    neither = table.where(~np.isin(table.case, dropped))
    some, none = (evaluate_classes(t, reference="net", bootstraps=40)["comparisons"] for t in (partial, neither))
    for a, b in zip(some, none, strict=True):
        assert a["difference"]["value"] == pytest.approx(b["difference"]["value"])
        assert a["p"] == pytest.approx(b["p"])
        assert a["difference"]["n"] == 67


def test_impossible_requests_are_refused():
    table = predictions(arms=("net", "better"))
    with pytest.raises(StatisticsError, match="did you mean 'better'"):
        evaluate_classes(table, reference="beter")
    label = table.label.copy()
    label[3] = "malignnt"
    with pytest.raises(StatisticsError, match="did you mean 'malignant'"):
        evaluate_classes(replace(table, label=label), reference="net")
    apart = replace(table, case=np.char.add(table.arm, table.case))
    with pytest.raises(StatisticsError, match="share no case"):
        evaluate_classes(apart, reference="net", bootstraps=0)
    with pytest.raises(StatisticsError, match="each class"):
        macro_ovo_auc(np.array([0, 1, 1]), np.full((3, 3), 1 / 3))
    with pytest.raises(StatisticsError, match="shape"):
        macro_ovo_auc(np.array([0, 1, 2, 1]), np.full((3, 3), 1 / 3))
