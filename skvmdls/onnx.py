"""One ONNX file that answers what a detector answers, where there is no Python.

ONNX is the format that phones, browsers, inspection lines and services in other
languages run. A file holds the whole way from a raw input to the answers:
standardisation, nets, Gaussians, evidence, threshold and p-values. Writing one needs
the extra ``onnx`` (``pip install "skvmdls[onnx]"``); running one needs a run time for
ONNX, and neither torch nor skvmdls.
"""

import errno
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

import skvmdls
from skvmdls._files import write_atomically
from skvmdls._onnx_graph import Answers, Graph, Precision, WhiteDistances
from skvmdls._torch_state import under_ordinary_torch
from skvmdls._validation import warn
from skvmdls.calibration import conformal_p_value
from skvmdls.evidence import INPUT
from skvmdls.gaussians import ClassGaussians
from skvmdls.inputs import labels_with_unknown

__all__ = ["Differences", "check", "export_onnx"]

INPUT_NAME = "X"
# Of the scores' spread: what float32 may change, half of what is promised, and beyond
# what a file is not that detector's.
TOLERANCE, PROMISED, REFUSED = 5e-5, 1e-4, 1e-2
# A file with more bytes keeps its weights beside it: protobuf ends at 2 GiB.
LARGEST_FILE = 2**30
DRAWN_INPUTS, DRAWN_OF_A_CLASS = 64, 8
PRECISIONS = ("float32", "float64")
NUMPY = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


@dataclass(frozen=True)
class Differences:
    """How far a file's answers are from its detector's.

    Attributes
    ----------
    n : int
        Rows that were compared.
    labels : int
        Rows with another label, those at a tie aside.
    ties : int
        Rows with another label or p-value whose score is within 1e-4 of the spread of
        the threshold, or of a held-out score.
    score, evidence, class_log_likelihood : float
        Greatest difference, in units of the spread of known points (the interquartile
        range of the held-out scores; of the rows for the log-likelihoods); of points
        that are farther from the median than that, in units of their distance.
    p_value : float
        Greatest difference, ties aside.

    Examples
    --------
    >>> print(Differences(100, 0, 1, 2e-6, 0.0, 1e-6, 3e-7))
    100 rows: 0 with another label, 1 at a tie; greatest differences: score 2e-06 ...
    """

    n: int
    labels: int
    ties: int
    score: float
    p_value: float
    evidence: float
    class_log_likelihood: float

    def __str__(self) -> str:
        return (
            f"{self.n} rows: {self.labels} with another label, {self.ties} at a tie; "
            f"greatest differences: score {self.score:.1g} of its spread, p-value "
            f"{self.p_value:.1g}, evidence {self.evidence:.1g}, log-likelihood "
            f"{self.class_log_likelihood:.1g}"
        )

    @property
    def largest(self) -> float:
        """The greatest of the differences in units of a spread."""
        return max(self.score, self.evidence, self.class_log_likelihood)


