"""Thresholds from cross-fitted scores, where rows are too few to hold some out.

Every row is scored by a detector that was fitted without its fold of rows, and one
detector, fitted to all rows, scores new points. The threshold is
:func:`~skvmdls.calibration.conformal.conformal_threshold` of the ``n`` cross-fitted
scores, in place of those of a tenth of the rows.

The guarantee is weaker than that of a split:

- If new points score under the final detector as they do under those of the folds, the
  chance of rejecting a known one is at most `contamination`, as with a split. The
  final detector has seen more rows than those of the folds, so that new points score
  higher under it, as a rule, and fewer are rejected.
- Without any such assumption there is no bound for a single final detector. For the
  rule that compares a new point under each fold's detector (CV+, jackknife+) the bound
  is about twice `contamination` [1]_ [2]_. It would take all ``K`` detectors at
  prediction.

References
----------
.. [1] V. Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial
   Intelligence 74, 2015.
.. [2] R. Barber, E. Candes, A. Ramdas, R. Tibshirani, "Predictive inference with the
   jackknife+", Annals of Statistics 49, 2021.
"""

from typing import Literal

__all__ = ["ENOUGH_FOR_SPLIT", "resolve_calibration"]

# With so many held-out points and contamination=0.05, 19 detectors of 20 reject between
# 3.3 and 7.1 % of known points.
ENOUGH_FOR_SPLIT = 500


def resolve_calibration(
    calibration: Literal["auto", "split", "cross"], n_split: int, *, is_cheap: bool
) -> Literal["split", "cross"]:
    """Choose between a split and cross-fitted scores.

    Parameters
    ----------
    calibration : {"auto", "split", "cross"}
        The setting. ``"auto"`` takes cross-fitted scores where fits are cheap and a
        split would hold out fewer than 500 points for the threshold.
    n_split : int
        Points that a split would hold out for the threshold.
    is_cheap : bool
        Whether several fits take seconds.

    Returns
    -------
    calibration : {"split", "cross"}

    Examples
    --------
    >>> resolve_calibration("auto", 57, is_cheap=True)
    'cross'
    >>> resolve_calibration("auto", 57, is_cheap=False)
    'split'
    """
    if calibration != "auto":
        return calibration
    return "cross" if is_cheap and n_split < ENOUGH_FOR_SPLIT else "split"
