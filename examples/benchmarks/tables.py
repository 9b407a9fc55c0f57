"""Tables with classes left out, and scikit-learn's peers on them."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from archives import load_tables
from protocol import HELD_OUT, Scored, Task, points_to_score, score, split
from skvmdls.calibration.hold_out import stratified_sample
from skvmdls.scoring.cross_fitting import row_folds

__all__ = [
    "TABLES",
    "TABLE_PEERS",
    "TEST_TABLES",
    "TUNING_TABLES",
    "GaussianPerClass",
    "column_transformer",
    "known_classes",
    "table_peers",
    "table_task",
    "table_tasks",
]

TABLES = (
    *("anneal", "autos", "balance_scale", "car", "dermatology", "digits", "glass"),
    *("iris", "pendigits", "primary_tumor", "segment", "soybean", "splice", "vehicle"),
    *("vowel", "waveform5000", "wine", "zoo"),
)
# The rule, fixed before any run: in alphabetical order, every other one from the first
# is for choosing; the rest is a test, and chooses nothing.
TUNING_TABLES, TEST_TABLES = TABLES[::2], TABLES[1::2]
# A class of fewer rows is too small to be split and learnt: it is always unknown.
FEWEST_ROWS = 5
UNKNOWN = "classes left out"
TABLE_PEERS = (
    *("RandomForest", "ExtraTrees", "MLP", "Gaussian per class"),
    *("QuadraticDiscriminant", "KNN", "LocalOutlierFactor", "IsolationForest"),
)

# How a peer scores points (higher is more in-distribution), and labels them, if it can.
Ways = tuple[
    Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray] | None
]


def table_tasks(
    names: Iterable[str], options: Any
) -> Iterator[tuple[str, Callable[[], Task]]]:
    """Name the tasks of some tables, split by split.

    Parameters
    ----------
    names : iterable of str
        Some of :data:`TABLES`.
    options : Options

    Yields
    ------
    name : str
        Such as ``"wine; seed 0"``.
    task : callable
    """
    tables = _tables(options.data_home)
    for name in names:
        for seed in range(options.seeds):
            yield (
                f"{name}; seed {seed}",
                partial(table_task, *tables[name], seed, options),
            )


def _tables(data_home: Path | None) -> dict[str, tuple[Any, np.ndarray]]:
    own = {
        name: getattr(sklearn_datasets, f"load_{name}")(as_frame=True)
        for name in ("digits", "iris", "wine")
    }
    return {
        **{name: (table.X, table.y) for name, table in load_tables(data_home).items()},
        **{name: (table.data, table.target.to_numpy()) for name, table in own.items()},
    }


def table_task(X: Any, y: np.ndarray, seed: int, options: Any) -> Task:
    """Leave a third of the classes out, and split the rows of the others.

    Seven tenths of the known rows are trained on, stratified; all rows of the classes
    left out are for the test. Of each there are at most as many as the options say.

    Parameters
    ----------
    X : DataFrame of shape (n, features)
    y : ndarray of shape (n,)
    seed : int
    options : Options

    Returns
    -------
    task : Task
        Classes as numbers from 0, in their order.

    Examples
    --------
    >>> from experiments import Options
    >>> iris = sklearn_datasets.load_iris(as_frame=True)
    >>> options = Options(None, n_train=50, n_test=100, seeds=1)
    >>> task = table_task(iris.data, iris.target.to_numpy(), 0, options)
    >>> len(task.X_train), len(task.X_known), len(task.unknown["classes left out"])
    (50, 30, 50)
    """
    _, y = np.unique(y, return_inverse=True)
    is_known = np.isin(y, known_classes(y, seed))
    rows = np.flatnonzero(is_known)
    train, test = train_test_split(
        rows, test_size=0.3, stratify=y[rows], random_state=seed
    )
    rng = np.random.RandomState(seed)
    n_train = min(options.n_train, len(train))
    train = train[stratified_sample(y[train], n_train, rng)]
    test = test[: options.n_test]
    unknown = rng.permutation(np.flatnonzero(~is_known))[: options.n_test]
    prepare = column_transformer().fit(X.iloc[train])
    return Task(
        prepare.transform(X.iloc[train]),
        y[train],
        prepare.transform(X.iloc[test]),
        y[test],
        {UNKNOWN: prepare.transform(X.iloc[unknown])},
        options.settings,
        seed,
    )


def known_classes(y: np.ndarray, seed: int) -> np.ndarray:
    """Draw the classes that are known: two thirds, at least two, but never all.

    Parameters
    ----------
    y : ndarray of shape (n,), int
    seed : int

    Returns
    -------
    known : ndarray

    Examples
    --------
    >>> known_classes(np.repeat([0, 1, 2, 3], [9, 9, 9, 2]), seed=0)
    array([0, 1])
    """
    classes, sizes = np.unique(y, return_counts=True)
    classes = classes[sizes >= FEWEST_ROWS]
    n_left_out = max(1, min(round(len(classes) / 3), len(classes) - 2))
    return np.sort(np.random.RandomState(seed).permutation(classes)[n_left_out:])


def column_transformer() -> ColumnTransformer:
    """Numbers from columns of all kinds, the same for every method.

    Gaps in numbers are filled by the median, and told by a column of their own;
    categories, missing ones among them, get a column each.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame({"a": [1.0, None, 3.0], "b": pd.Categorical(["x", None, "y"])})
    >>> column_transformer().fit_transform(X).shape
    (3, 5)
    """
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True), StandardScaler()
    )
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("categories", categories, make_column_selector(dtype_exclude="number")),
        ]
    )


class GaussianPerClass:
    """A Gaussian for each class, by Ledoit and Wolf's covariance.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = rng.normal(size=(60, 3)) + 9 * y[:, None]
    >>> gaussians = GaussianPerClass().fit(X, y)
    >>> gaussians.predict(np.array([[9.0, 9.0, 9.0]]))
    array([1])
    """

    def fit(self, X: np.ndarray, y: np.ndarray) -> "GaussianPerClass":
        """Fit to rows of shape (n, features) and labels of shape (n,)."""
        self.classes_ = np.unique(y)
        self.gaussians_ = [LedoitWolf().fit(X[y == label]) for label in self.classes_]
        return self

    def log_likelihood(self, X: np.ndarray) -> np.ndarray:
        """Of each row under each class, up to a constant: shape (n, n_classes)."""
        return np.stack(
            [
                (np.linalg.slogdet(each.precision_)[1] - each.mahalanobis(X)) / 2
                for each in self.gaussians_
            ],
            axis=1,
        )

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Log-likelihood under the most likely class, shape (n,)."""
        return self.log_likelihood(X).max(axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Answer the most likely class, shape (n,)."""
        return self.classes_[self.log_likelihood(X).argmax(axis=1)]


def _by_probability(model: Any, X: np.ndarray, y: np.ndarray) -> Ways:
    with warnings.catch_warnings():
        # scikit-learn's default number of iterations is what is compared with.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    return lambda rows: model.predict_proba(rows).max(axis=1), model.predict


def _by_log_density(X: np.ndarray, y: np.ndarray) -> Ways:
    # Without shrinkage a class of fewer rows than columns has no covariance.
    model = QuadraticDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(X, y)

    def score(rows: np.ndarray) -> np.ndarray:
        found = model.decision_function(rows)
        # Of two classes it gives the difference alone.
        return found.max(axis=1) if found.ndim == 2 else np.abs(found)

    return score, model.predict


def _fit_peer(name: str, X: np.ndarray, y: np.ndarray, seed: int) -> Ways:
    """Fit a peer at scikit-learn's defaults."""
    if name == "RandomForest":
        return _by_probability(RandomForestClassifier(random_state=seed), X, y)
    if name == "ExtraTrees":
        return _by_probability(ExtraTreesClassifier(random_state=seed), X, y)
    if name == "MLP":
        return _by_probability(MLPClassifier(random_state=seed), X, y)
    if name == "Gaussian per class":
        gaussians = GaussianPerClass().fit(X, y)
        return gaussians.score_samples, gaussians.predict
    if name == "QuadraticDiscriminant":
        return _by_log_density(X, y)
    if name == "KNN":
        neighbours = NearestNeighbors(n_neighbors=5).fit(X)
        return lambda rows: -neighbours.kneighbors(rows)[0][:, -1], None
    if name == "LocalOutlierFactor":
        return LocalOutlierFactor(novelty=True).fit(X).score_samples, None
    return IsolationForest(random_state=seed).fit(X).score_samples, None


def _cross_fitted(
    name: str, X: np.ndarray, y: np.ndarray, seed: int, folds: np.ndarray
) -> np.ndarray:
    """Score the rows of each fold by a peer that was fitted to the others."""
    scores = [
        _fit_peer(name, X[folds != fold], y[folds != fold], seed)[0](X[folds == fold])
        for fold in np.unique(folds[folds >= 0])
    ]
    return np.concatenate(scores)


def table_peers(task: Task, detector: Any) -> dict[str, Callable[[], Scored]]:
    """Make scikit-learn's peers ready.

    They are fitted on all training rows but those that set the threshold. Where the
    detector's cross-fitted scores set it, theirs do: of the same folds. Those that do
    not classify answer as the RandomForest does.

    Parameters
    ----------
    task : Task
    detector : fitted detector
        Whose held-out rows set all thresholds.

    Returns
    -------
    peers : dict of str to callable
        Each is fitted and scored when it is called.

    Examples
    --------
    >>> from protocol import fit
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> peers = table_peers(task, fit(task)["VMDLS"].detector)
    >>> peers["KNN"]().classifies
    False
    """
    points = points_to_score(task, detector)
    training, held_out = split(task, detector)
    is_cross_fitted = bool(np.isin(held_out, training).any())
    rows = np.arange(len(task.X_train))
    if not is_cross_fitted:
        rows = np.setdiff1d(rows, held_out)
    X, y = task.X_train[rows], task.y_train[rows]
    folds = row_folds(y, random_state=task.seed)
    _, usual_answer = _fit_peer("RandomForest", X, y, task.seed)

    def scored(name: str) -> Scored:
        started = time.perf_counter()
        score_points, own_answer = _fit_peer(name, X, y, task.seed)
        seconds = time.perf_counter() - started
        of_held_out = None
        if is_cross_fitted:
            of_held_out = _cross_fitted(name, X, y, task.seed, folds)
        answer = own_answer or usual_answer
        assert answer is not None  # The RandomForest has one.
        answers = {
            place: answer(rows) for place, rows in points.items() if place != HELD_OUT
        }
        return score(
            points,
            score_points,
            answers,
            fit_seconds=seconds,
            held_out=of_held_out,
            classifies=own_answer is not None,
        )

    return {name: partial(scored, name) for name in TABLE_PEERS}
