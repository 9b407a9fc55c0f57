"""What a fit learns: from checked data to a model and its calibration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from skvmdls._support.devices import place_to_score
from skvmdls.calibration.hold_out import Split, hold_out, warn_of_small_classes
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.calibration.verdicts import Calibration
from skvmdls.detector.parameters import Settings
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import BatchSource, Standardizer
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import BACKBONES, resolve_factory
from skvmdls.nets.network import VariationalNetwork, build_autoencoder, build_network
from skvmdls.scoring.evidence import (
    Evidence,
    PartSelection,
    default_weights,
    prior_rows,
)
from skvmdls.scoring.expected_images import (
    N_IMAGES,
    ExpectedImages,
    grid_of,
    in_grid,
)
from skvmdls.scoring.features import block_features
from skvmdls.scoring.gaussians import (
    ClassGaussians,
    Features,
    cache_features,
    check_class_sizes,
    fit_gaussians,
)
from skvmdls.scoring.model import FittedModel, Measured, measure, standardized_batches
from skvmdls.training.checkpoints import Stage
from skvmdls.training.distributed import compute_sharded
from skvmdls.training.loops import train_autoencoder, train_network
from skvmdls.training.plans import autoencoder_plan, network_plan
from skvmdls.training.progress import History
from skvmdls.training.session import TrainingSession

__all__ = ["Learned", "calibrate", "images_in_grid", "learn"]

# Share of the held-out rows that set the evidence's constants; the others set the
# threshold.
EVIDENCE_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Learned:
    """What a fit learned from its rows, and the histories of its trainings."""

    model: FittedModel
    calibration: Calibration
    split: Split
    history: History
    autoencoder_history: History | None


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows that train, as checked: X (n, ...), positions of their classes (n,)."""

    X: Rows
    labels: np.ndarray
    classes: np.ndarray
    standardizer: Standardizer


@dataclass(frozen=True, eq=False)
class TrainedNets:
    """The trained nets, each with its history."""

    network: VariationalNetwork
    history: History
    autoencoder: nn.Module | None = None
    autoencoder_history: History | None = None


def learn(
    settings: Settings,
    X: Rows,
    labels: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray | None,
    session: TrainingSession,
) -> Learned:
    """Hold rows out, train the nets on the others, fit the Gaussians, and calibrate."""
    selection = select_parts(settings, is_table=len(X.input_shape) == 1)
    share = settings.calibration_fraction
    split = hold_out(labels, share, EVIDENCE_SHARE, session.random_state, groups)
    warn_of_small_classes(classes, labels, groups)
    rows = _training_rows(settings, X, labels, classes, split)
    with session.checkpoint.named_if_interrupted():
        nets = _train_nets(settings, rows, session)
        gaussians = _fit_gaussians(settings, selection, rows, nets, session)
    model = FittedModel(
        input_shape=X.input_shape,
        standardizer=rows.standardizer,
        network=nets.network,
        autoencoder=nets.autoencoder,
        selection=selection,
        gaussians=gaussians,
        evidence=Evidence.unfitted(selection.names),
        fit_positions=np.arange(len(classes)),
    )
    model = _with_evidence(model, X, split, settings)
    calibration = calibrate(
        model, X.take(split.threshold), labels[split.threshold], settings
    )
    if not model.is_table:
        model = replace(model, expected_images=_expected_images(model, rows, settings))
    return Learned(model, calibration, split, nets.history, nets.autoencoder_history)


def select_parts(settings: Settings, *, is_table: bool) -> PartSelection:
    """Resolve which parts of the evidence a detector uses."""
    return PartSelection.resolve(
        settings.features,
        fusion=settings.fusion,
        normalize=settings.normalize,
        average_flips=settings.average_flips,
        has_head=settings.classification_weight > 0,
        has_residual=settings.autoencoder is not None
        and settings.weighting == "evidence",
        is_table=is_table,
    )


def _training_rows(
    settings: Settings,
    X: Rows,
    labels: np.ndarray,
    classes: np.ndarray,
    split: Split,
) -> TrainingRows:
    X, labels = X.take(split.training), labels[split.training]
    check_class_sizes(np.bincount(labels), settings.covariance_type)
    return TrainingRows(X, labels, classes, Standardizer().fit(X))


def _train_nets(
    settings: Settings, rows: TrainingRows, session: TrainingSession
) -> TrainedNets:
    shape, n_classes = rows.X.input_shape, len(rows.classes)
    targets = torch.from_numpy(rows.labels).to(session.device)
    inputs = BatchSource(rows.X, rows.standardizer, session.device)
    backbone = resolve_factory(settings.backbone, BACKBONES, shape, "backbone")
    n_logits = n_classes if settings.classification_weight > 0 else 0
    plan = network_plan(settings, shape, len(rows.X), n_classes, session.device)
    network, history = session.train(
        "network",
        lambda: build_network(backbone, shape, settings.latent_dim, n_logits),
        lambda net, *loop: train_network(net, inputs, targets, plan, *loop),
        {"X": rows.X.content, "labels": targets, "plan": plan},
    )
    if settings.autoencoder is None:
        return TrainedNets(network, history)
    choice = settings.autoencoder
    factory = resolve_factory(choice, AUTOENCODERS, shape, "autoencoder")
    its_plan = autoencoder_plan(settings)
    autoencoder, its_history = session.train(
        "autoencoder",
        lambda: build_autoencoder(factory, shape),
        lambda net, *loop: train_autoencoder(net, inputs, its_plan, *loop),
        {"X": rows.X.content, "plan": its_plan},
    )
    return TrainedNets(network, history, autoencoder, its_history)


