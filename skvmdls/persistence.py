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

from skvmdls._devices import compute_in_one_thread_if_forked
from skvmdls._files import write_whole
from skvmdls._torch_state import under_ordinary_torch
from skvmdls._validation import plain
from skvmdls.autoencoder import AUTOENCODERS
from skvmdls.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.calibration import WeightCalibration
from skvmdls.detector import VMDLSbDetector, VMDLSDetector
from skvmdls.gaussians import ClassGaussians
from skvmdls.inputs import Standardizer
from skvmdls.network import ENSEMBLE_PARTS, build_autoencoder, build_network
from skvmdls.training import History, seeded

__all__ = ["FORMAT", "load", "save"]

FORMAT = 2

KEY, CHECKSUM = "skvmdls", "sha256"
DETECTORS = {cls.__name__: cls for cls in (VMDLSbDetector, VMDLSDetector)}
# Not needed to score; and paths to write to, which are not a file's business.
NOT_STORED = ("augmentation", "covariance_estimator", "random_state")
PLACES = ("checkpoint", "memory")
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
# What rebuilding raises where the parts of a file do not fit each other.
_REFUSALS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)

Head = dict[str, Any]
Arrays = dict[str, np.ndarray]
Net = TypeVar("Net", bound=nn.Module)


@under_ordinary_torch
def save(detector: VMDLSbDetector, path: str | os.PathLike[str]) -> None:
    """Write a fitted detector to one file, for :func:`load`.

    The file is written beside its place and then moved there, so that a file of the
    same name is replaced as a whole or not at all. Everything that scoring needs is
    stored. Of the parameters, `memory` and `checkpoint` are not, and `augmentation`,
    `covariance_estimator` and `random_state` only if they are plain values.

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
    write_whole(path, *_safetensors(metadata, arrays))


@under_ordinary_torch
def load(
    path: str | os.PathLike[str],
    *,
    backbone: BackboneFactory | None = None,
    autoencoder: BackboneFactory | None = None,
) -> VMDLSbDetector:
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


def _check_loads(detector: VMDLSbDetector, text: str, arrays: Arrays) -> None:
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


def _head(detector: VMDLSbDetector) -> Head:
    parameters = {
        name: value
        for name, value in detector.get_params(deep=False).items()
        if name not in PLACES
        and (name not in NOT_STORED or isinstance(value, str | int | None))
    }
    parameters["features"] = list(parameters["features"])
    parameters["device"] = str(parameters["device"])
    for role in ("backbone", "autoencoder"):
        if callable(parameters.get(role)):
            parameters[role] = None
    weighting = getattr(detector, "weight_calibration_", None)
    names = getattr(detector, "feature_names_in_", None)
    return {
        "format": FORMAT,
        "class": type(detector).__name__,
        "parameters": {name: plain(value) for name, value in parameters.items()},
        "classes": _stored_classes(detector.classes_),
        "feature_names_in": None if names is None else names.tolist(),
        "input_shape": list(detector.input_shape_),
        "features": list(detector.features_),
        "covariance_type": detector.gaussians_.covariance_type,
        "range": [detector.standardizer_.smallest_, detector.standardizer_.largest_],
        "were_bytes": detector.standardizer_.were_bytes_,
        "weighting": None if weighting is None else vars(weighting),
        "history": detector.history_,
        "autoencoder_history": getattr(detector, "autoencoder_history_", None),
    }


def _arrays(detector: VMDLSbDetector) -> Arrays:
    arrays = {
        "standardizer.mean": detector.standardizer_.mean_,
        "standardizer.scale": detector.standardizer_.scale_,
        "calibration_scores": detector.calibration_scores_,
        "gaussians.means": detector.gaussians_.means.cpu().numpy(),
        "gaussians.precisions": detector.gaussians_.precisions_cholesky.cpu().numpy(),
    }
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
    if not isinstance(version, int) or version != FORMAT:
        raise ValueError(
            f"{path} has format {version!r}; this version of skvmdls reads {FORMAT}. "
            "A newer one may, pip install --upgrade skvmdls; an older format is read "
            "by the version that wrote it."
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
) -> VMDLSbDetector:
    """Fill a detector, checking that the parts fit each other."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not _is_finite(array):
            raise ValueError(f"{name} holds numbers that are not finite")
    cls = DETECTORS[_expected(head["class"], str)]
    parameters = _expected(head["parameters"], dict)
    if unknown := set(parameters) - (set(cls().get_params()) - {*PLACES}):
        raise ValueError(f"it sets parameters that are not a file's: {sorted(unknown)}")
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
        _check("feature_names_in", (len(names),), (detector.n_features_in_,))
        detector.feature_names_in_ = np.array(names, dtype=object)
    detector.features_ = tuple(_all_strings(head["features"]))
    detector.history_ = _history(head["history"])
    detector.standardizer_ = _standardizer(head, arrays, detector.input_shape_)
    detector.calibration_scores_ = _float64(arrays, "calibration_scores", 1)
    _fill_nets(detector, arrays)
    detector.gaussians_ = _gaussians(head, arrays, detector)
    if isinstance(detector, VMDLSDetector):
        detector.weight_calibration_ = _weighting(head["weighting"])
        detector.autoencoder_history_ = _history(head["autoencoder_history"])
    return detector


