"""From arrays to tensors: shapes, labels, standardisation."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import issparse
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import validate_data
from torch import Tensor

from skvmdls._support.values import as_numpy, listed, warn
from skvmdls.inputs.labels import as_labels, check_labels
from skvmdls.inputs.pictures import (
    IMAGE_ENDINGS,
    PictureFormat,
    are_pictures,
    stacked_pictures,
)
from skvmdls.inputs.rows import DatasetRows, Rows, dataset_rows, rows_of

__all__ = ["as_array", "check_inputs", "check_training_data"]

# An image has so many rows at least.
FEWEST_ROWS = 8


def check_inputs(
    estimator: Any, X: Any, input_shape: tuple[int, ...] | None
) -> np.ndarray | DatasetRows:
    """Validate X by scikit-learn's rules, for tables, for images, and for datasets.

    Images come back with four axes (n, channels, height, width), nothing copied where
    it need not be; datasets, of which the first row is read, as rows. `input_shape` is
    that of one input seen during fit; None during fit, where the estimator gets
    ``n_features_in_`` and ``picture_format_`` (and ``feature_names_in_``).

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> check_inputs(BaseEstimator(), np.zeros((5, 8, 8)), None).shape
    (5, 1, 8, 8)
    """
    is_fit = input_shape is None
    pictures, channels = _expected(estimator, input_shape)
    rows = dataset_rows(X)
    if rows is not None:
        if not len(rows):
            raise ValueError(f"X, a {type(X).__name__}, holds 0 samples.")
        if is_fit:
            estimator.picture_format_ = rows.picture_format
        else:
            rows = rows.read_as(pictures, channels)
        return _checked_shape(estimator, rows, rows.shape, input_shape)
    chosen = None
    if are_pictures(X):
        X, chosen = stacked_pictures(X, pictures, channels)
    if is_fit:
        estimator.picture_format_ = chosen
    X = as_array(X)
    is_table = len(X.shape) <= 2
    if is_table and input_shape is not None and len(input_shape) == 3:
        raise ValueError(
            f"X has shape {X.shape}, but {type(estimator).__name__} was fitted on "
            f"images of shape (channels, height, width) = {input_shape}. Pass X "
            "of shape (n, channels, height, width); a single image as X[None]."
        )
    try:
        X = validate_data(
            estimator,
            X,
            reset=input_shape is None,
            dtype="numeric",
            allow_nd=True,
            ensure_2d=is_table,
        )
    except ValueError as error:
        if not str(error).startswith("Input X contains"):
            raise
        raise ValueError(_not_finite(estimator, X, str(error))) from error
    if is_table:
        return X
    if X.ndim > 4:
        raise ValueError(
            f"X has {X.ndim} dimensions, shape {X.shape}; expected (n, features), "
            "(n, height, width) or (n, channels, height, width). Without a net of "
            "its own for it, give it as a table: X.reshape(len(X), -1)."
        )
    images = X if X.ndim == 4 else X[:, None]
    return _checked_shape(estimator, images, X.shape, input_shape)


def _not_finite(estimator: Any, X: Any, message: str) -> str:
    """Say where NaN and infinity are, and what to do; else return the message."""
    try:
        values = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):  # Such as pandas' NA.
        return message
    is_bad = ~np.isfinite(values)
    row, *place = np.argwhere(is_bad)[0].tolist()
    where = f"row {row}"
    if values.ndim == 2:
        names = getattr(X, "columns", None)
        where += f", column {place[0] if names is None else repr(names[place[0]])}"
    found = "NaN" if np.isnan(values).any() else "infinity"
    return (
        f"Input X contains {found}: {is_bad.sum()} of {values.size} numbers are not "
        f"finite, such as the one in {where}. {type(estimator).__name__} does not "
        "accept missing values or infinity. Drop these rows, or put an imputer such as "
        "sklearn.impute.SimpleImputer before it in a pipeline."
    )


def _expected(
    estimator: Any, input_shape: tuple[int, ...] | None
) -> tuple[PictureFormat | None, int | None]:
    """Return the format that a detector reads pictures in, and the channels.

    One that was fitted on arrays has no format, but bytes of so many channels. In fit
    nothing is expected yet.
    """
    if input_shape is None:
        return None, None
    pictures = getattr(estimator, "picture_format_", None)
    channels = input_shape[0] if input_shape[0] in (1, 3) else None
    if pictures is None and channels is not None and _has_seen_bytes(estimator):
        pictures = PictureFormat(channels)
    return pictures, channels


def _has_seen_bytes(estimator: Any) -> bool:
    standardizer = getattr(estimator, "standardizer_", None)
    return standardizer is not None and standardizer.were_bytes_


def _checked_shape(
    estimator: Any, X: Any, given: tuple[int, ...], input_shape: tuple[int, ...] | None
) -> Any:
    if X.ndim == 4 and 0 in X.shape[1:]:
        raise ValueError(f"X has shape {given}: its images hold no pixels.")
    if input_shape is None:
        if X.ndim == 4:
            _warn_of_channels_last(X.shape)
        estimator.n_features_in_ = int(np.prod(X.shape[1:]))
    elif X.shape[1:] != input_shape:
        raise ValueError(
            f"X has shape {given}: inputs of shape {X.shape[1:]}, but "
            f"{type(estimator).__name__} was fitted on inputs of shape {input_shape}."
            f"{_shape_hint(given, input_shape)}"
        )
    return X


def _warn_of_channels_last(shape: tuple[int, ...]) -> None:
    """Warn of images (n, height, width, channels), such as multispectral ones.

    Read as (n, channels, height, width), they have about as many channels as rows, and
    fewer columns; or as many, and another number of columns.
    """
    channels, height, width = shape[1:]
    are_alike = max(channels, height) <= 2 * min(channels, height)
    is_last = are_alike and width < min(channels, height)
    is_square = channels == height != width
    if channels >= FEWEST_ROWS and (is_last or is_square):
        warn(
            f"X has shape {shape}, which is read as {channels} channels of "
            f"{height}x{width} pixels. If these are images of {channels}x{height} "
            f"pixels in {width} channels, bring the channels first: "
            "X.transpose(0, 3, 1, 2)."
        )


def _shape_hint(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    if shape == input_shape:
        return " Pass a single image as X[None]."
    if len(input_shape) == 3 and shape[1:] == (*input_shape[1:], input_shape[0]):
        return " Channels come first: try X.transpose(0, 3, 1, 2)."
    return ""


def check_training_data(
    estimator: Any, X: Any, y: Any, num_workers: int
) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Validate X and y: gives X, the classes, and the position (n,) of each label.

    The estimator gets ``n_features_in_`` and, from a DataFrame, ``feature_names_in_``.
    """
    if y is None:
        way = " Pass it next to the dataset: y=X.targets." * hasattr(X, "targets")
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but "
            f"the target y is None.{way}"
        )
    X = check_inputs(estimator, X, input_shape=None)
    y = as_labels(y)
    check_consistent_length(X, y)
    return rows_of(X, num_workers), *check_labels(y)


