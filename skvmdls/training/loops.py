"""The training loops: schedule, warm-ups, class means, progress."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from skvmdls._support.devices import autocast, out_of_memory_explained, to_device
from skvmdls.nets.network import VariationalNetwork
from skvmdls.training.callbacks import EpochLoop
from skvmdls.training.checkpoints import Stage
from skvmdls.training.distributed import (
    all_gather,
    all_reduce,
    broadcast,
    own_draws,
    shard,
    sum_gradients,
    synchronized_norms,
)
from skvmdls.training.losses import (
    distancing_loss,
    kl_loss,
    squared_distances,
    triplet_loss,
)
from skvmdls.training.muon import Muon, hidden_weights
from skvmdls.training.plans import AutoencoderPlan, NetworkPlan, Plan
from skvmdls.training.progress import (
    Averages,
    ClassMeans,
    History,
    Progress,
    TrainingParts,
    progress_bar,
)
from skvmdls.training.sampling import BalancedBatchSampler

__all__ = ["backbone_share", "joint_loss", "train_autoencoder", "train_network"]

# Squared distance, missed on the mean over triplets, at which the metric losses shape
# the backbone with a head by 1/e. See docs/recipe.md.
MISSED_MARGIN = 0.25


class Inputs(Protocol):
    """Standardised inputs (n, *input_shape), float32, that a training reads."""

    def __len__(self) -> int:
        """Give n."""

    def batches(
        self, batches: Iterable[Tensor], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        """Give batches by the positions (k,) of their rows; each epoch is a turn."""


def train_network(
    network: VariationalNetwork,
    inputs: Inputs,
    labels: Tensor,
    plan: NetworkPlan,
    seed: int,
    stage: Stage | None = None,
    epochs: EpochLoop = iter,
) -> History:
    """Train the network with the triplet, distancing and KL losses, in place.

    Dinari & Freifeld 2022, section 3.2; and, if the network has a head, with its cross-
    entropy (see `backbone_share`). The prior of a class in one epoch is centred
    at the mean of its outputs in the epoch before. A class without one, as all are in
    the first epoch, has no KL loss yet, whatever the plan.

    `inputs` give batches on the network's device; `labels` (n,), int64 from 0, each
    present, may be there or on the CPU. `seed` is of the batches; noise and
    augmentation draw from torch's global generators (see :func:`seeded`). `epochs`
    loops over the epochs of the progress bar.
    """
    generator = torch.Generator().manual_seed(seed)
    sampler = BalancedBatchSampler(
        labels, plan.classes_per_batch, plan.samples_per_class, generator
    )
    n_steps = plan.epochs * sampler.n_batches
    margin_steps = max(1.0, plan.margin_warmup * n_steps)
    optimizer, schedule = _optimizer(network, plan, n_steps)
    trainable = [p for p in network.backbone.parameters() if p.requires_grad]
    device = network.mu.weight.device
    class_means = ClassMeans(int(labels.max()) + 1, network.mu.out_features, device)
    parts = TrainingParts(network, optimizer, schedule, class_means)
    run = Progress(parts, generator, device, stage or Stage())
    smaller_batches = _advice_of_smaller_batches(sampler)
    bar = progress_bar("network", plan, run)
    with (
        out_of_memory_explained(smaller_batches),
        synchronized_norms(network, device),
        bar as progress,
    ):
        for epoch in epochs(progress):
            _set_training(network, trainable, frozen=epoch < plan.freeze_epochs)
            kl_is_on = epoch >= plan.kl_warmup * plan.epochs
            kl_weight = plan.kl_weight if kl_is_on else 0.0
            averages = Averages()
            order = sampler.epoch()
            own_draws(seed, epoch)
            read = inputs.batches(map(shard, order), (seed, 1, epoch))
            for batch, x in zip(order, read, strict=True):
                y = to_device(labels[batch.to(labels.device)], device)
                step = epoch * sampler.n_batches + averages.n_added + 1
                margin = plan.distancing_margin * min(1.0, step / margin_steps)
                figures = _losses(network, x, y, class_means, plan, margin, kl_weight)
                _descend(figures["loss"], optimizer, schedule)
                averages.add(figures)
            class_means.finish_epoch()
            separation = {"separation": class_means.separation()}
            run.finish_epoch(averages.finish() | separation, progress)
    _set_training(network, trainable, frozen=False)
    network.eval()
    return run.history


def train_autoencoder(
    autoencoder: nn.Module,
    inputs: Inputs,
    plan: AutoencoderPlan,
    seed: int,
    stage: Stage | None = None,
    epochs: EpochLoop = iter,
) -> History:
    """Train the autoencoder with the squared error of the standardised input, in place.

    Arguments are as of :func:`train_network`; the history has ``loss`` and
    ``learning_rate`` of each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    n_batches = max(1, round(len(inputs) / plan.batch_size))
    optimizer, schedule = _optimizer(autoencoder, plan, plan.epochs * n_batches)
    device = next(autoencoder.parameters()).device
    parts = TrainingParts(autoencoder, optimizer, schedule)
    run = Progress(parts, generator, device, stage or Stage())
    autoencoder.train()
    advice = "Take a smaller autoencoder."
    bar = progress_bar("autoencoder", plan, run)
    with (
        out_of_memory_explained(advice),
        synchronized_norms(autoencoder, device),
        bar as progress,
    ):
        for epoch in epochs(progress):
            order = torch.randperm(len(inputs), generator=generator)
            averages = Averages()
            own_draws(seed, epoch)
            batches = order.tensor_split(n_batches)
            read = inputs.batches(map(shard, batches), (seed, 2, epoch))
            for batch, x in zip(batches, read, strict=True):
                loss = F.mse_loss(autoencoder(x), x) * (len(x) / len(batch))
                _descend(loss, optimizer, schedule)
                averages.add({"loss": all_reduce(loss)})
            run.finish_epoch(averages.finish(), progress)
    autoencoder.eval()
    return run.history


