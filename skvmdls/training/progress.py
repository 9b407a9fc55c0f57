"""The state of a running training: history, progress bar, checkpoints."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from skvmdls.training.checkpoints import Stage, State
from skvmdls.training.plans import Plan

__all__ = [
    "Averages",
    "ClassMeans",
    "History",
    "Progress",
    "TrainingParts",
    "progress_bar",
]

# By the name of a metric, its value of each epoch; see `history_` of the detectors.
History = dict[str, list[float]]


class ClassMeans:
    """Mean output of each class over the last finished epoch that drew it.

    Summed on the device. ``was_drawn`` is 0 for a class that no finished epoch drew.
    """

    def __init__(self, n_classes: int, latent_dim: int, device: torch.device) -> None:
        self.means = torch.zeros(n_classes, latent_dim, device=device)
        self.was_drawn = torch.zeros(n_classes, device=device)
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.sums = torch.zeros_like(self.means)
        self.counts = torch.zeros_like(self.was_drawn)

    def add(self, outputs: Tensor, labels: Tensor) -> None:
        """Add outputs (k, d) of points with labels (k,)."""
        self.sums.index_add_(0, labels, outputs)
        self.counts.index_add_(0, labels, outputs.new_ones(len(labels)))

    def finish_epoch(self) -> None:
        """Replace the means of the classes that this epoch drew."""
        drawn = self.counts > 0
        fresh = self.sums / self.counts.clamp_min(1)[:, None]
        self.means = torch.where(drawn[:, None], fresh, self.means)
        self.was_drawn = self.was_drawn.logical_or(drawn).to(self.means)
        self._start_epoch()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the means and which of them were drawn."""
        return {"means": self.means, "was_drawn": self.was_drawn}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self.means = state["means"].to(self.means)
        self.was_drawn = state["was_drawn"].to(self.was_drawn)

    def separation(self) -> float:
        """Return the smallest Euclidean distance between two class means."""
        drawn = self.means[self.was_drawn > 0].cpu().double()
        return float(torch.pdist(drawn).min())


class Averages:
    """Means of named metrics over the batches of an epoch, read only at its end."""

    def __init__(self) -> None:
        self.n_added = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, figures: dict[str, Tensor]) -> None:
        """Add the values of one batch."""
        self.n_added += 1
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()

    def finish(self) -> dict[str, float]:
        """Return the means over the batches."""
        return {name: float(total) / self.n_added for name, total in self.sums.items()}


def _is_finite(net: nn.Module) -> bool:
    values = net.state_dict().values()
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def progress_bar(name: str, plan: Plan, run: "Progress") -> tqdm:
    """Make the progress bar of a training: its epochs, from the first one left."""
    return tqdm(
        range(run.epoch, plan.epochs),
        initial=run.epoch,
        total=plan.epochs,
        desc=name,
        unit="epoch",
        disable=not plan.verbose,
    )


class TrainingParts(NamedTuple):
    """What a training changes; each can hand out its state and take it back."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: OneCycleLR
    class_means: "ClassMeans | None" = None


class Progress:
    """How far a training has come: its epochs, taken up from a stage and kept there."""

    def __init__(
        self,
        parts: TrainingParts,
        generator: torch.Generator,
        device: torch.device,
        stage: Stage,
    ) -> None:
        self.parts: dict[str, Any] = {
            k: v for k, v in parts._asdict().items() if v is not None
        }
        self.generator = generator
        self.device = device
        self.stage = stage
        self.epoch = 0
        self.history: History = {}
        if stage.state is not None:
            self._take_up(stage.state)

    def finish_epoch(self, figures: dict[str, float], progress: tqdm) -> None:
        """Append the epoch to the history, and store the state of the training."""
        self.epoch += 1
        for name, value in figures.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name!r} is {value}")
            self.history.setdefault(name, []).append(value)
        # The last step's weights are in no metric yet.
        if not _is_finite(self.parts["net"]):
            raise self._diverged("a weight is no longer finite")
        rate = float(self.parts["schedule"].get_last_lr()[0])
        self.history.setdefault("learning_rate", []).append(rate)
        shown = ("loss", "separation", "accuracy")
        progress.set_postfix(
            {key: f"{figures[key]:.3g}" for key in shown if key in figures}
        )
        self.stage.keep(self._state())

    def _diverged(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"Training diverged: {what} in epoch {self.epoch}. Try a smaller "
            "learning_rate, precision='float32', or look for extreme values in X."
        )

    def _state(self) -> State:
        state: State = {name: part.state_dict() for name, part in self.parts.items()}
        state["epoch"], state["history"] = self.epoch, self.history
        state["batches"] = self.generator.get_state()
        state["noise"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["noise on the GPU"] = torch.cuda.get_rng_state(self.device)
        return state

    def _take_up(self, state: State) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.epoch, self.history = state["epoch"], state["history"]
        self.generator.set_state(state["batches"])
        torch.set_rng_state(state["noise"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["noise on the GPU"], self.device)
