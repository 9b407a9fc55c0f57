"""Fitted detectors in one file, without pickle: loading runs no code from it.

The arrays are stored as safetensors, the rest as JSON in that file's header. skops, the
other format in use around scikit-learn, rebuilds objects of the types that a file names
and has no form for torch's modules; here the types are ours, a file only fills them.
"""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from sklearn.utils.validation import check_is_fitted
from torch import nn

import skvmdls
from skvmdls._support.devices import compute_in_one_thread_if_forked
from skvmdls._support.files import write_atomically
from skvmdls._support.stored_arrays import check_shape, is_finite, stored_array
from skvmdls._support.torch_state import seeded, under_ordinary_torch
from skvmdls._support.values import plain
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.detector import open_world
from skvmdls.detector.base import BaseDetector
from skvmdls.detector.vmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.nets.network import build_autoencoder, build_network
from skvmdls.scoring.evidence import Evidence, View
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = ["FORMAT", "load", "save"]

# In files of format 2 the evidence is neither bent nor cut: they score as they did.
FORMAT, READABLE = 3, (2, 3)
KEY, CHECKSUM = "skvmdls", "sha256"
DETECTORS = {cls.__name__: cls for cls in (VMDLSbDetector, VMDLSDetector)}

# Not needed to score; and paths to write to, which are not a file's business.
NOT_STORED = ("augmentation", "random_state")
PLACES = ("checkpoint", "memory")
HELD_OUT = tuple(name.removesuffix("_") for name in open_world.HELD_OUT)
HISTORIES = ("history_", "autoencoder_history_")
LARGEST_INPUT = 2**22

# safetensors' names of the types that arrays of ours may have.
DTYPES = {
    "b1": "BOOL",
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
    "i1": "I8",
    "i2": "I16",
    "i4": "I32",
    "i8": "I64",
    "u1": "U8",
}

CPU = torch.device("cpu")

# What rebuilding raises where what a file holds does not fit together.
_REFUSALS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)

Head = dict[str, Any]

Arrays = dict[str, np.ndarray]

Net = TypeVar("Net", bound=nn.Module)


@under_ordinary_torch
def save(detector: BaseDetector, path: str | os.PathLike[str]) -> None:
    """Write a fitted detector to one file, for :func:`load`.

    The file is written beside its place and then moved there, so that a file of the
    same name is replaced as a whole or not at all. Everything that scoring needs is
    stored. Of the parameters, `memory` and `checkpoint` are not, and `augmentation`
    and `random_state` only if they are plain values.

    Parameters
    ----------
    detector : VMDLSDetector or VMDLSbDetector
        Fitted.
    path : path
        Usually ending in ``.safetensors``.

    Raises
    ------
    ValueError
        If the detector is of another class, its labels are of a type that the file
        cannot hold, or its nets are no longer those of its parameters.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    OSError
        If the file cannot be written, with its path; one that is there stays.

    See Also
    --------
    load : Read the file.

    Examples
    --------
    >>> import tempfile
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1), random_state=0)
    >>> detector = VMDLSbDetector(max_epochs=1, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> path = Path(tempfile.mkdtemp()) / "detector.safetensors"
    >>> save(detector, path)
    >>> again = load(path)
    >>> bool((again.predict(digits.X_test) == detector.predict(digits.X_test)).all())
    True
    """
    name = type(detector).__name__
    if type(detector) is not DETECTORS.get(name):
        raise ValueError(
            f"save takes a detector of {sorted(DETECTORS)}, got {name}. Use joblib for "
            "classes of your own."
        )
    check_is_fitted(detector)
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "It is a folder; give the path of a file", os.fspath(path)
        )
    text, arrays = json.dumps(_head(detector), allow_nan=False), _arrays(detector)
    _check_loads(detector, text, arrays)
    metadata = {KEY: text, CHECKSUM: _checksum(text, arrays)}
    write_atomically(path, *_safetensors(metadata, arrays))


