"""Write a fitted detector to an ONNX file, and compare the file with it."""

import errno
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skvmdls._support.estimators import way_into
from skvmdls._support.files import write_atomically
from skvmdls._support.torch_state import under_ordinary_torch
from skvmdls._support.values import warn
from skvmdls._support.version import __version__
from skvmdls.calibration.rounding import unit_of
from skvmdls.calibration.verdicts import ThresholdSettings
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.onnx.comparison import (
    PROMISED,
    Differences,
    Expected,
    drawn_features,
    drawn_inputs,
    one_by_one,
)
from skvmdls.onnx.files import import_extra, run, session_of, write_model
from skvmdls.onnx.graph import Answers, Graph, Precision, WhiteDistances
from skvmdls.scoring.model import FittedDetector

__all__ = ["check", "export_onnx"]

# Of the scores' spread: what float32 may change, half of what is promised, and beyond
# what a file is not that detector's.
TOLERANCE, REFUSED = 5e-5, 1e-2
DRAWN_OF_A_CLASS = 8
PRECISIONS = ("float32", "float64")


@under_ordinary_torch
def export_onnx(
    detector: FittedDetector,
    path: str | os.PathLike[str],
    X: ArrayLike | None = None,
    *,
    batch: int | str = "dynamic",
    precision: str = "float32",
) -> Differences:
    """Write a fitted detector to one ONNX file, and check that it returns the same.

    What goes in and comes out, and the metadata: see :mod:`skvmdls.onnx`.

    Parameters
    ----------
    detector : VMDLSDetector or VMDLSbDetector
        Fitted. The threshold is that of now, by its parameters as they are set.
    path : path
        A file of more than 1 GiB keeps its weights in a second file, ``NAME.data``.
    X : array-like, default=None
        Rows to check it on. Best known and unknown ones, not trained on. None: drawn.
    batch : int or "dynamic", default="dynamic"
        Rows in one call, if it shall be fixed, as some accelerators want it.
    precision : {"float32", "float64"}, default="float32"
        ``"float32"``: steps that change no score by more than 5e-5 of the scores'
        spread are in float32. ``"float64"``: only the nets of images are in float32, as
        in the detector.

    Returns
    -------
    differences : Differences
        Of the file from the detector, on the rows that it was checked on.

    Raises
    ------
    ImportError, OSError
        If the extra is not installed, or the file cannot be written.
    ValueError
        If a parameter is out of range, a module (which is named) cannot be exported, or
        the file returns other results than the detector. No file is written.

    Warns
    -----
    UserWarning
        If a score differs by more than 1e-4 of the scores' spread.

    Examples
    --------
    >>> import tempfile
    >>> from skvmdls import VMDLSbDetector
    >>> X = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat([[0], [9]], 30, 0)
    >>> detector = VMDLSbDetector(max_epochs=1, contamination=0.2).fit(X, X[:, 0] > 4)
    >>> export_onnx(detector, Path(tempfile.mkdtemp()) / "detector.onnx", X).labels
    0
    """
    path = _checked(detector, path, batch, precision)
    expected = Expected.of(detector, drawn_inputs(detector) if X is None else X)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        draft = _best_draft(detector, expected, batch, precision, Path(folder), path)
        _write(draft, detector, "drawn" if X is None else "given", path)
    return _told_if_far(draft)


