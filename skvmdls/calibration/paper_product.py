"""The score of the paper: reconstruction weight times log-likelihood."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["WeightCalibration", "weighted"]


@dataclass(frozen=True)
class WeightCalibration:
    """The paper's product of reconstruction weight ``w`` and log-likelihood ``l``.

    Literally, ``w * l`` (Dinari & Freifeld 2022, section 3.4) ranks backwards where
    ``l > 0``. The authors shift ``l`` and scale ``w`` by the largest values of the
    test set. Here both constants come from held-out known data.

    Parameters
    ----------
    shift : float
        Largest log-likelihood of the held-out points. Above it, where few points ever
        are, the weight divides instead of multiplying: it lowers every score.
    scale : float
        Largest weight of the held-out points, which counts as one. Positive.

    Examples
    --------
    >>> import numpy as np
    >>> rule = WeightCalibration(shift=100.0, scale=2.0)
    >>> rule.apply(np.array([90.0, 90.0, 90.0]), np.array([1.0, 2.0, 6.0]))
    array([ -5., -10., -30.])
    """

    shift: float
    scale: float

    @classmethod
    def fit(
        cls, log_likelihoods: np.ndarray, weights: np.ndarray
    ) -> "WeightCalibration":
        """Take the constants from the l and w, (n,), of held-out known points."""
        # Perfect reconstructions leave no scale: any error is then a large one.
        smallest = float(np.finfo(np.float32).eps)
        return cls(float(log_likelihoods.max()), max(float(weights.max()), smallest))

    def apply(self, log_likelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Score points (n,): rising in the log-likelihood, falling in the weight."""
        scores = weighted(
            torch.from_numpy(log_likelihoods),
            torch.from_numpy(weights),
            torch.tensor(self.shift, dtype=torch.float64),
            torch.tensor(self.scale, dtype=torch.float64),
        )
        return scores.numpy()


def weighted(
    log_likelihoods: Tensor, weights: Tensor, shift: Tensor, scale: Tensor
) -> Tensor:
    """Multiply log-likelihoods (n, ...) by weights. See :class:`WeightCalibration`."""
    relative = weights / scale
    shortfall = log_likelihoods - shift
    # Above the shift a product would reward a large weight.
    beyond = shortfall / relative.clamp_min(1)
    return torch.where(shortfall < 0, shortfall * relative, beyond)