@under_ordinary_torch
def load(
    path: str | os.PathLike[str],
    *,
    backbone: BackboneFactory | None = None,
    autoencoder: BackboneFactory | None = None,
) -> BaseDetector:
    """Read a detector that :func:`save` wrote. No code from the file is run.

    Parameters
    ----------
    path : path
    backbone, autoencoder : callable, optional
        The factories, if the detector was fitted with factories of your own: a file
        holds the weights of a net but not its code.

    Returns
    -------
    detector : VMDLSDetector or VMDLSbDetector
        Its scores are those of the saved one, bit for bit on the same machine.

    Raises
    ------
    OSError
        If there is no such file, it is a folder, or it may not be read; with its path.
    ValueError
        If the file is damaged, is not one of ours, has a newer format, or needs a
        factory that was not given or that builds another net.

    Examples
    --------
    See :func:`save`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> _ = path.write_text("not a detector")
    >>> load(path)
    Traceback (most recent call last):
        ...
    ValueError: ...notes.txt is damaged, or was not written by skvmdls.save: ...
    """
    compute_in_one_thread_if_forked()
    head, arrays = _read(Path(path))
    given = {"backbone": backbone, "autoencoder": autoencoder}
    factories = {role: factory for role, factory in given.items() if factory}
    try:
        return _rebuilt(head, arrays, factories)
    except _REFUSALS as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error


def _check_loads(detector: BaseDetector, text: str, arrays: Arrays) -> None:
    factories = {
        role: choice
        for role in ("backbone", "autoencoder")
        for choice in [getattr(detector, role, None)]
        if callable(choice)
    }
    try:
        _rebuilt(json.loads(text), arrays, factories)
    except _REFUSALS as error:
        raise ValueError(
            f"A file of this {type(detector).__name__} could not be loaded: {error}. "
            "If parameters were changed since fit, set them back, or fit again."
        ) from error


def _head(detector: BaseDetector) -> Head:
    parameters = {
        name: value
        for name, value in detector.get_params(deep=False).items()
        if name not in PLACES
        and (name not in NOT_STORED or isinstance(value, str | int | None))
    }
    if not isinstance(parameters["features"], str):
        parameters["features"] = list(parameters["features"])
    parameters["device"] = str(parameters["device"])
    for role in ("backbone", "autoencoder"):
        if callable(parameters.get(role)):
            parameters[role] = None
    weighting = getattr(detector, "weight_calibration_", None)
    names = getattr(detector, "feature_names_in_", None)
    standardizer = detector.standardizer_.state_dict()
    return {
        "format": FORMAT,
        "written_by": skvmdls.__version__,
        "class": type(detector).__name__,
        "parameters": {name: plain(value) for name, value in parameters.items()},
        "classes": _stored_classes(detector.classes_),
        "fit_positions": detector.fit_positions_.tolist(),
        "feature_names_in": None if names is None else names.tolist(),
        "input_shape": list(detector.input_shape_),
        "view": detector.view_.state_dict(),
        "covariance_type": _covariance_type(detector),
        "range": standardizer["range"],
        "were_bytes": standardizer["were_bytes"],
        "weighting": None if weighting is None else vars(weighting),
        "histories": {
            name: getattr(detector, name)
            for name in HISTORIES
            if hasattr(detector, name)
        },
    }


def _covariance_type(detector: BaseDetector) -> str:
    """Tell what was fitted; the parameter may have been changed since."""
    blocks: Any = detector.gaussians_.values()
    return next((g.covariance_type for g in blocks), detector.covariance_type)


