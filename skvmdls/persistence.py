"""Fitted detectors in one file, without pickle: loading runs no code from it.

The arrays are stored as safetensors, the rest as JSON in the header of that file. The
other format in use around scikit-learn, skops, rebuilds objects of the types that a
file names, and has no form for modules of torch. Here the types are fixed, and a file
only holds their values.
"""

import errno
import hashlib
import json
import math
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from sklearn.utils.validation import check_is_fitted

from skvmdls._support.devices import compute_in_one_thread_if_forked
from skvmdls._support.estimators import way_into
from skvmdls._support.files import replacing
from skvmdls._support.stored_arrays import check_shape, expected
from skvmdls._support.torch_state import seeded, under_ordinary_torch
from skvmdls._support.values import plain
from skvmdls._support.version import __version__
from skvmdls.calibration.verdicts import Calibration
from skvmdls.detector.base import BaseDetector
from skvmdls.detector.vmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.inputs.pictures import PictureFormat
from skvmdls.nets.backbones import BackboneFactory, ModuleFactory
from skvmdls.nets.pretrained import stored_net
from skvmdls.scoring.stored_model import (
    Arrays,
    Head,
    NetChoices,
    model_arrays,
    model_from,
    model_head,
)
from skvmdls.training.choices import TrainingChoices

__all__ = ["FORMAT", "load", "save"]

FORMAT, READABLE = 4, (3, 4)
KEY, CHECKSUM = "skvmdls", "sha256"
DETECTORS = {cls.__name__: cls for cls in (VMDLSbDetector, VMDLSDetector)}

# Not needed to score; and paths to write to, which are not a file's business.
NOT_STORED = ("augmentation", "random_state")
PLACES = ("checkpoint", "memory")
HISTORIES = ("history_", "autoencoder_history_")

# What rebuilding raises where the parts of a file do not fit together.
_REFUSALS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


