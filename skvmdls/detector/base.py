"""Public methods of both detectors, in the order in which they are used."""

from dataclasses import fields
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, Tags, check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skvmdls._support.devices import resolve_device
from skvmdls._support.patience import line_after_a_while
from skvmdls._support.sklearn import (
    BaseEstimator,
    CallbackSupportMixin,
    OutlierMixin,
    TransformerMixin,
    validate_parameter_constraints,
    with_callbacks,
)
from skvmdls._support.threads import one_thread_if_small
from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import InputLike, plain, warn
from skvmdls.calibration.conformal import discoveries
from skvmdls.calibration.exchangeability import exchangeability_p_value, warn_of_drift
from skvmdls.calibration.false_discoveries import false_discovery_bound
from skvmdls.calibration.probabilities import (
    USUAL_AUROC,
    unknown_probability,
    with_unknown,
)
from skvmdls.calibration.recalibration import compare_with_calibration
from skvmdls.calibration.summary import acceptance_by, acceptance_lines
from skvmdls.calibration.verdicts import (
    Calibration,
    ThresholdSettings,
    Verdicts,
    judge,
)
from skvmdls.detector.class_changes import (
    ChangedClasses,
    check_dropped,
    check_has_gaussians,
    check_new_labels,
    warn_of_close_classes,
    with_classes,
    without_classes,
)
from skvmdls.detector.fitting import Learned, learn
from skvmdls.detector.parameters import (
    DetectorParameters,
    decisive,
)
from skvmdls.detector.recalibration import recalibrated
from skvmdls.explanation import explain
from skvmdls.inputs.checking import check_inputs, check_training_data
from skvmdls.inputs.groups import group_ids
from skvmdls.inputs.labels import check_known_labels, labels_with_unknown
from skvmdls.inputs.pictures import PictureFormat
from skvmdls.inputs.robust import describe_far_values
from skvmdls.inputs.rows import Rows, rows_of, work_of
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.network import VariationalNetwork
from skvmdls.scoring.evidence import Evidence, PartSelection
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.features import ensembles
from skvmdls.scoring.model import (
    FittedModel,
    Measured,
    measure,
    standardized_batches,
)
from skvmdls.training.callbacks import FitCallbacks
from skvmdls.training.choices import TrainingChoices
from skvmdls.training.distributed import loss_explained
from skvmdls.training.session import TrainingSession

__all__ = ["BaseDetector"]

# Where the "?" of an estimator's box in a notebook leads.
DOCUMENTATION = "https://skvmdls.readthedocs.io/en/stable/"

# What may be changed on a fitted detector.
THRESHOLD_PARAMETERS = tuple(field.name for field in fields(ThresholdSettings))