def _history(stored: Any) -> History:
    return {
        name: [float(value) for value in _expected(values, list)]
        for name, values in _expected(stored, dict).items()
    }


def _is_finite(array: np.ndarray) -> bool:
    # Piece by piece: of a large array even the answers would be large.
    flat = array.reshape(-1)
    pieces = (flat[start : start + 2**20] for start in range(0, flat.size, 2**20))
    return all(np.isfinite(piece).all() for piece in pieces)


def _expected(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {str(value)[:50]!r}")
    return value


def _all_strings(values: Any) -> list[str]:
    return [_expected(value, str) for value in _expected(values, list)]


def _check(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(f"{name} has shape {found}, expected {expected}")


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


def _float64(arrays: Arrays, name: str, ndim: int) -> np.ndarray:
    array = arrays[name]
    if array.dtype != np.float64 or array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} is an array of {array.dtype} and shape {array.shape}, expected "
            f"float64 with {ndim} axes"
        )
    return array


def _standardizer(
    head: Head, arrays: Arrays, input_shape: tuple[int, ...]
) -> Standardizer:
    standardizer = Standardizer()
    shape = (input_shape[0],) + (1,) * (len(input_shape) - 1)
    for name in ("mean", "scale"):
        array = _float64(arrays, f"standardizer.{name}", len(shape))
        _check(f"standardizer.{name}", array.shape, shape)
        setattr(standardizer, f"{name}_", array)
    if standardizer.scale_.min() <= 0:
        raise ValueError("standardizer.scale must be positive")
    standardizer.smallest_, standardizer.largest_ = (
        _expected(value, float) for value in _expected(head["range"], list)
    )
    standardizer.were_bytes_ = _expected(head["were_bytes"], bool)
    return standardizer


def _fill_nets(detector: VMDLSbDetector, arrays: Arrays) -> None:
    rows = arrays["network.mu.weight"].shape
    if len(rows) != 2 or rows[0] != detector.latent_dim:
        raise ValueError(f"latent_dim={detector.latent_dim}, but mu has shape {rows}")
    shape = detector.input_shape_
    factory = resolve_factory(detector.backbone, BACKBONES, shape, "backbone")
    network = _laid_out(
        detector.backbone, lambda: build_network(factory, shape, detector.latent_dim)
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
    stored = {
        name.removeprefix(f"{role}."): array
        for name, array in arrays.items()
        if name.startswith(f"{role}.")
    }
    if different := set(expected) ^ set(stored):
        raise ValueError(
            f"the {role} differs from the one that was saved in {sorted(different)[:5]}"
        )
    for name, tensor in expected.items():
        _check(f"{role}.{name}", stored[name].shape, tuple(tensor.shape))
    if any(tensor.is_meta for tensor in expected.values()):
        net.to_empty(device=CPU)
    net.load_state_dict(
        {name: torch.from_numpy(array) for name, array in stored.items()}
    )
    return net.eval()


def _gaussians(head: Head, arrays: Arrays, detector: VMDLSbDetector) -> ClassGaussians:
    if not set(detector.features_) <= set(ENSEMBLE_PARTS):
        raise ValueError(f"features {detector.features_}")
    sizes = detector.network_.ensemble_sizes
    n_classes = len(detector.classes_)
    n_features = sum(sizes[part] for part in detector.features_)
    kind = _expected(head["covariance_type"], str)
    shapes = {
        "full": (n_classes, n_features, n_features),
        "tied": (n_features, n_features),
        "diag": (n_classes, n_features),
    }
    means = _float64(arrays, "gaussians.means", 2)
    precisions = _float64(arrays, "gaussians.precisions", len(shapes[kind]))
    _check("gaussians.means", means.shape, (n_classes, n_features))
    _check("gaussians.precisions", precisions.shape, shapes[kind])
    diagonal = (
        precisions if kind == "diag" else np.diagonal(precisions, axis1=-2, axis2=-1)
    )
    if diagonal.min() <= 0:
        raise ValueError("gaussians.precisions must have a positive diagonal")
    return ClassGaussians(means, precisions, kind)


def _weighting(stored: dict[str, Any]) -> WeightCalibration:
    shift, scale = (_expected(stored[name], float) for name in ("shift", "scale"))
    if scale <= 0 or stored["weighting"] not in ("calibrated", "paper"):
        raise ValueError(f"a weighting of {stored}")
    return WeightCalibration(shift, scale, stored["weighting"])