@under_ordinary_torch
def save(detector: BaseDetector, path: str | os.PathLike[str]) -> None:
    """Write a fitted detector to one file, for :func:`load`.

    The file is written next to its place and then moved there, so that a file of the
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
            f"save takes a detector of {sorted(DETECTORS)}, got {name}."
            f"{way_into(detector) or ' Use joblib for classes of your own.'}"
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
    with replacing(path) as draft:
        save_file(arrays, draft, metadata)


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
        holds the weights of a net but not its code. A net of
        :func:`skvmdls.nets.pretrained` is rebuilt by its name.

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
    names = getattr(detector, "feature_names_in_", None)
    pictures = detector.picture_format_
    return {
        "format": FORMAT,
        "written_by": __version__,
        "class": type(detector).__name__,
        "parameters": _stored_parameters(detector),
        "classes": _stored_classes(detector.classes_),
        "feature_names_in": None if names is None else names.tolist(),
        "picture_format": pictures and pictures.state_dict(),
        "training_choices": _stored_choices(detector.training_choices_),
        "histories": {
            name: getattr(detector, name)
            for name in HISTORIES
            if hasattr(detector, name)
        },
        **model_head(detector.model_),
    }


def _stored_parameters(detector: BaseDetector) -> dict[str, Any]:
    parameters = {
        name: plain(value)
        for name, value in detector.get_params(deep=False).items()
        if name not in PLACES
        and (name not in NOT_STORED or isinstance(value, str | int | None))
    }
    if not isinstance(parameters["features"], str):
        parameters["features"] = list(parameters["features"])
    parameters["device"] = str(parameters["device"])
    for role in ("backbone", "autoencoder"):
        choice = parameters.get(role)
        if isinstance(choice, ModuleFactory) and choice.name is not None:
            parameters[role] = {"pretrained": choice.name, "weights": choice.weights}
        elif callable(choice):
            parameters[role] = None
    return parameters


def _arrays(detector: BaseDetector) -> Arrays:
    arrays = model_arrays(detector.model_) | detector.calibration_.state_dict()
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _rebuilt(
    head: Head, arrays: Arrays, factories: dict[str, BackboneFactory]
) -> BaseDetector:
    """Rebuild a detector, checking that its attributes fit each other."""
    cls = DETECTORS[expected(head["class"], str)]
    n_numbers = sum(array.size for array in arrays.values())
    detector = cls(**_parameters(cls, head, factories, n_numbers))
    detector._validate_params()
    classes = _classes(head["classes"])
    model = model_from(head, arrays, _net_choices(detector), len(classes))
    n_parts = len(model.selection.names) if model.weight_calibration is None else 1
    detector.classes_ = classes
    detector.model_ = model
    detector.calibration_ = Calibration.from_state(arrays, len(classes), n_parts)
    detector.n_features_in_ = math.prod(model.input_shape)
    if head["feature_names_in"] is not None:
        names = _all_strings(head["feature_names_in"])
        check_shape("feature_names_in", (len(names),), (detector.n_features_in_,))
        detector.feature_names_in_ = np.array(names, dtype=object)
    # Earlier files of these formats do not have it.
    pictures = head.get("picture_format")
    detector.picture_format_ = pictures and PictureFormat.from_state(pictures)
    detector.training_choices_ = _training_choices(head.get("training_choices"))
    histories = _histories(head["histories"])
    detector.history_ = histories["history_"]
    if model.autoencoder is not None:
        detector.autoencoder_history_ = histories["autoencoder_history_"]
    return detector


def _parameters(
    cls: type[BaseDetector],
    head: Head,
    factories: dict[str, BackboneFactory],
    n_numbers: int,
) -> dict[str, Any]:
    parameters = dict(expected(head["parameters"], dict))
    if head["format"] == 3 and len(head["input_shape"]) == 1:
        # The net of tables by default was another one.
        usual = {"backbone": "mlp", "calibration": "split"}
        is_usual = parameters.get("backbone") == "auto"
        parameters |= usual if is_usual else {"calibration": "split"}
    # Earlier files of this format have this parameter. Its value is always None.
    parameters.pop("covariance_estimator", None)
    if unknown := set(parameters) - (set(cls().get_params()) - {*PLACES}):
        raise ValueError(f"it sets parameters that are not a file's: {sorted(unknown)}")
    if isinstance(parameters["features"], list):
        parameters["features"] = tuple(parameters["features"])
    for role in ("backbone", "autoencoder"):
        if role in parameters:
            given = factories.get(role)
            parameters[role] = _factory(role, parameters[role], given, n_numbers)
        elif role in factories:
            raise ValueError(f"a {cls.__name__} has no {role}")
    return parameters


def _net_choices(detector: BaseDetector) -> NetChoices:
    return NetChoices(
        backbone=detector.backbone,
        latent_dim=detector.latent_dim,
        has_head=detector.classification_weight > 0,
        autoencoder=detector.autoencoder
        if isinstance(detector, VMDLSDetector)
        else None,
    )


def _stored_choices(choices: TrainingChoices | None) -> dict[str, Any] | None:
    if choices is None:
        return None
    augmentation = choices.augmentation
    if augmentation is not None and not isinstance(augmentation, str):
        # A file holds no code.
        augmentation = repr(augmentation)
    return asdict(replace(choices, augmentation=augmentation))


def _training_choices(stored: Any) -> TrainingChoices | None:
    if stored is None:
        return None
    augmentation = expected(stored, dict)["augmentation"]
    return TrainingChoices(
        optimizer=expected(stored["optimizer"], str),
        learning_rate=expected(stored["learning_rate"], float),
        weight_decay=expected(stored["weight_decay"], float),
        augmentation=None if augmentation is None else expected(augmentation, str),
        max_epochs=expected(stored["max_epochs"], int),
        reason=expected(stored["reason"], str),
    )


def _histories(stored: Any) -> dict[str, dict[str, list[float]]]:
    histories = {}
    for name, history in expected(stored, dict).items():
        if name not in HISTORIES:
            raise ValueError(f"a history {name!r}")
        histories[name] = {
            key: [float(value) for value in expected(row, list)]
            for key, row in expected(history, dict).items()
        }
    return histories


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
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise FileNotFoundError(
            errno.ENOENT,
            "No such file; expected one that skvmdls.save wrote",
            os.fspath(path),
        ) from error
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata[KEY]
            head = json.loads(text, parse_constant=_refused)
        # A map of the file would stand in memory next to the arrays.
        arrays = load_file(path, backend="pread")
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
            f"{__version__}, which reads formats {READABLE}. Load it with the "
            "version that wrote it, or fit and save again with this one."
        )
    return head, arrays


def _checksum(text: str, arrays: Arrays) -> str:
    """Tell damage, not forgery: whoever changes a file can compute it too."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def _all_strings(values: Any) -> list[str]:
    return [expected(value, str) for value in expected(values, list)]


def _factory(
    role: str, stored: Any, given: BackboneFactory | None, n_numbers: int
) -> Any:
    if isinstance(stored, dict):
        # A pretrained net: the file holds its name, and its weights among the others.
        if given is not None:
            return given
        weights = stored["weights"]
        with seeded(0, torch.device("cpu")):
            return stored_net(
                expected(stored["pretrained"], str),
                weights if weights is None else expected(weights, str),
                n_numbers,
            )
    if stored is None and given is None:
        raise ValueError(
            f"it was fitted with a {role} factory of your own, which a file cannot "
            f"hold. Pass it: load(path, {role}=...)"
        )
    if stored is not None and given is not None:
        raise ValueError(f"it was fitted with the {role} {stored!r}: pass no factory")
    return given if stored is None else expected(stored, str)


def _classes(stored: dict[str, Any]) -> np.ndarray:
    dtype = expected(stored["dtype"], str)
    if not re.fullmatch(r"U|O|b1|[iu][1248]|f[248]", dtype):
        raise ValueError(f"labels of dtype {dtype!r}")
    classes = np.array(expected(stored["values"], list), dtype=dtype)
    if classes.ndim != 1 or len(classes) < 2:
        raise ValueError("expected at least two labels")
    if not all(isinstance(value, str | int | float) for value in classes.tolist()):
        raise ValueError("labels must be strings or numbers")
    if np.unique(classes).tolist() != classes.tolist() or {-1, "-1"} & set(
        classes.tolist()
    ):
        raise ValueError("labels must be sorted, different, and none of them -1")
    return classes
