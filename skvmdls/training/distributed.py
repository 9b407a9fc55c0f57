"""Several processes that fit one detector, where torch.distributed is initialised.

Each process reads its shard of every batch and computes its outputs. The outputs are
gathered, so that every process computes the losses of the whole batch, and the
gradients are summed. Without torch.distributed the functions do nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "all_gather",
    "all_reduce",
    "broadcast",
    "broadcast_object",
    "broadcast_weights",
    "check_same_data",
    "compute_sharded",
    "loss_explained",
    "n_processes",
    "own_draws",
    "rank",
    "shard",
    "sum_gradients",
    "synchronized_norms",
]

Result = TypeVar("Result")


def n_processes() -> int:
    """Return the number of processes that fit together."""
    is_ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if is_ready else 1


def rank() -> int:
    """Return the position of this process among them; the first is 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def shard(batch: Tensor) -> Tensor:
    """Return the rows of a batch (n, ...) that this process computes.

    They are every k-th row for k processes. Batches are sorted by class, and batch
    norms need all classes in each shard.
    """
    n = n_processes()
    if n == 1:
        return batch
    if len(batch) < n:
        raise ValueError(
            f"A batch of {len(batch)} cannot be shared by {n} processes. Start fewer, "
            "or raise classes_per_batch or samples_per_class."
        )
    return batch[rank() :: n].contiguous()


def all_gather(part: Tensor, n_rows: int) -> Tensor:
    """Gather the shards of a batch, in its order (n_rows, ...).

    Gradients flow into this process's own part. All processes compute the same loss,
    so the parts of the others get theirs there.
    """
    n = n_processes()
    if n == 1:
        return part
    # All shards must have the same length.
    missing = -(-n_rows // n) - len(part)
    padded = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(n)]
    dist.all_gather(parts, padded.detach())
    parts[rank()] = padded
    return torch.stack(parts, dim=1).flatten(0, 1)[:n_rows]


def broadcast(drawn: Tensor) -> Tensor:
    """Replace a tensor by that of the first process, in place."""
    if n_processes() > 1:
        dist.broadcast(drawn, 0)
    return drawn


def broadcast_weights(net: nn.Module) -> None:
    """Give the nets of all processes the weights of the first."""
    if n_processes() > 1:
        net.load_state_dict(broadcast_object(net.state_dict))


def all_reduce(value: Tensor) -> Tensor:
    """Return the sum of the values of all processes, without gradients."""
    if n_processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by the sum over all processes."""
    if n_processes() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def own_draws(seed: int, epoch: int) -> None:
    """Seed augmentation and dropout differently in all processes but the first."""
    if rank() > 0:
        drawn = np.random.SeedSequence((seed, epoch, rank())).generate_state(1)
        torch.manual_seed(int(drawn[0]))


@contextmanager
def synchronized_norms(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Train with batch norms over the whole batch on GPUs, over the shard elsewhere.

    torch's ``SyncBatchNorm`` needs a GPU. Afterwards all processes have the running
    means and variances of the first.
    """
    if n_processes() == 1:
        yield
        return
    norms = {name: m for name, m in net.named_modules() if isinstance(m, _BatchNorm)}
    if device.type == "cuda":
        # It replaces the modules, and shares their weights and buffers.
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    try:
        yield
    finally:
        for name, norm in norms.items():
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, norm)
    for buffer in net.buffers():
        broadcast(buffer)


def broadcast_object(make: Callable[[], Result]) -> Result:
    """Call `make` in the first process, and return or raise its outcome in all."""
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
            "each reads its shard of every batch by itself."
        )


def compute_sharded(
    compute: Callable[[Any], Iterator[Result]], rows: Any
) -> Iterator[Result]:
    """Compute a shard of the rows in each process, and yield the batches of all."""
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
    """Explain the error that follows the end of another process."""
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
