"""The peers: pytorch-ood's post-hoc detectors on one softmax net.

Only detectors that need no out-of-distribution data, at pytorch-ood's own defaults.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from skvmdls._devices import autocast
from skvmdls.backbones import BackboneFactory
from skvmdls.network import build_network

__all__ = ["PEERS", "SoftmaxNet", "fit_peer", "peer_scores", "train_softmax"]


class SoftmaxNet(nn.Module):
    """A backbone of ours under a softmax head.

    Parameters
    ----------
    factory : callable
        Backbone factory (see :mod:`skvmdls.backbones`).
    input_shape : tuple of int
    n_classes : int

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> SoftmaxNet(mlp, (6,), n_classes=3)(torch.zeros(2, 6)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self, factory: BackboneFactory, input_shape: tuple[int, ...], n_classes: int
    ) -> None:
        super().__init__()
        # The head takes the place of mu; there is nothing else to build differently.
        network = build_network(factory, input_shape, n_classes)
        self.backbone = network.backbone
        self.head = network.mu

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        return self.head(self.backbone(x))


def train_softmax(
    net: SoftmaxNet,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    augmentation: Callable[[Tensor], Tensor] | None,
    dtype: torch.dtype,
) -> None:
    """Train with cross-entropy, by the optimiser and schedule of our training.

    Parameters
    ----------
    net : SoftmaxNet
        On the device of `inputs`; left in evaluation mode.
    inputs : Tensor of shape (n, *input_shape)
    labels : Tensor of shape (n,), int64
    epochs, batch_size, learning_rate, weight_decay, augmentation, dtype
        As of :class:`skvmdls.training.NetworkPlan`.

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> net = SoftmaxNet(mlp, (6,), n_classes=2)
    >>> train_softmax(
    ...     net, torch.randn(20, 6), torch.arange(20) % 2, epochs=1, batch_size=10,
    ...     learning_rate=1e-3, weight_decay=0.0, augmentation=None,
    ...     dtype=torch.float32,
    ... )
    >>> net.training
    False
    """
    n_batches = max(1, round(len(inputs) / batch_size))
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=learning_rate, weight_decay=weight_decay
    )
    schedule = OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * n_batches, cycle_momentum=False
    )
    net.train()
    for _ in tqdm(range(epochs), desc="softmax net", unit="epoch"):
        order = torch.randperm(len(inputs), device=inputs.device)
        for batch in order.tensor_split(n_batches):
            x = inputs[batch] if augmentation is None else augmentation(inputs[batch])
            with autocast(inputs.device, dtype):
                logits = net(x)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


def _peers() -> dict[str, Callable[[SoftmaxNet], Any]]:
    from pytorch_ood import detector as ood

    def vim(net: SoftmaxNet) -> Any:
        k = net.head.in_features
        # The authors' rule for the principal space, scaled to small nets.
        n_principal = 1000 if k > 1500 else 512 if k >= 768 else k // 2
        weight, bias = net.head.weight.detach(), net.head.bias.detach()
        return ood.ViM(net.backbone, d=n_principal, w=weight, b=bias)

    return {
        "MSP": lambda net: ood.MaxSoftmax(net),
        "MaxLogit": lambda net: ood.MaxLogit(net),
        "Energy": lambda net: ood.EnergyBased(net),
        "GEN": lambda net: ood.GEN(net),
        "ODIN": lambda net: ood.ODIN(net),
        "Mahalanobis": lambda net: ood.Mahalanobis(net.backbone),
        "RMD": lambda net: ood.RMD(net.backbone),
        "KNN": lambda net: ood.KNN(net.backbone),
        "ViM": vim,
        "OpenMax": lambda net: ood.OpenMax(net),
        "ReAct": lambda net: ood.ReAct(net.backbone, net.head),
        "SHE": lambda net: ood.SHE(net.backbone, net.head),
        "fDBD": lambda net: ood.fDBD(net.backbone, net.head),
        "NNGuide": lambda net: ood.NNGuide(net.backbone, net.head),
    }


PEERS = (
    "MSP",
    "MaxLogit",
    "Energy",
    "GEN",
    "ODIN",
    "Mahalanobis",
    "RMD",
    "KNN",
    "ViM",
    "OpenMax",
    "ReAct",
    "SHE",
    "fDBD",
    "NNGuide",
)


def fit_peer(name: str, net: SoftmaxNet, inputs: Tensor, labels: Tensor) -> Any:
    """Fit one of the peers.

    Parameters
    ----------
    name : str
        One of :data:`PEERS`.
    net : SoftmaxNet
        Trained, in evaluation mode.
    inputs : Tensor of shape (n, *input_shape)
        The rows that the net was trained on.
    labels : Tensor of shape (n,), int64

    Returns
    -------
    detector : pytorch_ood.api.Detector

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> net = SoftmaxNet(mlp, (6,), n_classes=2).eval()
    >>> peer = fit_peer("Energy", net, torch.randn(20, 6), torch.arange(20) % 2)
    >>> peer_scores(peer, [torch.randn(4, 6), torch.randn(3, 6)]).shape
    (7,)
    """
    detector = _peers()[name](net)
    with torch.no_grad():
        rows = DataLoader(TensorDataset(inputs, labels), batch_size=256)
        return detector.fit(rows) or detector


def peer_scores(detector: Any, batches: Iterator[Tensor] | list[Tensor]) -> np.ndarray:
    """Score points by a peer: higher is more in-distribution, as ours.

    Parameters
    ----------
    detector : pytorch_ood.api.Detector
    batches : iterable of Tensor

    Returns
    -------
    scores : ndarray of shape (n,), float64

    Examples
    --------
    See :func:`fit_peer`.

    >>> class Constant:
    ...     def predict(self, x):
    ...         return torch.ones(len(x))
    >>> peer_scores(Constant(), [torch.zeros(2, 3)])
    array([-1., -1.])
    """
    found = [detector.predict(batch).detach().cpu().double() for batch in batches]
    return -torch.cat(found).numpy()
