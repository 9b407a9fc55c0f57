"""The two estimators: what `fit` and `predict` do, step by step."""

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import KW_ONLY, replace
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin
from sklearn.utils import (
    Tags,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skvmdls._checkpoints import Checkpoint, Stage
from skvmdls._devices import (
    fits_on,
    float64_device,
    place,
    resolve_device,
    resolve_precision,
    scoring_placement,
)
from skvmdls._docstrings import documented
from skvmdls._open_world import OpenWorld
from skvmdls._parameters import parameter, with_parameters
from skvmdls._sklearn import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from skvmdls._workshop import Workshop
from skvmdls.augmentation import resolve_augmentation
from skvmdls.autoencoder import AUTOENCODERS
from skvmdls.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.calibration import (
    WeightCalibration,
    conformal_p_value,
    conformal_threshold,
    hold_out,
)
from skvmdls.evidence import FEW_POINTS, Evidence, View, resolve_features
from skvmdls.gaussians import (
    ClassGaussians,
    check_class_sizes,
    check_covariance_estimator,
    fit_gaussians,
    kept_for_another_pass,
)
from skvmdls.inputs import (
    Standardizer,
    check_inputs,
    check_labels,
    labels_with_unknown,
)
from skvmdls.metrics import open_set_f1
from skvmdls.network import build_autoencoder, build_network
from skvmdls.scoring import (
    KnownClasses,
    Measured,
    Score,
    block_features,
    ensembles,
    measure,
    reconstructions,
)
from skvmdls.training import (
    AutoencoderPlan,
    NetworkPlan,
    train_autoencoder,
    train_network,
)

# Share of the held-out rows that set the score's constants; the others the threshold.
EVIDENCE_SHARE = 0.25
# Where they are few, about as many training points help to set the evidence's.
TRAINING_POINTS = 1000

# Parameters that do not touch the nets or the Gaussians.
THRESHOLDS = ("threshold", "contamination", "guarantee")
FREE_TO_CHANGE = (*THRESHOLDS, "checkpoint", "memory", "verbose")


class Reconstruction(NamedTuple):
    """Which autoencoder a detector has, and what its residual is used for."""

    factory: str | BackboneFactory
    epochs: int
    weighting: str


@with_parameters
class BaseDetector(OpenWorld, TransformerMixin, OutlierMixin, BaseEstimator):
    """What both detectors are: all but the autoencoder."""

    backbone: str | BackboneFactory = parameter("auto", str, callable)
    _: KW_ONLY
    latent_dim: int = parameter(32, Interval(Integral, 1, None, closed="left"))
    triplet_margin: float = parameter(0.1, Interval(Real, 0, None, closed="left"))
    distancing_margin: float | None = parameter(
        None, Interval(Real, 0, None, closed="left"), None
    )
    margin_warmup: float = parameter(0.5, Interval(Real, 0, 1, closed="both"))
    kl_warmup: float = parameter(0.5, Interval(Real, 0, 1, closed="both"))
    prior_variance: float = parameter(0.1, Interval(Real, 0, None, closed="neither"))
    kl_weight: float = parameter(0.1, Interval(Real, 0, None, closed="left"))
    classification_weight: float = parameter(
        1.0, Interval(Real, 0, None, closed="left")
    )
    metric_weight: float = parameter(1.0, Interval(Real, 0, None, closed="left"))
    features: str | tuple[str, ...] = parameter(
        "auto", StrOptions({"auto"}), "array-like"
    )
    fusion: str = parameter("late", StrOptions({"late", "early"}))
    normalize: bool | str = parameter("auto", StrOptions({"auto"}), "boolean")
    covariance_type: str = parameter("full", StrOptions({"full", "tied", "diag"}))
    covariance_estimator: Any = parameter(None, HasMethods("fit"), None)
    covariance_pooling: float = parameter(0.05, Interval(Real, 0, 1, closed="both"))
    contamination: float = parameter(
        0.05, Interval(Real, 0, 0.5, closed="right"), Options(Real, {0})
    )
    threshold: float | None = parameter(
        None, Interval(Real, None, None, closed="neither"), None
    )
    guarantee: str = parameter("marginal", StrOptions({"marginal", "class"}))
    calibration_fraction: float = parameter(0.1, Interval(Real, 0, 0.5, closed="right"))
    classes_per_batch: int | None = parameter(
        None, Interval(Integral, 2, None, closed="left"), None
    )
    samples_per_class: int = parameter(16, Interval(Integral, 2, None, closed="left"))
    max_epochs: int = parameter(20, Interval(Integral, 1, None, closed="left"))
    learning_rate: float = parameter(1e-3, Interval(Real, 0, None, closed="neither"))
    weight_decay: float = parameter(1e-2, Interval(Real, 0, None, closed="left"))
    augmentation: str | Callable[[Tensor], Tensor] | None = parameter(
        None, str, callable, None
    )
    freeze_epochs: int = parameter(0, Interval(Integral, 0, None, closed="left"))
    batch_size: int = parameter(256, Interval(Integral, 1, None, closed="left"))
    device: str | torch.device = parameter("auto", str, torch.device)
    precision: str = parameter("auto", StrOptions({"auto", "float32", "bfloat16"}))
    memory: Any = parameter(None, str, os.PathLike, HasMethods("cache"), None)
    checkpoint: str | os.PathLike[str] | None = parameter(None, str, os.PathLike, None)
    verbose: int = parameter(0, "verbose")
    random_state: int | np.random.RandomState | None = parameter(None, "random_state")

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on labelled data of the known classes.

        If anything goes wrong, what an earlier `fit` learned is kept.

        Parameters
        ----------
        X : array-like of shape (n, features), (n, height, width) or \
                (n, channels, height, width)
            Floats, or uint8 images (scaled by 255).
        y : array-like of shape (n,)
            Labels; at least two classes, with at least two samples each, none of
            them ``-1``. One class needs three or more beside those held out, unless
            `covariance_type` is ``"diag"``.

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
        attempt = object.__new__(type(self))
        attempt.__dict__.update(
            {name: value for name, value in vars(self).items() if not _is_fitted(name)}
        )
        attempt._fit(X, y)
        self.__dict__ = attempt.__dict__
        return self

    def _fit(self, X: ArrayLike, y: ArrayLike) -> None:
        self._validate_params()
        check_covariance_estimator(self.covariance_estimator, self.covariance_type)
        X, labels = self._check_training_data(X, y)
        self._look_as(self._resolved_view())
        device = resolve_device(self.device)
        checkpoint = Checkpoint(self.checkpoint, self._ingredients(X, y, device))
        rng = check_random_state(checkpoint.seed(self.random_state))
        workshop = Workshop(self.memory, checkpoint, rng, device)
        self.split_ = hold_out(labels, self.calibration_fraction, EVIDENCE_SHARE, rng)
        X_train, y_train = X[self.split_.training], labels[self.split_.training]
        check_class_sizes(np.bincount(y_train), self.covariance_type)
        self.standardizer_ = Standardizer().fit(X_train)
        inputs = self.standardizer_.transform(X_train)
        targets = torch.from_numpy(y_train)
        if fits_on(inputs, device):
            inputs, targets = inputs.to(device), targets.to(device)
        with checkpoint.named_if_interrupted():
            self._train(inputs, targets, workshop)
            self._fit_gaussians(X_train, y_train, workshop)
        self._calibrate(X, labels)

    def _reconstruction(self) -> Reconstruction | None:
        """Which autoencoder, if any."""
        return None

    def _ingredients(
        self, X: np.ndarray, y: ArrayLike, device: torch.device
    ) -> dict[str, Any]:
        """By name, all that decides the nets and Gaussians."""
        parameters = self.get_params(deep=False)
        for name in FREE_TO_CHANGE:
            parameters.pop(name, None)
        return parameters | {"X": X, "y": np.asarray(y), "device": device.type}

    def _resolved_view(self) -> View:
        """Decide what of the net is looked at, and how: it holds until the next fit."""
        is_table = len(self.input_shape_) == 1
        reconstruction = self._reconstruction()
        return View(
            features=resolve_features(
                self.features,
                fusion=self.fusion,
                is_table=is_table,
                has_head=self.classification_weight > 0,
            ),
            fusion=self.fusion,
            # On tables lengths say much of what is new; see docs/recipe.md.
            normalize=not is_table and self.fusion == "late"
            if self.normalize == "auto"
            else bool(self.normalize),
            residual=reconstruction is not None
            and reconstruction.weighting == "evidence",
        )

    def _look_as(self, view: View) -> None:
        self.view_ = view
        self.features_, self.evidence_names_ = view.features, view.names

    def _check_training_data(
        self, X: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None."
            )
        X = check_inputs(self, X, input_shape=None)
        y = np.asarray(column_or_1d(y, warn=True))
        check_consistent_length(X, y)
        self.classes_, labels = check_labels(y)
        self.input_shape_ = X.shape[1:]
        return X, labels

    def _train(self, inputs: Tensor, labels: Tensor, workshop: Workshop) -> None:
        shape = self.input_shape_
        backbone = resolve_factory(self.backbone, BACKBONES, shape, "backbone")
        reconstruction = self._reconstruction()
        autoencoder = reconstruction and resolve_factory(
            reconstruction.factory, AUTOENCODERS, shape, "autoencoder"
        )
        n_logits = len(self.classes_) if self.classification_weight > 0 else 0
        plan = self._network_plan(workshop.device)
        self.network_, self.history_ = workshop.trained(
            "network",
            lambda: build_network(backbone, shape, self.latent_dim, n_logits),
            lambda net, seed, stage: train_network(
                net, inputs, labels, plan, seed, stage
            ),
            inputs,
            labels,
            replace(plan, verbose=0),
        )
        if reconstruction is None or autoencoder is None:
            return
        ae_plan = self._autoencoder_plan(reconstruction)
        self.autoencoder_, self.autoencoder_history_ = workshop.trained(
            "autoencoder",
            lambda: build_autoencoder(autoencoder, shape),
            lambda net, seed, stage: train_autoencoder(
                net, inputs, ae_plan, seed, stage
            ),
            inputs,
            replace(ae_plan, verbose=0),
        )

    def _network_plan(self, device: torch.device) -> NetworkPlan:
        n_classes = len(self.classes_)
        classes_per_batch = min(n_classes, self.classes_per_batch or 10)
        margin = self.distancing_margin
        return NetworkPlan(
            epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            augmentation=resolve_augmentation(self.augmentation, self.input_shape_),
            dtype=resolve_precision(self.precision, device),
            verbose=self.verbose,
            classes_per_batch=classes_per_batch,
            samples_per_class=self.samples_per_class,
            triplet_margin=self.triplet_margin,
            distancing_margin=self.latent_dim if margin is None else margin,
            margin_warmup=self.margin_warmup,
            prior_variance=self.prior_variance,
            kl_weight=self.kl_weight,
            kl_warmup=self.kl_warmup,
            classification_weight=self.classification_weight,
            metric_weight=self.metric_weight,
            freeze_epochs=self.freeze_epochs,
        )

    def _autoencoder_plan(self, reconstruction: Reconstruction) -> AutoencoderPlan:
        return AutoencoderPlan(
            epochs=reconstruction.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            verbose=self.verbose,
            batch_size=128,
        )

    def _fit_gaussians(
        self, X: np.ndarray, labels: np.ndarray, workshop: Workshop
    ) -> None:
        kind = self.covariance_type, self.covariance_estimator, self.covariance_pooling

        def fit(stage: Stage) -> nn.ModuleDict:
            if stage.state is not None:
                return nn.ModuleDict(
                    {
                        block: ClassGaussians.from_state(state, self.covariance_type)
                        for block, state in stage.state.items()
                    }
                )
            gaussians = fit_gaussians(
                kept_for_another_pass(
                    lambda label: self._ensembles(X[labels == label])
                ),
                self.classes_.tolist(),
                *kind,
            )
            stage.keep({block: g.state_dict() for block, g in gaussians.items()})
            return nn.ModuleDict(gaussians)

        self.gaussians_ = workshop.fitted(
            "gaussians",
            fit,
            self.network_,
            getattr(self, "autoencoder_", None),
            X,
            labels,
            self.view_,
            *kind,
        )

    def _calibrate(self, X: np.ndarray, labels: np.ndarray) -> None:
        self.fit_positions_ = np.arange(len(self.classes_))
        measured = self._measure(X[self.split_.evidence])
        raw_of_training = None
        if len(measured.raw) < FEW_POINTS:
            some = self.split_.training[:: max(1, len(X) // TRAINING_POINTS)]
            raw_of_training = self._measure(X[some]).raw
        self.evidence_ = Evidence.fit(self.view_.names, measured.raw, raw_of_training)
        reconstruction = self._reconstruction()
        if reconstruction is not None and reconstruction.weighting == "paper":
            self.weight_calibration_ = WeightCalibration.fit(
                measured.log_likelihood, measured.weight
            )
        rows = self.split_.threshold
        self.__dict__.update(self._held_out_scores(X[rows], labels[rows]))
        # Warns of too few points now, not at the first prediction.
        self._warn_of_few_held_out()

    def _threshold(self) -> float:
        if self.threshold is not None:
            return float(self.threshold)
        return conformal_threshold(self.calibration_scores_, self.contamination)

    @property
    def offset_(self) -> float:
        """Threshold on the scores, from `threshold` or `contamination` as they are now.

        Both may be changed on a fitted detector by `set_params`: the net, the Gaussians
        and the held-out scores do not depend on them.
        """
        self._check_thresholds()
        return self._threshold()

    def _check_thresholds(self) -> None:
        """Check the parameters that may have been changed since `fit`."""
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in THRESHOLDS},
            {name: getattr(self, name) for name in THRESHOLDS},
            type(self).__name__,
        )

    def fit_predict(self, X: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Fit, then predict the same points.

        The threshold comes from held-out points, but most of X is training data,
        which every detector accepts more readily than new points.

        Parameters
        ----------
        X : array-like
            As for :meth:`fit`.
        y : array-like of shape (n,)
            As for :meth:`fit`; scikit-learn's own outlier detectors ignore it.

        Returns
        -------
        labels : ndarray of shape (n,)
            As of :meth:`predict`.
        """
        return self.fit(X, y).predict(X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Label each point with a known class, or as unknown.

        Parameters
        ----------
        X : array-like
            Of the shape seen in :meth:`fit`, but for the number of rows.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``, or ``-1``. For string labels unknown is the string
            ``"-1"``; for boolean ones the answers are the integers 0, 1 and -1. With
            ``guarantee="class"`` the class of the largest of :meth:`p_values`, if it
            is not excluded.
        """
        X = self._check_new(X)
        if self._promises_by_class():
            positions = self._least_excluded(X)
        else:
            measured = self._measure(X)
            accepted = self._scores(measured) >= self.offset_
            positions = np.where(accepted, measured.most_likely, len(self.classes_))
        return labels_with_unknown(self.classes_)[positions]

    def predict_known(self, X: ArrayLike) -> np.ndarray:
        """Label each point with the most likely known class, never rejecting.

        It is the class of the head's largest logit; without a head
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

    def score_samples(self, X: ArrayLike) -> np.ndarray:
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

    def evidence(self, X: ArrayLike) -> np.ndarray:
        """How usual each part of a point looks, in common units.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        evidence : ndarray of shape (n, n_parts), float64
            Columns as in ``evidence_names_``: 0 at the median of held-out known points,
            -1 at the end of their usual range (exceeded downwards by 5 % of them).
            Their sum, weighted by ``evidence_.weights``, is :meth:`score_samples`
            (but for ``weighting="paper"``).
        """
        return self.evidence_.standardize(self._measure(self._check_new(X)).raw)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
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
        if self._promises_by_class():
            return self._margins(self._check_new(X))
        return self.score_samples(X) - self.offset_

    def class_log_likelihood(self, X: ArrayLike) -> np.ndarray:
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
        """
        return self._measure_features(self._check_new(X)).class_log_likelihood

    def p_value(self, X: ArrayLike) -> np.ndarray:
        """Conformal p-value of "this point is of a known class".

        For new known points it is at most ``a`` with a chance of at most ``a``,
        whatever the net and the data, as long as they come as the training data came.

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
        scores = self.score_samples(X)
        return conformal_p_value(self.calibration_scores_, scores)

    def transform(self, X: ArrayLike) -> np.ndarray:
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
        batches = ensembles(self.network_, self._batches(self._check_new(X)))
        return np.concatenate(
            [np.hstack([parts[name] for name in self.features_]) for parts in batches]
        )

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> np.ndarray:
        """Names of the columns that :meth:`transform` returns.

        Parameters
        ----------
        input_features : ignored
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

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
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

    def _check_new(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        X = check_inputs(self, X, self.input_shape_)
        self.standardizer_.warn_of_other_units(X)
        return X

    def _batches(self, X: np.ndarray) -> Iterator[Tensor]:
        device, dtype = self._placed()
        return self.standardizer_.batches(X, self.batch_size, device, dtype)

    def _placed(self) -> tuple[torch.device, torch.dtype]:
        """Bring the nets to where they score; they may have been loaded elsewhere."""
        device, dtype = scoring_placement(
            resolve_device(self.device), is_table=len(self.input_shape_) == 1
        )
        for net in self._nets():
            place(net, device, dtype)
        if hasattr(self, "gaussians_"):
            place(self.gaussians_, float64_device(device), torch.float64)
        return device, dtype

    def _nets(self) -> list[nn.Module]:
        nets = (getattr(self, name, None) for name in ("network_", "autoencoder_"))
        return [net for net in nets if net is not None]

    def _ensembles(self, X: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        return block_features(
            self.network_,
            getattr(self, "autoencoder_", None),
            self._batches(X),
            self.view_,
        )

    def _measure(self, X: np.ndarray, by_class: bool = False) -> Measured:
        autoencoder = getattr(self, "autoencoder_", None)
        score = self._score if by_class or self._has_added_classes() else None
        return self._measure_as(self.view_, autoencoder, X, score)

    def _measure_features(self, X: np.ndarray) -> Measured:
        """Measure without the autoencoder, where only likelihoods are asked for."""
        if (
            self._has_added_classes()
        ):  # between them and the others all evidence decides
            return self._measure(X)
        return self._measure_as(replace(self.view_, residual=False), None, X)

    def _measure_as(
        self,
        view: View,
        autoencoder: nn.Module | None,
        X: np.ndarray,
        score: Score | None = None,
    ) -> Measured:
        gaussians: Any = self.gaussians_
        evidence = getattr(self, "evidence_", None)
        typical_logit = evidence.typical_logit if evidence else 0.0
        known = KnownClasses(self.fit_positions_, typical_logit)
        batches = self._batches(X)
        return measure(
            self.network_, gaussians, autoencoder, batches, len(X), view, known, score
        )

    def _scores(self, measured: Measured) -> np.ndarray:
        return self._score(measured.raw, measured.log_likelihood, measured.weight)

    def _score(
        self, raw: np.ndarray, log_likelihood: np.ndarray, weight: np.ndarray
    ) -> np.ndarray:
        """Score points, or points under several classes (see `scoring.Score`)."""
        if hasattr(self, "weight_calibration_"):
            return self.weight_calibration_.apply(log_likelihood, weight)
        return self.evidence_.total(raw)

    def __getstate__(self) -> dict[str, Any]:
        # What was fitted on an accelerator must load where there is none.
        state = super().__getstate__()
        return {
            name: deepcopy(value).cpu()
            if _is_fitted(name) and isinstance(value, nn.Module)
            else value
            for name, value in state.items()
        }

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags


@documented
@with_parameters
class VMDLSbDetector(BaseDetector):
    """Open-set classifier without the reconstruction weight (VMDLS_b).

    It answers with the most likely known class where the log-likelihood of the
    feature ensemble passes a threshold, and with ``-1`` elsewhere [1]_. It is
    :class:`VMDLSDetector` less the autoencoder, and so trains and scores faster.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    VMDLSDetector : The same with the reconstruction weight.

    References
    ----------
    {references}

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSbDetector(max_epochs=10, random_state=0)
    >>> detector.fit(digits.X_train, digits.y_train).predict(digits.X_test).shape
    (1422,)
    """


@documented
@with_parameters
class VMDLSDetector(BaseDetector):
    """Open-set classifier: one of the known labels, or ``-1`` for "never seen".

    A net is trained whose latent space is class-conditional and variational, shaped
    by triplet, distancing and KL losses. Each class gets a Gaussian over an ensemble
    of features from several depths of the net. A new point is scored by the
    log-likelihood of its most likely class, weighted by how badly an autoencoder of
    the known data reconstructs it, and is accepted where the score passes a threshold
    [1]_. The threshold comes from held-out known data and carries a guarantee: a new
    known point is rejected with a chance of at most `contamination`. No
    out-of-distribution data is used anywhere.

    Parameters
    ----------
    {parameters}
    autoencoder : str or callable, default="auto"
        A name in :mod:`skvmdls.autoencoder` or a factory ``factory(input_shape) ->
        nn.Module`` of a net whose output has the shape of its input. ``"auto"`` is
        ``"mlp"`` for tables and ``"cnn"`` for images.
    autoencoder_epochs : int, default=5
        Passes over the training data in training the autoencoder. Trained for too
        long, it reconstructs unknown points as well as known ones.
    weighting : {"evidence", "paper"}, default="evidence"
        What becomes of the reconstruction. ``"evidence"``: the residual at the first
        tap is one more part of the evidence. ``"paper"``: weight and log-likelihood
        are multiplied, with a shift and a scale from held-out data
        (see :class:`skvmdls.calibration.WeightCalibration`).

    Attributes
    ----------
    {attributes}
    autoencoder_ : nn.Module
        The trained autoencoder.
    autoencoder_history_ : dict of str to list of float
        ``loss`` and ``learning_rate`` of each epoch of the autoencoder.
    weight_calibration_ : WeightCalibration
        The weight's constants, with ``weighting="paper"``.

    See Also
    --------
    VMDLSbDetector : The same without the reconstruction weight.

    References
    ----------
    {references}

    Examples
    --------
    >>> from skvmdls import VMDLSDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSDetector(max_epochs=10, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> answers = detector.predict(digits.X_test)
    >>> sorted(set(answers.tolist()))
    [-1, 0, 1, 2]
    """

    autoencoder: str | BackboneFactory = parameter("auto", str, callable)
    autoencoder_epochs: int = parameter(5, Interval(Integral, 1, None, closed="left"))
    weighting: str = parameter("evidence", StrOptions({"evidence", "paper"}))

    def _reconstruction(self) -> Reconstruction:
        return Reconstruction(self.autoencoder, self.autoencoder_epochs, self.weighting)

    def reconstruct(self, X: ArrayLike) -> np.ndarray:
        """Reconstruct each point by the autoencoder.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        reconstructions : ndarray of shape (n, features) or (n, channels, height, \
width), float64
            In the units of X; of uint8 images, in [0, 1] units (divided by 255).
        """
        X = self._check_new(X)
        return self.standardizer_.inverse_transform(
            reconstructions(self.autoencoder_, self._batches(X))
        )

    def reconstruction_weight(self, X: ArrayLike) -> np.ndarray:
        """Distance between each point and its reconstruction at the first tap.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        weights : ndarray of shape (n,), float64
            ``w(x) = ||t1(x) - t1(x_hat)||^2``, non-negative; large where the
            autoencoder has not learned to reconstruct.
        """
        return self._measure(self._check_new(X)).weight


def _is_fitted(attribute: str) -> bool:
    """Whether a name is, by scikit-learn's convention, that of something learned."""
    return attribute.endswith("_") and not attribute.startswith("_")