def as_array(X: Any) -> Any:
    """Make an array of X, or leave frames to scikit-learn's checks.

    Tensors of any float type and on any device, lists of equally large arrays, tensors
    or pictures, and columns and object arrays of such, or of lists, become one array.
    If none can be made, the message of the error has the line that makes one.
    """
    _refuse_other_things(X)
    if isinstance(X, Tensor):
        return as_numpy(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "X is a masked array with masked values, which have no numbers. Fill them, "
            "X.filled(value), or drop their rows."
        )
    if hasattr(X, "dtypes") and hasattr(X, "columns"):
        _check_columns(X)
        return X
    if isinstance(X, np.ndarray):
        return _checked_dtype(X)
    if hasattr(X, "shape"):
        return _stacked_column(X)
    if hasattr(X, "__array__"):
        return _checked_dtype(np.asarray(X))
    rows = list(X)
    if any(hasattr(row, "shape") or hasattr(row, "size") for row in rows):
        return _stacked(rows)
    try:
        array = np.asarray(X)
    except ValueError as error:
        lengths = sorted({len(row) for row in rows if hasattr(row, "__len__")})
        found = f" of {lengths[0]} to {lengths[-1]} entries" if len(lengths) > 1 else ""
        raise ValueError(
            f"X is a list of rows{found} that do not make one array: {error}. Every "
            "row needs the same number of numbers."
        ) from error
    return _checked_dtype(array)


