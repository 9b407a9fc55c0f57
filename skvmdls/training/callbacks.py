"""Tell scikit-learn's callbacks about a fit: its nets, and the epochs of each."""

from collections.abc import Callable, Iterator
from typing import Any, Self

from tqdm.auto import tqdm

__all__ = ["EpochLoop", "FitCallbacks"]

# From a progress bar over epochs, the epochs of a training.
EpochLoop = Callable[[tqdm], Iterator[int]]


class FitCallbacks:
    """Calls the callbacks that are set on an estimator, if scikit-learn has any (1.9).

    They learn of the fit, of each net that is trained in it, and of each epoch of
    that. A net that is loaded from the cache has no epochs. A callback cannot stop a
    training: the learning rate is scheduled for all epochs. Without a context nothing
    is called.
    """

    def __init__(self, estimator: Any = None, context: Any = None) -> None:
        self._estimator = estimator
        self._context = context

    @classmethod
    def of_fit(cls, estimator: Any, n_nets: int) -> Self:
        """Begin the fit of an estimator that trains so many nets."""
        context = estimator._init_callback_context(max_subtasks=n_nets)
        return cls(estimator, context)._begin()

    def epochs(self, net: str) -> EpochLoop:
        """Return the loop over the epochs of a net, which calls back for each."""

        def loop(bar: tqdm) -> Iterator[int]:
            if self._context is None:
                yield from bar
                return
            of_net = self._within(net, bar.total)._begin()
            for epoch in bar:
                of_epoch = of_net._within("epoch", 0)._begin()
                yield epoch
                of_epoch.end()
            of_net.end()

        return loop

    def end(self, **fitted: Any) -> None:
        """End what was begun; `fitted` is what a callback may ask an estimator for."""
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._estimator, **fitted)

    def _within(self, name: str, n_subtasks: int) -> "FitCallbacks":
        context = self._context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return FitCallbacks(self._estimator, context)

    def _begin(self) -> Self:
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=self._estimator)
        return self
