"""The two estimators: what `fit` and `predict` do, step by step."""

from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skvmdls._support.sklearn import (
    BaseEstimator,
    CallbackSupportMixin,
    OutlierMixin,
    TransformerMixin,
    with_callbacks,
)
from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import InputLike, plain
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.detector.fitting import learn
from skvmdls.detector.open_world import OpenWorld
from skvmdls.detector.parameters import DetectorParameters
from skvmdls.inputs.checking import check_training_data
from skvmdls.inputs.groups import group_ids
from skvmdls.inputs.rows import Rows
from skvmdls.metrics import open_set_f1
from skvmdls.scoring.evidence import Evidence, View, helping_rows, part_weights
from skvmdls.scoring.features import ensembles
from skvmdls.training.callbacks import Telling
from skvmdls.training.distributed import loss_explained
from skvmdls.training.session import Workshop

__all__ = ["BaseDetector"]

# Where the "?" of an estimator's box in a notebook leads.
DOCUMENTATION = "https://skvmdls.readthedocs.io/en/stable/"


class BaseDetector(
    CallbackSupportMixin,
    OpenWorld,
    DetectorParameters,
    TransformerMixin,
    OutlierMixin,
    BaseEstimator,
):
    """What both detectors are: all but the autoencoder.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The known labels, sorted.
    n_features_in_ : int
        Numbers in one input: features, or channels x height x width.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if X was a DataFrame.
    input_shape_ : tuple of int
        (features,) or (channels, height, width).
    features_ : tuple of str
        Parts of the evidence, as resolved from `features`.
    evidence_names_ : tuple of str
        Columns of :meth:`evidence`.
    offset_ : float
        The threshold: points that score at least this are accepted. It follows
        `threshold` and `contamination` as they are now.
    network_ : VariationalNetwork
        The trained net.
    gaussians_ : ModuleDict of str to ClassGaussians
        The classes' Gaussians of each part; with ``fusion="early"``, of ``"ensemble"``.
    evidence_ : Evidence
        Constants that standardise the parts' scores, and their weights.
    expected_images_ : ExpectedImages
        What images of each class look like, for :meth:`explain`.
    split_ : HeldOut
        Positions of the rows that trained, that set the evidence's constants, and that
        set the threshold.
    view_ : View
        Which parts are looked at, and how.
    standardizer_ : Standardizer
        Statistics of the training inputs.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the held-out points that set the threshold.
    calibration_class_scores_ : ndarray of shape (n_calibration,)
        Their scores each under its own class, which set the classes' own thresholds.
    calibration_labels_ : ndarray of shape (n_calibration,), int
        Positions of their classes in ``classes_``.
    calibration_winners_ : ndarray of shape (n_calibration, n_parts), int
        Positions of the classes that their scores are made of.
    fit_positions_ : ndarray of shape (n_classes,), int
        Position of each class among those of `fit`; -1 if it was added since.
    history_ : dict of str to list of float
        Of each epoch: ``loss`` and its terms ``triplet``, ``distancing`` and ``kl``
        (weighted, 0 while it is off), and ``cross_entropy`` and ``head_accuracy`` of
        the head, if there is one; ``divergence`` (the unweighted KL); ``sigma`` (mean
        over points and dimensions); ``accuracy`` (share of points nearest to their own
        class's mean of the epoch before; chance level in the first, which has none);
        ``separation`` (smallest Euclidean distance between two class means);
        ``learning_rate``. ``pd.DataFrame(detector.history_).plot(subplots=True)``.
    """

    autoencoder_: nn.Module  # Of VMDLSDetector.

    _doc_link_module = "skvmdls"
    _doc_link_template = DOCUMENTATION + "api/generated/skvmdls.{estimator_name}.html"

    @with_callbacks
    @under_ordinary_torch
    def fit(self, X: InputLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on labelled data of the known classes.

        If anything goes wrong, what an earlier `fit` learned is kept.

        Parameters
        ----------
        X : array-like of shape (n, features), (n, height, width) or \
                (n, channels, height, width), or dataset
            Floats, or uint8 images (scaled by 255). Or what has a length and items, as
            an ``ImageFolder`` (see :class:`skvmdls.datasets.DatasetRows`).
        y : array-like of shape (n,)
            Labels: strings, integers, whole floats or booleans; at least two
            classes, with at least two samples each, none of them ``-1``. One class
            needs three or more beside those held out, unless `covariance_type` is
            ``"diag"``.
        groups : array-like of shape (n,), default=None
            Rows that are not independent (of one patient, one video, copies of one
            image) have one group: none of them is held out to set the threshold
            while others are trained on, and together they count as one point. Equal
            rows of X are kept together in any case. In a ``Pipeline`` or a search,
            ask for it by ``set_fit_request(groups=True)``.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter is out of range, or X or y is unusable; the message says
            which and why.
        FloatingPointError
            If the training diverges.
        MemoryError
            If a batch is too large for the device.
        """
        telling = Telling.of_fit(self)
        attempt = object.__new__(type(self))
        given = {n: value for n, value in vars(self).items() if not is_fitted_name(n)}
        attempt.__dict__.update({name: plain(value) for name, value in given.items()})
        attempt._fit(X, y, groups, telling)
        self.__dict__ = attempt.__dict__ | given
        telling.end(X=X, y=y, reconstruction_attributes=lambda: _learned(self))
        return self

    def _fit(
        self,
        X: InputLike,
        y: ArrayLike,
        groups: ArrayLike | None,
        telling: Telling,
    ) -> None:
        self._validate_params()
        rows, self.classes_, labels = check_training_data(self, X, y)
        self.input_shape_ = rows.input_shape
        self._look_as(View.of(self, is_table=len(self.input_shape_) == 1))
        together = group_ids(rows, groups)
        y = self.classes_[labels]
        with loss_explained():
            data = {"X": rows.content, "y": y, "groups": together}
            workshop = Workshop.of(self, telling, **data)
            learned_by_name = learn(self, rows, labels, together, workshop)._asdict()
        for name, learned in learned_by_name.items():
            if learned is not None:
                setattr(self, name, learned)
        self._calibrate(rows, labels)

    def _look_as(self, view: View) -> None:
        self.view_ = view
        self.features_, self.evidence_names_ = view.features, view.names

    def _calibrate(self, X: Rows, labels: np.ndarray) -> None:
        self.fit_positions_ = np.arange(len(self.classes_))
        measured = self._measure(X.take(self.split_.evidence))
        helping = helping_rows(self.split_, len(X))
        raw_of_training = (
            None if helping is None else self._measure(X.take(helping)).raw
        )
        names = self.view_.names
        weights = part_weights(names, is_table=len(self.input_shape_) == 1)
        self.evidence_ = Evidence.fit(names, measured.raw, weights, raw_of_training)
        if getattr(self, "weighting", None) == "paper":
            self.weight_calibration_ = WeightCalibration.fit(
                measured.log_likelihood, measured.weight
            )
        rows = self.split_.threshold
        self.__dict__.update(self._held_out_scores(X.take(rows), labels[rows]))
        if len(self.input_shape_) == 3:
            self.expected_images_ = self._expected_images(X, labels)
        # Warns of too few points now, not at the first prediction.
        self._warn_of_few_held_out()

    def fit_predict(
        self, X: InputLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> np.ndarray:
        """Fit, then predict the same points.

        The threshold comes from held-out points, but most of X is training data,
        which every detector accepts more readily than new points.

        Parameters
        ----------
        X : array-like
            As for :meth:`fit`.
        y : array-like of shape (n,)
            As for :meth:`fit`; scikit-learn's own outlier detectors ignore it.
        groups : array-like of shape (n,), default=None
            As for :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n,)
            As of :meth:`predict`.
        """
        return self.fit(X, y, groups).predict(X)

    @under_ordinary_torch
    def predict(self, X: InputLike) -> np.ndarray:
        """Label each point with a known class, or as unknown.

        Parameters
        ----------
        X : array-like or dataset
            Of the shape seen in :meth:`fit`, but for the number of rows.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``, or ``-1``. For string labels unknown is the string
            ``"-1"``; for boolean ones the answers are the integers 0, 1 and -1. With
            ``guarantee="class"`` the class of the largest of :meth:`p_values`, if it
            is not excluded.
        """
        by_class = self._promises_by_class()
        measured = self._measure(self._check_new(X), by_class=by_class)
        return self._judged(measured)[0]

    @under_ordinary_torch
    def predict_known(self, X: InputLike) -> np.ndarray:
        """Label each point with the most likely known class, never rejecting.

        It is the class of the largest product of the head's probability and the square
        root of that of the parts of the evidence; without a head
        (``classification_weight=0``), that of the largest log-likelihood. A class of
        :meth:`add_classes`, where the point scores higher under it.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``.
        """
        measured = self._measure_features(self._check_new(X))
        return self.classes_[measured.most_likely]

    @under_ordinary_torch
    def score_samples(self, X: InputLike) -> np.ndarray:
        """Score how much each point looks like a known class.

        A point's score depends on that point alone, not on the others in X, up to the
        rounding of the net's arithmetic (images: float32, about the sixth digit).

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            Higher is more in-distribution: the weighted sum of :meth:`evidence`; with
            ``weighting="paper"`` the product of weight and log-likelihood.
        """
        return self._scores(self._measure(self._check_new(X)))

    @under_ordinary_torch
    def evidence(self, X: InputLike) -> np.ndarray:
        """How usual each part of a point looks, in common units.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        evidence : ndarray of shape (n, n_parts), float64
            Columns as in ``evidence_names_``: 0 at the median of held-out known points,
            -1 at the end of their usual range (exceeded downwards by 5 % of them); from
            -4 down the scale is logarithmic. ``t1``, ``t2``, ``mu`` and the residual
            are at most 0: they speak only against a point. The sum, weighted by
            ``evidence_.weights``, is :meth:`score_samples` (but for
            ``weighting="paper"``).
        """
        measured = self._measure(self._check_new(X))
        return self.evidence_.standardize(measured.raw)

    @under_ordinary_torch
    def decision_function(self, X: InputLike) -> np.ndarray:
        """Score relative to the threshold.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        decision : ndarray of shape (n,), float64
            Non-negative where the point is accepted: ``score_samples(X) - offset_``;
            with ``guarantee="class"`` the largest difference between the score under a
            class and that class's threshold.
        """
        by_class = self._promises_by_class()
        measured = self._measure(self._check_new(X), by_class=by_class)
        return self._judged(measured)[1]

    @under_ordinary_torch
    def class_log_likelihood(self, X: InputLike) -> np.ndarray:
        """Log-likelihood of each point's feature ensemble under each class.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        log_likelihood : ndarray of shape (n, n_classes), float64
            ``log N(t(x); class c)`` in nats, columns in the order of ``classes_``.
            With ``fusion="late"`` the sum over the parts, as if they were independent;
            of ``features=("logit",)``, which has no Gaussians, the logits.
        """
        return self._measure_features(self._check_new(X)).class_log_likelihood

    @under_ordinary_torch
    def transform(self, X: InputLike) -> np.ndarray:
        """Feature ensemble ``t(x)`` of each point.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        ensemble : ndarray of shape (n, D)
            The parts named in `features_`, in that order, not normalised; of
            ``"logit"`` all logits. float32 for images, float64 for tables.
        """
        rows = self._check_new(X)
        parts = ensembles(self.network_, self._batches(rows), self.view_)
        return np.concatenate(
            [np.hstack([batch[name] for name in self.features_]) for batch in parts]
        )

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> np.ndarray:
        """Name the columns that :meth:`transform` returns.

        Parameters
        ----------
        input_features : ignored, default=None
            For scikit-learn's API: the ensemble's names do not depend on the input's.

        Returns
        -------
        names : ndarray of shape (D,), str objects
            ``"t1_0"``, ``"t1_1"``, ... ``"mu_0"``, ...
        """
        check_is_fitted(self)
        sizes = {"x": self.n_features_in_, **self.network_.ensemble_sizes}
        names = [f"{part}_{i}" for part in self.features_ for i in range(sizes[part])]
        return np.array(names, dtype=object)

    def score(self, X: InputLike, y: ArrayLike) -> float:
        """Macro F1 over the known classes and "unknown".

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.
        y : array-like of shape (n,)
            True labels; those not in ``classes_`` count as unknown.

        Returns
        -------
        f1 : float
            See :func:`skvmdls.metrics.open_set_f1`.
        """
        return open_set_f1(y, self.predict(X), self.classes_)

    @under_ordinary_torch
    def __getstate__(self) -> dict[str, Any]:
        # What was fitted on an accelerator must load where there is none.
        state = super().__getstate__()
        return {
            name: deepcopy(value).cpu()
            if is_fitted_name(name) and isinstance(value, nn.Module)
            else value
            for name, value in state.items()
        }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags


def _learned(detector: BaseDetector) -> dict[str, Any]:
    return {n: value for n, value in vars(detector).items() if is_fitted_name(n)}


def is_fitted_name(attribute: str) -> bool:
    """Whether a name is, by scikit-learn's convention, that of something learned."""
    return attribute.endswith("_") and not attribute.startswith("_")
