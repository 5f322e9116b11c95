"""Permuted labels, optimism and fewer patients, on a table of a few dozen patients."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.study import Run, Study, resampling
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench
from tenfold.study.network_arm import FoldNetworks

N, DRAWS = 54, 19
TARGETS = ("score", "disease", "noise")
STUDY: dict[str, Any] = {
    "title": "Resampled",
    "preset": "quick",
    "seed": 11,
    "target": [{"column": "score", "kind": "score", "below": 85.0}, "disease", "noise"],
    "inputs": {"values": {"kind": "table", "encoder": "table_dense", "options": {"width": 6}}},
    "network": {"shared": 6},
    "training": {"epochs": 30, "batch": 16, "rate": 1e-2, "encoder_rate": 1e-2},
    "arms": [{"name": "proposed"}],
    "validation": {
        "folds": 3,
        "inner": 0.2,
        "bootstraps": 100,
        "family": "family",
        "permutations": DRAWS,
        "learning_curve": [0.6, 0.2],
    },
    "explain": {"cases": 0},
}
Called = tuple[Bench, Mapping[str, FittedArm], FoldNetworks]


def small_cohort(folder: Path) -> Path:
    """A score and a class told by three values each, a class of noise; siblings, and a patient seen twice."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((N, 6))
    slow, ill = values[:, :3].sum(1) / 3**0.5, values[:, 3:].sum(1) / 3**0.5
    noise = rng.permutation(N) % 2 == 0
    rows = [
        {
            "case": f"c{i:02d}",
            "patient": f"p{i - 1 if i == 7 else i:02d}",
            "family": f"f{i // 2}" if i > 45 else "",
            **{name: f"{v:.3f}" for name, v in zip("abcdef", values[i], strict=True)},
            "score": "" if i == 3 else f"{90 - 14 * slow[i] + 2 * rng.standard_normal():.1f}",
            "disease": "yes" if ill[i] + 0.2 * rng.standard_normal() > 0 else "no",
            "noise": "yes" if noise[i] else "no",
        }
        for i in range(N)
    ]
    rows[7] |= {name: rows[6][name] for name in TARGETS}
    folder.mkdir(parents=True)
    with (folder / "cohort.csv").open("w", newline="") as handle:
        out = csv.DictWriter(handle, rows[0])
        out.writeheader()
        out.writerows(rows)
    (folder / "columns.csv").write_text("column,kind\n" + "".join(f"{name},number\n" for name in "abcdef"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("resampling") / "study")


def _run(folder: Path, out: Path, changes: Mapping[str, Any] = {}) -> Run:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tenfold.study.study.write_report", lambda place: place)
        return Study.from_dict({**STUDY, **changes}, folder).run(out=out, threads=1)


@pytest.fixture(scope="module")
def seen(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Called]:
    """A run, and what its permutations were called with."""
    called: list[Called] = []
    original = resampling.permutations

    def watched(bench: Bench, arms: Mapping[str, FittedArm], networks: FoldNetworks) -> Any:
        called.append((bench, arms, networks))
        return original(bench, arms, networks)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resampling, "permutations", watched)
        run = _run(folder, tmp_path_factory.mktemp("resampled") / "run")
    return run, called[0]


def _json(run: Run, name: str) -> Any:
    return json.loads((run.folder / f"{name}.json").read_text())


def test_a_strong_signal_beats_every_permutation_and_noise_does_not(seen: tuple[Run, Called]) -> None:
    found = _json(seen[0], "permutations")
    assert tuple(found) == TARGETS
    for target in ("score", "disease"):
        own = found[target]["proposed"]
        assert own["p"] == 1 / (DRAWS + 1), target
        assert own["observed"] > own["null_high"] > own["null_mean"]
        assert abs(own["null_mean"] - 0.5) < 0.1
    assert found["noise"]["proposed"]["p"] > 0.05
    assert all(one["proposed"]["n"] == DRAWS for one in found.values())


def test_what_is_judged_is_the_runs_own_out_of_fold_auc(seen: tuple[Run, Called]) -> None:
    run, _ = seen
    for target in TARGETS:
        table = run.predictions[target].select(arm="proposed")
        # one calibration a fold stretches scores but keeps their order: pooled, the AUC is nearly the same
        assert _json(run, "permutations")[target]["proposed"]["observed"] == pytest.approx(
            run.evaluation[target]["proposed"]["auc"]["value"], abs=0.06
        )
        assert len(table) == (N - 1 if target == "score" else N)


