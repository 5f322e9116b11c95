"""Classical models on table features or edges, tuned on inner folds by patient: what a network has to beat.

It must not know tables, connectomes, units or imputation (it takes numbers), nor the cases that are kept for testing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import t as student

from tenfold.errors import TrainingError, nearest
from tenfold.stats import roc
from tenfold.stats.calibration import fit_platt
from tenfold.types import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
Settings = Mapping[str, Any]
LogOdds = Callable[[FloatArray], FloatArray]
FitOne = Callable[[Settings, FloatArray, BoolArray, int], LogOdds]
FitAll = Callable[[Sequence[Settings], FloatArray, BoolArray, int], LogOdds]

_MOST_FOLDS = 3


@dataclass(frozen=True)
class Model:
    """One way to get log odds from numbers.

    Attributes:
        fit: (settings to fit, x, y, seed) -> a function from x, (n, features), to log odds, (settings, n): all settings
            at once, because what does not depend on them is then computed once.
        grid: The settings tried, the simplest first; it wins where several are equally good.
        takes_nan: Whether it deals with missing numbers itself.
        is_margin: It gives distances from a boundary, which out-of-fold Platt scaling turns into log odds.
    """

    fit: FitAll
    grid: tuple[Settings, ...]
    takes_nan: bool = False
    is_margin: bool = False


@dataclass(frozen=True)
class ClassicalFit:
    """A fitted model.

    Attributes:
        model: Key of `MODELS`.
        chosen: What was chosen and on what, fit for JSON: "settings", "inner_auc" (mean over inner folds), "folds",
            "tried", and "slope" and "intercept" of the Platt scaling where the model gives margins.
        features: How many numbers a case has.
        raw: The model's own log odds, or margins.
    """

    model: str
    chosen: Mapping[str, Any]
    features: int
    raw: LogOdds

    def scores(self, x: FloatArray) -> FloatArray:
        """Return scores for `Calibration.apply`.

        Args:
            x: (n, features), prepared as the training cases were.

        Returns:
            (n, 2) float64: 0, and the log odds of the positive class.

        Raises:
            TrainingError: Other features than in training, or numbers missing where the model takes none missing.
        """
        x = _numbers(self.model, x)
        if x.shape[1] != self.features:
            raise TrainingError(f"{x.shape[1]} features to predict from", expected=f"{self.features}, as in training")
        # An empty part (no test case in a fold) is no reason for a library to raise.
        odds = self.raw(x) if len(x) else np.zeros(0)
        odds = odds * self.chosen.get("slope", 1.0) + self.chosen.get("intercept", 0.0)
        return np.stack([np.zeros(len(x)), odds], axis=1)


def takes_nan(model: str) -> bool:
    """Whether a model deals with missing numbers itself, so that nothing need be imputed for it.

    Raises:
        TrainingError: No such model.
    """
    return _model(model).takes_nan


def fit_classical(
    model: str,
    x_train: FloatArray,
    y: IntArray | BoolArray,
    groups: Sequence[str] | NDArray[Any],
    *,
    seed: int,
    search: Sequence[Settings] | None = None,
) -> ClassicalFit:
    """Choose settings by the mean AUC over inner folds that never divide a patient, then fit all cases.

    Args:
        model: Key of `MODELS`.
        x_train: (n, features); NaN (missing) only where `takes_nan`.
        y: (n,) 1 where the outcome is present, otherwise 0.
        groups: (n,) the patient of each case.
        seed: Of the inner folds and of the model.
        search: Settings to choose from; the model's own grid where left out.

    Returns:
        The fit of all cases with the chosen settings.

    Raises:
        TrainingError: No such model, an outcome that fewer than 2 patients have (or lack), numbers that the
            model cannot take, or columns of different lengths.
    """
    kind, x, outcome = _checked(model, x_train, y)
    grid = kind.grid if search is None else tuple(search)
    if len(groups) != len(x) or not grid:
        raise TrainingError(
            f"{len(x)} cases with {len(groups)} patients, {len(grid)} settings to choose from",
            expected="a patient for every case, and at least one setting",
        )
    fold = inner_folds(outcome, groups, seed)
    out_of_fold = _out_of_fold(kind, grid, x, outcome, fold, seed)
    areas = [_mean_auc(scores, outcome, fold) for scores in out_of_fold]
    # Rounded, so that ties are ties.
    best = int(np.argmax(np.round(areas, 9)))
    chosen: dict[str, Any] = {
        "settings": dict(grid[best]),
        "inner_auc": areas[best],
        "folds": int(fold.max()) + 1,
        "tried": len(grid),
    }
    if kind.is_margin:
        chosen |= _link(out_of_fold[best], outcome)
    return refit(model, chosen, x, y, seed)


def refit(model: str, chosen: Mapping[str, Any], x: FloatArray, y: IntArray | BoolArray, seed: int) -> ClassicalFit:
    """Fit a model with settings chosen before; the same arguments give the same model.

    Args:
        model: Key of `MODELS`.
        chosen: `ClassicalFit.chosen` of the fit that chose them.
        x: (n, features).
        y: (n,) 1 where the outcome is present, otherwise 0.
        seed: Of the model.

    Raises:
        TrainingError: As for `fit_classical`.
    """
    kind, x, outcome = _checked(model, x, y)
    rules = kind.fit([chosen["settings"]], x, outcome, seed)
    return ClassicalFit(model, chosen, x.shape[1], lambda new: rules(new)[0])


def inner_folds(outcome: BoolArray, groups: Sequence[str] | NDArray[Any], seed: int) -> IntArray:
    """Deal patients to at most three folds, those with and those without the outcome evenly.

    Args:
        outcome: (n,) True where the outcome is present.
        groups: (n,) the patient of each case.
        seed: Of the dealing.

    Returns:
        (n,) fold from 0.

    Raises:
        TrainingError: Fewer than 2 patients ever have the outcome, or never have it.
    """
    names, patient = np.unique(np.asarray(groups), return_inverse=True)
    has = np.bincount(patient, outcome, len(names)) > 0
    folds = min(_MOST_FOLDS, int(has.sum()), int((~has).sum()))
    if folds < 2:
        raise TrainingError(
            f"{int(has.sum())} of {len(names)} training patients have the outcome",
            expected="at least 2 patients with and 2 without it, to tune a classical model by patient",
            do="leave this arm out, or collect more patients",
        )
    random = np.random.default_rng(seed)
    fold_of = np.empty(len(names), np.int64)
    for stratum in (has, ~has):
        rows = np.flatnonzero(stratum)
        fold_of[random.permutation(rows)] = np.arange(len(rows)) % folds
    return fold_of[patient]


def _out_of_fold(
    kind: Model, grid: Sequence[Settings], x: FloatArray, outcome: BoolArray, fold: IntArray, seed: int
) -> FloatArray:
    """Scores, (settings, n), of every case by the models that were fitted without its fold."""
    scores = np.empty((len(grid), len(x)))
    for k in range(int(fold.max()) + 1):
        kept = fold == k
        scores[:, kept] = kind.fit(grid, x[~kept], outcome[~kept], seed)(x[kept])
    return scores


def _mean_auc(scores: FloatArray, outcome: BoolArray, fold: IntArray) -> float:
    """Mean AUC over the folds."""
    return float(np.mean([roc.auc(outcome[fold == k], scores[fold == k]) for k in range(int(fold.max()) + 1)]))


def _link(margins: FloatArray, outcome: BoolArray) -> dict[str, float]:
    """Slope and intercept of the log odds on out-of-fold margins (Platt 1999)."""
    found = fit_platt(np.stack([np.zeros(len(margins)), margins], axis=1), outcome.astype(np.int64))
    return {"slope": 1 / found.temperature, "intercept": found.intercepts[1] - found.intercepts[0]}


def _model(name: str) -> Model:
    """Look a model up."""
    if name not in MODELS:
        raise TrainingError(f"no classical model '{name}'", do=nearest(name, MODELS))
    return MODELS[name]


def _numbers(model: str, x: FloatArray) -> FloatArray:
    """Features as float64, refused where the model cannot take them."""
    x = np.asarray(x, np.float64)
    takes_nan = _model(model).takes_nan
    if x.ndim != 2 or not x.shape[1]:
        raise TrainingError(f"features of shape {x.shape}", expected="(cases, features), one feature at least")
    wrong = np.isinf(x) if takes_nan else ~np.isfinite(x)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise TrainingError(
            f"{model} was given {x[row, column]}",
            expected="finite numbers" if not takes_nan else "finite numbers, or NaN for a missing one",
            do="" if takes_nan else "impute in the fold, or take a model that deals with missing numbers itself",
            where=f"row {row}, feature {column}, counted from 0",
        )
    return x


def _checked(model: str, x: FloatArray, y: IntArray | BoolArray) -> tuple[Model, FloatArray, BoolArray]:
    """The model, its features and the outcome, refused where they do not fit each other."""
    kind, labels = _model(model), np.asarray(y)
    x = _numbers(model, x)
    if labels.shape != (len(x),) or not np.isin(labels, (0, 1)).all():
        raise TrainingError(
            f"outcomes of shape {labels.shape} with the values {np.unique(labels)[:5].tolist()} for {len(x)} cases",
            expected="one 0 or 1 a case: classical models answer yes or no",
        )
    outcome = labels == 1
    if outcome.all() or not outcome.any():
        raise TrainingError(f"all {len(x)} training cases have one outcome", expected="cases of both classes")
    return kind, x, outcome


def cpm_edges(x: FloatArray, y: BoolArray, threshold: float) -> tuple[BoolArray, BoolArray]:
    """Choose the edges that go with an outcome, by the test of Pearson's correlation.

    Args:
        x: (n, edges) of training cases.
        y: (n,) True where the outcome is present.
        threshold: The two-sided p below which an edge is chosen; not corrected for their number, as published.

    Returns:
        (edges,) those stronger in cases with the outcome, and (edges,) those weaker. A constant edge is in neither.
    """
    outcome = y - y.mean()
    edges = x - x.mean(axis=0)
    size = np.linalg.norm(edges, axis=0)
    moves = size > 1e-9 * np.maximum(1.0, np.abs(x).max(axis=0))
    r = outcome @ edges / np.where(moves, size * np.linalg.norm(outcome), 1.0)
    freedom = len(x) - 2
    quantile = student.ppf(1 - threshold / 2, max(freedom, 1))
    least = quantile / np.sqrt(max(freedom, 1) + quantile**2) if freedom > 0 else np.inf
    return np.asarray(moves & (r > least)), np.asarray(moves & (r < -least))


def _each(fit: FitOne) -> FitAll:
    """Fit settings one by one: of a model whose settings share no work."""

    def fit_all(grid: Sequence[Settings], x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
        rules = [fit(settings, x, y, seed) for settings in grid]
        return lambda new: np.stack([rule(new) for rule in rules])

    return fit_all


def _standard(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and divisor of each feature: its spread times the root of their number, so that a case is about 1 long.

    Then one grid serves a table of ten columns and a connectome of 19,900 edges. A constant feature becomes 0.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0)
    moves = spread > 1e-9 * np.maximum(1.0, np.abs(mean))
    return mean, np.where(moves, spread, np.inf) * np.sqrt(x.shape[1])


def _span(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates of cases in their own span, (n, k), and the way back, (features, k): x = coordinates @ way.T.

    The weights of a linear model with an L2 penalty are a sum of training cases (the representer theorem), and turning
    the axes leaves their length alone: so the fit of at most n coordinates is exactly the fit of all features.
    """
    if x.shape[1] <= len(x):
        return x, np.eye(x.shape[1])
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    length = np.sqrt(values[kept])
    return vectors[:, kept] * length, x.T @ (vectors[:, kept] / length)


