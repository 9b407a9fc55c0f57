"""Several processes that fit one detector, where torch.distributed is initialised.

Each reads and computes its share of every batch; what the losses need of the joint
batch is gathered, and the gradients are summed, so that the training is that of one
process with the joint batch, up to rounding. Without torch.distributed all this does
nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "check_same_data",
    "from_first",
    "joint",
    "joint_batch_norm",
    "loss_explained",
    "n_processes",
    "own_draws",
    "own_share",
    "rank",
    "same_for_all",
    "same_weights",
    "shared_out",
    "sum_gradients",
    "summed",
]

Result = TypeVar("Result")


def n_processes() -> int:
    """How many processes fit together."""
    is_ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if is_ready else 1


def rank() -> int:
    """Place of this process among them; the first is 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def own_share(batch: Tensor) -> Tensor:
    """Give this process's part of a joint batch (n, ...), one behind the other's."""
    n = n_processes()
    if n == 1:
        return batch
    if len(batch) < n:
        raise ValueError(
            f"A batch of {len(batch)} cannot be shared by {n} processes. Start fewer, "
            "or raise classes_per_batch or samples_per_class."
        )
    return batch.tensor_split(n)[rank()]


class _Gather(torch.autograd.Function):
    """All parts of a joint batch; backwards, the gradient of the own one.

    Every process computes the same loss of the same joint batch, so that the gradients
    of the parts need not be summed.
    """

    @staticmethod
    def forward(context: Any, part: Tensor, n_joint: int) -> Tensor:
        lengths = [
            len(places) for places in torch.arange(n_joint).tensor_split(n_processes())
        ]
        context.own = slice(sum(lengths[: rank()]), sum(lengths[: rank() + 1]))
        # Equally long, as gathering asks for.
        padded = part.new_zeros(max(lengths), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([p[:k] for p, k in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][context.own], None


def joint(part: Tensor, n_joint: int) -> Tensor:
    """Gather the outputs of a joint batch, (n_joint, ...), with their gradients."""
    return part if n_processes() == 1 else _Gather.apply(part, n_joint)


def same_for_all(drawn: Tensor) -> Tensor:
    """Give all processes what the first has drawn."""
    if n_processes() > 1:
        dist.broadcast(drawn, 0)
    return drawn


def same_weights(net: nn.Module) -> None:
    """Give the nets of all processes the weights of the first's."""
    if n_processes() > 1:
        net.load_state_dict(from_first(net.state_dict))


def summed(value: Tensor) -> Tensor:
    """Sum of all processes' values, without gradients."""
    if n_processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    """Sum of all processes' values; backwards, of all their gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return summed(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Make each gradient that of the joint batch."""
    if n_processes() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def own_draws(seed: int, epoch: int) -> None:
    """Let all processes but the first draw augmentation and dropout of their own."""
    if rank() > 0:
        drawn = np.random.SeedSequence((seed, epoch, rank())).generate_state(1)
        torch.manual_seed(int(drawn[0]))


@contextmanager
def joint_batch_norm(net: nn.Module) -> Iterator[None]:
    """Let batch norms in training take means and variances of the joint batch.

    As torch's ``SyncBatchNorm``, which is for GPUs only.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if n_processes() == 1:
        norms = []
    for norm in norms:
        norm.forward = partial(_normed, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normed(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    dims = [dim for dim in range(x.ndim) if dim != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    values = x.float()
    n = summed(values.new_tensor(values.numel() / values.shape[1]))
    mean = _Sum.apply(values.sum(dims)) / n
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims)) / n
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            momentum = norm.momentum
            if momentum is None:  # The average of all batches.
                momentum = 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * n / (n - 1), momentum)
    values = centred / (variance + norm.eps).sqrt().view(shape)
    if norm.affine:
        values = values * norm.weight.view(shape) + norm.bias.view(shape)
    return values.to(x.dtype)


def from_first(make: Callable[[], Result]) -> Result:
    """Make something in the first process only, and give it, or its error, to all."""
    if n_processes() == 1:
        return make()
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except Exception as error:
            made[1] = error
    dist.broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    return made[0]


def check_same_data(data: Mapping[str, Any]) -> None:
    """Raise a ValueError in all processes if one was given other data, by its name."""
    n = n_processes()
    if n == 1:
        return
    of_all: list[Any] = [None] * n
    own = {name: joblib.hash(value) for name, value in data.items()}
    dist.all_gather_object(of_all, own)
    different = [k for k in own if any(of_all[0][k] != other[k] for other in of_all)]
    if different:
        raise ValueError(
            f"The {n} processes that fit together were given different "
            f"{' and '.join(different)}. Give all of them the same rows and labels: "
            "each reads its share of every batch by itself."
        )


def shared_out(
    compute: Callable[[Any], Iterator[Result]], rows: Any
) -> Iterator[Result]:
    """Compute rows batch by batch, a share in each process; all get all of them."""
    n = n_processes()
    if n == 1:
        yield from compute(rows)
        return
    computed = compute(rows.take(np.array_split(np.arange(len(rows)), n)[rank()]))
    while True:
        of_all: list[Any] = [None] * n
        dist.all_gather_object(of_all, next(computed, None))
        if all(result is None for result in of_all):
            return
        yield from (result for result in of_all if result is not None)


@contextmanager
def loss_explained() -> Iterator[None]:
    """Say what it means that another process is gone, and what to do."""
    try:
        yield
    except RuntimeError as error:
        signs = ("Connection", "gloo", "NCCL", "Timed out", "peer")
        if n_processes() == 1 or not any(sign in str(error) for sign in signs):
            raise
        raise RuntimeError(
            "Another process of this fit has ended or does not answer, see what it "
            "said; this one cannot go on alone. Start all of them again: with a "
            "`checkpoint`, the fit goes on from the last whole epoch."
        ) from error
