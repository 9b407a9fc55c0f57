"""What a fit learns: from checked data to a model and its calibration."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from skvmdls._support.devices import place_to_score
from skvmdls.calibration.hold_out import (
    SMALLEST_TRAINING,
    Split,
    ThresholdNeeds,
    hold_out,
    one_of_each_group,
    usual_fraction,
    warn_of_small_classes,
)
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.calibration.probabilities import ClassProbabilities
from skvmdls.calibration.verdicts import Calibration
from skvmdls.detector.direct_evidence import (
    DirectRows,
    automatic_parts,
    cross_fit,
    direct_offsets,
    direct_rows,
    fit_direct,
    learn_weights,
    most_cross_fitted,
    offsets_of,
)
from skvmdls.detector.parameters import Settings, asks_for_net
from skvmdls.detector.trained_nets import TrainedNets, TrainingRows, train_nets
from skvmdls.direct.parts import DirectParts
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.scoring.cross_fitting import N_FOLDS, CrossFitted, row_folds
from skvmdls.scoring.evidence import (
    BELOW_MEDIAN,
    BELOW_RANGE,
    Evidence,
    PartSelection,
    default_weights,
    given_weights,
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
from skvmdls.scoring.model import (
    FittedModel,
    Measured,
    decide_scores,
    joined,
    measure,
    standardized_batches,
)
from skvmdls.scoring.trials import PartTrials
from skvmdls.training.checkpoints import Stage
from skvmdls.training.choices import TrainingChoices
from skvmdls.training.distributed import compute_sharded
from skvmdls.training.progress import History
from skvmdls.training.session import TrainingSession

__all__ = [
    "Learned",
    "calibrate",
    "images_in_grid",
    "learn",
    "trains_in_folds",
]

# Share of the held-out rows that set the evidence's constants; the others set the
# threshold.
EVIDENCE_SHARE = 0.25

# Up to so many images, of so many numbers in all, a net is trained six times, and none
# is held out.
MOST_IMAGES, MOST_NUMBERS = 1000, 200_000

# Weight of the parts of a net, in all, next to those without. See docs/recipe.md.
SHARE_OF_NET = 0.5


@dataclass(frozen=True, eq=False)
class Learned:
    """What a fit learned from its rows, and the histories of its trainings."""

    model: FittedModel
    calibration: Calibration
    split: Split
    history: History
    autoencoder_history: History | None
    training_choices: TrainingChoices | None


@dataclass(frozen=True, eq=False)
class Task:
    """What a fit was given: rows, labels (n,) from 0, groups (n,) or None, settings."""

    settings: Settings
    selection: PartSelection
    X: Rows
    labels: np.ndarray
    classes: np.ndarray
    groups: np.ndarray | None
    session: TrainingSession


@dataclass(frozen=True, eq=False)
class TrainedDirect:
    """The parts without a net, what their weights were learned from, and their seed.

    The offsets of small classes are (n_classes, n_parts), or None. `unseen` are scores
    of the training rows that help to find the usual range, by parts that were fitted
    without them.
    """

    parts: DirectParts | None
    trials: PartTrials | None = None
    offsets: np.ndarray | None = None
    seed: int = 0
    unseen: CrossFitted | None = None

    def unseen_raw(self) -> np.ndarray:
        """Raw scores (n, n_parts) of the training rows, by parts without them."""
        assert self.unseen is not None
        scores = self.unseen.scores
        if self.offsets is not None:
            scores = scores - self.offsets
        return scores.max(axis=1)


def learn(
    settings: Settings,
    X: Rows,
    labels: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray | None,
    session: TrainingSession,
) -> Learned:
    """Select the parts of the evidence, fit them, and calibrate."""
    selection = select_parts(settings, X, len(classes))
    if not isinstance(settings.part_weights, str):
        # Before the training, whose time a wrong name would waste.
        usual = default_weights(selection.names, is_table=len(X.input_shape) == 1)
        given_weights(selection.names, usual, settings.part_weights)
    warn_of_small_classes(classes, labels, groups)
    if settings.verbose and not selection.needs_net:
        kind = "vectors" if selection.unit_rows else "a table"
        parts = ", ".join(selection.names)
        print(f"no net is trained: X is {kind}, scored by {parts}", file=sys.stderr)
    task = Task(settings, selection, X, labels, classes, groups, session)
    if not is_cross_calibrated(settings, selection, X, labels, groups):
        return _learn_from_split(task)
    return _learn_across_nets(task) if selection.needs_net else _learn_from_all(task)


def _learn_from_split(task: Task) -> Learned:
    """Fit to some rows, and calibrate on the others."""
    settings, X, labels = task.settings, task.X, task.labels
    random_state = task.session.random_state
    fraction = held_out_fraction(settings, len(X), len(task.classes))
    split = hold_out(labels, fraction, EVIDENCE_SHARE, random_state, task.groups)
    rows = _training_rows(task, split)
    helping = _helping_rows(split, labels)
    fitted = _fit_parts(settings, task.selection, rows, task.session, helping)
    model = _with_evidence(fitted.model, X, split, helping, fitted.direct, settings)
    held_out = X.take(split.threshold), labels[split.threshold]
    calibration = calibrate(model, *held_out, settings)
    return _learned(model, calibration, split, fitted.nets, rows, settings)


def _learned(
    model: FittedModel,
    calibration: Calibration,
    split: Split,
    nets: TrainedNets,
    rows: TrainingRows,
    settings: Settings,
) -> Learned:
    """Sum up a fit with nets; of images, with the means that explanations need."""
    if not model.is_table:
        model = replace(model, expected_images=_expected_images(model, rows, settings))
    histories = nets.history, nets.autoencoder_history
    return Learned(model, calibration, split, *histories, nets.choices)


@dataclass(frozen=True, eq=False)
class FittedParts:
    """The parts of a model, whose scores have no common unit yet."""

    model: FittedModel
    nets: TrainedNets
    direct: TrainedDirect


def _fit_parts(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    session: TrainingSession,
    helping: np.ndarray | None = None,
) -> FittedParts:
    """Train the nets, and fit the Gaussians and the parts without a net."""
    with session.checkpoint.named_if_interrupted():
        nets = train_nets(settings, selection, rows, session)
        gaussians = _fit_gaussians(settings, selection, rows, nets, session)
    direct = _fit_direct_parts(settings, selection, rows, session, helping)
    evidence = Evidence.unfitted(selection.names)
    offsets = _offsets_of_parts(direct, len(selection.names))
    model = FittedModel(
        input_shape=rows.X.input_shape,
        standardizer=rows.standardizer,
        network=nets.network,
        autoencoder=nets.autoencoder,
        selection=selection,
        gaussians=gaussians,
        evidence=replace(evidence, offsets=offsets),
        fit_positions=np.arange(len(rows.classes)),
        direct=direct.parts,
    )
    return FittedParts(model, nets, direct)


def _offsets_of_parts(direct: TrainedDirect, n_parts: int) -> np.ndarray | None:
    """Offsets (n_classes, n_parts) of all parts, zero for those of a net."""
    if direct.offsets is None:
        return None
    offsets = np.zeros((len(direct.offsets), n_parts))
    offsets[:, n_parts - direct.offsets.shape[1] :] = direct.offsets
    return offsets


def _learn_across_nets(task: Task) -> Learned:
    """Train on all rows, and calibrate on scores by trainings without each fold.

    All trainings start from one seed, so that their scores are alike. The scores of all
    rows together set the units of the parts and the threshold of the final detector.
    """
    settings, selection = task.settings, task.selection
    X, session = task.X, task.session
    seed = session.random_state.randint(np.iinfo(np.int32).max)
    everything = Split(*[np.arange(len(X))] * 3)
    rows = _training_rows(task, everything)
    final = _fit_parts(settings, selection, rows, session.of_one_training(seed))
    if choices := final.nets.choices:
        # As the final training, whose trials are not repeated.
        settings = replace(
            settings,
            max_epochs=choices.max_epochs,
            augmentation=choices.augmentation,
        )
    without = _models_without_folds(replace(task, settings=settings), seed)
    model = final.model
    raw = _measured_across(without, model, X, settings)
    model = replace(
        model,
        evidence=_evidence(model, raw.raw, final.direct.trials, settings),
        weight_calibration=_product(raw, settings),
    )
    scored = np.sort(np.concatenate([positions for _, positions in without]))
    kept = one_of_each_group(task.groups, scored, session.random_state)
    split = Split(everything.training, scored, scored[kept])
    measured = _measured_across(without, model, X, settings, by_class=True)
    labels = task.labels[split.threshold]
    calibration = calibration_of(measured.take(kept), labels, model)
    return _learned(model, calibration, split, final.nets, rows, settings)


def _models_without_folds(
    task: Task, seed: int
) -> list[tuple[FittedModel, np.ndarray]]:
    """Fit without each fold of rows; with each model, the positions of its fold."""
    # The weights are those of the final detector: these need none.
    settings = replace(task.settings, part_weights="fixed")
    folds = row_folds(task.labels, groups=task.groups)
    found = []
    for fold in np.unique(folds[folds >= 0]).tolist():
        left_out = np.flatnonzero(folds == fold)
        split = Split(np.flatnonzero(folds != fold), left_out, left_out)
        rows = _training_rows(task, split)
        note = f", without fold {fold + 1} of {N_FOLDS}"
        session = task.session.of_one_training(seed, note)
        fitted = _fit_parts(settings, task.selection, rows, session)
        found.append((fitted.model, left_out))
    if not found:
        raise ValueError(
            f"calibration='cross' can score no row by a training without it. Each of "
            f"{len(task.classes)} classes is a single group (equal rows are one, and "
            "rows of the same `groups`). Give two groups or more of some class."
        )
    return found


def _measured_across(
    without: Sequence[tuple[FittedModel, np.ndarray]],
    constants: FittedModel,
    X: Rows,
    settings: Settings,
    *,
    by_class: bool = False,
) -> Measured:
    """Score each row by the model without it, with the constants of the final one."""
    found = []
    for model, positions in without:
        used = replace(
            model,
            evidence=constants.evidence,
            weight_calibration=constants.weight_calibration,
        )
        found.append(_measured(used, X.take(positions), settings, by_class=by_class))
    in_order = np.argsort(np.concatenate([positions for _, positions in without]))
    return joined(found).take(in_order)


def _product(raw: Measured, settings: Settings) -> WeightCalibration | None:
    """Fit the paper's product of weight and likelihood, where it is the score."""
    if settings.autoencoder is None or settings.weighting != "paper":
        return None
    return WeightCalibration.fit(raw.log_likelihood, raw.weight)