def _arrays(detector: BaseDetector) -> Arrays:
    standardizer = detector.standardizer_.state_dict()
    evidence = detector.evidence_.state_dict()
    arrays = {
        "standardizer.mean": standardizer["mean"],
        "standardizer.scale": standardizer["scale"],
        **{name: getattr(detector, f"{name}_") for name in HELD_OUT},
        **{f"evidence.{name}": array for name, array in evidence.items()},
        **{
            f"gaussians.{name}": tensor.cpu().numpy()
            for name, tensor in detector.gaussians_.state_dict().items()
        },
    }
    if hasattr(detector, "expected_images_"):
        expected = detector.expected_images_.state_dict().items()
        arrays |= {f"expected.{name}": array.cpu().numpy() for name, array in expected}
    nets: dict[str, nn.Module] = {"network": detector.network_}
    if isinstance(detector, VMDLSDetector):
        nets["autoencoder"] = detector.autoencoder_
    for role, net in nets.items():
        for name, tensor in net.state_dict().items():
            # Tables score in float64, by weights that were trained in float32.
            value = tensor.float() if tensor.is_floating_point() else tensor
            arrays[f"{role}.{name}"] = value.cpu().numpy()
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _safetensors(metadata: dict[str, str], arrays: Arrays) -> Iterator[Any]:
    """Give the file's parts, as safetensors describes its format.

    The library's own writer first copies all arrays; of a thousand classes that is
    gigabytes.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    # The format wants the largest items first, so that each is aligned.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    end = 0
    for name in names:
        start, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": DTYPES[arrays[name].dtype.str[1:]],
            "shape": arrays[name].shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    yield from (arrays[name].reshape(-1) for name in names)


def _stored_classes(classes: np.ndarray) -> dict[str, Any]:
    kind = classes.dtype.kind
    values = classes.tolist()
    is_plain = all(isinstance(value, str | int | float) for value in values)
    if kind not in "biufUO" or not is_plain:
        raise ValueError(
            f"Labels of dtype {classes.dtype} cannot be saved; use strings, integers, "
            "floats or booleans, or joblib."
        )
    return {"dtype": kind if kind in "UO" else classes.dtype.str[1:], "values": values}


def _read(path: Path) -> tuple[Head, Arrays]:
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR,
            "It is a folder; expected the file that skvmdls.save wrote",
            os.fspath(path),
        )
    # safetensors says of every file that it cannot open that it does not exist.
    with open(path, "rb"):
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata[KEY]
            head = json.loads(text, parse_constant=_refused)
        arrays = _read_arrays(path)
        if metadata[CHECKSUM] != _checksum(text, arrays):
            raise ValueError("its checksum is not that of its content")
        version = head["format"]
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ValueError(
            f"{path} is damaged, or was not written by skvmdls.save: {error}"
        ) from error
    if not isinstance(version, int) or version not in READABLE:
        raise ValueError(
            f"{path} has format {version!r}, written by skvmdls "
            f"{str(head.get('written_by', '0.1.0'))[:20]}; this is skvmdls "
            f"{skvmdls.__version__}, which reads formats {READABLE}. Load it with the "
            "version that wrote it, or fit and save again with this one."
        )
    return head, arrays


def _read_arrays(path: Path) -> Arrays:
    """Read the arrays of a file whose header safetensors has found to be in order.

    Its own reader maps the file into memory beside the arrays: twice the room.
    """
    arrays = {}
    types = {stored: np.dtype(ours) for ours, stored in DTYPES.items()}
    with open(path, "rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
        for name in header.keys() - {"__metadata__"}:
            array = np.empty(header[name]["shape"], types[header[name]["dtype"]])
            file.seek(8 + header_size + header[name]["data_offsets"][0])
            if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise ValueError(f"{name} ends too early")
            arrays[name] = array
    return arrays


def _checksum(text: str, arrays: Arrays) -> str:
    """Tell damage, not forgery: whoever changes a file can compute it too."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def _rebuilt(
    head: Head, arrays: Arrays, factories: dict[str, BackboneFactory]
) -> BaseDetector:
    """Fill a detector, checking that its attributes fit each other."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not is_finite(array):
            raise ValueError(f"{name} holds numbers that are not finite")
    cls = DETECTORS[_expected(head["class"], str)]
    parameters = _expected(head["parameters"], dict)
    # Earlier files of this format have this parameter. Its value is always None.
    parameters.pop("covariance_estimator", None)
    if unknown := set(parameters) - (set(cls().get_params()) - {*PLACES}):
        raise ValueError(f"it sets parameters that are not a file's: {sorted(unknown)}")
    if isinstance(parameters["features"], list):
        parameters["features"] = tuple(parameters["features"])
    for role in ("backbone", "autoencoder"):
        if role in parameters:
            parameters[role] = _factory(role, parameters[role], factories.get(role))
        elif role in factories:
            raise ValueError(f"a {cls.__name__} has no {role}")
    detector = cls(**parameters)
    detector._validate_params()

    detector.classes_ = _classes(head["classes"])
    detector.input_shape_ = _input_shape(head["input_shape"])
    detector.n_features_in_ = math.prod(detector.input_shape_)
    if head["feature_names_in"] is not None:
        names = _all_strings(head["feature_names_in"])
        check_shape("feature_names_in", (len(names),), (detector.n_features_in_,))
        detector.feature_names_in_ = np.array(names, dtype=object)
    detector._look_as(
        View.from_state(
            head["view"],
            is_table=len(detector.input_shape_) == 1,
            has_head=detector.classification_weight > 0,
        )
    )
    _fill_histories(detector, head["histories"])
    detector.standardizer_ = Standardizer.from_state(
        {
            "mean": arrays["standardizer.mean"],
            "scale": arrays["standardizer.scale"],
            "range": head["range"],
            "were_bytes": head["were_bytes"],
        },
        detector.input_shape_,
    )
    detector.fit_positions_ = _fit_positions(head["fit_positions"], detector)
    _fill_nets(detector, arrays)
    detector.gaussians_ = _gaussians(head, arrays, detector)
    detector.evidence_ = Evidence.from_state(
        _of("evidence", arrays), detector.evidence_names_
    )
    if head["weighting"] is not None:
        detector.weight_calibration_ = _weighting(head["weighting"])
    _fill_held_out(detector, arrays)
    _fill_expected_images(detector, _of("expected", arrays))
    return detector


def _fill_expected_images(detector: BaseDetector, stored: Arrays) -> None:
    # Not in files that were written before there were any.
    if len(detector.input_shape_) == 3 and stored:
        n_classes = len(detector.classes_)
        detector.expected_images_ = ExpectedImages.from_state(
            stored, detector.input_shape_, n_classes
        )


def _fill_histories(detector: BaseDetector, stored: Any) -> None:
    for name, history in _expected(stored, dict).items():
        if name not in HISTORIES:
            raise ValueError(f"a history {name!r}")
        kept = {
            key: [float(value) for value in _expected(row, list)]
            for key, row in _expected(history, dict).items()
        }
        setattr(detector, name, kept)


def _fit_positions(stored: Any, detector: BaseDetector) -> np.ndarray:
    positions = np.array([_expected(p, int) for p in _expected(stored, list)])
    check_shape("fit_positions", positions.shape, detector.classes_.shape)
    of_fit = positions[positions >= 0]
    if positions.min() < -1 or len(np.unique(of_fit)) < len(of_fit):
        raise ValueError(f"classes at the positions {stored} of fit")
    return positions


def _fill_held_out(detector: BaseDetector, arrays: Arrays) -> None:
    n_parts = len(detector.evidence_names_)
    if hasattr(detector, "weight_calibration_"):
        n_parts = 1
    n = len(arrays["calibration_scores"])
    n_classes = len(detector.classes_)
    for name in ("calibration_scores", "calibration_class_scores"):
        setattr(detector, f"{name}_", stored_array(arrays, name, 1))
    for name, shape in (
        ("calibration_class_scores", (n,)),
        ("calibration_labels", (n,)),
        ("calibration_winners", (n, n_parts)),
    ):
        check_shape(name, arrays[name].shape, shape)
    for name in ("calibration_labels", "calibration_winners"):
        positions = arrays[name]
        is_integer = positions.dtype == np.int64
        if not is_integer or positions.min() < 0 or positions.max() >= n_classes:
            raise ValueError(f"{name} must hold positions of the {n_classes} classes")
        setattr(detector, f"{name}_", positions)


def _of(role: str, arrays: Arrays) -> Arrays:
    """Arrays whose names begin with a role, without it."""
    return {
        name.removeprefix(f"{role}."): array
        for name, array in arrays.items()
        if name.startswith(f"{role}.")
    }


def _expected(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {str(value)[:50]!r}")
    return value


def _all_strings(values: Any) -> list[str]:
    return [_expected(value, str) for value in _expected(values, list)]


def _factory(role: str, stored: Any, given: BackboneFactory | None) -> Any:
    if stored is None and given is None:
        raise ValueError(
            f"it was fitted with a {role} factory of your own, which a file cannot "
            f"hold. Pass it: load(path, {role}=...)"
        )
    if stored is not None and given is not None:
        raise ValueError(f"it was fitted with the {role} {stored!r}: pass no factory")
    return given if stored is None else _expected(stored, str)


def _classes(stored: dict[str, Any]) -> np.ndarray:
    dtype = _expected(stored["dtype"], str)
    if not re.fullmatch(r"U|O|b1|[iu][1248]|f[248]", dtype):
        raise ValueError(f"labels of dtype {dtype!r}")
    classes = np.array(_expected(stored["values"], list), dtype=dtype)
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError("expected at least two labels")
    if not all(isinstance(value, str | int | float) for value in classes.tolist()):
        raise ValueError("labels must be strings or numbers")
    if np.unique(classes).tolist() != classes.tolist() or {-1, "-1"} & set(
        classes.tolist()
    ):
        raise ValueError("labels must be sorted, different, and none of them -1")
    return classes


def _input_shape(stored: Any) -> tuple[int, ...]:
    shape = tuple(_expected(size, int) for size in _expected(stored, list))
    if len(shape) not in (1, 3) or min(shape) < 1 or math.prod(shape) > LARGEST_INPUT:
        raise ValueError(f"inputs of shape {shape}")
    return shape


def _fill_nets(detector: BaseDetector, arrays: Arrays) -> None:
    rows = arrays["network.mu.weight"].shape
    if len(rows) != 2 or rows[0] != detector.latent_dim:
        raise ValueError(f"latent_dim={detector.latent_dim}, but mu has shape {rows}")
    shape = detector.input_shape_
    factory = resolve_factory(detector.backbone, BACKBONES, shape, "backbone")
    n_logits = 0
    if detector.classification_weight > 0:
        # Classes may have been added and dropped since: the head is that of `fit`.
        n_logits = len(arrays["network.head.bias"])
        if n_logits <= detector.fit_positions_.max():
            raise ValueError(f"a head of {n_logits} classes")
    network = _laid_out(
        detector.backbone,
        lambda: build_network(factory, shape, detector.latent_dim, n_logits),
    )
    detector.network_ = _filled(network, arrays, "network")
    if isinstance(detector, VMDLSDetector):
        choice = detector.autoencoder
        factory = resolve_factory(choice, AUTOENCODERS, shape, "autoencoder")
        autoencoder = _laid_out(choice, lambda: build_autoencoder(factory, shape))
        detector.autoencoder_ = _filled(autoencoder, arrays, "autoencoder")


def _laid_out(choice: Any, build: Callable[[], Net]) -> Net:
    """Build a net for its shapes; its initial weights are never used.

    A file may claim inputs of any size: our own nets are built without memory. The
    caller's random numbers must not move.
    """
    with seeded(0, CPU), torch.device("cpu" if callable(choice) else "meta"):
        return build()


def _filled(net: Net, arrays: Arrays, role: str) -> Net:
    expected = net.state_dict()
    stored = _of(role, arrays)
    if different := set(expected) ^ set(stored):
        raise ValueError(
            f"the {role} differs from the one that was saved in {sorted(different)[:5]}"
        )
    for name, tensor in expected.items():
        check_shape(f"{role}.{name}", stored[name].shape, tuple(tensor.shape))
    if any(tensor.is_meta for tensor in expected.values()):
        net.to_empty(device=CPU)
    net.load_state_dict(
        {name: torch.from_numpy(array) for name, array in stored.items()}
    )
    return net.eval()


def _gaussians(head: Head, arrays: Arrays, detector: BaseDetector) -> nn.ModuleDict:
    sizes = {"x": detector.n_features_in_, **detector.network_.ensemble_sizes}
    lengths = detector.view_.lengths(sizes, detector.network_.first_places)
    stored = _of("gaussians", arrays)
    if different := {name.partition(".")[0] for name in stored} ^ set(lengths):
        raise ValueError(f"the Gaussians of {sorted(different)} are not those expected")
    kind = _expected(head["covariance_type"], str)
    gaussians = {}
    for block, length in lengths.items():
        gaussians[block] = ClassGaussians.from_state(_of(block, stored), kind)
        found = tuple(gaussians[block].means.shape)
        check_shape(f"gaussians.{block}.means", found, (len(detector.classes_), length))
    return nn.ModuleDict(gaussians)


def _weighting(stored: dict[str, Any]) -> WeightCalibration:
    shift, scale = (_expected(stored[name], float) for name in ("shift", "scale"))
    if scale <= 0:
        raise ValueError(f"a weighting of {stored}")
    return WeightCalibration(shift, scale)
