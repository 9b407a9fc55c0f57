"""What a fitted detector does after `predict`: promises, explanations, new classes."""

from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skvmdls._support.sklearn import validate_parameter_constraints
from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import InputLike, plain, warn
from skvmdls.calibration.conformal import (
    class_p_values,
    class_thresholds,
    conformal_p_value,
    conformal_threshold,
    discoveries,
    warn_of_classes_never_excluded,
)
from skvmdls.calibration.hold_out import HeldOut, hold_out
from skvmdls.detector.class_changes import (
    check_dropped,
    check_has_gaussians,
    check_new_labels,
    rearranged,
)
from skvmdls.detector.measuring import Measuring
from skvmdls.explanation import column_contributions, nearest_classes
from skvmdls.inputs.groups import group_ids
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.inputs.rows import Rows
from skvmdls.scoring.decisions import Measured
from skvmdls.scoring.evidence import INPUT
from skvmdls.scoring.expected_images import (
    N_IMAGES,
    ExpectedImages,
    class_means,
    grid_of,
    in_grid,
)
from skvmdls.scoring.features import block_features
from skvmdls.scoring.gaussians import fit_gaussians, kept_for_another_pass

__all__ = ["OpenWorld"]

# What held-out points decide; the last two hold positions of classes.
HELD_OUT = (
    "calibration_scores_",
    "calibration_class_scores_",
    "calibration_labels_",
    "calibration_winners_",
)

# What may be changed on a fitted detector.
THRESHOLDS = ("threshold", "contamination", "guarantee")

# A new class is too close to a known one that more than half of its rows are taken for,
# within the range of 95 % of the known points.
CLOSE_SHARE, CLOSE_P_VALUE = 0.5, 0.05


