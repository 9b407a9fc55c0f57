"""From batches of inputs to features and raw evidence: forward passes only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._devices import is_out_of_memory
from skvmdls.evidence import (
    INPUT,
    LOGIT,
    RESIDUAL,
    View,
    residual_features,
    unit_and_length,
)
from skvmdls.gaussians import ClassGaussians
from skvmdls.network import FIRST_MAP, VariationalNetwork

__all__ = [
    "KnownClasses",
    "Measured",
    "Score",
    "block_features",
    "ensembles",
    "map_batches",
    "measure",
    "reconstructions",
]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """What the nets and the Gaussians say of each point.

    Parameters
    ----------
    class_log_likelihood : ndarray of shape (n, n_classes), float64
        In nats.
    raw : ndarray of shape (n, n_parts), float64
        Raw score of each part of the evidence.
    most_likely : ndarray of shape (n,), int64
        Position of the class that each point is given.
    weight : ndarray of shape (n,), float64
        Reconstruction weight; zero without an autoencoder.
    winners : ndarray of shape (n, n_parts), int64
        Position of the class under which each part's raw score is the one in `raw`.
    class_scores : ndarray of shape (n, n_classes), float64
        The score that each point has under each class; no columns if nobody asked.

    Examples
    --------
    >>> likelihood = np.array([[-3.0, -1.0]])
    >>> nothing = np.zeros((1, 0))
    >>> measured = Measured(
    ...     likelihood, nothing, np.ones(1, int), np.zeros(1), nothing, nothing
    ... )
    >>> measured.log_likelihood
    array([-1.])
    """

    class_log_likelihood: np.ndarray
    raw: np.ndarray
    most_likely: np.ndarray
    weight: np.ndarray
    winners: np.ndarray
    class_scores: np.ndarray

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)


# Takes raw scores (n, ..., n_parts), log-likelihoods (n, ...) and weights of n points,
# of shapes that go together, and gives scores (n, ...).
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class KnownClasses:
    """Which classes there are: those of `fit` that are left, and those added since.

    The classes of `fit` share a net that tells them apart, and each part of the
    evidence is that of the class that explains it best. A class that was added later is
    unknown to the net, and to its head: it has to explain all parts alone, the logit
    aside, which says nothing for or against it and counts as typical. A point is given
    to whichever scores higher.

    Parameters
    ----------
    positions : ndarray of shape (n_classes,), int64
        Of each class, its position among the classes of `fit`; -1 if it was added.
    typical_logit : float, default=0
        What stands for the logit of a class that was added.

    Examples
    --------
    >>> known = KnownClasses(np.array([0, -1, 1]), typical_logit=6.0)
    >>> known.fitted, known.added
    (array([0, 2]), array([1]))
    >>> known.of_head(np.array([[5.0, 7.0]]))
    array([[5., 6., 7.]])
    """

    positions: np.ndarray
    typical_logit: float = 0.0

    @classmethod
    def of_fit(cls, n_classes: int) -> "KnownClasses":
        """All classes of `fit`, and no others.

        Parameters
        ----------
        n_classes : int

        Returns
        -------
        known : KnownClasses
        """
        return cls(np.arange(n_classes))

    @property
    def fitted(self) -> np.ndarray:
        """Positions of the classes that are left of `fit`, shape (k,)."""
        return np.flatnonzero(self.positions >= 0)

    @property
    def added(self) -> np.ndarray:
        """Positions of the classes that were added, shape (n_classes - k,)."""
        return np.flatnonzero(self.positions < 0)

    def of_head(self, logits: np.ndarray) -> np.ndarray:
        """Give each class its logit, and to those that were added the typical one.

        Parameters
        ----------
        logits : ndarray of shape (n, classes of `fit`)

        Returns
        -------
        logits : ndarray of shape (n, n_classes)
        """
        own = logits[:, self.positions]
        return np.where(self.positions >= 0, own, self.typical_logit)

    def decide(
        self,
        likelihood: np.ndarray,
        raw: np.ndarray,
        by_head: np.ndarray,
        weight: np.ndarray,
        score: Score | None,
    ) -> Measured:
        """Choose the class that each point is given, and so its evidence.

        Parameters
        ----------
        likelihood : ndarray of shape (n, n_classes)
        raw : ndarray of shape (n, n_classes, n_parts)
            Raw score of each part under each class.
        by_head : ndarray of shape (n, n_classes)
            What chooses among the classes of `fit`: logits or likelihoods.
        weight : ndarray of shape (n,)
        score : callable or None

        Returns
        -------
        measured : Measured
        """
        no_scores = np.empty((len(raw), 0))
        if not len(self.added):
            measured = Measured(
                likelihood,
                raw.max(axis=1),
                by_head.argmax(axis=1),
                weight,
                raw.argmax(axis=1),
                no_scores,
            )
        else:
            assert score is not None
            measured = self._decide_with_added(likelihood, raw, by_head, weight, score)
        if score is None:
            return measured
        return replace(measured, class_scores=score(raw, likelihood, weight[:, None]))

    def _decide_with_added(
        self,
        likelihood: np.ndarray,
        raw: np.ndarray,
        by_head: np.ndarray,
        weight: np.ndarray,
        score: Score,
    ) -> Measured:
        """Candidates are the classes of `fit` together, and each of those added."""
        n, _, n_parts = raw.shape
        fitted, added = self.fitted, self.added
        raws, likelihoods = raw[:, added], likelihood[:, added]
        classes = np.broadcast_to(added, (n, len(added)))
        winners = np.broadcast_to(added[:, None], (n, len(added), n_parts))
        if len(fitted):
            best = raw[:, fitted].max(axis=1, keepdims=True)
            raws = np.concatenate([best, raws], axis=1)
            best = likelihood[:, fitted].max(axis=1, keepdims=True)
            likelihoods = np.concatenate([best, likelihoods], axis=1)
            most_likely = fitted[by_head[:, fitted].argmax(axis=1)]
            classes = np.column_stack([most_likely, classes])
            of_parts = fitted[raw[:, fitted].argmax(axis=1)]
            winners = np.concatenate([of_parts[:, None], winners], axis=1)
        best = score(raws, likelihoods, weight[:, None]).argmax(axis=1)
        rows = np.arange(n)
        return Measured(
            likelihood,
            raws[rows, best],
            classes[rows, best],
            weight,
            winners[rows, best],
            np.empty((n, 0)),
        )


@torch.inference_mode()
def ensembles(
    network: VariationalNetwork, batches: Iterable[Tensor]
) -> Iterator[dict[str, np.ndarray]]:
    """Feature ensemble ``t(x)`` of each batch.

    Parameters
    ----------
    network : VariationalNetwork
    batches : iterable of Tensor of shape (batch, *input_shape)

    Yields
    ------
    parts : dict of str to ndarray of shape (batch, length of the part)
        As of :meth:`~skvmdls.network.VariationalNetwork.ensemble`, and the input
        itself as ``x``; in the dtype of the network.

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> [parts["mu"].shape for parts in ensembles(network, [torch.zeros(4, 20)])]
    [(4, 8)]
    """

    def ensemble(x: Tensor) -> dict[str, np.ndarray]:
        return _numpy(_parts(network, x))

    yield from map_batches(ensemble, batches)


@torch.inference_mode()
def block_features(
    network: VariationalNetwork,
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    view: View,
) -> Iterator[dict[str, np.ndarray]]:
    """Features that the Gaussians are fitted to, batch by batch.

    Parameters
    ----------
    network : VariationalNetwork
    autoencoder : nn.Module or None
        Needed if `view` has the residual.
    batches : iterable of Tensor of shape (batch, *input_shape)
    view : View

    Yields
    ------
    features : dict of str to ndarray of shape (batch, D of the block)

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> view = View(("g", "mu"), "early", normalize=False, residual=False)
    >>> x = torch.zeros(4, 20)
    >>> [rows["ensemble"].shape for rows in block_features(network, None, [x], view)]
    [(4, 136)]
    """

    def features(x: Tensor) -> dict[str, np.ndarray]:
        parts = _parts(network, x)
        reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
        return _numpy(_blocks(parts, reconstructed, view))

    yield from map_batches(features, batches)


@torch.inference_mode()
def measure(
    network: VariationalNetwork,
    gaussians: Mapping[str, ClassGaussians],
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    n_points: int,
    view: View,
    known: KnownClasses | None = None,
    score: Score | None = None,
) -> Measured:
    """Likelihoods, raw evidence and reconstruction weights, one forward pass a batch.

    Parameters
    ----------
    network : VariationalNetwork
    gaussians : mapping of str to ClassGaussians
        Of each block of `view`, and of the residual if it has one.
    autoencoder : nn.Module or None
    batches : iterable of Tensor of shape (batch, *input_shape)
    n_points : int
        Rows of all batches together.
    view : View
    known : KnownClasses, optional
        By default the classes that the network was trained on.
    score : callable, optional
        Needed for `class_scores`, and where classes were added.

    Returns
    -------
    measured : Measured

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> gaussians = {"mu": ClassGaussians(np.zeros((3, 8)), np.ones((3, 8)), "diag")}
    >>> view = View(("mu",), "late", normalize=False, residual=False)
    >>> x = torch.zeros(4, 20)
    >>> measure(network, gaussians, None, [x], 4, view).class_log_likelihood.shape
    (4, 3)
    """
    n_classes = len(next(iter(gaussians.values())).means)
    classes = KnownClasses.of_fit(n_classes) if known is None else known
    n_parts = len(view.names)
    # Filled in place: many small arrays, kept between the large ones that each batch
    # needs for a moment, would keep the allocator from using their memory again.
    measured = Measured(
        np.empty((n_points, n_classes)),
        np.empty((n_points, n_parts)),
        np.empty(n_points, dtype=np.int64),
        np.zeros(n_points),
        np.empty((n_points, n_parts), dtype=np.int64),
        np.empty((n_points, n_classes if score else 0)),
    )

    def batch_measured(x: Tensor) -> Measured:
        parts = _parts(network, x)
        reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
        scores = {
            name: gaussians[name].log_likelihood(block).cpu().numpy()
            for name, block in _blocks(parts, reconstructed, view).items()
        }
        # One by one: a sum's rounding is not to depend on how many classes there are.
        likelihood = reduce(np.add, [scores[name] for name in view.blocks])
        by_head = likelihood
        if LOGIT in parts:
            logits = parts[LOGIT].cpu().double().numpy()
            by_head = scores[LOGIT] = classes.of_head(logits)
        raw = np.stack([scores[name] for name in view.names], axis=2)
        weight = torch.zeros(len(x))
        if reconstructed is not None:
            difference = parts["t1"] - reconstructed.mean(dim=2)
            weight = difference.square().sum(dim=1)
        return classes.decide(
            likelihood, raw, by_head, weight.cpu().double().numpy(), score
        )

    start = 0
    for part in map_batches(batch_measured, batches):
        end = start + len(part.weight)
        for field in fields(Measured):
            getattr(measured, field.name)[start:end] = getattr(part, field.name)
        start = end
    return measured


def _parts(network: VariationalNetwork, x: Tensor) -> dict[str, Tensor]:
    return {INPUT: x.flatten(start_dim=1), **network.ensemble(x)}


def _first_map_of_reconstruction(
    network: VariationalNetwork, autoencoder: nn.Module | None, x: Tensor
) -> Tensor | None:
    """Only the backbone's first stage runs on the reconstructions."""
    return None if autoencoder is None else network.first_map(autoencoder(x))