def _learn_from_all(task: Task) -> Learned:
    """Fit parts without a net to all rows, and calibrate on cross-fitted scores."""
    settings, session = task.settings, task.session
    everything = np.arange(len(task.X))
    rows = _training_rows(task, Split(*[everything] * 3))
    fitted = _fit_parts(settings, task.selection, rows, session, everything)
    model, direct = fitted.model, fitted.direct
    found = direct.unseen
    assert found is not None
    evidence = _evidence(model, direct.unseen_raw(), direct.trials, settings)
    model = replace(model, evidence=evidence)
    decided = decide_scores(model, found.scores)
    kept = one_of_each_group(task.groups, found.positions, session.random_state)
    split = Split(everything, found.positions, found.positions[kept])
    calibration = calibration_of(decided.take(kept), task.labels[split.threshold])
    return _learned(model, calibration, split, fitted.nets, rows, settings)


def is_cross_calibrated(
    settings: Settings,
    selection: PartSelection,
    X: Rows,
    labels: np.ndarray,
    groups: np.ndarray | None,
) -> bool:
    """Whether every row sets the threshold, scored by parts that have not seen it."""
    if settings.calibration != "auto":
        return settings.calibration == "cross"
    if settings.calibration_fraction != "auto":
        return False
    if not selection.needs_net:
        return len(X) <= most_cross_fitted(unit_rows=selection.unit_rows)
    n_numbers = math.prod(X.shape)
    return len(X.input_shape) > 1 and trains_in_folds(
        settings, labels, groups, n_numbers
    )