@under_ordinary_torch
def export_onnx(
    detector: Any,
    path: str | os.PathLike[str],
    X: ArrayLike | None = None,
    *,
    batch: int | str = "dynamic",
    precision: str = "float32",
) -> Differences:
    """Write a fitted detector to one ONNX file, and check that it answers the same.

    The file takes raw inputs ``X``, as given to `fit`: of shape (n, features) or (n,
    channels, height, width); uint8 if `fit` was given bytes, else floats. It gives

    - ``label`` (n,), int64: the position in ``classes_``, or -1 for unknown;
    - ``score`` (n,), ``p_value`` (n,), ``evidence`` (n, n_parts) and
      ``class_log_likelihood`` (n, n_classes), float64, as the detector's methods do.

    The threshold is that of now: of `contamination`, `threshold` and `guarantee` as
    they are set. Rows with missing or infinite numbers, which a detector refuses, are
    answered -1 with a score of NaN.

    Its metadata, strings of JSON but for the version, are ``classes``, ``unknown``,
    ``evidence_names``, ``feature_names``, ``input_shape``, ``input_units``,
    ``input_range``, ``threshold``, ``contamination``, ``guarantee``, ``precision``,
    ``check`` (the :class:`Differences`), ``detector`` and ``skvmdls_version``.

    Parameters
    ----------
    detector : VMDLSDetector or VMDLSbDetector
        Fitted.
    path : path
        Usually ending in ``.onnx``. A file of more than 1 GiB keeps its weights in a
        second one beside it, of this name and ``.data``.
    X : array-like, default=None
        Rows to check the file on, as for ``predict``; best some that were not trained
        on, known and unknown. None: rows that are drawn at random, and features that
        are drawn from the classes' Gaussians.
    batch : int or "dynamic", default="dynamic"
        Rows in one call, if it shall be fixed, as some accelerators want it.
    precision : {"float32", "float64"}, default="float32"
        ``"float32"``: what changes no score by more than 5e-5 of the scores' spread is
        computed in float32, tried in this order: all; all but the Gaussians; for
        tables, none. What was chosen is in the metadata. ``"float64"``: the inputs, if
        they are floats, the Gaussians, and of tables the nets too. (The nets of images
        are float32, as in the detector.)

    Returns
    -------
    differences : Differences
        Of the file from the detector, on the rows that it was checked on.

    Raises
    ------
    ImportError
        If the extra is not installed.
    ValueError
        If a parameter is out of range; or a module cannot be exported, which is then
        named, with the reason; or the file answers otherwise than the detector. No file
        is written then.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If a score differs by more than 1e-4 of the scores' spread.

    See Also
    --------
    skvmdls.onnx.check : Compare a file with a detector.
    skvmdls.save : For Python: scores are the same to the bit.

    Examples
    --------
    >>> import tempfile, onnxruntime
    >>> from skvmdls import VMDLSbDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1), random_state=0)
    >>> X_train = digits.X_train.reshape(-1, 64)
    >>> detector = VMDLSbDetector(max_epochs=1, contamination=0.1, random_state=0)
    >>> detector = detector.fit(X_train, digits.y_train)
    >>> path = Path(tempfile.mkdtemp()) / "detector.onnx"
    >>> differences = export_onnx(detector, path, digits.X_test[:100].reshape(-1, 64))
    >>> differences.labels
    0
    >>> session = onnxruntime.InferenceSession(path)
    >>> X = digits.X_test[:3].reshape(-1, 64).astype("float32")
    >>> label, score, *_ = session.run(None, {"X": X})
    >>> score.shape
    (3,)
    """
    _import_extra()
    check_is_fitted(detector)
    _check_parameters(batch, precision)
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "It is a folder; give the path of a file", os.fspath(path)
        )
    expected = _Expected.of(detector, _drawn_inputs(detector) if X is None else X)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        draft = _best_draft(detector, expected, batch, precision, Path(folder), path)
        _write(draft, detector, "drawn" if X is None else "given", path)
    differences = draft.differences
    if differences.largest > PROMISED:
        warn(
            f"The file's answers differ from the detector's by up to "
            f"{differences.largest:.1g} of the scores' spread ({draft.precision}): "
            "rounding in the nets decides that much. precision='float64' may help "
            "tables; give a few hundred rows of your own as X to see it for them."
        )
    return differences


@under_ordinary_torch
def check(
    path: str | os.PathLike[str], X: ArrayLike, detector: Any, *, verbose: bool = True
) -> Differences:
    """Compare a file of :func:`export_onnx` with the detector, and print the result.

    Parameters
    ----------
    path : path
    X : array-like
        Rows, as for ``detector.predict``.
    detector : VMDLSDetector or VMDLSbDetector
        The one that was exported.
    verbose : bool, default=True
        Whether to print it.

    Returns
    -------
    differences : Differences

    Raises
    ------
    ValueError
        If the file is damaged, or of a detector of other inputs or classes.

    Examples
    --------
    >>> import tempfile
    >>> from skvmdls import VMDLSbDetector
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> X[30:] += 9
    >>> detector = VMDLSbDetector(max_epochs=1, contamination=0.2, random_state=0)
    >>> detector = detector.fit(X, np.repeat(["ant", "bee"], 30))
    >>> path = Path(tempfile.mkdtemp()) / "detector.onnx"
    >>> _ = export_onnx(detector, path, X)
    >>> differences = check(path, X, detector)
    60 rows: 0 with another label, ...
    """
    _import_extra()
    check_is_fitted(detector)
    with open(path, "rb"):
        pass
    session = _session(path)
    metadata = session.get_modelmeta().custom_metadata_map
    for name, ours in (
        ("classes", detector.classes_.tolist()),
        ("input_shape", list(detector.input_shape_)),
        ("evidence_names", list(detector.evidence_names_)),
    ):
        theirs = json.loads(metadata.get(name, "null"))
        if theirs != json.loads(json.dumps(ours)):
            raise ValueError(
                f"{path} is of another detector: its {name} are {str(theirs)[:200]}, "
                f"the detector's are {str(ours)[:200]}."
            )
    expected = _Expected.of(detector, X)
    differences = expected.differences(_run(session, expected.X))
    if verbose:
        print(differences)
    return differences


