"""Where a fit makes its nets and Gaussians: anew, recalled, or taken up again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from skvmdls._caching import remembered, remembered_training
from skvmdls._checkpoints import Checkpoint, Stage
from skvmdls.training import History, seeded

__all__ = ["Workshop"]

Net = TypeVar("Net", bound=nn.Module)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workshop:
    """One place that answers "is this the same training?", by its ingredients."""

    memory: Any
    checkpoint: Checkpoint
    random_state: np.random.RandomState
    device: torch.device

    def trained(
        self,
        step: str,
        build: Callable[[], Net],
        train: Callable[[Net, int, Stage], History],
        *ingredients: Any,
    ) -> tuple[Net, History]:
        """Build a net and train it, from a seed of its own; or recall both.

        What `build` returns is an ingredient too, by its initial weights and its code.
        """
        seed = self.random_state.randint(np.iinfo(np.int32).max)
        stage = self.checkpoint.stage(step)
        with seeded(seed, self.device):
            net = build()

            history = remembered_training(
                self.memory,
                step,
                net,
                lambda: train(net.to(self.device), seed, stage),
                seed,
                self.device.type,
                *ingredients,
            )
        return net, history

    def fitted(
        self, step: str, fit: Callable[[Stage], Result], *ingredients: Any
    ) -> Result:
        """Fit something that draws no random numbers; or recall it."""
        stage = self.checkpoint.stage(step)
        return remembered(self.memory, step, lambda: fit(stage), *ingredients)