def trains_in_folds(
    settings: Settings, labels: np.ndarray, groups: np.ndarray | None, n_numbers: int
) -> bool:
    """Whether images, of so many numbers in all, are few and cheap enough for it."""
    is_paper = settings.fusion == "early" or settings.weighting == "paper"
    is_large_net = settings.backbone not in ("auto", "cnn")
    if (
        is_paper
        or is_large_net
        or len(labels) > MOST_IMAGES
        or n_numbers > MOST_NUMBERS
    ):
        return False
    folds = row_folds(labels, groups=groups)
    n_left = [
        np.bincount(labels[folds != fold], minlength=labels.max() + 1).min()
        for fold in range(N_FOLDS)
    ]
    return bool(min(n_left) >= SMALLEST_TRAINING)


def held_out_fraction(settings: Settings, n_rows: int, n_classes: int) -> float:
    """Resolve `calibration_fraction`."""
    if not isinstance(settings.calibration_fraction, str):
        return settings.calibration_fraction
    by_class = settings.guarantee == "class" and settings.threshold is None
    needs = ThresholdNeeds(settings.contamination, by_class)
    return usual_fraction(n_rows, n_classes, needs)


def select_parts(settings: Settings, X: Rows, n_classes: int) -> PartSelection:
    """Resolve which parts of the evidence a detector uses."""
    is_table = len(X.input_shape) == 1
    automatic: tuple[str, ...] = ()
    unit_rows = False
    features = settings.features
    is_paper = settings.fusion == "early" or settings.weighting == "paper"
    if is_table and not is_paper:
        automatic, unit_rows = automatic_parts(X, n_classes)
        is_auto = isinstance(features, str) and features == "auto"
        is_small = unit_rows or len(X) <= most_cross_fitted(unit_rows=False)
        if is_auto and is_small and not asks_for_net(settings):
            features = automatic
    selection = PartSelection.resolve(
        features,
        fusion=settings.fusion,
        normalize=settings.normalize,
        average_flips=settings.average_flips,
        has_head=settings.classification_weight > 0,
        has_residual=settings.autoencoder is not None
        and settings.weighting == "evidence",
        is_table=is_table,
        automatic=automatic,
        unit_rows=unit_rows,
    )
    return selection if selection.needs_net else replace(selection, residual=False)


