"""What a fit trains, and from what: from checked data to nets and Gaussians."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from skvmdls._support.devices import place_to_score
from skvmdls.calibration.hold_out import HeldOut, hold_out, warn_of_small_classes
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import Feed, Standardizer
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import BACKBONES, resolve_factory
from skvmdls.nets.network import VariationalNetwork, build_autoencoder, build_network
from skvmdls.scoring.features import block_features
from skvmdls.scoring.gaussians import (
    ClassGaussians,
    check_class_sizes,
    fit_gaussians,
    kept_for_another_pass,
)
from skvmdls.training.checkpoints import Stage
from skvmdls.training.distributed import compute_sharded
from skvmdls.training.loops import train_autoencoder, train_network
from skvmdls.training.plans import autoencoder_plan, network_plan
from skvmdls.training.progress import History
from skvmdls.training.session import Workshop

__all__ = ["Learned", "learn"]

# Share of the held-out rows that set the score's constants; the others the threshold.
EVIDENCE_SHARE = 0.25


class Learned(NamedTuple):
    """What the training rows teach, by the names of a detector's attributes."""

    split_: HeldOut
    standardizer_: Standardizer
    network_: VariationalNetwork
    history_: History
    autoencoder_: nn.Module | None
    autoencoder_history_: History | None
    gaussians_: nn.ModuleDict


class _Nets(NamedTuple):
    network: VariationalNetwork
    history: History
    autoencoder: nn.Module | None = None
    autoencoder_history: History | None = None


def learn(
    detector: Any,
    X: Rows,
    labels: np.ndarray,
    groups: np.ndarray | None,
    workshop: Workshop,
) -> Learned:
    """Hold rows of X (n, ...) out, standardise the others, train, fit the Gaussians.

    The detector gives its parameters, and `classes_`, `input_shape_` and `view_`.
    """
    shares = detector.calibration_fraction, EVIDENCE_SHARE
    split = hold_out(labels, *shares, workshop.random_state, groups)
    warn_of_small_classes(detector.classes_, labels, groups)
    X, labels = X.take(split.training), labels[split.training]
    check_class_sizes(np.bincount(labels), detector.covariance_type)
    standardizer = Standardizer().fit(X)
    with workshop.checkpoint.named_if_interrupted():
        nets = _trained(detector, standardizer, X, labels, workshop)
        gaussians = _fitted_gaussians(detector, nets, standardizer, X, labels, workshop)
    return Learned(split, standardizer, *nets, gaussians)


def _trained(
    detector: Any,
    standardizer: Standardizer,
    X: Rows,
    labels: np.ndarray,
    workshop: Workshop,
) -> _Nets:
    shape = detector.input_shape_
    targets = torch.from_numpy(labels).to(workshop.device)
    inputs = Feed(X, standardizer, workshop.device)
    backbone = resolve_factory(detector.backbone, BACKBONES, shape, "backbone")
    # VMDLSbDetector has none.
    choice = getattr(detector, "autoencoder", None)
    autoencoder = choice and resolve_factory(choice, AUTOENCODERS, shape, "autoencoder")
    n_logits = len(detector.classes_) if detector.classification_weight > 0 else 0
    plan = network_plan(detector, len(X), workshop.device)
    network, history = workshop.trained(
        "network",
        lambda: build_network(backbone, shape, detector.latent_dim, n_logits),
        lambda net, seed, stage: train_network(net, inputs, targets, plan, seed, stage),
        {"X": X.content, "labels": targets, "plan": plan},
    )
    if autoencoder is None:
        return _Nets(network, history)
    ae_plan = autoencoder_plan(detector)
    reconstructing = workshop.trained(
        "autoencoder",
        lambda: build_autoencoder(autoencoder, shape),
        lambda net, seed, stage: train_autoencoder(net, inputs, ae_plan, seed, stage),
        {"X": X.content, "plan": ae_plan},
    )
    return _Nets(network, history, *reconstructing)


def _fitted_gaussians(
    detector: Any,
    nets: _Nets,
    standardizer: Standardizer,
    X: Rows,
    labels: np.ndarray,
    workshop: Workshop,
) -> nn.ModuleDict:
    names = ("covariance_type", "covariance_pooling")
    kind = {name: getattr(detector, name) for name in names}

    def fit(stage: Stage) -> nn.ModuleDict:
        if stage.state is not None:
            kept = stage.state.items()
            return nn.ModuleDict(
                {
                    block: ClassGaussians.from_state(state, detector.covariance_type)
                    for block, state in kept
                }
            )
        is_table = len(detector.input_shape_) == 1
        scoring = (nets.network, nets.autoencoder)
        place = place_to_score(workshop.device, is_table, *scoring)

        def features_of(rows: Rows) -> Any:
            batches = standardizer.batches(rows, detector.batch_size, *place)
            return block_features(*scoring, batches, detector.view_)

        def features(label: int) -> Any:
            own = X.take(np.flatnonzero(labels == label))
            return compute_sharded(features_of, own)

        classes = detector.classes_.tolist()
        gaussians = fit_gaussians(
            kept_for_another_pass(features), classes, *kind.values()
        )
        stage.keep({block: g.state_dict() for block, g in gaussians.items()})
        return nn.ModuleDict(gaussians)

    return workshop.fitted(
        "gaussians",
        fit,
        {
            "network": nets.network,
            "autoencoder": nets.autoencoder,
            "X": X.content,
            "labels": labels,
            "view": detector.view_,
            **kind,
        },
    )
