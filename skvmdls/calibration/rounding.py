"""Slack for rounding, where scores are compared with held-out scores.

A net adds its numbers in another order for a batch of another size, in ONNX and on a
GPU. So the score of one row changes in its last digits: by up to 1e-5 of the spread of
known rows between batches, and by up to 4e-4 in an ONNX file (measured with every named
net). Without slack, the held-out row that sets the threshold is accepted in one batch
and rejected in another.
"""

import numpy as np

__all__ = ["SLACK", "lowered", "unit_of"]

# In units of the spread of the held-out scores. Of 1,000 held-out scores, less than one
# is so close to a new score, so that p-values and thresholds hardly change.
SLACK = 1e-3


def lowered(held_out: np.ndarray) -> np.ndarray:
    """Lower held-out scores (n,) by the slack, for all comparisons with new scores.

    A new score that would be equal to a held-out one in exact arithmetic is above it.
    Lower thresholds accept more points and p-values become larger, never smaller, so
    the guarantees hold. The order of the scores stays the same.

    Examples
    --------
    >>> lowered(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).round(3)
    array([0.998, 1.998, 2.998, 3.998, 4.998])
    """
    return held_out - SLACK * unit_of(held_out, held_out) if len(held_out) else held_out


def unit_of(values: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """In what to measure differences: the reference's spread, or the distance to it.

    Without a reference the values are in units of their spread already.

    Examples
    --------
    >>> unit_of(np.array([2.0, 12.0]), np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    array([ 2., 10.])
    """
    if reference is None:
        return np.maximum(1, np.abs(values))
    lower, middle, upper = np.quantile(reference, [0.25, 0.5, 0.75], axis=0)
    spread = upper - lower
    # A single held-out point has no spread, and is no measure of anything.
    spread = np.where(spread > 0, spread, np.maximum(1, np.abs(middle)))
    return np.maximum(spread, np.abs(values - middle))