def _rules(weights: Sequence[FloatArray], intercepts: Sequence[float], mean: FloatArray) -> LogOdds:
    """Linear rules of features less their mean. They hold a number a feature, and no training case."""
    across, along = np.stack(weights, axis=1), np.array(intercepts)[:, None]
    return lambda new: ((new - mean) @ across).T + along


def _logistic_regression(grid: Sequence[Settings], x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Logistic regression with an L2 penalty (le Cessie & van Houwelingen 1992), the intercept free of it.

    Fitted in the span of the cases, which is exact (`_span`). C counts on features divided as `_standard` says: 1 of it
    is 1 / features where features have spread 1.
    """
    from sklearn.linear_model import LogisticRegression

    mean, divisor = _standard(x)
    inside, way = _span((x - mean) / divisor)
    fits = [LogisticRegression(C=settings["C"], solver="newton-cholesky", tol=1e-8).fit(inside, y) for settings in grid]
    return _rules([way @ fit.coef_[0] / divisor for fit in fits], [float(fit.intercept_[0]) for fit in fits], mean)


def _linear_svm(grid: Sequence[Settings], x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Support vector machine with a linear kernel (Cortes & Vapnik 1995), by the products of the cases; C as above."""
    from sklearn.svm import SVC

    mean, divisor = _standard(x)
    scaled = (x - mean) / divisor
    products = scaled @ scaled.T
    fits = [SVC(C=settings["C"], kernel="precomputed", tol=1e-4).fit(products, y) for settings in grid]
    weights = [fit.dual_coef_[0] @ scaled[fit.support_] / divisor for fit in fits]
    return _rules(weights, [float(fit.intercept_[0]) for fit in fits], mean)


def _knn(grid: Sequence[Settings], x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """The k nearest neighbours by Euclidean distance of standardised features (Cover & Hart 1967)."""
    from sklearn.neighbors import NearestNeighbors

    mean, divisor = _standard(x)
    ks = [min(settings["k"], len(x)) for settings in grid]
    fitted = NearestNeighbors(n_neighbors=max(ks), algorithm="brute", n_jobs=1).fit((x - mean) / divisor)

    def rules(new: FloatArray) -> FloatArray:
        nearby = y[fitted.kneighbors((new - mean) / divisor, return_distance=False)]
        return np.stack([_voted(nearby[:, :k].mean(axis=1), k) for k in ks])

    return rules


def _cpm(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Connectome-based predictive modelling (Shen et al., Nat Protoc 2017;12:506-518) of a yes or no.

    Edges are chosen by `cpm_edges` among these cases; a logistic model takes the sum of the positive edges and that of
    the negative ones. A slight L2 penalty holds its two weights, for the sums of chosen edges often divide a small
    training set without a fault. That they look too good there is what the out-of-fold scaling of the margins mends.
    """
    from sklearn.linear_model import LogisticRegression

    chosen = np.stack(cpm_edges(x, y, settings["threshold"]), axis=1).astype(np.float64)
    mean = x.mean(axis=0)
    sums = (x - mean) @ chosen
    divisor = np.where(chosen.any(axis=0), sums.std(axis=0), np.inf)
    fitted = LogisticRegression(C=1.0).fit(sums / divisor, y)
    rules = _rules([chosen @ (fitted.coef_[0] / divisor)], [float(fitted.intercept_[0])], mean)
    return lambda new: rules(new)[0]


def _svm(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Support vector machine with a radial kernel (Cortes & Vapnik 1995)."""
    from sklearn.svm import SVC

    fitted = SVC(C=settings["C"], gamma=settings["gamma"] / x.shape[1], random_state=seed).fit(x, y)
    return lambda new: np.asarray(fitted.decision_function(new), np.float64)


def _shares(fitted: Any, n: int) -> LogOdds:
    """Log odds of the shares that a fitted forest or tree gives, n cases voting."""
    return lambda new: _voted(fitted.predict_proba(new)[:, 1], n)


def _voted(shares: FloatArray, n: int) -> FloatArray:
    """Log odds of voted shares, which are kept one case away from 0 and 1: n cases cannot tell more."""
    return np.asarray(logit(np.clip(shares, 1 / (n + 2), 1 - 1 / (n + 2))), np.float64)


def _random_forest(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Random forest (Breiman 2001)."""
    from sklearn.ensemble import RandomForestClassifier

    return _shares(RandomForestClassifier(**settings, random_state=seed, n_jobs=1).fit(x, y), len(x))


def _decision_tree(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """One classification tree (Breiman et al. 1984)."""
    from sklearn.tree import DecisionTreeClassifier

    return _shares(DecisionTreeClassifier(**settings, random_state=seed).fit(x, y), len(x))


# The two below load their libraries only when asked: that takes about a second each.
def _xgboost(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Gradient-boosted trees (Chen & Guestrin 2016); a missing number goes the way that was better in training."""
    import xgboost

    rounds, rest = _rounds(settings)
    options = {"objective": "binary:logistic", "nthread": 1, "seed": seed, "verbosity": 0, **rest}
    fitted = xgboost.train(options, xgboost.DMatrix(x, y, nthread=1), rounds)
    return lambda new: np.asarray(fitted.predict(xgboost.DMatrix(new, nthread=1), output_margin=True), np.float64)


def _lightgbm(settings: Settings, x: FloatArray, y: BoolArray, seed: int) -> LogOdds:
    """Gradient-boosted trees grown leaf by leaf (Ke et al. 2017), missing numbers as in XGBoost."""
    import lightgbm

    rounds, rest = _rounds(settings)
    options = {
        "objective": "binary",
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
        **rest,
    }
    fitted = lightgbm.train(options, lightgbm.Dataset(x, y.astype(np.float64)), rounds)
    return lambda new: np.asarray(fitted.predict(new, raw_score=True), np.float64)


def _rounds(settings: Settings) -> tuple[int, dict[str, Any]]:
    """How many trees, and the settings that the library knows by name."""
    return settings["rounds"], {name: value for name, value in settings.items() if name != "rounds"}


MODELS: dict[str, Model] = {
    "logistic_regression": Model(_logistic_regression, tuple({"C": c} for c in (0.1, 1.0, 10.0, 100.0))),
    "linear_svm": Model(_linear_svm, tuple({"C": c} for c in (0.1, 1.0, 10.0, 100.0)), is_margin=True),
    "knn": Model(_knn, tuple({"k": k} for k in (41, 21, 11, 5))),
    "cpm": Model(_each(_cpm), tuple({"threshold": p} for p in (0.01, 0.05)), is_margin=True),
    "svm": Model(
        _each(_svm),
        tuple({"C": c, "gamma": g} for c in (0.3, 1.0, 3.0, 10.0) for g in (0.3, 1.0)),
        is_margin=True,
    ),
    "random_forest": Model(
        _each(_random_forest),
        tuple({"n_estimators": 100, "min_samples_leaf": leaf, "max_features": "sqrt"} for leaf in (8, 3)),
    ),
    "decision_tree": Model(
        _each(_decision_tree),
        tuple({"max_depth": depth, "min_samples_leaf": leaf} for depth in (2, 3, 5) for leaf in (20, 10, 5)),
    ),
    "xgboost": Model(
        _each(_xgboost),
        tuple(
            {"rounds": rounds, "max_depth": depth, "learning_rate": 0.1, "subsample": 0.8, "min_child_weight": 2}
            for rounds in (40, 100)
            for depth in (2, 4)
        ),
        takes_nan=True,
    ),
    "lightgbm": Model(
        _each(_lightgbm),
        tuple(
            {"rounds": rounds, "num_leaves": leaves, "learning_rate": 0.1, "min_data_in_leaf": 10}
            for rounds in (40, 100)
            for leaves in (4, 12)
        ),
        takes_nan=True,
    ),
}