def _advice_of_smaller_batches(sampler: BalancedBatchSampler) -> str:
    return (
        f"A batch holds classes_per_batch={sampler.classes_per_batch} classes with "
        f"samples_per_class={sampler.samples_per_class} points each: lower one of "
        "them, or take a smaller backbone."
    )


def _losses(
    network: VariationalNetwork,
    x: Tensor,
    y: Tensor,
    class_means: "ClassMeans",
    plan: NetworkPlan,
    margin: float,
    kl_weight: float,
) -> dict[str, Tensor]:
    """Loss of a batch, the terms that it is made of, and what else is told of it.

    With several processes, `x` is this process's shard of the batch.
    """
    with autocast(x.device, plan.dtype):
        made = network(_augmented(x, plan))
    mu = all_gather(made.mu.float(), len(y))
    log_sigma = all_gather(made.log_sigma.float(), len(y))
    outputs, terms = _metric_terms(mu, log_sigma, y, margin, plan)
    divergence = class_means.was_drawn[y] * kl_loss(
        mu, log_sigma, class_means.means[y], plan.prior_variance
    )
    divergence = divergence.mean()
    terms["kl"] = kl_weight * divergence
    if made.logits is not None:
        logits = all_gather(made.logits.float(), len(y))
        terms["cross_entropy"] = F.cross_entropy(logits, y)
        terms["head_accuracy"] = _share_right(logits, y)
        if made.g.requires_grad:
            share = backbone_share(terms)
            made.g.register_hook(lambda gradient: share * gradient)
    class_means.add(outputs, y)
    return terms | {
        "loss": joint_loss(terms, plan),
        "divergence": divergence,
        "sigma": log_sigma.exp().mean(),
        "accuracy": _share_nearest(mu, y, class_means.means),
    }


def _metric_terms(
    mu: Tensor, log_sigma: Tensor, labels: Tensor, margin: float, plan: NetworkPlan
) -> tuple[Tensor, dict[str, Tensor]]:
    # With sigma attached, growing it satisfies the margins (any two points are about
    # 2 d sigma^2 apart) and the classes never separate; KL alone shapes sigma.
    outputs = mu + log_sigma.detach().exp() * broadcast(torch.randn_like(mu))
    distances = squared_distances(outputs)
    return outputs.detach(), {
        "triplet": triplet_loss(
            distances, labels, plan.triplet_margin, plan.samples_per_class
        ).mean(),
        "distancing": distancing_loss(distances, labels, margin).mean(),
    }


