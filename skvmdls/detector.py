"""The two estimators: what `fit` and `predict` do, step by step."""

import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin
from sklearn.utils import Tags, check_consistent_length, check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skvmdls._caching import remembered, remembered_training
from skvmdls._checkpoints import Checkpoint
from skvmdls._devices import (
    fits_on,
    float64_device,
    place,
    resolve_device,
    resolve_precision,
    scoring_placement,
)
from skvmdls._docstrings import documented
from skvmdls._labels import as_labels
from skvmdls._torch_state import under_ordinary_torch
from skvmdls._validation import group_ids, plain
from skvmdls.augmentation import resolve_augmentation
from skvmdls.autoencoder import AUTOENCODERS
from skvmdls.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.calibration import (
    HeldOut,
    WeightCalibration,
    conformal_p_value,
    conformal_threshold,
    hold_out,
    warn_of_small_classes,
)
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
from skvmdls.network import (
    ENSEMBLE_PARTS,
    build_autoencoder,
    build_network,
)
from skvmdls.scoring import Measured, ensembles, measure, reconstructions
from skvmdls.training import (
    AutoencoderPlan,
    History,
    NetworkPlan,
    seeded,
    train_autoencoder,
    train_network,
)

# Parameters that do not touch the nets or the Gaussians.
FREE_TO_CHANGE = (
    "checkpoint",
    "contamination",
    "memory",
    "threshold",
    "verbose",
    "weighting",
)