@under_ordinary_torch
def check(
    path: str | os.PathLike[str],
    X: ArrayLike,
    detector: FittedDetector,
    *,
    verbose: bool = True,
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
    import_extra()
    check_is_fitted(detector)
    with open(path, "rb"):
        pass
    session = session_of(path)
    metadata = session.get_modelmeta().custom_metadata_map
    for name, ours in (
        ("classes", detector.classes_.tolist()),
        ("input_shape", list(detector.model_.input_shape)),
        ("evidence_names", list(detector.model_.selection.names)),
    ):
        theirs = json.loads(metadata.get(name, "null"))
        if theirs != json.loads(json.dumps(ours)):
            raise ValueError(
                f"{path} is of another detector: its {name} are {str(theirs)[:200]}, "
                f"the detector's are {str(ours)[:200]}."
            )
    expected = Expected.of(detector, X)
    differences = expected.differences(run(session, expected.X))
    if verbose:
        print(differences)
    return differences


def _checked(
    detector: FittedDetector,
    path: str | os.PathLike[str],
    batch: int | str,
    precision: str,
) -> Path:
    import_extra()
    if way := way_into(detector):
        raise ValueError(
            f"export_onnx takes a detector, got {type(detector).__name__}.{way}"
        )
    check_is_fitted(detector)
    is_size = isinstance(batch, int) and not isinstance(batch, bool) and batch > 0
    if not (is_size or (isinstance(batch, str) and batch == "dynamic")):
        raise ValueError(
            f"batch={batch!r} must be 'dynamic' or a positive int, the rows of a call."
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} must be one of {PRECISIONS}.")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "It is a folder; give the path of a file", os.fspath(path)
        )
    return path


def _candidates(detector: FittedDetector, precision: str) -> list[Precision]:
    """Precisions to try, the cheapest first."""
    float32, float64 = torch.float32, torch.float64
    is_table = detector.model_.is_table
    all_float64 = Precision(float64, float64 if is_table else float32, float64)
    candidates = [all_float64]
    if precision == "float32":
        mixed = Precision(float32, float32, float64)
        candidates = [mixed, all_float64] if is_table else [mixed]
        if _rounding_of_gaussians(detector) <= TOLERANCE:
            candidates = [Precision(float32, float32, float32), *candidates]
    if detector.model_.standardizer.were_bytes_:
        return [candidate._replace(inputs=torch.uint8) for candidate in candidates]
    return candidates


def _graph(detector: FittedDetector, precision: Precision) -> Graph:
    settings = ThresholdSettings.of(detector)
    model, calibration = detector.model_, detector.calibration_
    return Graph(model, calibration, settings, detector.classes_, precision).eval()


def _rounding_of_gaussians(detector: FittedDetector) -> float:
    """By how much Gaussians in float32 change scores, in units of their spread.

    On features that are drawn from them, so that no rows are needed, and so that the
    rounding of the nets, which the detector has as well, does not count.
    """
    evidence = detector.model_.evidence
    shares = dict(zip(evidence.names, evidence.weights / evidence.spread, strict=True))
    if detector.model_.weight_calibration is not None:
        shares = dict.fromkeys(evidence.names, 1.0)
    total = 0.0
    for name, gaussians in detector.model_.blocks.items():
        largest = 0.0
        for one in one_by_one(gaussians):
            t = drawn_features(one, DRAWN_OF_A_CLASS, 1)
            coarse = WhiteDistances(one, torch.float32)(t)
            largest = max(largest, float((coarse - one.log_likelihood(t)).abs().max()))
        total += shares[name] * largest
    lower, upper = np.quantile(detector.calibration_.scores, [0.25, 0.75])
    return float(total / (upper - lower)) if upper > lower else float(total)


@dataclass(frozen=True)
class _Draft:
    """A file that was written for trial, and how far it is from the detector."""

    path: Path
    precision: Precision
    differences: Differences


def _best_draft(
    detector: FittedDetector,
    expected: Expected,
    batch: int | str,
    precision: str,
    folder: Path,
    path: Path,
) -> _Draft:
    """Find the cheapest file that is close to the detector, or else the closest.

    Torch is asked first: to write a file takes seconds. Of what is far there, only the
    closest is written, and only if nothing else is to be had.
    """
    candidates = _candidates(detector, precision)
    distances = [_distance(_graph(detector, one), expected) for one in candidates]
    drafts: list[_Draft] = []
    reasons = []
    for number in np.argsort(np.maximum(distances, TOLERANCE), kind="stable"):
        if drafts and distances[number] > TOLERANCE:
            break
        candidate = candidates[number]
        own = folder / str(number)
        own.mkdir()
        draft = own / path.name
        write_model(_graph(detector, candidate), batch, draft)
        try:
            found = run(session_of(draft), expected.X)
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
    _check_is_the_detectors(best, detector, expected)
    return best


