"""The two estimators: with and without an autoencoder."""

from dataclasses import KW_ONLY
from numbers import Integral

import numpy as np
from torch import nn

from skvmdls._support.sklearn import Interval, StrOptions
from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import InputLike, plain
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.detector.base import BaseDetector
from skvmdls.detector.parameters import parameter, with_parameters
from skvmdls.nets.backbones import BackboneFactory
from skvmdls.scoring.features import reconstructions
from skvmdls.scoring.model import standardized_batches

__all__ = ["VMDLSDetector", "VMDLSbDetector"]


@with_parameters
class VMDLSbDetector(BaseDetector):
    """Open-set classifier without an autoencoder (VMDLS_b).

    It is :class:`VMDLSDetector` less what an autoencoder cannot reconstruct, and so
    trains and scores faster [1]_.

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
    >>> detector = VMDLSbDetector(max_epochs=10, random_state=0)
    >>> detector.fit(digits.X_train, digits.y_train).predict(digits.X_test).shape
    (1422,)
    """


@with_parameters
class VMDLSDetector(BaseDetector):
    """Open-set classifier: one of the known labels, or ``-1`` for "never seen".

    A net is trained to classify, and with it a latent space that is class-conditional
    and variational, shaped by triplet, distancing and KL losses [1]_. Each class gets a
    Gaussian over the features at each of several depths of the net. What these say of
    a point, what the head's largest logit says, and how badly an autoencoder of the
    known data reconstructs the point, are brought to one unit on held-out known points
    and added up: a point is accepted where this score passes a threshold. The threshold
    comes from other held-out known points and carries a guarantee: a new known point is
    rejected with a chance of at most `contamination`. No out-of-distribution data is
    used anywhere.

    The paper's method to the letter is ``VMDLSDetector(classification_weight=0,
    metric_weight=1, fusion="early", weighting="paper")``.

    Parameters
    ----------
    autoencoder : str or callable, default="auto"
        A name in :mod:`skvmdls.nets.autoencoder` or a factory ``factory(input_shape) ->
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
    autoencoder_ : nn.Module
        The trained autoencoder.
    autoencoder_history_ : dict of str to list of float
        ``loss`` and ``learning_rate`` of each epoch of the autoencoder.
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
    >>> detector = VMDLSDetector(max_epochs=10, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> answers = detector.predict(digits.X_test)
    >>> sorted(set(answers.tolist()))
    [-1, 0, 1, 2]
    """

    _: KW_ONLY
    autoencoder: str | BackboneFactory = parameter("auto", str, callable)
    autoencoder_epochs: int = parameter(5, Interval(Integral, 1, None, closed="left"))
    weighting: str = parameter("evidence", StrOptions({"evidence", "paper"}))

    @property
    def autoencoder_(self) -> nn.Module | None:
        """The trained autoencoder."""
        return self.model_.autoencoder

    @property
    def weight_calibration_(self) -> WeightCalibration | None:
        """Constants of the weight; None without ``weighting="paper"``."""
        return self.model_.weight_calibration

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
            In the units of X; of uint8 images, in [0, 1] units (divided by 255).
        """
        model = self.model_
        assert model.autoencoder is not None
        batches = standardized_batches(
            self._check_new(X),
            model,
            batch_size=plain(self.batch_size),
            device=self.device,
        )
        rebuilt = reconstructions(model.autoencoder, batches)
        return model.standardizer.inverse_transform(rebuilt)

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
            ``w(x) = ||t1(x) - t1(x_hat)||^2``, non-negative; large where the
            autoencoder has not learned to reconstruct.
        """
        return self._measure(X).weight
