"""A linear classifier's logits as a part of the evidence."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["LinearClassifier"]

# scikit-learn's C, for rows of unit length and for standardised columns.
C_OF_UNIT_ROWS, C_OF_COLUMNS = 10.0, 1.0
MOST_ITERATIONS = 200
# From so many numbers on, rows are read in single precision, in half of the time.
LARGE = 10**6


@dataclass(frozen=True)
class LinearClassifier:
    """Logits of a multinomial logistic regression [1]_; the part is the largest [2]_.

    Parameters
    ----------
    weights : Tensor of shape (n_classes, D), float64
    intercepts : Tensor of shape (n_classes,), float64
    strength : float
        Inverse strength of the L2 penalty, scikit-learn's ``C``.

    References
    ----------
    .. [1] :class:`sklearn.linear_model.LogisticRegression`.
    .. [2] D. Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World
       Settings", ICML 2022.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> LinearClassifier.fit(X, y, 2, 1.0).scores(torch.tensor([[9.0]])).argmax()
    tensor(1)
    """

    weights: Tensor
    intercepts: Tensor
    strength: float

    @classmethod
    def fit(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        strength: float,
        tolerance: float = 1e-4,
    ) -> "LinearClassifier":
        """Fit to rows (n, D) and labels (n,), of classes that all have rows."""
        # It would make `import skvmdls` slower.
        from sklearn.linear_model import LogisticRegression

        if n_classes < 2:
            none = torch.zeros(n_classes, rows.shape[1] + 1, dtype=torch.float64)
            return cls(none[:, :-1], none[:, -1], strength)
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=MOST_ITERATIONS)
        is_large = rows.size * n_classes > LARGE
        with warnings.catch_warnings():
            # The last iterations hardly move the logits.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows.astype(np.float32) if is_large else rows, labels)
        weights = model.coef_.astype(np.float64)
        intercepts = model.intercept_.astype(np.float64)
        if n_classes == 2:
            weights = np.concatenate([-weights, weights]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        return cls(torch.from_numpy(weights), torch.from_numpy(intercepts), strength)

    def scores(self, rows: Tensor) -> Tensor:
        """Logits (n, n_classes) of rows (n, D)."""
        return rows.to(self.weights) @ self.weights.T + self.intercepts

    def terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split the logits of classes (n,) into dimensions (n, D) that sum to it."""
        left_over = self.intercepts[classes] / rows.shape[1]
        return rows * self.weights[classes] + left_over[:, None]

    def with_classes(
        self,
        rows: Tensor,
        labels: np.ndarray,
        known_rows: Tensor,
        known_labels: np.ndarray,
    ) -> "LinearClassifier":
        """Append classes, whose weights alone are fitted.

        The loss is that of :meth:`fit`, over the new rows (n, D) with labels (n,) from
        0 on and kept rows (m, D) of the other classes. The old classes' logits stay.
        """
        n_old, n_new = len(self.weights), int(labels.max()) + 1
        X = torch.cat([known_rows, rows]).numpy()
        y = np.concatenate([known_labels, labels + n_old])
        old_logits = self.scores(torch.from_numpy(X)).numpy()
        n_features = X.shape[1]
        is_new = np.eye(n_old + n_new)[y][:, n_old:]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(n_new, n_features + 1)
            new_logits = X @ weights[:, :-1].T + weights[:, -1]
            log_shares = log_softmax(np.hstack([old_logits, new_logits]), axis=1)
            slopes = np.exp(log_shares[:, n_old:]) - is_new
            gradient = np.column_stack([slopes.T @ X, slopes.sum(axis=0)])
            gradient[:, :-1] += weights[:, :-1] / self.strength
            penalty = np.square(weights[:, :-1]).sum() / (2 * self.strength)
            fit = -log_shares[np.arange(len(y)), y].sum()
            return fit + penalty, gradient.ravel()

        start = np.zeros(n_new * (n_features + 1))
        found = minimize(loss, start, jac=True, method="L-BFGS-B")
        added = torch.from_numpy(found.x.reshape(n_new, n_features + 1))
        return LinearClassifier(
            torch.cat([self.weights, added[:, :-1]]),
            torch.cat([self.intercepts, added[:, -1]]),
            self.strength,
        )

    def of_classes(self, positions: np.ndarray) -> "LinearClassifier":
        """Keep the classes at some positions."""
        kept = torch.from_numpy(positions)
        return LinearClassifier(
            self.weights[kept], self.intercepts[kept], self.strength
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        return {
            "weights": self.weights.numpy(),
            "intercepts": self.intercepts.numpy(),
            "strength": np.array([self.strength]),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], n_dimensions: int
    ) -> "LinearClassifier":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        weights = stored_array(state, "weights", 2, of="linear")
        intercepts = stored_array(state, "intercepts", 1, of="linear")
        strength = stored_array(state, "strength", 1, of="linear")
        check_shape("linear.weights", weights.shape, (len(weights), n_dimensions))
        check_shape("linear.intercepts", intercepts.shape, (len(weights),))
        check_shape("linear.strength", strength.shape, (1,))
        return cls(
            torch.from_numpy(weights), torch.from_numpy(intercepts), float(strength[0])
        )
