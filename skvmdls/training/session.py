"""One fit's trainings: computed, loaded from the cache, or resumed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skvmdls._support.torch_state import seeded
from skvmdls.training.callbacks import EpochLoop, FitCallbacks
from skvmdls.training.checkpoints import Checkpoint, Stage
from skvmdls.training.distributed import (
    broadcast_object,
    broadcast_weights,
    check_same_data,
    n_processes,
)
from skvmdls.training.memory import cached, cached_training
from skvmdls.training.progress import History

__all__ = ["TrainingSession"]

Net = TypeVar("Net", bound=nn.Module)
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """Where a fit trains and computes, and what its results depend on.

    Parameters
    ----------
    memory : path, joblib.Memory or None
        The cache of results.
    checkpoint : Checkpoint
        Stores the state after each epoch.
    random_state : RandomState
    device : torch.device
    callbacks : FitCallbacks
    note : str, default=""
        Added to the names of the steps, where a fit trains several times.
    """

    memory: Any
    checkpoint: Checkpoint
    random_state: np.random.RandomState
    device: torch.device
    callbacks: FitCallbacks
    note: str = ""

    @classmethod
    def start(
        cls,
        *,
        memory: Any,
        checkpoint: Any,
        random_state: Any,
        device: torch.device,
        callbacks: FitCallbacks,
        data: Mapping[str, Any],
        depends_on: Mapping[str, Any],
    ) -> Self:
        """Open the checkpoint and check that all processes were given the same data.

        `data` and `depends_on` decide by name whether an interrupted fit is the same.
        """
        if memory is not None and n_processes() > 1:
            raise ValueError(
                f"memory={memory!r} is for fits in one process, but {n_processes()} "
                "fit together. Use memory=None, and `checkpoint`."
            )
        check_same_data(data)
        ingredients = {**depends_on, **data, "device": device.type}
        opened = Checkpoint(checkpoint, ingredients)
        seed = opened.seed(random_state)
        shared = broadcast_object(lambda: check_random_state(seed))
        return cls(memory, opened, shared, device, callbacks)

    def of_one_training(self, seed: int, note: str = "") -> "TrainingSession":
        """Return the session for one of several trainings, each from the given seed.

        Callbacks are called for the one without a note, which is the final one.
        """
        callbacks = FitCallbacks() if note else self.callbacks
        rng = np.random.RandomState(seed)
        return replace(self, random_state=rng, callbacks=callbacks, note=note)

    def train(
        self,
        step: str,
        build: Callable[[], Net],
        train: Callable[[Net, int, Stage, EpochLoop], History],
        depends_on: Mapping[str, Any],
    ) -> tuple[Net, History]:
        """Build a net and train it from a seed of its own, or load it from the cache.

        The result also depends on the initial weights and the code of the net.
        """
        seed = self.random_state.randint(np.iinfo(np.int32).max)
        step += self.note
        stage, epochs = self.checkpoint.stage(step), self.callbacks.epochs(step)
        with seeded(seed, self.device):
            net = build()
            broadcast_weights(net)
            history = cached_training(
                self.memory,
                step,
                net,
                lambda: train(net.to(self.device), seed, stage, epochs),
                {"seed": seed, "device": self.device.type, **depends_on},
            )
        return net, history

    def compute(
        self,
        step: str,
        compute: Callable[[Stage], Result],
        depends_on: Mapping[str, Any],
    ) -> Result:
        """Compute something without random numbers, or load it from the cache."""
        step += self.note
        stage = self.checkpoint.stage(step)
        return cached(self.memory, step, lambda: compute(stage), depends_on)
