"""The two estimators: with and without an autoencoder."""

from typing import Any, Self

import numpy as np
from torch import nn

from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import InputLike, plain
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.detector.base import BaseDetector
from skvmdls.detector.parameters import AutoencoderParameters, with_parameters
from skvmdls.scoring.features import reconstructions
from skvmdls.scoring.model import standardized_batches

__all__ = ["VMDLSDetector", "VMDLSbDetector"]


@with_parameters
class VMDLSbDetector(BaseDetector):
    """Open-set classifier without an autoencoder (VMDLS_b).

    It is :class:`VMDLSDetector` without the reconstruction error, and so trains and
    scores faster [1]_.

    See Also
    --------
    VMDLSDetector : The same with an autoencoder.

    References
    ----------
    .. [1] O. Dinari and O. Freifeld, "Variational- and Metric-based Deep Latent Space
       for Out-of-Distribution Detection", UAI 2022.

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSbDetector(max_epochs=3, random_state=0)
    >>> detector.fit(digits.X_train, digits.y_train).predict(digits.X_test).shape
    (1422,)
    """


@with_parameters
class VMDLSDetector(AutoencoderParameters, BaseDetector):
    """Open-set classifier: one of the known labels, or ``-1`` for "never seen".

    A net is trained to classify. Its latent space is class-conditional and variational,
    and is shaped by the triplet, distancing and KL losses [1]_. Each class gets a
    Gaussian over the features at each of several depths of the net. The score of a
    point sums three kinds of evidence: these log-likelihoods, the largest logit of the
    head, and the reconstruction error of an autoencoder of the known data. Each is
    standardised on held-out known points. A point is accepted if its score passes a
    threshold, which comes from other held-out known points and carries a guarantee: a
    new known point is rejected with a probability of at most `contamination`. No
    out-of-distribution data is used.

    :meth:`from_paper` makes a detector with the losses and the score of the paper.

    Attributes
    ----------
    autoencoder_ : nn.Module
        The trained autoencoder, where a net was trained.
    autoencoder_history_ : dict of str to list of float
        ``loss`` and ``learning_rate`` of each epoch of the autoencoder, if there is
        one.
    weight_calibration_ : WeightCalibration
        The weight's constants, with ``weighting="paper"``.

    See Also
    --------
    VMDLSbDetector : The same without an autoencoder.

    References
    ----------
    .. [1] O. Dinari and O. Freifeld, "Variational- and Metric-based Deep Latent Space
       for Out-of-Distribution Detection", UAI 2022.

    Examples
    --------
    >>> from skvmdls import VMDLSDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSDetector(max_epochs=3, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> answers = detector.predict(digits.X_test)
    >>> sorted(set(answers.tolist()))
    [-1, 0, 1, 2]
    """

    @classmethod
    def from_paper(cls, **parameters: Any) -> Self:
        """Make a detector with the losses and the score of the paper.

        Without a classification head, with early fusion in one Gaussian a class and
        with the product of reconstruction weight and log-likelihood. The training has
        warm-ups and a smaller weight of the KL loss. ``margin_warmup=0``,
        ``kl_warmup=0`` and ``kl_weight=1`` undo these.

        Parameters
        ----------
        **parameters : object
            Further parameters of the detector.

        Returns
        -------
        detector : VMDLSDetector

        Examples
        --------
        >>> VMDLSDetector.from_paper(random_state=0).weighting
        'paper'
        """
        paper: dict[str, Any] = {
            "classification_weight": 0.0,
            "metric_weight": 1.0,
            "fusion": "early",
            "weighting": "paper",
            "covariance_type": "full",
            "covariance_pooling": 0.0,
            "optimizer": "adamw",
            "augmentation": None,
        }
        return cls(**(paper | parameters))

    @property
    def autoencoder_(self) -> nn.Module:
        """The trained autoencoder, where a net was trained."""
        autoencoder = self.model_.autoencoder
        if autoencoder is None:
            raise AttributeError(
                f"This {type(self).__name__} trained no autoencoder, since no part of "
                f"its evidence needs one: {self.evidence_names_}. To train one, name "
                "parts of the net in `features`, or give a backbone or an autoencoder."
            )
        return autoencoder

    @property
    def weight_calibration_(self) -> WeightCalibration:
        """Constants of the weight, with ``weighting="paper"``."""
        calibration = self.model_.weight_calibration
        if calibration is None:
            raise AttributeError(
                f"This {type(self).__name__} was fitted without weighting='paper', "
                "and has no constants of the paper's weight."
            )
        return calibration

    @under_ordinary_torch
    def reconstruct(self, X: InputLike) -> np.ndarray:
        """Reconstruct each point by the autoencoder.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        reconstructions : ndarray of shape (n, features) or (n, channels, height, \
width), float64
            In the units of X. Of uint8 images, in [0, 1] units (divided by 255).

        Raises
        ------
        AttributeError
            If no net was trained, as for small tables.
        """
        batches = standardized_batches(
            self._check_new(X),
            self.model_,
            batch_size=plain(self.batch_size),
            device=self.device,
        )
        rebuilt = reconstructions(self.autoencoder_, batches)
        return self.standardizer_.inverse_transform(rebuilt)

    @under_ordinary_torch
    def reconstruction_weight(self, X: InputLike) -> np.ndarray:
        """Distance between each point and its reconstruction at the first tap.

        Parameters
        ----------
        X : array-like
            As for :meth:`predict`.

        Returns
        -------
        weights : ndarray of shape (n,), float64
            ``w(x) = ||t1(x) - t1(x_hat)||^2``, non-negative. Large where the
            autoencoder has not learned to reconstruct.

        Raises
        ------
        AttributeError
            If no net was trained, as for small tables.
        """
        rows = self._check_new(X)
        # Its error tells what is missing.
        _ = self.autoencoder_
        return self._measure_rows(rows).weight