def _refuse_other_things(X: Any) -> None:
    if isinstance(X, str | bytes | os.PathLike):
        if os.fsdecode(X).lower().endswith(IMAGE_ENDINGS):
            raise ValueError(
                f"X is {X!r}, the name of one image; expected a list of names: X = [X]."
            )
        raise ValueError(
            f"X is {X!r}, a name; expected the numbers themselves. Read the file "
            "first: X = np.load(path) or X = pd.read_csv(path).to_numpy(); of a folder "
            "of images, X, y = skvmdls.datasets.image_folder(path)."
        )
    if isinstance(X, Image.Image):
        raise ValueError("X is one picture; expected a list of pictures: X = [X].")
    if isinstance(X, list | tuple):
        _refuse_encoded_pictures(X)
    if issparse(X):
        raise TypeError(
            f"X is a sparse {type(X).__name__} of shape {X.shape}; expected dense "
            "numbers. Of counts or TF-IDF take a few hundred components: "
            "sklearn.decomposition.TruncatedSVD(300).fit_transform(X), in a Pipeline "
            "before the detector. If it has few columns: X.toarray()."
        )
    known = ("__len__", "shape", "__array__")
    if isinstance(X, Mapping | Set) or not any(hasattr(X, name) for name in known):
        way = " Make a list of its items: list(X)." * isinstance(X, Iterator)
        raise ValueError(
            f"X is a {type(X).__name__}; expected an array of shape (n, features), (n, "
            f"height, width) or (n, channels, height, width).{way}"
        )


def _refuse_encoded_pictures(X: Sequence[Any]) -> None:
    """Raise a ValueError for a list of open files, or of the bytes of image files."""
    first = X[0] if X else None
    if hasattr(first, "read"):
        raise ValueError(
            f"X holds open files, of type {type(first).__name__}; expected pictures or "
            "names of files: X = [PIL.Image.open(file) for file in X]."
        )
    if isinstance(first, bytes | bytearray) and _is_image(first):
        raise ValueError(
            "X holds the bytes of image files; expected pictures: "
            "X = [PIL.Image.open(io.BytesIO(content)) for content in X]."
        )


def _is_image(content: bytes | bytearray) -> bool:
    try:
        Image.open(io.BytesIO(content)).close()
    except Exception:
        return False
    return True


def _stacked_column(X: Any) -> Any:
    """Stack the vectors of a column, as in ``df["embedding"]``; leave others as is."""
    if len(X.shape) != 1 or not len(X) or not hasattr(X, "__array__"):
        return X
    rows = np.asarray(X)
    # Columns of polars that hold arrays of one length have two axes as such.
    return _checked_dtype(rows) if rows.dtype == object or rows.ndim > 1 else X


def _stacked(rows: list[Any]) -> np.ndarray:
    """Put arrays, tensors or pictures of one shape behind one another."""
    arrays = [
        as_numpy(row, "a row of X") if isinstance(row, Tensor) else np.asarray(row)
        for row in rows
    ]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) > 1:
        raise ValueError(
            f"X holds inputs of {len(shapes)} different shapes, such as {shapes[0]} "
            f"and {shapes[1]}; expected one shape. Bring images to one size first: "
            "X = np.stack([torchvision.transforms.functional.resize(torch.as_tensor(x)"
            "[None], [height, width])[0] for x in X])."
        )
    return _checked_dtype(np.stack(arrays))