def _fit_gaussians(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    nets: TrainedNets,
    session: TrainingSession,
) -> nn.ModuleDict:
    features = _features_by_class(settings, selection, rows, nets, session.device)

    def fit(stage: Stage) -> nn.ModuleDict:
        if stage.state is not None:
            stored = stage.state.items()
            return nn.ModuleDict(
                {
                    block: ClassGaussians.from_state(state, settings.covariance_type)
                    for block, state in stored
                }
            )
        gaussians = fit_gaussians(
            cache_features(features),
            rows.classes.tolist(),
            settings.covariance_type,
            settings.covariance_pooling,
        )
        stage.keep({block: g.state_dict() for block, g in gaussians.items()})
        return nn.ModuleDict(gaussians)

    return session.compute(
        "gaussians",
        fit,
        {
            "network": nets.network,
            "autoencoder": nets.autoencoder,
            "X": rows.X.content,
            "labels": rows.labels,
            "view": selection,
            "covariance_type": settings.covariance_type,
            "covariance_pooling": settings.covariance_pooling,
        },
    )


def _features_by_class(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    nets: TrainedNets,
    device: torch.device,
) -> Callable[[int], Iterable[Features]]:
    """Make the function that streams the features of a class, by its position."""
    is_table = len(rows.X.input_shape) == 1

    def features_of(X: Rows) -> Iterator[Features]:
        placement = place_to_score(device, is_table, nets.network, nets.autoencoder)
        batches = rows.standardizer.batches(X, settings.batch_size, *placement)
        return block_features(nets.network, nets.autoencoder, batches, selection)

    def features(label: int) -> Iterable[Features]:
        own = rows.X.take(np.flatnonzero(rows.labels == label))
        return compute_sharded(features_of, own)

    return features


def _with_evidence(
    model: FittedModel, X: Rows, split: Split, settings: Settings
) -> FittedModel:
    """Fit the constants of the evidence on held-out points that set no threshold."""
    measured = _measured(model, X.take(split.evidence), settings)
    helping = prior_rows(split, len(X))
    raw_of_training = (
        None if helping is None else _measured(model, X.take(helping), settings).raw
    )
    names = model.selection.names
    weights = default_weights(names, is_table=model.is_table)
    product = None
    if settings.autoencoder is not None and settings.weighting == "paper":
        product = WeightCalibration.fit(measured.log_likelihood, measured.weight)
    return replace(
        model,
        evidence=Evidence.fit(names, measured.raw, weights, raw_of_training),
        weight_calibration=product,
    )


def calibrate(
    model: FittedModel, X: Rows, labels: np.ndarray, settings: Settings
) -> Calibration:
    """Score held-out points (n, ...), of classes at positions (n,)."""
    measured = _measured(model, X, settings, by_class=True)
    assert measured.class_scores is not None
    assert measured.winners is not None
    winners = measured.winners
    if model.weight_calibration is not None:
        winners = measured.class_log_likelihood.argmax(axis=1)[:, None]
    own_scores = measured.class_scores[np.arange(len(labels)), labels]
    return Calibration(measured.score, own_scores, labels, winners)


def _measured(
    model: FittedModel, X: Rows, settings: Settings, *, by_class: bool = False
) -> Measured:
    size, device = settings.batch_size, settings.device
    return measure(X, model, batch_size=size, device=device, by_class=by_class)


def _expected_images(
    model: FittedModel, rows: TrainingRows, settings: Settings
) -> ExpectedImages:
    """Learn from as many training images as are enough, of each class as many."""
    n_each = -(-N_IMAGES // len(rows.classes))
    by_class = [
        np.flatnonzero(rows.labels == label) for label in range(len(rows.classes))
    ]
    some = np.concatenate([own[:: -(-len(own) // n_each)] for own in by_class])
    images = images_in_grid(model, rows.X.take(some), settings)
    return ExpectedImages.fit(images, rows.labels[some])


def images_in_grid(model: FittedModel, X: Rows, settings: Settings) -> torch.Tensor:
    """Standardise images and average them into the grid, (n, channels, h, w)."""
    shape = (len(X), X.input_shape[0], *grid_of(X.input_shape))
    images = torch.empty(shape, dtype=torch.float64)
    size, device = settings.batch_size, settings.device
    start = 0
    for x in standardized_batches(X, model, batch_size=size, device=device):
        images[start : start + len(x)] = in_grid(x)
        start += len(x)
    return images
