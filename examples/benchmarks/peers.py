"""The peers: pytorch-ood's post-hoc detectors on one softmax net.

Only detectors that need no out-of-distribution data, at pytorch-ood's own defaults.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from protocol import HELD_OUT, Scored, Task, points_to_score, score, split
from skvmdls._support.devices import autocast, resolve_device
from skvmdls._support.torch_state import seeded
from skvmdls.inputs.checking import check_inputs
from skvmdls.nets.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.nets.network import build_network
from skvmdls.training.loops import _augmented, _descend, _optimizer
from skvmdls.training.plans import NetworkPlan, network_plan
from skvmdls.training.whitening import whiten_first_layer, whitened_layer

__all__ = [
    "PEERS",
    "SoftmaxNet",
    "fit_peer",
    "peer_scores",
    "softmax_net",
    "softmax_peers",
    "standardized",
    "train_softmax",
]


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


class SoftmaxNet(nn.Module):
    """A backbone of ours under a softmax head.

    Parameters
    ----------
    factory : callable
        Backbone factory (see :mod:`skvmdls.nets`).
    input_shape : tuple of int
    n_classes : int

    Examples
    --------
    >>> from skvmdls.nets.backbones import mlp
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
    net: SoftmaxNet, inputs: Tensor, labels: Tensor, plan: NetworkPlan
) -> None:
    """Train with cross-entropy, by the optimiser and schedule of our training.

    Parameters
    ----------
    net : SoftmaxNet
        On the device of `inputs`; left in evaluation mode.
    inputs : Tensor of shape (n, *input_shape)
    labels : Tensor of shape (n,), int64
    plan : NetworkPlan
        Ours: all of it that a softmax net has a use for.

    Examples
    --------
    >>> from skvmdls.nets.backbones import mlp
    >>> from skvmdls import VMDLSbDetector
    >>> X, y = torch.randn(20, 6), torch.arange(20) % 2
    >>> detector = VMDLSbDetector(max_epochs=1).fit(X.numpy(), y.numpy())
    >>> net = SoftmaxNet(mlp, (6,), n_classes=2)
    >>> train_softmax(net, X, y, plan_of(detector, torch.device("cpu")))
    >>> net.training
    False
    """
    batch_size = plan.classes_per_batch * plan.samples_per_class
    n_batches = max(1, round(len(inputs) / batch_size))
    optimizer, schedule = _optimizer(net, plan, plan.epochs * n_batches)
    net.train()
    epochs = range(plan.epochs)
    for _ in tqdm(epochs, "softmax net", unit="epoch", disable=not plan.verbose):
        order = torch.randperm(len(inputs), device=inputs.device)
        for batch in order.tensor_split(n_batches):
            with autocast(inputs.device, plan.dtype):
                logits = net(_augmented(inputs[batch], plan))
            loss = F.cross_entropy(logits.float(), labels[batch])
            _descend(loss, optimizer, schedule)
    net.eval()


def plan_of(detector: Any, device: torch.device) -> NetworkPlan:
    """Plan the training that a fitted detector's network had.

    Parameters
    ----------
    detector : fitted detector
    device : torch.device

    Returns
    -------
    plan : NetworkPlan

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> X, y = torch.randn(20, 6), torch.arange(20) % 2
    >>> detector = VMDLSbDetector(max_epochs=1).fit(X.numpy(), y.numpy())
    >>> plan_of(detector, torch.device("cpu")).epochs
    1
    """
    shape, n_classes = detector.input_shape_, len(detector.classes_)
    choices = detector.training_choices_
    return network_plan(detector.resolved(), choices, shape, n_classes, device)


