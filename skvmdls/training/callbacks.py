"""What scikit-learn's callbacks are told of a fit: its nets, and the epochs of each."""

from collections.abc import Iterator
from typing import Any, Self

from tqdm.auto import tqdm

__all__ = ["Telling"]


class Telling:
    """Tells the callbacks that are set on a detector, if scikit-learn has any (1.9).

    Told are the fit, within it each net that is trained, and within that each epoch;
    a net that `memory` recalls has none. What a callback answers stops nothing: the
    learning rate is scheduled for all epochs. Without a context nobody is told.
    """

    def __init__(self, detector: Any, context: Any) -> None:
        self._detector = detector
        self._context = context

    @classmethod
    def of_fit(cls, detector: Any) -> Self:
        """Begin a fit, once its arguments are there."""
        n_nets = 1 + hasattr(detector, "autoencoder")
        context = detector._init_callback_context(max_subtasks=n_nets)
        return cls(detector, context)._begin()

    def epochs(self, net: str, bar: tqdm) -> Iterator[int]:
        """Go through a net's epochs, those of `bar`, and tell of each."""
        if self._context is None:
            yield from bar
            return
        of_net = self._within(net, bar.total)._begin()
        for epoch in bar:
            of_epoch = of_net._within("epoch", 0)._begin()
            yield epoch
            of_epoch.end()
        of_net.end()

    def end(self, **fitted: Any) -> None:
        """End what was begun; `fitted` is what a callback may ask for of a detector."""
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._detector, **fitted)

    def _within(self, name: str, n_subtasks: int) -> "Telling":
        context = self._context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return Telling(self._detector, context)

    def _begin(self) -> Self:
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=self._detector)
        return self
