"""Muon: steps that are as large in every direction of a weight matrix."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "hidden_weights", "orthogonalized"]

MOMENTUM = 0.95

# Coefficients of the quintic iteration, and how often it runs [1]_: enough for singular
# values between about 0.7 and 1.2.
QUINTIC, N_ITERATIONS = (3.4445, -4.7750, 2.0315), 5
SMALLEST_NORM = 1e-7

# The usual size of AdamW's steps, as a share of the learning rate [2]_.
SIZE_OF_ADAMW = 0.2


class Muon(torch.optim.AdamW):
    """Muon [1]_ for weight matrices, AdamW for all other parameters.

    The momentum of a matrix's gradient is orthogonalised, so that directions that
    gradients seldom point to are learned as fast as the others. Steps are as large as
    AdamW's usually are [2]_: one learning rate and weight decay serve both. Kernels
    count as matrices of (outputs, inputs times places).

    References
    ----------
    .. [1] K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
       2024.
    .. [2] J. Liu et al., "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        super().__init__([{"params": matrices}, {"params": others}], **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters by their gradients; those of matrices are used up."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        matrices = self.param_groups[0]
        for weight in matrices["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                # AdamW, when it takes up its state, asks each parameter's for `step`.
                state["step"] = torch.tensor(0.0)
                state["momentum"] = torch.zeros_like(weight)
            state["step"] += 1
            momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
            # Nesterov's look ahead.
            ahead = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
            direction = orthogonalized(ahead.to(self.dtype)).view_as(weight)
            size = SIZE_OF_ADAMW * max(ahead.shape) ** 0.5
            weight.mul_(1 - matrices["lr"] * matrices["weight_decay"])
            weight.sub_(direction, alpha=matrices["lr"] * size)
            # Without a gradient, AdamW passes over it.
            weight.grad = None
        super().step()
        return loss


def hidden_weights(backbone: nn.Module) -> list[Tensor]:
    """Weights of linear layers and convolutions, all but the first layer's."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = [m.weight for m in backbone.modules() if isinstance(m, layers)]
    return list(dict.fromkeys(weights))[1:]


def orthogonalized(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix (m, n) to about 1, by products alone.

    Examples
    --------
    >>> matrix = torch.tensor([[3.0, 0.0], [0.0, 0.2]])
    >>> sizes = torch.linalg.svdvals(orthogonalized(matrix))
    >>> bool(((sizes > 0.6) & (sizes < 1.25)).all())
    True
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / torch.linalg.matrix_norm(wide).clamp_min(SMALLEST_NORM)
    once, thrice, five_times = QUINTIC
    for _ in range(N_ITERATIONS):
        gram = wide @ wide.T
        wide = once * wide + (thrice * gram + five_times * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
