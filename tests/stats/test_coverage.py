"""The intervals of an evaluation hold the truth as often as they say: a fixed predictor, many cohorts."""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.stats import calibration, net_benefit, roc
from tenfold.stats.evaluate import evaluate
from tenfold.stats.sample import Sample

COHORTS, PATIENTS, LARGE = 200, 300, 2_000_000
THRESHOLD, TREAT_AT = 0.35, 0.25
JUDGED = ("auc", "sensitivity", "calibration_slope", "net_benefit")


def _draw(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and what a fixed predictor says: too extreme, and 0.3 too low on the logit scale."""
    log_odds = random.normal(-0.8, 1.2, n)
    said = 1.25 * (log_odds + random.normal(0, 0.6, n)) - 0.3
    return random.random(n) < 1 / (1 + np.exp(-log_odds)), 1 / (1 + np.exp(-said))


def _truth() -> dict[str, float]:
    """The figures of the predictor in one very large cohort."""
    y, p = _draw(LARGE, np.random.default_rng(2024))
    order = np.argsort(p)
    y, p = y[order], p[order]
    nobody = np.zeros(LARGE, np.int64)
    sample = Sample(nobody.astype(str), nobody, nobody, y, p, np.full(LARGE, THRESHOLD), TREAT_AT)
    return {
        "auc": roc.auc(y, p),
        "sensitivity": float((p[y] >= THRESHOLD).mean()),
        "calibration_slope": float(calibration.slope(sample)(np.ones((1, LARGE)))[0]),
        "net_benefit": net_benefit.net_benefit(y, p, TREAT_AT),
    }


@pytest.mark.slow
def test_intervals_cover_the_truth(make_table, same_threshold, record_property):
    truth, random = _truth(), np.random.default_rng(1)
    hits = dict.fromkeys(JUDGED, 0)
    for _ in range(COHORTS):
        y, p = _draw(PATIENTS, random)
        table = make_table(y, {"net": p})
        thresholds = same_threshold(table, THRESHOLD)
        found = evaluate(table, positive="ill", thresholds=thresholds, net_benefit_at=TREAT_AT)["net"]
        for name in JUDGED:
            hits[name] += found[name].low <= truth[name] <= found[name].high
    shares = {name: hits[name] / COHORTS for name in JUDGED}
    record_property("coverage", shares)
    assert all(0.92 <= share <= 0.97 for share in shares.values()), shares