def _blocks(
    parts: dict[str, Tensor], reconstructed: Tensor | None, view: View
) -> dict[str, Tensor]:
    def seen(name: str) -> Tensor:
        # The input's columns are the user's: their length means nothing by itself.
        is_as_it_is = name == INPUT or not view.normalize
        return parts[name] if is_as_it_is else unit_and_length(parts[name])

    blocks = {
        block: torch.cat([seen(name) for name in names], dim=1)
        for block, names in view.blocks.items()
    }
    if view.residual:
        assert reconstructed is not None
        blocks[RESIDUAL] = residual_features(parts[FIRST_MAP], reconstructed)
    return blocks


def _numpy(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


@torch.inference_mode()
def reconstructions(autoencoder: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Reconstruct batches, in standardised units.

    Parameters
    ----------
    autoencoder : nn.Module
    batches : iterable of Tensor of shape (batch, *input_shape)

    Returns
    -------
    reconstructions : Tensor of shape (n, *input_shape), on the CPU

    Examples
    --------
    >>> reconstructions(nn.Identity(), [torch.zeros(2, 3), torch.zeros(1, 3)]).shape
    torch.Size([3, 3])
    """
    return torch.cat(list(map_batches(lambda x: autoencoder(x).cpu(), batches)))


def map_batches(
    function: Callable[[Tensor], Result], batches: Iterable[Tensor]
) -> Iterator[Result]:
    """Apply a function to each batch, in halves once the device runs out of memory.

    Parameters
    ----------
    function : callable
        Of a batch; row by row, so that halves together give what the whole would.
    batches : iterable of Tensor

    Yields
    ------
    result
        Of each batch or, where memory was short, of each piece of it, in order.

    Raises
    ------
    MemoryError
        If not even a single row fits.

    Examples
    --------
    >>> list(map_batches(len, [torch.zeros(3, 2), torch.zeros(1, 2)]))
    [3, 1]
    """
    largest = None
    for batch in batches:
        waiting = list(batch.split(largest or len(batch)))
        while waiting:
            piece = waiting.pop(0)
            result = _unless_out_of_memory(function, piece)
            if result is not None:
                yield result
                continue
            if len(piece) == 1:
                raise MemoryError(
                    "The device ran out of memory scoring a single row of shape "
                    f"{tuple(piece.shape[1:])}. Free memory, or use device='cpu'."
                )
            largest = len(piece) // 2
            waiting = list(torch.cat([piece, *waiting]).split(largest))


def _unless_out_of_memory(
    function: Callable[[Tensor], Result], batch: Tensor
) -> Result | None:
    try:
        return function(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Beyond the handler, the error holds on to no tensors any more.
    torch.cuda.empty_cache()
    return None
