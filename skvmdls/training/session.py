"""Where a fit makes its nets and Gaussians: anew, recalled, or taken up again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skvmdls._support.devices import resolve_device
from skvmdls._support.torch_state import seeded
from skvmdls.detector.parameters import decisive
from skvmdls.training.callbacks import Telling
from skvmdls.training.checkpoints import Checkpoint, Stage
from skvmdls.training.distributed import (
    broadcast_object,
    broadcast_weights,
    check_same_data,
    n_processes,
)
from skvmdls.training.memory import remembered, remembered_training
from skvmdls.training.progress import History

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
    telling: Telling

    @classmethod
    def of(cls, detector: Any, telling: Telling, **data: Any) -> Self:
        """Open what a detector's parameters name, for a fit of this data."""
        if detector.memory is not None and n_processes() > 1:
            raise ValueError(
                f"memory={detector.memory!r} is for fits in one process, but "
                f"{n_processes()} fit together. Use memory=None, and `checkpoint`."
            )
        check_same_data(data)
        device = resolve_device(detector.device)
        ingredients = decisive(detector) | data | {"device": device.type}
        checkpoint = Checkpoint(detector.checkpoint, ingredients)
        seed = checkpoint.seed(detector.random_state)
        random_state = broadcast_object(lambda: check_random_state(seed))
        return cls(detector.memory, checkpoint, random_state, device, telling)

    def trained(
        self,
        step: str,
        build: Callable[[], Net],
        train: Callable[[Net, int, Stage], History],
        ingredients: Mapping[str, Any],
    ) -> tuple[Net, History]:
        """Build a net and train it, from a seed of its own; or recall both.

        What `build` returns is an ingredient too, by its initial weights and its code.
        """
        seed = self.random_state.randint(np.iinfo(np.int32).max)
        stage = self.checkpoint.stage(step)
        stage.epochs = partial(self.telling.epochs, step)
        with seeded(seed, self.device):
            net = build()
            broadcast_weights(net)
            history = remembered_training(
                self.memory,
                step,
                net,
                lambda: train(net.to(self.device), seed, stage),
                {"seed": seed, "device": self.device.type, **ingredients},
            )
        return net, history

    def fitted(
        self,
        step: str,
        fit: Callable[[Stage], Result],
        ingredients: Mapping[str, Any],
    ) -> Result:
        """Fit something that draws no random numbers; or recall it."""
        stage = self.checkpoint.stage(step)
        return remembered(self.memory, step, lambda: fit(stage), ingredients)