def _import_extra() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"skvmdls.onnx needs {name}, which cannot be imported ({error}). "
                'Install the extra: pip install "skvmdls[onnx]"'
            ) from error


def _check_parameters(batch: int | str, precision: str) -> None:
    is_size = isinstance(batch, int) and not isinstance(batch, bool) and batch > 0
    if not (is_size or (isinstance(batch, str) and batch == "dynamic")):
        raise ValueError(
            f"batch={batch!r} must be 'dynamic' or a positive int, the rows of a call."
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {PRECISIONS}.")


# ------------------------------------------------------------------ what is compared


@dataclass(frozen=True)
class _Expected:
    """Rows (n, *input_shape), what the detector answers, and what counts as equal."""

    X: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]
    held_out: np.ndarray
    threshold: float | None

    @classmethod
    def of(cls, detector: Any, X: Any) -> "_Expected":
        scores = detector.score_samples(X)
        classes = labels_with_unknown(detector.classes_)
        position = {label: i for i, label in enumerate(classes.tolist())}
        labels = np.array([position[label] for label in detector.predict(X).tolist()])
        labels[labels == len(detector.classes_)] = -1
        held_out = detector.calibration_scores_
        return cls(
            _raw(detector, X),
            labels,
            {
                "score": scores,
                "p_value": conformal_p_value(held_out, scores),
                "evidence": detector.evidence(X),
                "class_log_likelihood": detector.class_log_likelihood(X),
            },
            held_out,
            None if detector._promises_by_class() else float(detector.offset_),
        )

    def differences(self, found: Any) -> Differences:
        """Compare with what a file gives, of arrays."""
        by_name = {name: np.asarray(array) for name, array in found._asdict().items()}
        relative = {
            name: _relative(by_name[name], self.answers[name], reference)
            for name, reference in (
                ("score", self.held_out),
                ("evidence", None),
                ("class_log_likelihood", self.answers["class_log_likelihood"]),
            )
        }
        scores = self.answers["score"]
        near = PROMISED * _unit(scores, self.held_out)
        at_threshold = np.zeros(len(scores), dtype=bool)
        if self.threshold is not None:
            at_threshold = np.abs(scores - self.threshold) <= near
        sorted_scores = np.sort(self.held_out)
        between = np.searchsorted(sorted_scores, scores + near, side="right")
        between -= np.searchsorted(sorted_scores, scores - near, side="left")
        n_ranks = np.abs(by_name["p_value"] - self.answers["p_value"])
        n_ranks *= len(self.held_out) + 1
        is_tied = n_ranks <= between + 1e-6
        other = by_name["label"] != self.labels
        if self.threshold is None:
            # Classes' own held-out scores decide: as often as not at a tie of these.
            at_threshold = between > 0
        ties = (other & at_threshold) | (is_tied & (n_ranks > 1e-6))
        p_values = np.where(is_tied, 0, n_ranks) / (len(self.held_out) + 1)
        return Differences(
            len(scores),
            int((other & ~at_threshold).sum()),
            int(ties.sum()),
            relative["score"],
            float(p_values.max(initial=0)),
            relative["evidence"],
            relative["class_log_likelihood"],
        )