def softmax_net(task: Task, detector: Any) -> tuple[SoftmaxNet, Tensor, Tensor]:
    """Train the peers' net, on the rows that the detector's net was trained on.

    Parameters
    ----------
    task : Task
    detector : fitted detector
        Gives the backbone and everything about the training.

    Returns
    -------
    net : SoftmaxNet
    inputs, labels : Tensor
        What it was trained on.

    Examples
    --------
    >>> from protocol import fit
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> net, inputs, labels = softmax_net(task, fit(task)["VMDLS"].detector)
    >>> net(inputs).shape
    torch.Size([360, 2])
    """
    rows, _ = split(task, detector)
    device = resolve_device(detector.device)
    inputs = standardized(detector, task.X_train[rows]).to(device)
    places = np.searchsorted(detector.classes_, task.y_train[rows])
    labels = torch.from_numpy(places).to(device)
    input_shape = detector.input_shape_
    factory = resolve_factory(detector.backbone, BACKBONES, input_shape, "backbone")
    with seeded(task.seed, device):
        net = SoftmaxNet(factory, input_shape, len(detector.classes_))
        if layer := whitened_layer(net.backbone):
            whiten_first_layer(layer, inputs.cpu().split(256))
        net = net.to(device)
        train_softmax(net, inputs, labels, plan_of(detector, device))
    # Peers must not pay for gradients of the weights, which none of them uses.
    return net.requires_grad_(False), inputs, labels


def standardized(detector: Any, X: np.ndarray) -> Tensor:
    """Points as the detector's net takes them.

    Parameters
    ----------
    detector : fitted detector
    X : ndarray

    Returns
    -------
    inputs : Tensor, on the CPU

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> detector = VMDLSbDetector(max_epochs=1).fit(X, y)
    >>> standardized(detector, X).shape
    torch.Size([400, 6])
    """
    X = np.asarray(check_inputs(detector, X, detector.input_shape_))
    cpu = torch.device("cpu")
    return torch.cat(list(detector.standardizer_.batches(X, 1024, cpu)))


def softmax_peers(
    task: Task, detector: Any, names: Sequence[str] = PEERS
) -> dict[str, Callable[[], Scored]]:
    """Train the softmax net, and make the peers on it ready.

    Parameters
    ----------
    task : Task
    detector : fitted detector
    names : sequence of str, default=PEERS

    Returns
    -------
    peers : dict of str to callable
        Each is fitted and scored when it is called.

    Examples
    --------
    >>> from protocol import fit
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> peers = softmax_peers(task, fit(task)["VMDLS"].detector, ["MSP"])
    >>> peers["MSP"]().scores["noise"].shape
    (400,)
    """
    started = time.perf_counter()
    net, inputs, labels = softmax_net(task, detector)
    train_seconds = time.perf_counter() - started
    batches = {
        name: standardized(detector, X).to(inputs.device).split(256)
        for name, X in points_to_score(task, detector).items()
    }
    with torch.no_grad():
        places = {
            name: torch.cat([net(x).argmax(dim=1) for x in parts]).cpu().numpy()
            for name, parts in batches.items()
            if name != HELD_OUT
        }
    answers = {name: detector.classes_[found] for name, found in places.items()}

    def scored(name: str) -> Scored:
        started = time.perf_counter()
        peer = fit_peer(name, net, inputs, labels)
        seconds = train_seconds + time.perf_counter() - started
        return score(batches, partial(peer_scores, peer), answers, fit_seconds=seconds)

    return {name: partial(scored, name) for name in names}


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
    >>> from skvmdls.nets.backbones import mlp
    >>> net = SoftmaxNet(mlp, (6,), n_classes=2).eval()
    >>> peer = fit_peer("Energy", net, torch.randn(20, 6), torch.arange(20) % 2)
    >>> peer_scores(peer, [torch.randn(4, 6), torch.randn(3, 6)]).shape
    (7,)
    """
    detector = _peers()[name](net)
    with torch.no_grad():
        rows = DataLoader(TensorDataset(inputs, labels), batch_size=256)
        return detector.fit(rows) or detector


def peer_scores(detector: Any, batches: Iterable[Tensor]) -> np.ndarray:
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