class OpenWorld(Measuring):
    """Mixin of the detectors: all that needs no training."""

    classes_: np.ndarray
    calibration_scores_: np.ndarray
    calibration_class_scores_: np.ndarray
    calibration_labels_: np.ndarray
    calibration_winners_: np.ndarray
    expected_images_: ExpectedImages
    split_: HeldOut
    guarantee: Literal["marginal", "class"]
    contamination: float
    threshold: float | None
    calibration_fraction: float
    covariance_pooling: float
    random_state: Any

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    # ------------------------------------------------------------ promises

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
        self._check_thresholds()
        return self._threshold()

    def _check_thresholds(self) -> None:
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in THRESHOLDS},
            {name: getattr(self, name) for name in THRESHOLDS},
            type(self).__name__,
        )

    @under_ordinary_torch
    def p_value(self, X: InputLike) -> np.ndarray:
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
        scores = self._scores(self._measure(self._check_new(X)))
        return conformal_p_value(self.calibration_scores_, scores)

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
        scores = self._class_scores(X)
        return class_p_values(*self._calibration, scores)

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
        scores = self._class_scores(X)
        return scores >= self._class_thresholds()

    @under_ordinary_torch
    def select_unknown(self, X: InputLike, fdr: float = 0.05) -> np.ndarray:
        """Call points of a batch unknown, with few false alarms among them.

        `predict` bounds how many of the known points are rejected. This bounds how
        many of the rejected points are known: if the known points of the batch come as
        the training data came (they and the held-out points are exchangeable), the
        expected share of known points among those selected is at most `fdr`. The
        threshold follows from the batch, by the rule of Benjamini and Hochberg on the
        conformal p-values, which depend on each other in the way that it allows [1]_.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`; the batch to select from.
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
        n = len(self.calibration_scores_)
        if (n + 1) * fdr < 1 - 1e-9:
            warn(
                f"{n} held-out points are too few for fdr={fdr}: at least "
                f"{int(np.ceil(1 / fdr - 1 - 1e-9))} are needed, so no point will be "
                "selected. Give more training data, or raise calibration_fraction or "
                "fdr."
            )
        return discoveries(p_values, float(fdr))

    @property
    def _calibration(self) -> tuple[np.ndarray, np.ndarray]:
        return self.calibration_class_scores_, self.calibration_labels_

    def _promises_by_class(self) -> bool:
        self._check_thresholds()
        return self.guarantee == "class" and self.threshold is None

    def _class_scores(self, X: InputLike) -> np.ndarray:
        return self._measure(self._check_new(X), by_class=True).class_scores

    def _class_thresholds(self) -> np.ndarray:
        self._check_thresholds()
        warn_of_classes_never_excluded(
            self.classes_, self.calibration_labels_, plain(self.contamination)
        )
        n_classes, contamination = len(self.classes_), plain(self.contamination)
        return class_thresholds(*self._calibration, n_classes, contamination)

    def _judged(self, measured: Measured) -> tuple[np.ndarray, np.ndarray]:
        """Label each point, or call it unknown, and say by how much, each (n,).

        With a promise by class the margin is that of the class that is excluded least.
        """
        if self._promises_by_class():
            scores, thresholds = measured.class_scores, self._class_thresholds()
            margins = (scores - thresholds).max(axis=1)
            positions = self._least_excluded(scores, thresholds)
        else:
            total, threshold = self._scores(measured), self.offset_
            margins, unknown = total - threshold, len(self.classes_)
            positions = np.where(total >= threshold, measured.most_likely, unknown)
        return labels_with_unknown(self.classes_)[positions], margins

    def _least_excluded(self, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Position of the largest p-value that is not excluded; else ``n_classes``."""
        is_possible = scores >= thresholds
        p_values = np.where(is_possible, class_p_values(*self._calibration, scores), -1)
        # p-values are coarse: of equal ones, the higher score decides.
        is_largest = p_values == p_values.max(axis=1, keepdims=True)
        best = np.where(is_largest, scores, -np.inf).argmax(axis=1)
        return np.where(is_possible.any(axis=1), best, len(self.classes_))

    def _held_out_scores(self, X: Rows, labels: np.ndarray) -> dict[str, Any]:
        """Attributes that held-out rows, of classes given by position, decide."""
        measured = self._measure(X, by_class=True)
        winners = measured.winners
        if hasattr(self, "weight_calibration_"):
            winners = measured.class_log_likelihood.argmax(axis=1)[:, None]
        own_scores = measured.class_scores[np.arange(len(labels)), labels]
        found = (self._scores(measured), own_scores, labels, winners)
        return dict(zip(HELD_OUT, found, strict=True))

    def _warn_of_few_held_out(self) -> None:
        if self._promises_by_class():
            self._class_thresholds()
        else:
            self._threshold()

    # ------------------------------------------------------------ explanations

    @under_ordinary_torch
    def explain(self, X: InputLike) -> Bunch:
        """Say why points score as they do, rejected or not.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

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
                :meth:`predict_known`, then by the score under each. ``-1`` where there
                are no more classes.
            contributions : ndarray of shape (n, n_features)
                For tables with the part ``"x"``: which columns made the row strange, in
                nats, the most negative ones most. They sum to the part's score less its
                typical value, which is that column of `evidence` times
                ``evidence_.spread``; far out, where the scale of `evidence` is
                logarithmic, they shrink alike (see
                :func:`skvmdls.explanation.column_contributions`).
            residual_map : ndarray of shape (n, height, width)
                For images: how far each place is from a reconstruction by the mean
                image and the main variations of the class in `nearest` that comes
                first, smoothed, in standard deviations of the input (see
                :class:`skvmdls.explanation.ExpectedImages`).
        """
        rows = self._check_new(X)
        measured = self._measure(rows, by_class=True)
        nearest = nearest_classes(measured.class_scores, measured.most_likely)
        labels, margins = self._judged(measured)
        explanation = Bunch(
            label=labels,
            margin=margins,
            p_value=conformal_p_value(self.calibration_scores_, self._scores(measured)),
            evidence=self.evidence_.standardize(measured.raw),
            nearest=labels_with_unknown(self.classes_)[nearest],
        )
        if INPUT in self.evidence_.names:
            explanation.contributions = self._column_contributions(
                rows, measured, explanation.evidence
            )
        if hasattr(self, "expected_images_"):
            explanation.residual_map = self._residual_map(rows, measured.most_likely)
        return explanation

    @torch.inference_mode()
    def _column_contributions(
        self, X: Rows, measured: Measured, evidence: np.ndarray
    ) -> np.ndarray:
        part = self.evidence_.names.index(INPUT)
        excess = torch.from_numpy(measured.raw[:, part] - self.evidence_.typical[part])
        in_spreads = self.evidence_.in_spreads(measured.raw)[:, part]
        kept = np.divide(
            evidence[:, part],
            in_spreads,
            out=np.ones_like(in_spreads),
            where=in_spreads != 0,
        )
        winners = torch.from_numpy(measured.winners[:, part])
        found = []
        for rows, x in self._batches_at(X):
            of_batch = column_contributions(
                self.gaussians_[INPUT], x, winners[rows].to(x.device), excess[rows]
            )
            found.append(of_batch.cpu().numpy())
        return np.concatenate(found) * kept[:, None]

    def _residual_map(self, X: Rows, classes: np.ndarray) -> np.ndarray:
        found = [
            self.expected_images_.residual_map(x, torch.from_numpy(classes[rows]))
            for rows, x in self._batches_at(X)
        ]
        return torch.cat(found).numpy()

    def _expected_images(self, X: Rows, labels: np.ndarray) -> ExpectedImages:
        """Learn from as many training images as are enough, of each class as many."""
        n_each = -(-N_IMAGES // len(self.classes_))
        training = self.split_.training
        some = [training[labels[training] == c] for c in range(len(self.classes_))]
        rows = np.concatenate([of_c[:: -(-len(of_c) // n_each)] for of_c in some])
        return ExpectedImages.fit(self._in_grid(X.take(rows)), labels[rows])

    def _in_grid(self, X: Rows) -> Tensor:
        shape = (len(X), X.input_shape[0], *grid_of(X.input_shape))
        images = torch.empty(shape, dtype=torch.float64)
        for rows, x in self._batches_at(X):
            images[rows] = in_grid(x)
        return images

    def _batches_at(self, X: Rows) -> Iterator[tuple[slice, Tensor]]:
        """Standardised batches, each with the rows (k,) that it holds."""
        end = 0
        for x in self._batches(X):
            start, end = end, end + len(x)
            yield slice(start, end), x

    # ------------------------------------------------------------ new classes

    @under_ordinary_torch
    def add_classes(self, X: InputLike, y: ArrayLike) -> Self:
        """Learn new classes on the net as it is: no training, a matter of seconds.

        Each new class gets Gaussians of its own, and a part of its rows
        (`calibration_fraction`) is held out and joins the points that set the
        threshold. The net, the other classes' Gaussians and likelihoods, and the
        evidence's constants stay as they are. Of a new class only those parts of the
        evidence speak that training has not drawn together (``"x"``, ``"t2"``,
        ``"t3"``); under it the others go along with these, and the logit counts as
        typical. A point is given to it where the parts that speak are higher under it
        than with all classes of `fit` together, by a sixth of the usual range.

        The promise of `contamination` holds for known points that come in the
        proportions of all rows, those of `fit` and these; with ``guarantee="class"``,
        for each class. Held-out scores of old points are kept as they were, although a
        new class may raise some: the threshold is then a little low, never too high.

        If anything goes wrong, the detector is left unchanged. :meth:`fit` starts anew.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`: rows of new classes only.
        y : array-like of shape (n,)
            Their labels, of the type of ``classes_``; at least two rows each.

        Returns
        -------
        self : detector

        Raises
        ------
        ValueError
            If a label is known already (widening a class means fitting again), or X or
            y is unusable; the message says which and why.

        Warns
        -----
        UserWarning
            Naming the classes that are too close to a known one: more than half of
            their rows are accepted as that class. And as :meth:`fit` does.
        """
        rows = self._check_new(X)
        new, labels = check_new_labels(self.classes_, y)
        check_consistent_length(rows, labels)
        changed = self._with_classes(rows, new, labels)
        self._warn_of_close_classes(rows, new[labels])
        changed._warn_of_few_held_out()
        self.__dict__ = changed.__dict__
        return self

    def _with_classes(self, X: Rows, new: np.ndarray, labels: np.ndarray) -> Self:
        """Make a detector that knows new classes (k,) too, of labels in order (n,)."""
        check_has_gaussians(self.gaussians_)
        rng = check_random_state(self.random_state)
        fraction = plain(self.calibration_fraction)
        split = hold_out(labels, fraction, 0.0, rng, group_ids(X, None))
        X_train, y_train = X.take(split.training), labels[split.training]
        gaussians = fit_gaussians(
            kept_for_another_pass(
                lambda label: self._block_features(
                    X_train.take(np.flatnonzero(y_train == label))
                )
            ),
            new.tolist(),
            next(iter(self.gaussians_.values())).covariance_type,
            plain(self.covariance_pooling),
            self.gaussians_,
        )
        all_classes = np.concatenate([self.classes_.astype(new.dtype), new])
        order = np.argsort(all_classes, kind="stable")
        added = np.full(len(new), -1)
        position = np.argsort(order)  # of old and new classes, in the order to come
        changed = self._changed(
            classes_=all_classes[order],
            fit_positions_=np.concatenate([self.fit_positions_, added])[order],
            gaussians_=nn.ModuleDict(rearranged(self.gaussians_, order, gaussians)),
        )
        if hasattr(self, "expected_images_"):
            means = class_means(self._in_grid(X_train), y_train)
            changed.expected_images_ = self.expected_images_.rearranged(order, means)
        own = position[len(self.classes_) + labels[split.threshold]]
        found = changed._held_out_scores(X.take(split.threshold), own)
        before = {name: getattr(self, name) for name in HELD_OUT}
        before |= {name: position[before[name]] for name in HELD_OUT[2:]}
        changed.__dict__.update(
            {name: np.concatenate([before[name], found[name]]) for name in HELD_OUT}
        )
        return changed

    @under_ordinary_torch
    def drop_classes(self, labels: ArrayLike) -> Self:
        """Forget classes, of `fit` or of :meth:`add_classes`.

        Their Gaussians, logits and held-out points count no more; their points become
        unknown, as far as no other class explains them. The other classes' likelihoods
        do not change. Where a dropped class took part in the score of another class's
        held-out point, the score under its own class stands for it, which is lower: the
        threshold is never too high.

        Parameters
        ----------
        labels : array-like of shape (k,)
            Some of ``classes_``; at least two must stay.

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
        rows = stays[self.calibration_labels_]
        if not rows.any():
            raise ValueError(
                "The classes that would stay have no held-out points, so that there "
                "would be no threshold. Drop fewer classes, or fit again."
            )
        position = np.cumsum(stays) - 1
        own = self.calibration_labels_[rows]
        own_scores = self.calibration_class_scores_[rows]
        winners = self.calibration_winners_[rows]
        is_touched = ~stays[winners].all(axis=1)
        changed = self._changed(
            classes_=self.classes_[stays],
            fit_positions_=self.fit_positions_[stays],
            gaussians_=nn.ModuleDict(
                rearranged(self.gaussians_, np.flatnonzero(stays))
            ),
            calibration_scores_=np.where(
                is_touched, own_scores, self.calibration_scores_[rows]
            ),
            calibration_class_scores_=own_scores,
            calibration_labels_=position[own],
            calibration_winners_=position[
                np.where(is_touched[:, None], own[:, None], winners)
            ],
        )
        if hasattr(self, "expected_images_"):
            kept = self.expected_images_.rearranged(np.flatnonzero(stays))
            changed.expected_images_ = kept
        changed._warn_of_few_held_out()
        self.__dict__ = changed.__dict__
        return self

    def _block_features(self, X: Rows) -> Iterator[dict[str, np.ndarray]]:
        autoencoder = getattr(self, "autoencoder_", None)
        return block_features(self.network_, autoencoder, self._batches(X), self.view_)

    def _changed(self, **attributes: Any) -> Self:
        """Make a detector of the same nets with other attributes."""
        changed = object.__new__(type(self))
        changed.__dict__.update(vars(self) | attributes)
        return changed

    def _warn_of_close_classes(self, X: Rows, y: np.ndarray) -> None:
        measured = self._measure(X)
        scores = self._scores(measured)
        is_usual = conformal_p_value(self.calibration_scores_, scores) > CLOSE_P_VALUE
        close = []
        for label in np.unique(y).tolist():
            taken = measured.most_likely[is_usual & (y == label)]
            counts = np.bincount(taken, minlength=len(self.classes_))
            share = counts.max() / np.sum(y == label)
            if share > CLOSE_SHARE:
                old = self.classes_.tolist()[counts.argmax()]
                close.append(f"{label!r} to {old!r} ({share:.0%})")
        if close:
            warn(
                f"New classes that are too close to a known one: {', '.join(close)}; "
                "in brackets the share of their rows that it accepts. On this net they "
                "will be told apart badly. Fit again with all rows, or give both one "
                "label."
            )