def _unit(values: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """In what to measure differences: the reference's spread, or the distance to it.

    Without a reference the values are in units of their spread already.
    """
    if reference is None:
        return np.maximum(1, np.abs(values))
    lower, middle, upper = np.quantile(reference, [0.25, 0.5, 0.75], axis=0)
    spread = upper - lower
    # A single held-out point has no spread, and is no measure of anything.
    spread = np.where(spread > 0, spread, np.maximum(1, np.abs(middle)))
    return np.maximum(spread, np.abs(values - middle))


def _relative(
    found: np.ndarray, expected: np.ndarray, reference: np.ndarray | None
) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    ratios = np.abs(found - expected) / _unit(expected, reference)
    return float(ratios.max(initial=0))


def _raw(detector: Any, X: Any) -> np.ndarray:
    """Rows as they are given to the file: bytes, or floats in float64."""
    X = np.asarray(X)
    X = X.reshape(len(X), *detector.input_shape_)
    if not detector.standardizer_.were_bytes_:
        is_image = len(detector.input_shape_) == 3
        return X / 255 if X.dtype == np.uint8 and is_image else X.astype(np.float64)
    as_bytes = X.astype(np.uint8)
    are_bytes = X.dtype == np.uint8 or len(detector.input_shape_) == 1
    if not are_bytes or (as_bytes != X).any():
        raise ValueError(
            f"X holds {X.dtype}, but the detector was fitted on bytes, and so its file "
            "takes uint8. Give X as it was given to fit."
        )
    return as_bytes


def _drawn_inputs(detector: Any) -> np.ndarray:
    """Draw rows: of tables from the classes' Gaussians, of images coarse noise."""
    rng = np.random.default_rng(0)
    shape, standardizer = detector.input_shape_, detector.standardizer_
    if INPUT in detector.gaussians_:
        gaussians = detector.gaussians_[INPUT]
        n = max(1, DRAWN_INPUTS // len(gaussians.means))
        drawn = [
            _drawn(one, n, size) for one in _one_by_one(gaussians) for size in (1, 3)
        ]
        x = np.concatenate([t.numpy() for t in drawn])
    elif len(shape) == 1:
        x = rng.normal(size=(DRAWN_INPUTS, *shape))
    else:
        channels, height, width = shape
        coarse = rng.normal(
            size=(DRAWN_INPUTS, channels, -(-height // 4), -(-width // 4))
        )
        smooth = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width]
        x = smooth + rng.normal(scale=0.2, size=(DRAWN_INPUTS, *shape))
    X = x * standardizer.scale_ + standardizer.mean_
    X = X.clip(standardizer.smallest_, standardizer.largest_)
    if not standardizer.were_bytes_:
        return X
    return np.round(X * (255 if len(shape) == 3 else 1)).astype(np.uint8)


def _one_by_one(gaussians: ClassGaussians) -> Iterator[ClassGaussians]:
    """Each class's Gaussian, alone, on the CPU."""
    kind, common = gaussians.covariance_type, gaussians.common()
    precisions = gaussians.precisions_cholesky.cpu().numpy()
    for label, mean in enumerate(gaussians.means.cpu().numpy()):
        own = precisions if kind == "tied" else precisions[label : label + 1]
        yield ClassGaussians(mean[None], own, kind, common)


def _drawn(gaussian: ClassGaussians, n: int, size: float) -> Tensor:
    """Draw n features (n, D) of one class, their deviations times a size."""
    generator = torch.Generator().manual_seed(0)
    [mean], precision = gaussian.means, gaussian.precisions_cholesky
    z = torch.randn(n, len(mean), generator=generator, dtype=torch.float64) * size
    if gaussian.covariance_type == "diag":
        return mean + z / precision
    # z = (t - mean) W, solved for t.
    whitening = precision if precision.ndim == 2 else precision[0]
    return mean + torch.linalg.solve(whitening, z, left=False)


# ------------------------------------------------------------------ in which precision


def _candidates(detector: Any, precision: str) -> list[Precision]:
    """Precisions to try, the cheapest first."""
    float32, float64 = torch.float32, torch.float64
    is_table = len(detector.input_shape_) == 1
    all_float64 = Precision(float64, float64 if is_table else float32, float64)
    candidates = [all_float64]
    if precision == "float32":
        mixed = Precision(float32, float32, float64)
        candidates = [mixed, all_float64] if is_table else [mixed]
        if _rounding_of_gaussians(detector) <= TOLERANCE:
            candidates = [Precision(float32, float32, float32), *candidates]
    if detector.standardizer_.were_bytes_:
        return [candidate._replace(inputs=torch.uint8) for candidate in candidates]
    return candidates


def _rounding_of_gaussians(detector: Any) -> float:
    """By how much Gaussians in float32 change scores, in units of their spread.

    On features that are drawn from them, so that no rows are needed, and so that the
    rounding of the nets, which the detector has as well, does not count.
    """
    evidence = detector.evidence_
    shares = dict(zip(evidence.names, evidence.weights / evidence.spread, strict=True))
    if hasattr(detector, "weight_calibration_"):
        shares = dict.fromkeys(evidence.names, 1.0)
    total = 0.0
    for name, gaussians in detector.gaussians_.items():
        largest = 0.0
        for one in _one_by_one(gaussians):
            t = _drawn(one, DRAWN_OF_A_CLASS, 1)
            coarse = WhiteDistances(one, torch.float32)(t)
            largest = max(largest, float((coarse - one.log_likelihood(t)).abs().max()))
        total += shares[name] * largest
    lower, upper = np.quantile(detector.calibration_scores_, [0.25, 0.75])
    return float(total / (upper - lower)) if upper > lower else float(total)


@dataclass(frozen=True)
class _Draft:
    """A file that was written for trial, and how far it is from the detector."""

    path: Path
    precision: Precision
    differences: Differences


def _best_draft(
    detector: Any,
    expected: _Expected,
    batch: int | str,
    precision: str,
    folder: Path,
    path: Path,
) -> _Draft:
    """Find the cheapest file that is close to the detector, or else the closest."""
    drafts: list[_Draft] = []
    reasons = []
    for number, candidate in enumerate(_candidates(detector, precision)):
        own = folder / str(number)
        own.mkdir()
        draft = own / path.name
        _export(Graph(detector, candidate).eval(), detector, batch, draft)
        try:
            found = _run(_session(draft), expected.X)
        except ValueError as error:
            # The run time has no float64 kernels for some operations, Conv for one.
            reasons.append(f"{candidate}: {error}")
            continue
        drafts.append(_Draft(draft, candidate, expected.differences(found)))
        if drafts[-1].differences.largest <= TOLERANCE:
            break
    if not drafts:
        raise ValueError(f"onnxruntime cannot run the exported file. {reasons[-1]}")
    best = min(drafts, key=lambda draft: draft.differences.largest)
    differences = best.differences
    if differences.largest > REFUSED or 100 * differences.labels > differences.n:
        raise ValueError(
            f"The exported file answers otherwise than the detector: {differences}. A "
            "net whose forward pass branches on its input, draws random numbers or "
            "keeps a state is exported as it ran once. The parts of the evidence that "
            f"differ most: {_worst_parts(detector, best, expected)}."
        )
    return best


def _worst_parts(detector: Any, draft: _Draft, expected: _Expected) -> str:
    found = _run(_session(draft.path), expected.X)
    ours = expected.answers["evidence"]
    ratios = np.abs(np.asarray(found.evidence) - ours) / _unit(ours, None)
    worst = ratios.max(axis=0, initial=0).round(4)
    order = np.argsort(-worst)[:3]
    return ", ".join(f"{detector.evidence_names_[i]} ({worst[i]})" for i in order)


# ------------------------------------------------------------------ the file


def _export(graph: Graph, detector: Any, batch: int | str, path: Path) -> None:
    n = 2 if isinstance(batch, str) else batch
    X = torch.zeros((n, *detector.input_shape_), dtype=graph.precision.inputs)
    try:
        model = _traced(graph, X, is_dynamic=batch == "dynamic")
    except Exception as error:
        x = X.to(graph.precision.nets)
        raise ValueError(
            f"{_culprit(graph, x, batch)} cannot be exported to ONNX: {_told(error)}. "
            "Write it in operations that torch.export traces (no branches on values, "
            "no numpy), or take another net."
        ) from error
    for node in model.graph.all_nodes():
        # Lines of the source, with the paths of this machine.
        node.metadata_props.clear()
    import_module("onnx_ir").save(
        model,
        path,
        external_data=f"{path.name}.data" if _size(model) > LARGEST_FILE else None,
    )


def _size(model: Any) -> int:
    values = model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def _traced(module: nn.Module, X: Any, *, is_dynamic: bool) -> Any:
    """Trace a module on example inputs, and translate it: an ``onnx_ir.Model``."""
    arguments = X if isinstance(X, tuple) else (X,)
    shapes = None
    if is_dynamic:
        shapes = tuple({0: torch.export.Dim.AUTO} for _ in arguments)
    with warnings.catch_warnings(), torch.no_grad(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, arguments, dynamic_shapes=shapes, strict=False
        )
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAME] if isinstance(module, Graph) else None,
            output_names=[*Answers._fields] if isinstance(module, Graph) else None,
        )
    assert exported is not None
    return exported.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's loggers from telling of each decomposition."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _culprit(graph: Graph, x: Tensor, batch: int | str) -> str:
    """Name the smallest module that cannot be exported by itself, with its type."""
    nets: list[tuple[str, nn.Module, Tensor]] = []
    nets.append(("backbone", graph.network.backbone, x))
    if graph.autoencoder is not None:
        nets.append(("autoencoder", graph.autoencoder, x))
    for role, net, given in nets:
        if not _is_exportable(net, (given,), batch):
            name, module = _smallest_failing(net, given, batch)
            where = f"{role}.{name}" if name else role
            return f"{where}, a {type(module).__name__},"
    return "The detector's graph"


def _smallest_failing(
    net: nn.Module, x: Tensor, batch: int | str
) -> tuple[str, nn.Module]:
    name, module = "", net
    inputs = _inputs_of_submodules(net, x)
    while True:
        prefix = f"{name}." if name else ""
        for child_name, child in module.named_children():
            full = prefix + child_name
            if full in inputs and not _is_exportable(child, inputs[full], batch):
                name, module = full, child
                break
        else:
            return name, module


def _inputs_of_submodules(net: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Record what each submodule is given in a forward pass, if tensors alone."""
    inputs: dict[str, tuple[Tensor, ...]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            if given and all(isinstance(value, Tensor) for value in given):
                inputs[name] = given

        return hook

    handles = [
        module.register_forward_pre_hook(remember(name))
        for name, module in net.named_modules()
        if name
    ]
    try:
        with torch.no_grad(), suppress(Exception):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def _is_exportable(
    module: nn.Module, inputs: tuple[Tensor, ...], batch: int | str
) -> bool:
    try:
        _traced(module, inputs, is_dynamic=batch == "dynamic")
    except Exception:
        return False
    return True


def _told(error: Exception) -> str:
    """Give the reason, without the pages that torch puts around it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {' '.join(lines[:2])[:300]}".rstrip(". ")


def _session(path: str | os.PathLike[str]) -> Any:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ValueError(f"{path} cannot be run by onnxruntime: {error}") from error


def _run(session: Any, X: np.ndarray) -> Any:
    """Answer rows in batches: of the file's size, if it has one."""
    [given] = session.get_inputs()
    dtype = NUMPY.get(given.type, np.float64)
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None
    size = fixed or 64
    batches: list[list[Any]] = []
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        n = len(rows)
        if fixed is not None and n < size:
            rows = np.concatenate([rows, np.repeat(rows[-1:], size - n, axis=0)])
        with np.errstate(over="ignore"):
            feed = {given.name: np.ascontiguousarray(rows, dtype=dtype)}
        batches.append([answer[:n] for answer in session.run(Answers._fields, feed)])
    by_name: list[Any] = [np.concatenate(p) for p in zip(*batches, strict=True)]
    return Answers(*by_name)


def _write(draft: _Draft, detector: Any, rows: str, path: Path) -> None:
    """Move a draft to its place, with metadata: its weights, if apart, first."""
    onnx: Any = import_module("onnx")
    model = onnx.load(draft.path, load_external_data=False)
    model.producer_name, model.producer_version = "skvmdls", skvmdls.__version__
    model.doc_string = "Open-set classifier: a known label, or -1 for never seen."
    onnx.helper.set_model_props(model, _metadata(draft, detector, rows))
    data = draft.path.with_name(f"{path.name}.data")
    if data.exists():
        os.replace(data, path.with_name(data.name))
    write_atomically(path, model.SerializeToString())


def _metadata(draft: _Draft, detector: Any, rows: str) -> dict[str, str]:
    standardizer = detector.standardizer_
    is_image = len(detector.input_shape_) == 3
    names = getattr(detector, "feature_names_in_", None)
    units = "as given to fit, not standardised"
    if standardizer.were_bytes_ and is_image:
        units = "bytes from 0 to 255"
    extent = [standardizer.smallest_, standardizer.largest_]
    if standardizer.were_bytes_ and is_image:
        extent = [255 * end for end in extent]
    unknown = labels_with_unknown(detector.classes_)[-1:].tolist()[0]
    threshold = None if detector._promises_by_class() else float(detector.offset_)
    values = {
        "classes": detector.classes_.tolist(),
        "unknown": unknown,
        "evidence_names": list(detector.evidence_names_),
        "feature_names": None if names is None else names.tolist(),
        "input_shape": list(detector.input_shape_),
        "input_units": units,
        "input_range": extent,
        # -inf, "everything is accepted", has no form in JSON.
        "threshold": threshold if threshold and np.isfinite(threshold) else None,
        "contamination": float(detector.contamination),
        "guarantee": str(detector.guarantee),
        "precision": {
            role: str(dtype).removeprefix("torch.")
            for role, dtype in draft.precision._asdict().items()
        },
        "check": {"rows": rows, **asdict(draft.differences)},
        "detector": type(detector).__name__,
    }
    metadata = {name: json.dumps(value) for name, value in values.items()}
    return {**metadata, "skvmdls_version": skvmdls.__version__}