@documented
class VMDLSbDetector(TransformerMixin, OutlierMixin, BaseEstimator):
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, callable],
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "triplet_margin": [Interval(Real, 0, None, closed="left")],
        "distancing_margin": [Interval(Real, 0, None, closed="left"), None],
        "margin_warmup": [Interval(Real, 0, 1, closed="both")],
        "kl_warmup": [Interval(Real, 0, 1, closed="both")],
        "prior_variance": [Interval(Real, 0, None, closed="neither")],
        "kl_weight": [Interval(Real, 0, None, closed="left")],
        "features": ["array-like"],
        "covariance_type": [StrOptions({"full", "tied", "diag"})],
        "covariance_estimator": [HasMethods("fit"), None],
        "covariance_pooling": [Interval(Real, 0, 1, closed="both")],
        "contamination": [Interval(Real, 0, 0.5, closed="right"), Options(Real, {0})],
        "threshold": [Interval(Real, None, None, closed="neither"), None],
        "calibration_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "classes_per_batch": [Interval(Integral, 2, None, closed="left"), None],
        "samples_per_class": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "augmentation": [str, callable, None],
        "freeze_epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "memory": [str, os.PathLike, HasMethods("cache"), None],
        "checkpoint": [str, os.PathLike, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    # Share of the held-out data that sets the reconstruction weight's constants.
    _weight_share: ClassVar[float] = 0.0

    def __init__(
        self,
        backbone: str | BackboneFactory = "auto",
        *,
        latent_dim: int = 32,
        triplet_margin: float = 0.1,
        distancing_margin: float | None = None,
        margin_warmup: float = 0.5,
        kl_warmup: float = 0.5,
        prior_variance: float = 0.1,
        kl_weight: float = 0.1,
        features: tuple[str, ...] = ENSEMBLE_PARTS,
        covariance_type: str = "full",
        covariance_estimator: Any = None,
        covariance_pooling: float = 0.05,
        contamination: float = 0.05,
        threshold: float | None = None,
        calibration_fraction: float = 0.1,
        classes_per_batch: int | None = None,
        samples_per_class: int = 16,
        max_epochs: int = 20,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        augmentation: str | Callable[[Tensor], Tensor] | None = None,
        freeze_epochs: int = 0,
        batch_size: int = 256,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.backbone = backbone
        self.latent_dim = latent_dim
        self.triplet_margin = triplet_margin
        self.distancing_margin = distancing_margin
        self.margin_warmup = margin_warmup
        self.kl_warmup = kl_warmup
        self.prior_variance = prior_variance
        self.kl_weight = kl_weight
        self.features = features
        self.covariance_type = covariance_type
        self.covariance_estimator = covariance_estimator
        self.covariance_pooling = covariance_pooling
        self.contamination = contamination
        self.threshold = threshold
        self.calibration_fraction = calibration_fraction
        self.classes_per_batch = classes_per_batch
        self.samples_per_class = samples_per_class
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.augmentation = augmentation
        self.freeze_epochs = freeze_epochs
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.memory = memory
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.random_state = random_state

    @under_ordinary_torch
    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> "VMDLSbDetector":
        """Train on labelled data of the known classes.

        If anything goes wrong, what an earlier `fit` learned is kept.

        Parameters
        ----------
        X : array-like of shape (n, features), (n, height, width) or \
                (n, channels, height, width)
            Floats, or uint8 images (scaled by 255).
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
        attempt = object.__new__(type(self))
        given = {n: value for n, value in vars(self).items() if not _is_fitted(n)}
        attempt.__dict__.update({name: plain(value) for name, value in given.items()})
        attempt._fit(X, y, groups)
        self.__dict__ = attempt.__dict__ | given
        return self

    def _fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None) -> None:
        self._validate_params()
        self._check_features()
        check_covariance_estimator(self.covariance_estimator, self.covariance_type)
        X, labels = self._check_training_data(X, y)
        device = resolve_device(self.device)
        together = group_ids(X, groups)
        ingredients = self._ingredients(X, labels, device) | {"groups": together}
        checkpoint = Checkpoint(self.checkpoint, ingredients)
        rng = check_random_state(checkpoint.seed(self.random_state))
        shares = self.calibration_fraction, self._weight_share
        parts = hold_out(labels, *shares, rng, together)
        warn_of_small_classes(self.classes_, labels, together)
        X_train, y_train = X[parts.training], labels[parts.training]
        check_class_sizes(np.bincount(y_train), self.covariance_type)
        self.standardizer_ = Standardizer().fit(X_train)
        inputs = self.standardizer_.transform(X_train)
        targets = torch.from_numpy(y_train)
        if fits_on(inputs, device):
            inputs, targets = inputs.to(device), targets.to(device)
        with checkpoint.named_if_interrupted():
            self._train(inputs, targets, device, rng, checkpoint)
            self._fit_gaussians(X_train, y_train, checkpoint)
        self._calibrate(X, parts)

    def _ingredients(
        self, X: np.ndarray, labels: np.ndarray, device: torch.device
    ) -> dict[str, Any]:
        """By name, all that decides the nets and Gaussians."""
        parameters = self.get_params(deep=False)
        for name in FREE_TO_CHANGE:
            parameters.pop(name, None)
        y = self.classes_[labels]
        return parameters | {"X": X, "y": y, "device": device.type}

    def _check_features(self) -> None:
        chosen = list(self.features)
        is_part = [isinstance(name, str) and name in ENSEMBLE_PARTS for name in chosen]
        if not chosen or not all(is_part) or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"features={self.features!r} must name parts of the ensemble, each "
                f"once: some of {ENSEMBLE_PARTS}."
            )
        # The Gaussians are of these parts, whatever the parameter says later.
        self.features_ = tuple(map(str, chosen))

    def _check_training_data(
        self, X: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None."
            )
        X = check_inputs(self, X, input_shape=None)
        y = as_labels(y)
        check_consistent_length(X, y)
        self.classes_, labels = check_labels(y)
        self.input_shape_ = X.shape[1:]
        return X, labels

    def _train(
        self,
        inputs: Tensor,
        labels: Tensor,
        device: torch.device,
        rng: np.random.RandomState,
        checkpoint: Checkpoint,
    ) -> None:
        factory = resolve_factory(
            self.backbone, BACKBONES, self.input_shape_, "backbone"
        )
        plan = self._network_plan(device)
        seed = rng.randint(np.iinfo(np.int32).max)
        stage = checkpoint.stage("network")
        with seeded(seed, device):
            network = build_network(factory, self.input_shape_, self.latent_dim)

            def train() -> History:
                return train_network(
                    network.to(device), inputs, labels, plan, seed, stage
                )

            ingredients = inputs, labels, replace(plan, verbose=0), seed, device.type
            self.history_ = remembered_training(
                self.memory, "network", network, train, *ingredients
            )
            self.network_ = network

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
            freeze_epochs=self.freeze_epochs,
        )

    def _fit_gaussians(
        self, X: np.ndarray, labels: np.ndarray, checkpoint: Checkpoint
    ) -> None:
        stage = checkpoint.stage("gaussians")
        kind = self.covariance_type, self.covariance_estimator, self.covariance_pooling

        def fit() -> ClassGaussians:
            if stage.state is not None:
                return ClassGaussians.from_state(stage.state, self.covariance_type)
            gaussians = fit_gaussians(
                kept_for_another_pass(
                    lambda label: self._ensembles(X[labels == label])
                ),
                self.classes_.tolist(),
                *kind,
            )
            stage.keep(gaussians.state_dict())
            return gaussians

        self.gaussians_ = remembered(
            self.memory,
            "gaussians",
            fit,
            self.network_,
            X,
            labels,
            self.features_,
            *kind,
        )

    def _calibrate(self, X: np.ndarray, parts: HeldOut) -> None:
        measured = self._measure(X[parts.threshold])
        self.calibration_scores_ = self._scores(measured)
        # Warns of too few points now, not at the first prediction.
        self._threshold()

    def _threshold(self) -> float:
        if self.threshold is not None:
            return float(self.threshold)
        return conformal_threshold(self.calibration_scores_, plain(self.contamination))

    @property
    def offset_(self) -> float:
        """Threshold on the scores, from `threshold` or `contamination` as they are now.

        Both may be changed on a fitted detector by `set_params`: the net, the Gaussians
        and the held-out scores do not depend on them.
        """
        names = ("threshold", "contamination")
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in names},
            {name: getattr(self, name) for name in names},
            type(self).__name__,
        )
        return self._threshold()

    def fit_predict(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
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
            ``"-1"``; for boolean ones the answers are the integers 0, 1 and -1.
        """
        measured = self._measure(self._check_new(X))
        accepted = self._scores(measured) >= self.offset_
        answers = labels_with_unknown(self.classes_)
        return answers[np.where(accepted, measured.most_likely, len(self.classes_))]

    def predict_known(self, X: ArrayLike) -> np.ndarray:
        """Label each point with the most likely known class, never rejecting.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``.
        """
        likelihood = self.class_log_likelihood(X)
        return self.classes_[likelihood.argmax(axis=1)]

    @under_ordinary_torch
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
            Higher is more in-distribution: the log-likelihood (in nats) of the most
            likely class, weighted if the detector has a weight.
        """
        return self._scores(self._measure(self._check_new(X)))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Score relative to the threshold.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        decision : ndarray of shape (n,), float64
            ``score_samples(X) - offset_``; non-negative where the point is accepted.
        """
        return self.score_samples(X) - self.offset_

    @under_ordinary_torch
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
            Not weighted.
        """
        return self._measure_with(None, self._check_new(X)).class_log_likelihood

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

    @under_ordinary_torch
    def transform(self, X: ArrayLike) -> np.ndarray:
        """Feature ensemble ``t(x)`` of each point.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        ensemble : ndarray of shape (n, D)
            The parts named in `features_`, in that order. float32 for images, float64
            for tables.
        """
        return np.concatenate(list(self._ensembles(self._check_new(X))))

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
        sizes = self.network_.ensemble_sizes
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
        return self.standardizer_.batches(X, plain(self.batch_size), device, dtype)

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
        return [self.network_]

    def _ensembles(self, X: np.ndarray) -> Iterator[np.ndarray]:
        return ensembles(self.network_, self._batches(X), self.features_)

    def _measure(self, X: np.ndarray) -> Measured:
        return self._measure_with(None, X)

    def _measure_with(self, autoencoder: nn.Module | None, X: np.ndarray) -> Measured:
        return measure(
            self.network_,
            self.gaussians_,
            autoencoder,
            self._batches(X),
            len(X),
            self.features_,
        )

    def _scores(self, measured: Measured) -> np.ndarray:
        return measured.log_likelihood

    @under_ordinary_torch
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
class VMDLSDetector(VMDLSbDetector):
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
    autoencoder_epochs : int, default=10
        Passes over the training data in training the autoencoder. Trained for too
        long, it reconstructs unknown points as well as known ones.
    weighting : {"calibrated", "paper"}, default="calibrated"
        How weight and log-likelihood join. ``"calibrated"``: the ordinary range of
        weights of known points counts nothing. ``"paper"``: the plain product, with a
        shift and a scale from held-out data
        (see :class:`skvmdls.calibration.WeightCalibration`).

    Attributes
    ----------
    {attributes}
    autoencoder_ : nn.Module
        The trained autoencoder.
    autoencoder_history_ : dict of str to list of float
        ``loss`` and ``learning_rate`` of each of its epochs
        (see :func:`skvmdls.training.train_autoencoder`).
    weight_calibration_ : WeightCalibration
        The weight's constants.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **VMDLSbDetector._parameter_constraints,
        "autoencoder": [str, callable],
        "autoencoder_epochs": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"calibrated", "paper"})],
    }

    _weight_share: ClassVar[float] = 0.25

    def __init__(
        self,
        backbone: str | BackboneFactory = "auto",
        *,
        latent_dim: int = 32,
        triplet_margin: float = 0.1,
        distancing_margin: float | None = None,
        margin_warmup: float = 0.5,
        kl_warmup: float = 0.5,
        prior_variance: float = 0.1,
        kl_weight: float = 0.1,
        features: tuple[str, ...] = ENSEMBLE_PARTS,
        covariance_type: str = "full",
        covariance_estimator: Any = None,
        covariance_pooling: float = 0.05,
        contamination: float = 0.05,
        threshold: float | None = None,
        calibration_fraction: float = 0.1,
        classes_per_batch: int | None = None,
        samples_per_class: int = 16,
        max_epochs: int = 20,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        augmentation: str | Callable[[Tensor], Tensor] | None = None,
        freeze_epochs: int = 0,
        autoencoder: str | BackboneFactory = "auto",
        autoencoder_epochs: int = 10,
        weighting: str = "calibrated",
        batch_size: int = 256,
        device: str | torch.device = "auto",
        precision: str = "auto",
        memory: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            backbone,
            latent_dim=latent_dim,
            triplet_margin=triplet_margin,
            distancing_margin=distancing_margin,
            margin_warmup=margin_warmup,
            kl_warmup=kl_warmup,
            prior_variance=prior_variance,
            kl_weight=kl_weight,
            features=features,
            covariance_type=covariance_type,
            covariance_estimator=covariance_estimator,
            covariance_pooling=covariance_pooling,
            contamination=contamination,
            threshold=threshold,
            calibration_fraction=calibration_fraction,
            classes_per_batch=classes_per_batch,
            samples_per_class=samples_per_class,
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            augmentation=augmentation,
            freeze_epochs=freeze_epochs,
            batch_size=batch_size,
            device=device,
            precision=precision,
            memory=memory,
            checkpoint=checkpoint,
            verbose=verbose,
            random_state=random_state,
        )
        self.autoencoder = autoencoder
        self.autoencoder_epochs = autoencoder_epochs
        self.weighting = weighting

    @under_ordinary_torch
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

    @under_ordinary_torch
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

    def _train(
        self,
        inputs: Tensor,
        labels: Tensor,
        device: torch.device,
        rng: np.random.RandomState,
        checkpoint: Checkpoint,
    ) -> None:
        factory = resolve_factory(
            self.autoencoder, AUTOENCODERS, self.input_shape_, "autoencoder"
        )
        super()._train(inputs, labels, device, rng, checkpoint)
        plan = self._autoencoder_plan()
        seed = rng.randint(np.iinfo(np.int32).max)
        stage = checkpoint.stage("autoencoder")
        with seeded(seed, device):
            autoencoder = build_autoencoder(factory, self.input_shape_)

            def train() -> History:
                return train_autoencoder(
                    autoencoder.to(device), inputs, plan, seed, stage
                )

            ingredients = inputs, replace(plan, verbose=0), seed, device.type
            self.autoencoder_history_ = remembered_training(
                self.memory, "autoencoder", autoencoder, train, *ingredients
            )
            self.autoencoder_ = autoencoder

    def _autoencoder_plan(self) -> AutoencoderPlan:
        return AutoencoderPlan(
            epochs=self.autoencoder_epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            verbose=self.verbose,
            batch_size=128,
        )

    def _calibrate(self, X: np.ndarray, parts: HeldOut) -> None:
        measured = self._measure(X[parts.weight])
        self.weight_calibration_ = WeightCalibration.fit(
            measured.log_likelihood, measured.weight, self.weighting
        )
        super()._calibrate(X, parts)

    def _nets(self) -> list[nn.Module]:
        return [self.network_, self.autoencoder_]

    def _measure(self, X: np.ndarray) -> Measured:
        return self._measure_with(self.autoencoder_, X)

    def _scores(self, measured: Measured) -> np.ndarray:
        return self.weight_calibration_.apply(measured.log_likelihood, measured.weight)


def _is_fitted(attribute: str) -> bool:
    """Whether a name is, by scikit-learn's convention, that of something learned."""
    return attribute.endswith("_") and not attribute.startswith("_")