def _checked_dtype(X: np.ndarray) -> np.ndarray:
    kind = X.dtype.kind
    if kind == "O" and X.ndim == 1 and len(X) and _is_vector(X[0]):
        return _stacked(list(X))
    text = next(filter(_is_text, X.flat), None) if kind in "OUST" else None
    if text is not None and X.ndim == 1:
        raise ValueError(
            f"X is a sequence of texts, such as {str(text)[:50]!r}; expected a row of "
            "numbers for each. Make embeddings, sentence_transformers."
            "SentenceTransformer('all-MiniLM-L6-v2').encode(X), or put "
            "TfidfVectorizer() and TruncatedSVD(300), with fewer components for few "
            "texts, before the detector in a Pipeline."
        )
    if text is not None:
        raise ValueError(
            f"X holds text (dtype {X.dtype}), such as {text!r}, which could not be "
            "converted to numbers. Turn categories into columns of numbers first: "
            "sklearn.preprocessing.OneHotEncoder(sparse_output=False).fit_transform(X)."
        )
    if kind in "UST":
        return X.astype(np.float64)
    if kind in "mM":
        raise ValueError(
            f"X holds times (dtype {X.dtype}); expected numbers. Say in which unit: "
            "(X - X.min()) / np.timedelta64(1, 'D')."
        )
    if kind == "V" and X.dtype.names is None:
        raise ValueError(
            f"X has the dtype {X.dtype}, which numpy does not compute with. Pass "
            "X.astype(np.float32)."
        )
    if kind == "V":
        raise ValueError(
            f"X is a structured array with the fields {X.dtype.names}; expected plain "
            "columns: numpy.lib.recfunctions.structured_to_unstructured(X)."
        )
    return X


def _is_vector(row: Any) -> bool:
    return isinstance(row, list | tuple) or hasattr(row, "shape")


def _is_text(value: Any) -> bool:
    """Whether it is a word, and not a number in words."""
    if not isinstance(value, str | bytes):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


TIMES = ("date", "time", "duration", "period", "interval")


def _check_columns(frame: Any) -> None:
    """Raise a ValueError that names the columns of a frame that hold no numbers."""
    bad = []
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if _holds_pictures(frame[name], str(dtype)):
            raise ValueError(
                f"X has a column of pictures or of names of images, {name!r}; expected "
                f"this column alone: X[{name!r}]."
            )
        if _holds_vectors(frame[name], str(dtype)):
            raise ValueError(
                f"X has a column of vectors, {name!r} ({dtype}); expected one number "
                f"in a cell. Stack them, X = np.stack(X[{name!r}])."
            )
        kind = str(dtype).lower()
        is_plain = kind.startswith(("int", "uint", "float", "bool", "sparse"))
        if kind.startswith(TIMES) or (not is_plain and _has_text(frame[name])):
            bad.append(f"{name!r} ({dtype})")
    if bad:
        raise ValueError(
            f"X has columns that hold no numbers: {listed(bad)}. "
            "Turn categories into numbers, "
            "pd.get_dummies(X), and dates into a duration, (X['date'] - start)"
            ".dt.days; or leave these columns out."
        )


def _holds_pictures(column: Any, dtype: str) -> bool:
    """Whether the first cell of a column is a picture, or the name of an image file."""
    if not dtype.lower().startswith(("object", "str")) or not len(column):
        return False
    cell = _first_cell(column)
    if isinstance(cell, str | os.PathLike):
        return os.fspath(cell).lower().endswith(IMAGE_ENDINGS)
    return isinstance(cell, Image.Image)


def _holds_vectors(column: Any, dtype: str) -> bool:
    """Whether the first cell of a column is a list or an array."""
    if not dtype.lower().startswith(("object", "list", "array")) or not len(column):
        return False
    return _is_vector(_first_cell(column))


def _first_cell(column: Any) -> Any:
    return np.asarray(column[:1], dtype=object).flat[0]


def _has_text(column: Any) -> bool:
    return any(map(_is_text, np.asarray(column, dtype=object).ravel()))