def _optimizer(
    net: nn.Module, plan: Plan, n_steps: int
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    parameters = list(net.parameters())
    settings: dict[str, Any] = {
        "lr": plan.learning_rate,
        "weight_decay": plan.weight_decay,
        # One kernel for all parameters; on the CPU it is no faster than the default.
        "fused": parameters[0].device.type == "cuda",
    }
    optimizer: torch.optim.Optimizer
    if isinstance(plan, NetworkPlan) and plan.optimizer == "muon":
        weights = hidden_weights(net.get_submodule("backbone"))
        others = [p for p in parameters if not any(p is w for w in weights)]
        optimizer = Muon(weights, others, dtype=plan.dtype, **settings)
    else:
        optimizer = torch.optim.AdamW(parameters, **settings)
    schedule = OneCycleLR(
        optimizer, plan.learning_rate, total_steps=n_steps, cycle_momentum=False
    )
    return optimizer, schedule


def _descend(
    loss: Tensor, optimizer: torch.optim.Optimizer, schedule: OneCycleLR
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    sum_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()
    schedule.step()


def _augmented(batch: Tensor, plan: NetworkPlan) -> Tensor:
    if plan.augmentation is None:
        return batch
    augmented = plan.augmentation(batch)
    if not isinstance(augmented, Tensor) or augmented.shape != batch.shape:
        found = (
            f"a tensor of shape {tuple(augmented.shape)}"
            if isinstance(augmented, Tensor)
            else type(augmented).__name__
        )
        raise ValueError(
            f"augmentation={plan.augmentation!r} turned a batch of shape "
            f"{tuple(batch.shape)} into {found}; expected a tensor of the same shape."
        )
    return augmented


def _set_training(
    network: VariationalNetwork, trainable: list[nn.Parameter], frozen: bool
) -> None:
    network.train()
    network.backbone.train(not frozen)
    for parameter in trainable:
        parameter.requires_grad_(not frozen)


def joint_loss(terms: Mapping[str, Tensor], plan: NetworkPlan) -> Tensor:
    """Weighted sum of the head's loss and of triplet, distancing and KL loss.

    Without a head, the paper's.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> plan = SimpleNamespace(classification_weight=1.0, metric_weight=0.5)
    >>> one = torch.tensor(1.0)
    >>> terms = {"triplet": one, "distancing": one, "kl": one}
    >>> joint_loss(terms, plan)
    tensor(1.5000)
    >>> joint_loss(terms | {"cross_entropy": torch.tensor(2.0)}, plan)
    tensor(3.5000)
    """
    metric = terms["triplet"] + terms["distancing"] + terms["kl"]
    loss = plan.metric_weight * metric
    if "cross_entropy" in terms:
        loss = loss + plan.classification_weight * terms["cross_entropy"]
    return loss


def backbone_share(terms: Mapping[str, Tensor]) -> Tensor:
    """Share of the metric losses' gradient that shapes the backbone if there is a head.

    On digits the triplet and distancing loss soon fall to hundredths, as the head's
    cross-entropy does; on photographs they stay at 2 and more, and in full they would
    drown the head: they cost accuracy and OOD detection. So they shape the backbone by
    ``exp(-missed / MISSED_MARGIN)``, where ``missed`` is their sum, by how much the
    margins are missed: they shape what can be held apart. The layers of ``mu`` and
    ``log sigma`` are trained in full.

    Examples
    --------
    >>> zero = torch.tensor(0.0)
    >>> backbone_share({"triplet": zero, "distancing": zero})
    tensor(1.)
    >>> backbone_share({"triplet": zero, "distancing": torch.tensor(2.5)})
    tensor(4.5400e-05)
    """
    missed = terms["triplet"] + terms["distancing"]
    return (-missed.detach() / MISSED_MARGIN).exp()


def _share_right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == labels).float().mean()


def _share_nearest(mu: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    nearest = torch.cdist(mu.detach(), means).argmin(dim=1)
    return (nearest == labels).float().mean()
