"""Plot of a stream that is monitored for shift."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skvmdls.plotting.base import BLUE, ORANGE, Display

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ShiftDisplay"]


@dataclass(eq=False, repr=False)
class ShiftDisplay(Display):
    """The course of a watched stream: evidence that something has changed.

    Parameters
    ----------
    log_martingale : array-like of shape (n,)
        After each point. The martingale is the capital of a bet against "nothing has
        changed": it stays about 1 if nothing changes, and grows after a change.
    false_alarm : float
        Chance of a false alarm, which sets the line of the alarm.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = ShiftDisplay.from_predictions([0.0, 2.0, 5.0], false_alarm=0.01)
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['evidence of a change', 'alarm (1 % ever false)', 'raised at point 3']
    """

    log_martingale: ArrayLike
    false_alarm: float

    @classmethod
    def from_monitor(cls, monitor: Any, *, ax: "Axes | None" = None) -> Self:
        """Draw a monitor's course.

        Parameters
        ----------
        monitor : ShiftMonitor
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ShiftDisplay
        """
        return cls(monitor.course_, monitor.false_alarm).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        log_martingale: ArrayLike,
        *,
        false_alarm: float,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw a given course.

        Parameters
        ----------
        log_martingale : array-like of shape (n,)
        false_alarm : float
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ShiftDisplay
        """
        return cls(log_martingale, false_alarm).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        course = np.asarray(self.log_martingale, dtype=np.float64) / math.log(10)
        if not len(course):
            raise ValueError("There are no points to draw: the monitor has seen none.")
        points = np.arange(1, len(course) + 1)
        level = -math.log10(self.false_alarm)
        ax.plot(points, course, color=BLUE, lw=1.5, label="evidence of a change")
        label = f"alarm ({self.false_alarm:.3g} ever false)"
        if self.false_alarm >= 0.001:
            label = f"alarm ({100 * self.false_alarm:.3g} % ever false)"
        ax.axhline(level, color="black", ls="--", lw=1, label=label)
        reached = np.flatnonzero(course >= level)
        if len(reached):
            first = int(reached[0])
            ax.plot(
                first + 1,
                course[first],
                ls="",
                marker="o",
                ms=8,
                color=ORANGE,
                mec="black",
                label=f"raised at point {first + 1}",
            )
        ax.set_xlabel("points seen")
        ax.set_ylabel("log10 of the martingale")
        ax.legend()
        return 7, 4