def test_permuted_labels_never_reach_the_observed_and_are_the_same_again(
    seen: tuple[Run, Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, arms, networks = seen[1]
    before = {name: outcome.values.copy() for name, outcome in bench.outcomes.items()}
    jobs_seen: list[Any] = []
    original = resampling._fitted

    def watched(bench: Bench, what: str, jobs: Any, rows: Any) -> Any:
        jobs_seen.extend(jobs)
        return original(bench, what, jobs, rows)

    monkeypatch.setattr(resampling, "_fitted", watched)
    again = resampling.permutations(bench, arms, networks)
    assert resampling.described(again, "proposed") == _json(seen[0], "permutations")
    for name, values in before.items():
        assert np.array_equal(bench.outcomes[name].values, values, equal_nan=True)
    # every refit learns from other labels than the observed fit did
    for job, fold in zip(jobs_seen, list(range(3)) * DRAWS, strict=True):
        own = before["disease"][networks.parts[fold][0]]
        assert not np.array_equal(job.material.train_labels["disease"].numpy(), own)


def test_labels_move_within_folds_all_targets_together_and_who_belongs_together_stays_so(
    seen: tuple[Run, Called],
) -> None:
    bench, _, networks = seen[1]
    for own in resampling._permuted_benches(bench, networks, range(3), 5):
        changed = {name: outcome.values for name, outcome in own.outcomes.items()}
        for _, _, test in networks.parts:
            table = np.stack([bench.outcomes[t].values[test] for t in TARGETS], 1)
            moved = np.stack([changed[t][test] for t in TARGETS], 1)
            assert not np.array_equal(table, moved, equal_nan=True)
            assert sorted(map(repr, table.tolist())) == sorted(map(repr, moved.tolist()))
        # siblings move as a pair: their two scores are again those of one family or one patient seen twice
        pairs = [(6, 7), *((i, i + 1) for i in range(46, N, 2))]
        known = {tuple(bench.outcomes["score"].values[list(pair)]) for pair in pairs}
        assert all(tuple(changed["score"][list(pair)]) in known for pair in pairs)
        assert np.array_equal(own.outcomes["disease"].labels.values == "yes", changed["disease"] == 1)


def test_apparent_is_better_than_out_of_fold(seen: tuple[Run, Called]) -> None:
    found = _json(seen[0], "optimism")
    assert tuple(found) == TARGETS
    for target, own in found.items():
        assert own["optimism"] == pytest.approx(own["apparent"] - own["out_of_fold"])
        assert own["out_of_fold"] == _json(seen[0], "permutations")[target]["proposed"]["observed"]
    assert found["noise"]["apparent"] > 0.6
    assert found["noise"]["optimism"] > 0.1


def test_the_learning_curve_rises_on_a_signal(seen: tuple[Run, Called]) -> None:
    found = _json(seen[0], "learning_curve")
    for points in found.values():
        assert [p["share"] for p in points] == [0.2, 0.6, 1.0]
        assert points[0]["patients"] < points[1]["patients"] < points[2]["patients"]
        assert all(p["auc"]["low"] <= p["auc"]["value"] <= p["auc"]["high"] for p in points)
    for target in ("score", "disease"):
        assert found[target][0]["auc"]["value"] < found[target][2]["auc"]["value"]
    assert found["score"][2]["auc"]["value"] == _json(seen[0], "permutations")["score"]["proposed"]["observed"]


def test_shares_are_nested_and_keep_patients_whole(seen: tuple[Run, Called]) -> None:
    bench, _, networks = seen[1]
    for split, (train, _, _) in zip(bench.splits, networks.parts, strict=True):
        order = resampling._order(bench, train, split)
        few, many = (resampling._first_patients(bench, train, order, share) for share in (0.3, 0.7))
        assert set(few) < set(many) < set(train)
        for rows in (few, many):
            left = set(bench.cohort.patient[np.setdiff1d(train, rows)])
            assert not left & set(bench.cohort.patient[rows])
            share = bench.of("disease").label_index
            assert abs(share[rows].mean() - share[train].mean()) < 0.15


def test_a_network_that_cannot_be_trained_so_says_why_and_the_study_goes_on(folder: Path, tmp_path: Path) -> None:
    changes = {"network": {"shared": 0}, "training": {"epochs": 1}, "target": ["disease"]}
    found = _run(folder, tmp_path / "run", changes)
    own = _json(found, "permutations")["disease"]["proposed"]
    assert (own["p"], own["n"]) == (None, None)
    assert "it has no shared layer" in own["method"]
    points = _json(found, "learning_curve")["disease"]
    assert [p["auc"]["value"] is None for p in points] == [True, True, False]
    assert "it has no shared layer" in points[0]["auc"]["method"]
    assert _json(found, "optimism")["disease"]["apparent"] is not None


def test_a_share_too_small_to_learn_from_says_so(seen: tuple[Run, Called]) -> None:
    bench, arms, networks = seen[1]
    config = bench.config.model_copy(
        update={"validation": bench.config.validation.model_copy(update={"learning_curve": (0.01,)})}
    )
    points = resampling.learning_curve(Bench(**{**vars(bench), "config": config}), arms, networks)
    assert all("one value only" in own[0].auc.method for own in points.values())
    assert all(own[-1].auc.n for own in points.values())
