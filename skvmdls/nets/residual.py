"""A backbone for vectors and tables that keeps its input next to learned features.

A net of hidden layers that is trained on few rows discards most of what embeddings
know. Here each stage adds to its input, and adds nothing before the training begins.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualMLP", "residual_mlp"]

# Hidden units of each stage, and the dimensions that wider inputs are reduced to.
WIDTH, WIDEST = 256, 1024
TAPS = ("stage1", "stage2", "stage3")


class ResidualStage(nn.Module):
    """``x + W2 relu(norm(W1 x))``, with ``W2`` at zero to begin with.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(4, 6)
    >>> torch.equal(ResidualStage(6, width=8)(x), x)
    True
    """

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, n_features)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.learned = nn.Sequential(
            nn.Linear(n_features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what is learned to rows (batch, n_features)."""
        return x + self.learned(x)


class ResidualMLP(nn.Module):
    """Three stages that add to the input. ``g`` and the taps are as long as the input.

    Parameters
    ----------
    n_features : int
        More than 1,024 are reduced to so many by a linear layer.
    normalize : bool
        Whether rows are brought to the length of the square root of their number of
        columns, before the first stage and behind the last one, as for embeddings.
    width : int, default=256
        Hidden units of a stage.

    Examples
    --------
    >>> import torch
    >>> net = ResidualMLP(20, normalize=True)
    >>> net(torch.randn(4, 20)).norm(dim=1)
    tensor([4.4721, 4.4721, 4.4721, 4.4721], grad_fn=...)
    """

    taps = TAPS

    def __init__(self, n_features: int, *, normalize: bool, width: int = WIDTH) -> None:
        super().__init__()
        self.normalize = normalize
        size = min(n_features, WIDEST)
        self.reduction: nn.Module = nn.Identity()
        if size < n_features:
            self.reduction = nn.Linear(n_features, size, bias=False)
        for name in TAPS:
            self.add_module(name, ResidualStage(size, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows (batch, n_features) to ``g`` (batch, min(n_features, 1024))."""
        x = self._scaled(self.reduction(x))
        for name in TAPS:
            x = self.get_submodule(name)(x)
        return self._scaled(x)

    def _scaled(self, x: Tensor) -> Tensor:
        if not self.normalize:
            return x
        return functional.normalize(x, dim=1) * x.shape[1] ** 0.5


def residual_mlp(input_shape: tuple[int, ...], *, normalize: bool = False) -> nn.Module:
    """Build a net that keeps its input, for vectors and tables.

    ``g`` and the three taps are as long as a row, or 1,024 if that is less.

    Parameters
    ----------
    input_shape : tuple of int
        (features,).
    normalize : bool, default=False
        Whether rows are compared by their direction, as embeddings are.

    Returns
    -------
    backbone : ResidualMLP

    Raises
    ------
    ValueError
        If inputs are images.

    Examples
    --------
    >>> import torch
    >>> residual_mlp((20,))(torch.zeros(2, 20)).shape
    torch.Size([2, 20])
    """
    if len(input_shape) != 1:
        raise ValueError(
            "The net 'residual_mlp' takes tables, X of shape (n, features), but X "
            f"holds images of shape {input_shape}. Use 'auto' or 'cnn', or give the "
            "pixels as a table: X.reshape(len(X), -1)."
        )
    backbone: Any = ResidualMLP(input_shape[0], normalize=normalize)
    return backbone