def _distance(graph: Graph, expected: Expected) -> float:
    """Run a graph in torch: by how much its answers differ from the detector's."""
    X = torch.from_numpy(expected.X).to(graph.precision.inputs)
    try:
        with torch.no_grad():
            batches = [graph(batch) for batch in X.split(64)]
    except Exception:
        # An attempt to write it says why.
        return np.inf
    found = Answers(*map(torch.cat, zip(*batches, strict=True)))
    return expected.differences(found).largest


def _check_is_the_detectors(
    draft: _Draft, detector: FittedDetector, expected: Expected
) -> None:
    differences = draft.differences
    if differences.largest > REFUSED or 100 * differences.labels > differences.n:
        raise ValueError(
            f"The exported file answers otherwise than the detector: {differences}. A "
            "net whose forward pass branches on its input, draws random numbers or "
            "keeps a state is exported as it ran once. The parts of the evidence that "
            f"differ most: {_worst_parts(detector, draft, expected)}."
        )


def _worst_parts(detector: FittedDetector, draft: _Draft, expected: Expected) -> str:
    found = run(session_of(draft.path), expected.X)
    ours = expected.answers["evidence"]
    ratios = np.abs(np.asarray(found.evidence) - ours) / unit_of(ours, None)
    worst = ratios.max(axis=0, initial=0).round(4)
    order = np.argsort(-worst)[:3]
    return ", ".join(
        f"{detector.model_.selection.names[i]} ({worst[i]})" for i in order
    )


def _write(draft: _Draft, detector: FittedDetector, rows: str, path: Path) -> None:
    """Move a draft to its place, with metadata: its weights, if apart, first."""
    onnx: Any = import_module("onnx")
    model = onnx.load(draft.path, load_external_data=False)
    model.producer_name, model.producer_version = "skvmdls", __version__
    model.doc_string = "Open-set classifier: a known label, or -1 for never seen."
    onnx.helper.set_model_props(model, _metadata(draft, detector, rows))
    data = draft.path.with_name(f"{path.name}.data")
    if data.exists():
        os.replace(data, path.with_name(data.name))
    write_atomically(path, model.SerializeToString())


def _told_if_far(draft: _Draft) -> Differences:
    differences = draft.differences
    if differences.largest > PROMISED:
        warn(
            f"The file's answers differ from the detector's by up to "
            f"{differences.largest:.1g} of the scores' spread ({draft.precision}): "
            "rounding in the nets decides that much. precision='float64' may help "
            "tables; give a few hundred rows of your own as X to see it for them."
        )
    return differences


def _metadata(draft: _Draft, detector: FittedDetector, rows: str) -> dict[str, str]:
    standardizer = detector.model_.standardizer
    is_image = not detector.model_.is_table
    names = getattr(detector, "feature_names_in_", None)
    units = "as given to fit, not standardised"
    if standardizer.were_bytes_ and is_image:
        units = "bytes from 0 to 255"
    extent = [standardizer.smallest_, standardizer.largest_]
    if standardizer.were_bytes_ and is_image:
        extent = [255 * end for end in extent]
    unknown = labels_with_unknown(detector.classes_)[-1:].tolist()[0]
    settings = ThresholdSettings.of(detector)
    threshold = None if settings.by_class else float(detector.offset_)
    values = {
        "classes": detector.classes_.tolist(),
        "unknown": unknown,
        "evidence_names": list(detector.model_.selection.names),
        "feature_names": None if names is None else names.tolist(),
        "input_shape": list(detector.model_.input_shape),
        "input_units": units,
        "input_range": extent,
        # -inf, "everything is accepted", has no form in JSON.
        "threshold": None if threshold in (None, -np.inf) else threshold,
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
    return {**metadata, "skvmdls_version": __version__}
