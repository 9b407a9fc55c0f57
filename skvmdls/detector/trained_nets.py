"""Train the nets of a detector: choose how, build them, and run the trainings."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skvmdls._support.devices import resolve_precision
from skvmdls._support.torch_state import seeded
from skvmdls.detector.parameters import Settings
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import BatchSource, Standardizer
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import (
    BACKBONES,
    BackboneFactory,
    ModuleFactory,
    photo_cnn,
    resolve_factory,
)
from skvmdls.nets.network import VariationalNetwork, build_autoencoder, build_network
from skvmdls.scoring.evidence import PartSelection
from skvmdls.scoring.features import block_lengths
from skvmdls.scoring.gaussians import check_memory
from skvmdls.training.checkpoints import Stage
from skvmdls.training.choices import Situation, TrainingChoices, choose_training
from skvmdls.training.loops import train_autoencoder, train_network
from skvmdls.training.mirroring import (
    MOST_TRIED,
    MirrorTrial,
    reduced,
    try_mirroring,
)
from skvmdls.training.plans import autoencoder_plan, batches_per_epoch, network_plan
from skvmdls.training.progress import History
from skvmdls.training.session import TrainingSession
from skvmdls.training.whitening import (
    enough_images,
    whiten_first_layer,
    whitened_layer,
)

__all__ = ["TrainedNets", "TrainingRows", "train_nets"]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows that train, as checked: X (n, ...), positions of their classes (n,)."""

    X: Rows
    labels: np.ndarray
    classes: np.ndarray
    groups: np.ndarray | None
    standardizer: Standardizer


@dataclass(frozen=True, eq=False)
class TrainedNets:
    """The trained nets, each with its history; None where no part needs them."""

    network: VariationalNetwork | None
    history: History
    choices: TrainingChoices | None = None
    autoencoder: nn.Module | None = None
    autoencoder_history: History | None = None


def train_nets(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    session: TrainingSession,
) -> TrainedNets:
    """Train the network and the autoencoder, or load them, if a part needs them."""
    if not selection.needs_net:
        return TrainedNets(None, {})
    shape, n_classes = rows.X.input_shape, len(rows.classes)
    targets = torch.from_numpy(rows.labels).to(session.device)
    inputs = BatchSource(rows.X, rows.standardizer, session.device)
    backbone = resolve_factory(settings.backbone, BACKBONES, shape, "backbone")
    choices = _choose(settings, backbone, rows, session)
    n_logits = n_classes if settings.classification_weight > 0 else 0
    plan = network_plan(settings, choices, shape, n_classes, session.device)

    def build() -> VariationalNetwork:
        network = build_network(backbone, shape, settings.latent_dim, n_logits)
        lengths = block_lengths(selection, network, shape)
        # Before the training, whose time would be wasted.
        check_memory(lengths, np.bincount(rows.labels), settings.covariance_type)
        if layer := whitened_layer(network.backbone):
            some = rows.X.take(enough_images(len(rows.X), *shape[1:]))
            cpu = torch.device("cpu")
            batches = rows.standardizer.batches(some, settings.batch_size, cpu)
            whiten_first_layer(layer, batches)
        return network

    network, history = session.train(
        "network",
        build,
        lambda net, *loop: train_network(net, inputs, targets, plan, *loop),
        {"X": rows.X.content, "labels": targets, "plan": plan},
    )
    if settings.autoencoder is None:
        return TrainedNets(network, history, choices)
    choice = settings.autoencoder
    factory = resolve_factory(choice, AUTOENCODERS, shape, "autoencoder")
    its_plan = autoencoder_plan(settings)
    autoencoder, its_history = session.train(
        "autoencoder",
        lambda: build_autoencoder(factory, shape),
        lambda net, *loop: train_autoencoder(net, inputs, its_plan, *loop),
        {"X": rows.X.content, "plan": its_plan},
    )
    return TrainedNets(network, history, choices, autoencoder, its_history)


def _choose(
    settings: Settings,
    backbone: BackboneFactory,
    rows: TrainingRows,
    session: TrainingSession,
) -> TrainingChoices:
    """Choose how to train a net on these rows."""
    n_rows, n_classes = len(rows.X), len(rows.classes)
    situation = Situation(
        input_shape=rows.X.input_shape,
        n_rows=n_rows,
        n_batches=batches_per_epoch(settings, n_rows, n_classes),
        is_trained=isinstance(backbone, ModuleFactory),
        is_fast=backbone is photo_cnn,
    )
    choices = choose_training(
        settings, situation, lambda: _try_mirroring(settings, rows, session)
    )
    if settings.verbose:
        # Where the progress bars are.
        print(f"training: {choices}", file=sys.stderr)
    return choices


def _try_mirroring(
    settings: Settings, rows: TrainingRows, session: TrainingSession
) -> MirrorTrial:
    """Compare images with mirrored ones, on some of the rows that train."""
    seed = session.random_state.randint(np.iinfo(np.int32).max)
    some = np.random.RandomState(seed).permutation(len(rows.X))[:MOST_TRIED]
    dtype = resolve_precision(settings.precision, session.device)

    def compare(_: Stage) -> MirrorTrial:
        batches = rows.standardizer.batches(
            rows.X.take(some), settings.batch_size, session.device
        )
        images = torch.cat([reduced(batch) for batch in batches])
        labels = torch.from_numpy(rows.labels[some]).to(session.device)
        with seeded(seed, session.device):
            return try_mirroring(images, labels, seed, dtype)

    depends_on = {"X": rows.X.content, "labels": rows.labels, "seed": seed}
    return session.compute("mirroring", compare, {**depends_on, "dtype": dtype})