def _training_rows(task: Task, split: Split) -> TrainingRows:
    X, labels = task.X.take(split.training), task.labels[split.training]
    if task.selection.needs_net:
        check_class_sizes(np.bincount(labels), task.settings.covariance_type)
    groups = None if task.groups is None else task.groups[split.training]
    return TrainingRows(X, labels, task.classes, groups, Standardizer().fit(X))


def _fit_gaussians(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    nets: TrainedNets,
    session: TrainingSession,
) -> nn.ModuleDict:
    if not selection.needs_net:
        return nn.ModuleDict()
    features = _features_by_class(settings, selection, rows, nets, session.device)

    def fit(stage: Stage) -> nn.ModuleDict:
        if stage.state is not None:
            stored = stage.state.items()
            return nn.ModuleDict(
                {block: ClassGaussians.from_state(*kept) for block, kept in stored}
            )
        gaussians = fit_gaussians(
            cache_features(features),
            rows.classes.tolist(),
            settings.covariance_type,
            settings.covariance_pooling,
        )
        stage.keep(
            {
                block: (g.state_dict(), g.covariance_type)
                for block, g in gaussians.items()
            }
        )
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


def _rows_of_direct(
    selection: PartSelection, rows: TrainingRows, seed: int
) -> DirectRows:
    n_classes = len(rows.classes)
    given = rows.X, rows.labels, n_classes, rows.groups
    return direct_rows(*given, selection, rows.standardizer, seed)