class BaseDetector(
    CallbackSupportMixin,
    DetectorParameters,
    TransformerMixin,
    OutlierMixin,
    BaseEstimator,
):
    """Base of both detectors: all but the autoencoder.

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
    picture_format_ : PictureFormat or None
        How files and PIL images are read. None if X held neither.
    features_ : tuple of str
        Parts of the evidence, as resolved from `features`.
    evidence_names_ : tuple of str
        Columns of :meth:`evidence`.
    unknown_label_ : int or str
        Label that :meth:`predict` gives to unknown points: -1, or ``"-1"``.
    offset_ : float
        The threshold: points that score at least this are accepted. It follows
        `threshold` and `contamination` as they are now.
    model_ : FittedModel
        The fitted model, with all that scoring a point needs. `network_`, `gaussians_`,
        `evidence_`, `expected_images_`, `view_`, `standardizer_` and others are read
        from it.
    calibration_ : Calibration
        Scores that set the threshold. Attributes named `calibration_...` are read from
        it.
    network_ : VariationalNetwork
        The trained net, if a part of the evidence needs one.
    gaussians_ : ModuleDict of str to ClassGaussians
        The classes' Gaussians of each part. With ``fusion="early"``, of ``"ensemble"``.
    evidence_ : Evidence
        Constants that standardise the parts' scores, and their weights.
    expected_images_ : ExpectedImages
        Mean images of each class, for :meth:`explain`. None for tables.
    split_ : Split
        Positions of the rows that trained, that set the evidence's constants, and that
        set the threshold. With cross-fitted scores all rows trained, and those that
        were scored set both others.
    view_ : PartSelection
        The parts that are used, and how.
    standardizer_ : Standardizer
        Statistics of the training inputs.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the points that set the threshold: held out, or cross-fitted.
    calibration_class_scores_ : ndarray of shape (n_calibration,)
        Their scores each under its own class, which set the classes' own thresholds.
    calibration_labels_ : ndarray of shape (n_calibration,), int
        Positions of their classes in ``classes_``.
    calibration_winners_ : ndarray of shape (n_calibration, n_parts), int
        Positions of the classes that their scores are made of.
    rejection_range_ : tuple of float
        Shares of known points between which the threshold rejects, 19 times in 20.
    exchangeability_p_value_ : float
        Small where the rows drift with their order.
    fit_positions_ : ndarray of shape (n_classes,), int
        Position of each class among those of `fit`. -1 if it was added since.
    history_ : dict of str to list of float
        Of each epoch: ``loss`` and its terms ``triplet``, ``distancing`` and ``kl``
        (weighted, 0 while it is off), and ``cross_entropy`` and ``head_accuracy`` of
        the head, if there is one; ``divergence`` (the unweighted KL); ``sigma`` (mean
        over points and dimensions); ``accuracy`` (share of points nearest to their own
        class's mean of the epoch before; chance level in the first, which has none);
        ``separation`` (smallest Euclidean distance between two class means);
        ``learning_rate``. ``pd.DataFrame(detector.history_).plot(subplots=True)``.
        Empty if no net was trained.
    training_choices_ : TrainingChoices or None
        How the net was trained: what `optimizer`, `learning_rate`, `weight_decay`,
        `augmentation` and `max_epochs` were resolved to, and why. None if no net was
        trained.
    """

    model_: FittedModel
    calibration_: Calibration
    picture_format_: PictureFormat | None
    training_choices_: TrainingChoices | None

    _doc_link_module = "skvmdls"
    _doc_link_template = DOCUMENTATION + "api/generated/skvmdls.{estimator_name}.html"

    # ------------------------------------------------------------------- fitting

    @with_callbacks
    @under_ordinary_torch
    def fit(self, X: InputLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on labelled data of the known classes.

        If anything goes wrong, what an earlier `fit` learned is kept. There is no
        `sample_weight` and no `class_weight`: each batch holds as many rows of one
        class as of another, so that rare classes count as much as frequent ones.

        Parameters
        ----------
        X : array-like of shape (n, features), (n, height, width) or \
                (n, channels, height, width), or dataset
            Floats, or uint8 images (scaled by 255). Or what has a length and items, as
            an ``ImageFolder`` (see :class:`skvmdls.datasets.DatasetRows`).
        y : array-like of shape (n,)
            Labels: strings, integers, whole floats or booleans. At least two classes,
            with at least two samples each, none of them ``-1``. One class needs three
            or more in addition to those held out, unless `covariance_type` is
            ``"diag"``.
        groups : array-like of shape (n,), default=None
            Rows that are not independent (of one patient, one video, copies of one
            image) have one group. They are held out together, and count as one point.
            Equal rows of X are kept together in any case. In a ``Pipeline`` or a
            search, ask for it by ``set_fit_request(groups=True)``.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If a parameter is out of range, or X or y is unusable. The message says
            which and why.
        FloatingPointError
            If the training diverges.
        MemoryError
            If a batch is too large for the device.
        """
        self._validate_params()
        settings = self.resolved()
        callbacks = FitCallbacks.of_fit(
            self, n_nets=1 + (settings.autoencoder is not None)
        )
        # It takes what the check learns, so that a failed fit changes nothing.
        checked = type(self)()
        rows, classes, labels = check_training_data(checked, X, y, settings.num_workers)
        together = group_ids(rows, groups)
        with loss_explained(), line_after_a_while(is_quiet=not settings.verbose):
            session = TrainingSession.start(
                memory=settings.memory,
                checkpoint=settings.checkpoint,
                random_state=settings.random_state,
                device=resolve_device(settings.device),
                callbacks=callbacks,
                data={"X": rows.content, "y": classes[labels], "groups": together},
                depends_on=decisive(self),
            )
            with one_thread_if_small(work_of(rows), with_blas=True):
                learned = learn(settings, rows, labels, classes, together, session)
        self._assign(learned, classes, checked)
        _warn_of_far_values(self)
        callbacks.end(X=X, y=y, reconstruction_attributes=self._fitted_attributes)
        return self

    def _assign(
        self, learned: Learned, classes: np.ndarray, checked: "BaseDetector"
    ) -> None:
        """Assign what a fit learned, all of it or nothing."""
        held_out = learned.calibration
        held_out.warn_of_few_points(self._threshold_settings(), classes)
        warn_of_drift(held_out.class_scores, held_out.labels)
        self.classes_ = classes
        self.n_features_in_ = checked.n_features_in_
        self.picture_format_ = checked.picture_format_
        self.model_ = learned.model
        self.calibration_ = learned.calibration
        self.split_ = learned.split
        self.history_ = learned.history
        self.training_choices_ = learned.training_choices
        if learned.autoencoder_history is not None:
            self.autoencoder_history_ = learned.autoencoder_history
        elif hasattr(self, "autoencoder_history_"):
            # Of an earlier fit.
            del self.autoencoder_history_
        if hasattr(checked, "feature_names_in_"):
            self.feature_names_in_ = checked.feature_names_in_
        elif hasattr(self, "feature_names_in_"):
            # Of an earlier fit.
            del self.feature_names_in_

    def _fitted_attributes(self) -> dict[str, Any]:
        """Return what a callback needs to rebuild the fitted detector."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

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
            As for :meth:`fit`. The outlier detectors of scikit-learn ignore it.
        groups : array-like of shape (n,), default=None
            As for :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n,)
            As of :meth:`predict`.
        """
        return self.fit(X, y, groups).predict(X)

    # -------------------------------------------------------- what a fit learned

    @property
    def input_shape_(self) -> tuple[int, ...]:
        """Shape of one input: (features,) or (channels, height, width)."""
        return self.model_.input_shape

    @property
    def network_(self) -> VariationalNetwork:
        """The trained net, if a part of the evidence needs it."""
        network = self.model_.network
        if network is None:
            raise AttributeError(
                f"This {type(self).__name__} trained no net, since no part of its "
                f"evidence needs one: {self.evidence_names_}. To train one, name parts "
                "of the net in `features`, or give a backbone."
            )
        return network

    @property
    def standardizer_(self) -> Standardizer:
        """Statistics of the training inputs."""
        return self.model_.standardizer

    @property
    def view_(self) -> PartSelection:
        """Parts of the evidence that are used, and how."""
        return self.model_.selection

    @property
    def features_(self) -> tuple[str, ...]:
        """Parts of the evidence that `features` resolved to."""
        return self.model_.selection.features

    @property
    def evidence_names_(self) -> tuple[str, ...]:
        """Columns of :meth:`evidence`."""
        return self.model_.selection.names

    @property
    def gaussians_(self) -> nn.ModuleDict:
        """Gaussians of the classes, by part (``"ensemble"`` with early fusion)."""
        return self.model_.gaussians

    @property
    def evidence_(self) -> Evidence:
        """Constants that standardise the parts, and their weights."""
        return self.model_.evidence

    @property
    def expected_images_(self) -> ExpectedImages | None:
        """Mean images of each class. None for tables."""
        return self.model_.expected_images

    @property
    def fit_positions_(self) -> np.ndarray:
        """Position (n_classes,) of each class in `fit`. -1 if it was added since."""
        return self.model_.fit_positions

    @property
    def calibration_scores_(self) -> np.ndarray:
        """Scores (n_calibration,) of the held-out points that set the threshold."""
        return self.calibration_.scores

    @property
    def calibration_class_scores_(self) -> np.ndarray:
        """Their scores (n_calibration,), each under its own class."""
        return self.calibration_.class_scores

    @property
    def calibration_labels_(self) -> np.ndarray:
        """Positions (n_calibration,) of their classes in ``classes_``."""
        return self.calibration_.labels

    @property
    def calibration_winners_(self) -> np.ndarray:
        """Positions (n_calibration, n_parts) of the classes of their scores."""
        return self.calibration_.winners

    # ------------------------------------------------------------------- answers

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
            ``"-1"``. For boolean ones the labels are the integers 0, 1 and -1. With
            ``guarantee="class"`` the class of the largest of :meth:`p_values`, if it
            is not excluded.
        """
        measured = self._measure(X, by_class=self._threshold_settings().by_class)
        return self._judge(measured).labels

    @under_ordinary_torch
    def predict_known(self, X: InputLike) -> np.ndarray:
        """Label each point with the most likely known class, never rejecting.

        The class has the largest product of the head's probability and the square root
        of that of the parts of the evidence. Without a head
        (``classification_weight=0``) it has the largest log-likelihood. It is a class
        of :meth:`add_classes` if the point scores higher under it.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``.
        """
        measured = self._measure_known(X)
        return self.classes_[measured.most_likely]

    @under_ordinary_torch
    def predict_proba(self, X: InputLike) -> np.ndarray:
        """Estimate the probability of each known class.

        Calibrated on held-out points by a temperature. The largest is that of
        :meth:`predict_known`.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes) or (n, n_classes + 1), float64
            Columns in the order of ``classes_``, given that the point is known. With
            `unknown_prior` there is a last column, the probability of "unknown", and
            each row sums to one.
        """
        measured = self._measure(X, by_class=True)
        assert measured.label_scores is not None
        held_out = self.calibration_
        probabilities = held_out.probabilities.predict(measured.label_scores)
        if self.unknown_prior is None:
            return probabilities
        trials = self.model_.evidence.trials
        unknown = unknown_probability(
            held_out.p_values(measured.score),
            len(held_out.scores),
            plain(self.unknown_prior),
            USUAL_AUROC if trials is None else trials.expected_auroc,
        )
        return with_unknown(probabilities, unknown)

    @under_ordinary_torch
    def is_unknown(self, X: InputLike) -> np.ndarray:
        """Tell which points :meth:`predict` labels as unknown.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        is_unknown : ndarray of shape (n,), bool
        """
        return self.predict(X) == self.unknown_label_

    @property
    def unknown_label_(self) -> int | str:
        """Label that :meth:`predict` gives to unknown points: -1 or ``"-1"``."""
        return labels_with_unknown(self.classes_)[-1:].tolist()[0]

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
            Higher is more in-distribution: the weighted sum of :meth:`evidence`. With
            ``weighting="paper"`` the product of weight and log-likelihood.
        """
        return self._measure(X).score

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
            -1 at the end of their usual range (exceeded downwards by 5 % of them). From
            -4 down the scale is logarithmic. ``t1``, ``t2``, ``mu`` and the residual
            are at most 0: they speak only against a point. The sum, weighted by
            ``evidence_.weights``, is :meth:`score_samples` (but for
            ``weighting="paper"``).
        """
        measured = self._measure(X)
        return self.model_.evidence.standardize(measured.raw)

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
            Non-negative where the point is accepted: ``score_samples(X) - offset_``.
            With ``guarantee="class"`` the largest difference between the score under a
            class and that class's threshold.
        """
        measured = self._measure(X, by_class=self._threshold_settings().by_class)
        return self._judge(measured).margins

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
            With ``fusion="late"`` the sum over the parts, as if they were independent.
            Of ``features=("logit",)``, which has no Gaussians, the logits.
        """
        return self._measure_known(X).class_log_likelihood

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
            The parts named in `features_`, in that order, not normalised. Of
            ``"logit"`` all logits. float32 for images, float64 for tables.
        """
        rows, model = self._check_new(X), self.model_
        batches = standardized_batches(
            rows, model, batch_size=plain(self.batch_size), device=self.device
        )
        parts = ensembles(model.network, batches, model.selection)
        names = model.selection.of_ensemble
        return np.concatenate(
            [np.hstack([batch[name] for name in names]) for batch in parts]
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
        sizes = {"x": self.n_features_in_}
        if self.model_.network is not None:
            sizes |= self.model_.network.ensemble_sizes
        parts = self.model_.selection.of_ensemble
        names = [f"{part}_{i}" for part in parts for i in range(sizes[part])]
        return np.array(names, dtype=object)

    def score(self, X: InputLike, y: ArrayLike) -> float:
        """Macro F1 over the known classes, and over "unknown" where `y` has any.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.
        y : array-like of shape (n,)
            True labels. Those not in ``classes_`` count as unknown.

        Returns
        -------
        f1 : float
            See :func:`skvmdls.metrics.open_set_f1`.
        """
        # It imports splitters of scikit-learn, which most uses do not need.
        from skvmdls.model_selection import open_set_f1_scorer

        return open_set_f1_scorer(self, X, y)

    # ---------------------------------------------------- thresholds and p-values

    @property
    def offset_(self) -> float:
        """Threshold on the scores, from `threshold` or `contamination` as they are now.

        Both may be changed on a fitted detector by `set_params`: the net, the Gaussians
        and the held-out scores do not depend on them. A threshold from `contamination`
        is one of the held-out scores less 0.001 of their spread, so that rounding does
        not decide.
        """
        return self.calibration_.threshold(self._threshold_settings())

    @under_ordinary_torch
    def p_value(self, X: InputLike) -> np.ndarray:
        """Conformal p-value of "this point is of a known class".

        For new known points it is at most ``a`` with a chance of at most ``a``, if they
        come as the training data came. This holds for any net and any data.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        p_values : ndarray of shape (n,), float64
            In ``[1 / (n_calibration + 1), 1]``. A point is rejected by the conformal
            threshold exactly where this is at most ``contamination``.
        """
        score = self._measure(X).score
        return self.calibration_.p_values(score)

    @under_ordinary_torch
    def p_values(self, X: InputLike) -> np.ndarray:
        """Conformal p-value of "this point is of that class", for each class.

        Each class's held-out points speak for that class alone (label-conditional
        conformal prediction), whatever `guarantee` is.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        p_values : ndarray of shape (n, n_classes), float64
            Columns in the order of ``classes_``. For new points of a class, its column
            is at most ``a`` with a chance of at most ``a``. Not smaller than ``1 / (m +
            1)`` of a class with ``m`` held-out points.
        """
        class_scores = self._class_scores(X)
        return self.calibration_.class_p_values(class_scores)

    @under_ordinary_torch
    def prediction_set(self, X: InputLike) -> np.ndarray:
        """Say which classes each point may be of.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        possible : ndarray of shape (n, n_classes), bool
            Where :meth:`p_values` is above `contamination`: a new point's own class is
            left out with a chance of at most `contamination`, whichever class it is.
            A row without any is "unknown".

        Warns
        -----
        UserWarning
            Naming the classes with too few held-out points ever to be excluded.
        """
        scores, settings = self._class_scores(X), self._threshold_settings()
        return scores >= self.calibration_.class_thresholds(settings, self.classes_)

    @under_ordinary_torch
    def select_unknown(self, X: InputLike, fdr: float = 0.05) -> np.ndarray:
        """Call points of a batch unknown, with few false alarms among them.

        `predict` bounds how many of the known points are rejected. This bounds how
        many of the rejected points are known. The null hypothesis of a point is "it is
        known, and comes as the training data came" (it and the held-out points are
        exchangeable). A selected point contradicts it, which a known point of a new
        camera does as an unknown one. If all known points of the batch come as the
        training data came, the expected share of known points among those selected is
        at most `fdr`. The threshold follows from the batch, by the rule of Benjamini
        and Hochberg on the conformal p-values, which depend on each other in the way
        that it allows [1]_.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`. The batch to select from.
        fdr : float in (0, 1), default=0.05
            False discovery rate: bound on the expected share.

        Returns
        -------
        is_unknown : ndarray of shape (n,), bool

        Raises
        ------
        ValueError
            If `fdr` is out of range.

        Warns
        -----
        UserWarning
            If there are too few held-out points ever to select anything.

        References
        ----------
        .. [1] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers
           with conformal p-values", Annals of Statistics 51, 2023.
        """
        if not (isinstance(fdr, Real) and 0 < fdr < 1):
            raise ValueError(
                f"fdr={fdr!r} must be a number above 0 and below 1: the share of known "
                "points that may be among those selected."
            )
        p_values = self.p_value(X)
        n = len(self.calibration_.scores)
        if (n + 1) * fdr < 1 - 1e-9:
            warn(
                f"{n} held-out points are too few for fdr={fdr}: at least "
                f"{int(np.ceil(1 / fdr - 1 - 1e-9))} are needed, so no point will be "
                "selected. Give more training data, or raise calibration_fraction or "
                "fdr."
            )
        return discoveries(p_values, float(fdr))

    @under_ordinary_torch
    def false_discoveries(
        self, X: InputLike, rejected: ArrayLike, confidence: float = 0.9
    ) -> int:
        """Bound how many of the points that you marked are known.

        You may choose the points by any rule, also after looking at the scores [1]_.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`. The whole batch.
        rejected : array-like of shape (n,), bool
            The points that you take for unknown.
        confidence : float in (0, 1), default=0.9
            Probability, over the held-out points and the batch, that the bound holds.

        Returns
        -------
        bound : int
            Known points among those marked are at most so many.

        References
        ----------
        .. [1] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers
           with conformal p-values", Annals of Statistics 51, 2023.
        """
        return false_discovery_bound(
            self.p_value(X),
            np.asarray(rejected),
            len(self.calibration_.scores),
            confidence,
        )

    @under_ordinary_torch
    def recalibrate(
        self,
        X: InputLike,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Set the threshold by known points of a new site, camera or day.

        New held-out scores replace the old ones. The net, the Gaussians and the weights
        stay as they are. How the new points differ is in ``recalibration_report_``.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`: known points that no fit has seen.
        y : array-like of shape (n,), default=None
            Their labels. They are needed where each class has its own threshold.
        groups : array-like of shape (n,), default=None
            As for :meth:`fit`: one point of each group counts.

        Returns
        -------
        self : detector

        Raises
        ------
        ValueError
            If ``guarantee="class"`` and `y` is not given, or a label is not known.

        Warns
        -----
        UserWarning
            If many points lie beyond the old threshold: look at them first.
        """
        rows = self._check_new(X)
        settings = self._threshold_settings()
        if y is None and settings.by_class:
            raise ValueError(
                "recalibrate needs y with guarantee='class', because each class has a "
                "threshold of its own. Give the labels, or use guarantee='marginal'."
            )
        labels = None if y is None else check_known_labels(self.classes_, y)
        check_consistent_length(rows, labels)
        ids = group_ids(rows, groups)
        if ids is not None:
            first = np.unique(ids, return_index=True)[1]
            rows = rows.take(np.sort(first))
            labels = None if labels is None else labels[np.sort(first)]
        measured = self._measure_rows(rows, by_class=True)
        self.recalibration_report_ = compare_with_calibration(
            self.calibration_.limits,
            measured.score,
            settings.contamination,
            settings.confidence,
        )
        self.calibration_ = recalibrated(
            self.calibration_,
            measured,
            labels,
            self.classes_,
            by_class=settings.by_class,
        )
        self.calibration_.warn_of_few_points(settings, self.classes_)
        return self

    @property
    def rejection_range_(self) -> tuple[float, float]:
        """Shares of known points between which the threshold rejects, 19 times in 20.

        The fewer held-out points, the more is left to chance. With
        ``guarantee="class"`` from the lowest to the highest share of any class. With
        `threshold` the shares are counted on the held-out points.
        """
        settings = self._threshold_settings()
        return self.calibration_.rejection_range(settings, len(self.classes_))

    @property
    def exchangeability_p_value_(self) -> float:
        """How likely held-out points are to come in this order, if rows are shuffled.

        Small where the rows drift with their order, against the assumption of the
        threshold.
        """
        held_out = self.calibration_
        return exchangeability_p_value(held_out.class_scores, held_out.labels)

    @under_ordinary_torch
    def summary(
        self,
        n_points: int | None = None,
        X: InputLike | None = None,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> str:
        """Describe in sentences what the threshold guarantees.

        These are how many known points will be rejected, how sure that is, how many
        held-out points would make it surer, and how many points of each class are
        accepted.

        Parameters
        ----------
        n_points : int, default=None
            Known points a day, for the expected number of false alarms.
        X : array-like, default=None
            As for :meth:`predict`: known points that no fit has seen. Their acceptance
            is reported. None reports that of the points that set the threshold.
        y : array-like of shape (n,), default=None
            Labels of X.
        groups : array-like of shape (n,), default=None
            Sites, shifts or other groups of X, each with its own line.

        Returns
        -------
        summary : str
            Lines.

        Raises
        ------
        ValueError
            If X is given without `y`, or labels or groups without X.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skvmdls import VMDLSbDetector
        >>> X, y = load_iris(return_X_y=True)
        >>> print(VMDLSbDetector(random_state=0).fit(X, y).summary(n_points=100))
        Between 1.9 and 8.6 % of new known points will be rejected (19 times in 20).
        Of 100 known points a day, about 5 are false alarms, between 0 and 11.
        149 held-out points set the threshold. With 596 the range is 3.3 to 6.7 %.
        Accepted by class (in brackets the range, 19 times in 20):
          ...
        """
        check_is_fitted(self)
        if (X is None) != (y is None) or (X is None and groups is not None):
            raise ValueError(
                "summary needs X and y together, the known points whose acceptance is "
                "to be reported, and groups only with both. Leave all three out for "
                "the points that set the threshold."
            )
        settings, held_out = self._threshold_settings(), self.calibration_
        by: dict[str, np.ndarray] = {"class": self.classes_[held_out.labels]}
        if X is None or y is None:
            accepted = held_out.accepted(settings, self.classes_)
        else:
            rows = self._check_new(X)
            by["class"] = self.classes_[check_known_labels(self.classes_, y)]
            if groups is not None:
                by["group"] = np.asarray(groups)
            check_consistent_length(rows, *by.values())
            measured = self._measure_rows(rows, by_class=settings.by_class)
            accepted = self._judge(measured).margins >= 0
        lines = held_out.sentences(settings, self.classes_, n_points)
        for kind, names in by.items():
            shares = acceptance_by(names, accepted)
            lines += acceptance_lines(f"Accepted by {kind}", shares)
        return "\n".join(lines)

    # --------------------------------------------------------------- explanations

    @under_ordinary_torch
    def explain(self, X: InputLike, *, places: bool = True) -> Bunch:
        """Say why points score as they do, rejected or not.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.
        places : bool, default=True
            False leaves out `contributions`, `explained_part` and `residual_map`, to
            save time.

        Returns
        -------
        explanation : Bunch
            With these fields:

            label : ndarray of shape (n,)
                As of :meth:`predict`.
            margin : ndarray of shape (n,), float64
                As of :meth:`decision_function`: how far from the threshold.
            p_value : ndarray of shape (n,), float64
                As of :meth:`p_value`.
            evidence : ndarray of shape (n, n_parts)
                As of :meth:`evidence`: below -1, a part is outside the usual range.
            nearest : ndarray of shape (n, 3)
                Labels of the nearest known classes: first that of
                :meth:`predict_known`, then by the score under each. With fewer than
                three classes the row ends with ``-1`` (``"-1"`` for labels that are
                strings).
            contributions : ndarray of shape (n, n_features)
                For tables: the columns that made the row unusual, in the unit of a
                part, the most negative ones most. They sum to the score of
                `explained_part` less its typical value, which is that column of
                `evidence` times ``evidence_.spread``. Far out, where the scale of
                `evidence` is logarithmic, they shrink alike (see
                :func:`skvmdls.explanation.column_contributions`).
            explained_part : str
                For tables: the part that `contributions` sum to. It is the first that
                is used of ``"x"``, ``"separate"``, ``"shared"``, ``"relative"``,
                ``"neighbours"`` and ``"linear"``.
            residual_map : ndarray of shape (n, height, width)
                For images: how far each place is from a reconstruction, smoothed, in
                standard deviations of the input. The reconstruction is made of the mean
                image and the main variations of the first class in `nearest` (see
                :class:`skvmdls.scoring.ExpectedImages`).
        """
        rows = self._check_new(X)
        measured = self._measure_rows(rows, by_class=True)
        return explain(
            rows,
            measured,
            self._judge(measured),
            self.model_,
            self.calibration_,
            self.classes_,
            batch_size=plain(self.batch_size),
            device=self.device,
            places=places,
        )

    # ---------------------------------------------------------------- new classes

    @under_ordinary_torch
    def add_classes(self, X: InputLike, y: ArrayLike) -> Self:
        """Learn new classes on the net as it is: no training, a matter of seconds.

        Each new class gets Gaussians of its own, and a part of its rows
        (`calibration_fraction`) is held out and joins the points that set the
        threshold. The net, the other classes' Gaussians and likelihoods, and the
        evidence's constants stay as they are. A new class is scored by the parts that
        training has not drawn together (``"x"``, ``"t2"``, ``"t3"``). The others take
        over their value, and the logit counts as typical. A point gets the new label if
        these parts are higher under the new class than with all classes of `fit`
        together, by a sixth of the usual range.

        The guarantee of `contamination` holds for known points that come in the
        proportions of all rows, those of `fit` and these. With ``guarantee="class"``,
        for each class. Held-out scores of old points are kept as they were, although a
        new class may raise some: the threshold is then a little low, never too high.

        If anything goes wrong, the detector is left unchanged. :meth:`fit` starts
        from the beginning.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`: rows of new classes only.
        y : array-like of shape (n,)
            Their labels, of the type of ``classes_``. At least two rows each.

        Returns
        -------
        self : detector

        Raises
        ------
        ValueError
            If a label is known already (widening a class means fitting again), or X or
            y is unusable. The message says which and why.

        Warns
        -----
        UserWarning
            Naming the classes that are too close to a known one: more than half of
            their rows are accepted as that class. And as :meth:`fit` does.
        """
        rows = self._check_new(X)
        new, labels = check_new_labels(self.classes_, y)
        check_consistent_length(rows, labels)
        check_has_gaussians(self.model_)
        settings = self.resolved()
        changed = with_classes(
            self.model_, self.calibration_, self.classes_, rows, new, labels, settings
        )
        warn_of_close_classes(
            self._measure_rows(rows), new[labels], self.calibration_, self.classes_
        )
        changed.calibration.warn_of_few_points(
            self._threshold_settings(), changed.classes
        )
        self._assign_classes(changed)
        return self

    @under_ordinary_torch
    def drop_classes(self, labels: ArrayLike) -> Self:
        """Forget classes, of `fit` or of :meth:`add_classes`.

        Their Gaussians, logits and held-out points no longer count. Their points become
        unknown, as far as no other class explains them. The other classes' likelihoods
        do not change. If the score of a held-out point was made with a dropped class,
        it is replaced by the lower score under its own class. So the threshold is never
        too high.

        Parameters
        ----------
        labels : array-like of shape (k,)
            Some of ``classes_``. At least two must stay.

        Returns
        -------
        self : detector

        Raises
        ------
        ValueError
            If a label is not known, or fewer than two classes, or no held-out points,
            would be left. The detector is left unchanged.
        """
        check_is_fitted(self)
        stays = check_dropped(self.classes_, labels)
        changed = without_classes(self.model_, self.calibration_, self.classes_, stays)
        changed.calibration.warn_of_few_points(
            self._threshold_settings(), changed.classes
        )
        self._assign_classes(changed)
        return self

    def _assign_classes(self, changed: ChangedClasses) -> None:
        self.classes_ = changed.classes
        self.model_ = changed.model
        self.calibration_ = changed.calibration

    # ------------------------------------------------------- steps of the methods

    def _check_new(self, X: InputLike) -> Rows:
        """Check new inputs, and give them as rows."""
        check_is_fitted(self)
        checked = check_inputs(self, X, self.model_.input_shape)
        rows = rows_of(checked, plain(self.num_workers))
        self.model_.standardizer.warn_of_other_units(rows)
        return rows

    def _measure(self, X: InputLike, *, by_class: bool = False) -> Measured:
        return self._measure_rows(self._check_new(X), by_class=by_class)

    def _measure_rows(self, rows: Rows, *, by_class: bool = False) -> Measured:
        with one_thread_if_small(work_of(rows)):
            return measure(
                rows,
                self.model_,
                batch_size=plain(self.batch_size),
                device=self.device,
                by_class=by_class,
            )

    def _measure_known(self, X: InputLike) -> Measured:
        """Measure without the autoencoder, where only the classes are asked for."""
        rows = self._check_new(X)
        with one_thread_if_small(work_of(rows)):
            return measure(
                rows,
                self.model_.without_autoencoder(),
                batch_size=plain(self.batch_size),
                device=self.device,
            )

    def _class_scores(self, X: InputLike) -> np.ndarray:
        scores = self._measure(X, by_class=True).class_scores
        assert scores is not None
        return scores

    def _threshold_settings(self) -> ThresholdSettings:
        """Check the parameters that set the threshold, as they are now."""
        given = {name: getattr(self, name) for name in THRESHOLD_PARAMETERS}
        constraints = {
            name: self._parameter_constraints[name] for name in THRESHOLD_PARAMETERS
        }
        validate_parameter_constraints(constraints, given, type(self).__name__)
        return ThresholdSettings.of(self)

    def _judge(self, measured: Measured) -> Verdicts:
        return judge(
            measured.score,
            measured.most_likely,
            measured.class_scores,
            self.calibration_,
            self._threshold_settings(),
            self.classes_,
        )

    # ------------------------------------------------------ scikit-learn's protocol

    @under_ordinary_torch
    def __getstate__(self) -> dict[str, Any]:
        # What was fitted on an accelerator must load where there is none.
        state = super().__getstate__()
        if "model_" in state:
            state = {**state, "model_": self.model_.on_cpu()}
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags


def _warn_of_far_values(detector: BaseDetector) -> None:
    """Name the columns of a table that hold codes for "missing"."""
    columns = detector.model_.standardizer.columns_
    if columns is None:
        return
    names = getattr(detector, "feature_names_in_", None)
    if sentence := describe_far_values(columns, names):
        warn(f"X: {sentence}")