def _fit_direct_parts(
    settings: Settings,
    selection: PartSelection,
    rows: TrainingRows,
    session: TrainingSession,
    helping: np.ndarray | None = None,
) -> TrainedDirect:
    """Fit the parts without a net, and learn their weights, or load both.

    The rows `helping` (k,) are positions among the rows that train.
    """
    if not selection.direct:
        return TrainedDirect(None)
    seed = session.random_state.randint(np.iinfo(np.int32).max)
    weights = settings.part_weights

    def fit(stage: Stage) -> TrainedDirect:
        taken = _rows_of_direct(selection, rows, seed)
        trials = learn_weights(taken, weights)
        unseen = None
        if helping is not None:
            # Its own nearest row, a training row says nothing of the usual range.
            unseen = cross_fit(taken.take(helping))
        if unseen is not None and len(unseen.positions) == len(rows.labels):
            offsets = offsets_of(unseen.scores, rows.labels)
        else:
            offsets = direct_offsets(taken)
        return TrainedDirect(fit_direct(taken), trials, offsets, seed, unseen)

    depends_on = {"X": rows.X.content, "labels": rows.labels, "view": selection}
    learned = weights if isinstance(weights, str) else "fixed"
    return session.compute(
        "parts without a net",
        fit,
        {**depends_on, "seed": seed, "part_weights": learned, "helping": helping},
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


def _helping_rows(split: Split, labels: np.ndarray) -> np.ndarray | None:
    """Positions (k,) among the training rows of those of :func:`prior_rows`.

    There is a row of each class among them.
    """
    helping = prior_rows(split, len(labels))
    if helping is None:
        return None
    chosen = np.flatnonzero(np.isin(split.training, helping))
    first = np.unique(labels[split.training], return_index=True)[1]
    return np.union1d(chosen, first)


def _with_evidence(
    model: FittedModel,
    X: Rows,
    split: Split,
    helping: np.ndarray | None,
    direct: TrainedDirect,
    settings: Settings,
) -> FittedModel:
    """Fit the constants of the evidence on held-out points that set no threshold."""
    measured = _measured(model, X.take(split.evidence), settings)
    raw_of_training = None
    if helping is not None:
        if direct.unseen is not None:
            helping = helping[direct.unseen.positions]
        of_training = X.take(split.training[helping])
        raw_of_training = _measured(model, of_training, settings).raw
        if direct.unseen is not None:
            unseen = direct.unseen_raw()
            raw_of_training[:, -unseen.shape[1] :] = unseen
    return replace(
        model,
        evidence=_evidence(
            model, measured.raw, direct.trials, settings, raw_of_training
        ),
        weight_calibration=_product(measured, settings),
    )


def _evidence(
    model: FittedModel,
    raw: np.ndarray,
    trials: PartTrials | None,
    settings: Settings,
    raw_of_training: np.ndarray | None = None,
) -> Evidence:
    """Fit units and weights to raw scores (n, n_parts), and keep the model's offsets.

    On images the early parts count only below their usual range.
    """
    names = model.selection.names
    weights = _weights(names, trials, settings, is_table=model.is_table)
    only_below = BELOW_MEDIAN if model.is_table else BELOW_RANGE
    evidence = Evidence.fit(names, raw, weights, raw_of_training, only_below=only_below)
    return replace(evidence, trials=trials, offsets=model.evidence.offsets)


def _weights(
    names: Sequence[str],
    trials: PartTrials | None,
    settings: Settings,
    *,
    is_table: bool,
) -> np.ndarray:
    """Weights (n_parts,): constants of the net's parts, and those that were learned.

    The parts of the net count half as much in all as those without.
    """
    weights = default_weights(names, is_table=is_table)
    if trials is not None:
        of_net = len(names) - len(trials.names)
        weights[of_net:] = trials.weights
        if of_net:
            share = SHARE_OF_NET * trials.weights.sum() / weights[:of_net].sum()
            weights[:of_net] *= share
    if isinstance(settings.part_weights, str):
        return weights
    return given_weights(names, weights, settings.part_weights)


def calibrate(
    model: FittedModel, X: Rows, labels: np.ndarray, settings: Settings
) -> Calibration:
    """Score held-out points (n, ...), of classes at positions (n,)."""
    return calibration_of(_measured(model, X, settings, by_class=True), labels, model)


def calibration_of(
    measured: Measured, labels: np.ndarray, model: FittedModel | None = None
) -> Calibration:
    """Take the scores of held-out points, measured by class."""
    assert measured.class_scores is not None
    winners = measured.winners
    assert winners is not None
    if model is not None and model.weight_calibration is not None:
        winners = measured.class_log_likelihood.argmax(axis=1)[:, None]
    own_scores = measured.class_scores[np.arange(len(labels)), labels]
    assert measured.label_scores is not None
    probabilities = ClassProbabilities.fit(measured.label_scores, labels)
    return Calibration(measured.score, own_scores, labels, winners, probabilities)


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
