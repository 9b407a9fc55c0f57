"""Inputs that must be refused, with what the message must say.

The tests try them; run as a script, this writes the messages to docs/bad_inputs.md:

    python tests/bad_inputs.py
"""

import io
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector

PAGE = Path(__file__).parents[1] / "docs" / "bad_inputs.md"

X_GOOD = np.random.default_rng(0).normal(size=(12, 6))
Y_GOOD = np.repeat([0, 1, 2], 4)
FRAME = pd.DataFrame(X_GOOD, columns=list("abcdef"))
DATASET = TensorDataset(torch.from_numpy(X_GOOD), torch.from_numpy(Y_GOOD))
FLAT_IMAGES = np.random.default_rng(0).normal(size=(12, 1, 4, 8))


class Stream(IterableDataset):
    """Rows that come one behind the other."""

    def __iter__(self):
        return iter(X_GOOD)


class Ragged(Dataset):
    """Rows of which the second half is shorter."""

    def __len__(self):
        return len(X_GOOD)

    def __getitem__(self, i):
        return X_GOOD[i] if i < 6 else X_GOOD[i, :3]


class Few(Ragged):
    """Rows of which only the first is returned when many are asked for."""

    def __getitems__(self, positions):
        return [self[0]]


def png() -> bytes:
    """Return the content of an image file."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "png")
    return file.getvalue()


PNG = png()


@dataclass(frozen=True)
class BadFit:
    """What is given to `fit`, as a user would say it, and what the message must match.

    All but what is bad is good.
    """

    given: str
    message: str
    parameters: dict[str, Any] = field(default_factory=dict)
    X: Any = field(default_factory=lambda: X_GOOD)
    y: Any = field(default_factory=lambda: Y_GOOD)
    groups: Any = None
    detector: type = VMDLSbDetector


@dataclass(frozen=True)
class BadPoints:
    """The same for a fitted detector's `predict` and its like."""

    given: str
    message: str
    X: Any


@dataclass(frozen=True)
class BadFile:
    """The same for `load`: what becomes of a saved file."""

    given: str
    message: str
    changed: Callable[[bytes], bytes]


def parameter(message: str, **value: Any) -> BadFit:
    [(name, bad)] = value.items()
    own = name in ("autoencoder", "autoencoder_epochs", "weighting")
    detector = VMDLSDetector if own else VMDLSbDetector
    return BadFit(f"`{name}={bad!r}`", message, value, detector=detector)


def cut_batch(batch):
    return batch[:1]


def to_numpy(batch):
    return batch.numpy()


def three(input_shape):
    return 3


def without_taps(input_shape):
    return nn.Linear(input_shape[0], 4)


def narrower(input_shape):
    return nn.Linear(6, 5)


class Odd(nn.Module):
    """A net that answers with its output in some other form."""

    taps = ("a", "b", "c")

    def __init__(self, answer):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.answer = answer

    def forward(self, x):
        return self.answer(self.c(self.b(self.a(x))))


class OfOneSize(nn.Module):
    """A net whose class does not take the shape of the input."""

    def __init__(self):
        super().__init__()


def with_a_tuple(input_shape):
    return Odd(lambda g: (g, g))


def with_a_dict(input_shape):
    return Odd(lambda g: {"logits": g})


def with_whole_numbers(input_shape):
    return Odd(lambda g: g.argmax(dim=1, keepdim=True))


def with_a_mistake(input_shape):
    return Odd(lambda g: g.no_such_attribute)


BAD_FITS = [
    BadFit("X with NaN", "X contains NaN", X=np.where(X_GOOD > 1, np.nan, X_GOOD)),
    BadFit(
        "X with infinity", "X contains infinity", X=np.where(X_GOOD > 1, np.inf, X_GOOD)
    ),
    BadFit("X with values of 1e200", r"as large as \d.*e\+200", X=X_GOOD * 1e200),
    BadFit("X of complex numbers", "Complex data not supported", X=X_GOOD + 1j),
    BadFit("X of words", "holds text", X=[["a"] * 6] * 12),
    BadFit("texts", "TfidfVectorizer.*TruncatedSVD", X=["where is my card"] * 12),
    BadFit(
        "bfloat16 of ml_dtypes",
        r"dtype bfloat16.*X.astype\(np.float32\)",
        X=X_GOOD.astype(ml_dtypes.bfloat16),
    ),
    BadFit("X of dates", "holds times", X=np.full((12, 6), "2020", "M8[D]")),
    BadFit(
        "a frame with words",
        r"'pet' \((str|object)\).*get_dummies",
        X=FRAME.assign(pet="cat"),
    ),
    BadFit(
        "a frame with categories",
        r"'pet' \(category\)",
        X=FRAME.assign(pet=pd.Categorical(["cat", "dog"] * 6)),
    ),
    BadFit("a DataLoader as X", r"DataLoader.*X\.dataset", X=DataLoader(DATASET)),
    BadFit("a stream of rows as X", r"Stream, whose rows cannot.*", X=Stream()),
    BadFit(
        "files that are not there", r"Row 0 .*file 'a.png'.*NotFound", X=["a.png"] * 12
    ),
    BadFit(
        "a dataset of rows of two sizes",
        r"Row 6 of X has shape \(3,\).*first has \(6,\).*Resize",
        X=Ragged(),
    ),
    BadFit("the name of a file as X", "a name.*Read the file", X="data.csv"),
    BadFit("a dict as X", "X is a dict", X={"a": X_GOOD}),
    BadFit(
        "images of two sizes",
        r"\(16, 16\) and \(17, 16\).*resize",
        X=[np.zeros((16 + i % 2, 16)) for i in range(12)],
    ),
    BadFit(
        "PIL images of two sizes",
        r"Image 1 of X has 16x17 pixels.*16x16.*image.resize",
        X=[Image.new("L", (16 + i % 2, 16)) for i in range(12)],
    ),
    BadFit(
        "PIL images of two depths",
        "Image 1 of X holds 16-bit pixels, but 8-bit",
        X=[Image.new(("L", "I;16")[i % 2], (16, 16)) for i in range(12)],
    ),
    BadFit(
        "a PIL image with NaN",
        "Image 0 of X contains NaN",
        X=[Image.fromarray(np.full((16, 16), np.nan, np.float32))] * 12,
    ),
    BadFit("one picture as X", r"one picture.*X = \[X\]", X=Image.new("L", (16, 16))),
    BadFit("the name of one image as X", r"one image.*X = \[X\]", X="screw.png"),
    BadFit(
        "pictures and arrays in one list",
        "item 1 is of type ndarray.*PIL.Image.fromarray",
        X=[Image.new("L", (16, 16)), np.zeros((16, 16))] * 6,
    ),
    BadFit("open files as X", r"open files.*Image.open\(file\)", X=[io.BytesIO()] * 12),
    BadFit("bytes of image files as X", r"bytes of.*io.BytesIO", X=[PNG] * 12),
    BadFit("an iterator of names as X", r"X is a map.*list\(X\)", X=map(str, "ab")),
    BadFit(
        "a frame with a column of names of images",
        r"column of pictures.*'file'.*X\['file'\]",
        X=pd.DataFrame({"file": ["screw.png"] * 12}),
    ),
    BadFit(
        "a dataset that returns too few items",
        "__getitems__ returned 1 items for",
        X=Few(),
    ),
    BadFit("rows of two lengths", "rows of 1 to 2", X=[[1.0], [1.0, 2.0]] * 6),
    BadFit("a sparse tensor", "to_dense", X=torch.eye(12).to_sparse()),
    BadFit("a sparse matrix", r"TruncatedSVD.*toarray", X=csr_matrix(X_GOOD)),
    BadFit(
        "a frame with a column of vectors",
        r"'embedding' \(object\).*np.stack\(X\['embedding'\]\)",
        X=pd.DataFrame({"embedding": X_GOOD.tolist()}),
    ),
    BadFit("a masked array", "masked values", X=np.ma.masked_less(X_GOOD, -1)),
    BadFit("X without rows", "0 sample", X=np.empty((0, 6)), y=np.empty(0)),
    BadFit("X of one dimension", "Expected 2D array", X=X_GOOD[:, 0]),
    BadFit("X of five dimensions", "5 dimensions", X=np.zeros((12, 1, 1, 8, 8))),
    BadFit("y shorter than X", "inconsistent numbers of samples", y=Y_GOOD[:-1]),
    BadFit("`y=None`", "requires y to be passed", y=None),
    BadFit("y of one class", "1 class", y=np.zeros(12, int)),
    BadFit("y with -1", "-1, which stands for 'unknown'", y=Y_GOOD - 1),
    BadFit('y with "-1"', "-1, which stands for", y=np.array(["-1", "a", "b"])[Y_GOOD]),
    BadFit(
        "y of 2**64 - 1",
        "too large",
        y=np.where(Y_GOOD == 0, 7, 2**64 - 1 - Y_GOOD.astype(np.uint64)),
    ),
    BadFit(
        "y with None", "missing labels", y=np.array([None, "a", "b"], object)[Y_GOOD]
    ),
    BadFit(
        "y with pandas' NA",
        "missing labels",
        y=pd.Series(["a", "b", pd.NA] * 4, dtype="string"),
    ),
    BadFit(
        "y of dates",
        r"dtype datetime64.*y.astype\(str\)",
        y=np.datetime64("2020-01-01") + Y_GOOD,
    ),
    BadFit("y of bytes", "decode", y=np.array([b"a", b"b", b"c"])[Y_GOOD]),
    BadFit("y of tuples", "type tuple", y=[(i, i) for i in Y_GOOD.tolist()]),
    BadFit(
        'y of 1, 2 and "1"',
        "two types, integer .* and string",
        y=[[1, 2, "1"][i] for i in Y_GOOD],
    ),
    BadFit(
        "y of 1, 2 and True",
        "two types, boolean .* and integer",
        y=[[1, 2, True][i] for i in Y_GOOD],
    ),
    BadFit(
        "y of 2**53 + 1 next to floats",
        "too large to be distinct",
        y=[[2**53 + 1, 2.0**53, 1.0][i] for i in Y_GOOD],
    ),
    BadFit("groups shorter than X", "inconsistent numbers", groups=np.arange(11)),
    BadFit("groups with None", "groups has 12 missing", groups=[None] * 12),
    BadFit("one group for all", "No rows can be held out", groups=np.zeros(12)),
    BadFit(
        "y with a class of one", r"one sample in y: \[2\]", y=[0] * 6 + [1] * 5 + [2]
    ),
    BadFit("y of fractions", "Unknown label type", y=np.linspace(0, 1, 12)),
    BadFit(
        "two points a class, `covariance_type='full'`",
        "at least 3 training points",
        {"covariance_type": "full"},
        X=X_GOOD[:4],
        y=[0, 0, 1, 1],
    ),
    BadFit("images of 4x8", r"at least 8x8.*\(1, 4, 8\).*reshape", X=FLAT_IMAGES),
    BadFit(
        "series of 50 steps of 3 sensors",
        r"series of 50 steps.*X.reshape\(len\(X\), -1\)",
        X=np.random.default_rng(0).normal(size=(12, 50, 3)),
    ),
    BadFit(
        "points that are all the same", "No rows can be held out", X=np.ones((12, 6))
    ),
    parameter("backbone='resnet' is not known", backbone="resnet"),
    BadFit("`backbone='cnn'` for tables", "'cnn' takes images", {"backbone": "cnn"}),
    BadFit("a factory that returns 3", "returned int", {"backbone": three}),
    BadFit("a backbone without taps", "three taps", {"backbone": without_taps}),
    BadFit(
        "a net that returns a tuple",
        r"a tuple of 2; .*self.net\(x\)\[0\]",
        {"backbone": with_a_tuple},
    ),
    BadFit(
        "a net that returns a dict",
        r"keys \['logits'\].*self.net\(x\)\['logits'\]",
        {"backbone": with_a_dict},
    ),
    BadFit(
        "a net that returns whole numbers",
        "torch.int64.*argmax",
        {"backbone": with_whole_numbers},
    ),
    BadFit(
        "a net with a mistake",
        "cannot take a batch.*AttributeError",
        {"backbone": with_a_mistake},
    ),
    BadFit(
        "a module as `backbone`",
        "expected a factory.*three of a, b, c",
        {"backbone": Odd(lambda g: g)},
    ),
    BadFit(
        "a class of modules as `backbone`",
        "the class OfOneSize.*lambda input_shape: OfOneSize",
        {"backbone": OfOneSize},
    ),
    parameter("'backbone' parameter", backbone=3),
    parameter("'latent_dim' parameter.*Got 0", latent_dim=0),
    parameter("'contamination' parameter.*Got 0.6", contamination=0.6),
    parameter("'contamination' parameter", contamination=-0.1),
    parameter("'calibration_fraction'", calibration_fraction=0),
    parameter("'calibration_fraction'", calibration_fraction=0.9),
    parameter("'classes_per_batch' parameter", classes_per_batch=1),
    parameter("'samples_per_class' parameter", samples_per_class=1),
    parameter("'max_epochs' parameter", max_epochs=0),
    parameter("'optimizer' parameter.*Got 'sgd'", optimizer="sgd"),
    parameter("'learning_rate' parameter", learning_rate=0.0),
    parameter("'learning_rate' parameter", learning_rate=np.nan),
    parameter("'prior_variance' parameter", prior_variance=0),
    parameter("'kl_weight' parameter", kl_weight=-1),
    parameter("'threshold' parameter", threshold="high"),
    parameter("'covariance_type' parameter", covariance_type="round"),
    parameter("'covariance_pooling' parameter", covariance_pooling=1.5),
    parameter(r"features=\(\) must be 'auto' or name parts", features=()),
    parameter(r"features=\('mu', 't4'\)", features=("mu", "t4")),
    parameter("each once", features=("mu", "mu")),
    parameter("each once", features=[["mu"]]),
    parameter(
        r"must be .auto. or a sequence.*a single one as \('mu',\)", features="mu"
    ),
    parameter("'features' parameter", features=3),
    BadFit(
        "`features=('x', 'mu')` for images",
        "names 'x', but the input itself is a part for tables only",
        {"features": ("x", "mu")},
        X=np.random.default_rng(0).normal(size=(12, 1, 8, 8)),
    ),
    BadFit(
        "`features=('logit',)` without a head",
        "names 'logit', but with classification_weight=0 there is no head",
        {"features": ("logit",), "classification_weight": 0},
    ),
    parameter("'fusion' parameter", fusion="middle"),
    parameter("'normalize' parameter", normalize="L2"),
    parameter(
        "average_flips=True mirrors images, but X is a table", average_flips=True
    ),
    parameter("'classification_weight' parameter.*Got -1", classification_weight=-1),
    parameter("'metric_weight' parameter.*Got -0.1", metric_weight=-0.1),
    parameter("augmentation='mixup'", augmentation="mixup"),
    BadFit(
        "`augmentation='affine'` for tables",
        "is for images",
        {"augmentation": "affine"},
    ),
    BadFit(
        "an augmentation that drops rows",
        "into a tensor of shape",
        {"augmentation": cut_batch},
    ),
    BadFit("an augmentation to numpy", "into ndarray", {"augmentation": to_numpy}),
    parameter("device='toaster'", device="toaster"),
    parameter("device='meta' cannot be used", device="meta"),
    parameter("'precision' parameter", precision="float8"),
    parameter("there is no folder", checkpoint="no/such/folder/fit"),
    parameter("'/' is a folder", checkpoint="/"),
    parameter("autoencoder='vae' is not known", autoencoder="vae"),
    BadFit(
        "an autoencoder of another shape",
        "expected the same shape",
        {"autoencoder": narrower},
        detector=VMDLSDetector,
    ),
    parameter("'autoencoder_epochs' parameter", autoencoder_epochs=0),
    parameter("'weighting' parameter", weighting="none"),
    parameter("'weighting' parameter.*'evidence'", weighting="calibrated"),
]

# Of a detector that was fitted on 6 features.
BAD_ROWS = [
    BadPoints(
        "5 features instead of 6", "X has 5 features.* expecting 6", np.zeros((2, 5))
    ),
    BadPoints(
        "images instead of rows",
        r"inputs of shape \(1, 8, 8\).*\(6,\)",
        np.zeros((2, 1, 8, 8)),
    ),
    BadPoints("NaN", "NaN", np.full((2, 6), np.nan)),
    BadPoints("a single row", "Expected 2D array", np.zeros(6)),
    BadPoints("no rows", "0 sample", np.zeros((0, 6))),
    BadPoints("a DataLoader", "DataLoader.*X.dataset", DataLoader(DATASET)),
    BadPoints("a dataset of rows of two sizes", "Row 6 of X has shape", Ragged()),
    BadPoints("words", "holds text", np.full((2, 6), "a")),
]

# Of a detector that was fitted on images of 8x8.
BAD_IMAGES = [
    BadPoints(
        "three channels instead of one",
        r"inputs of shape \(3, 8, 8\).*\(1, 8, 8\)",
        np.zeros((2, 3, 8, 8)),
    ),
    BadPoints(
        "images of 9x8 instead of 8x8",
        r"inputs of shape \(1, 9, 8\).*\(1, 8, 8\)",
        np.zeros((2, 9, 8)),
    ),
    BadPoints(
        "rows instead of images",
        r"fitted on images of shape .* \(1, 8, 8\)",
        np.zeros((2, 64)),
    ),
    BadPoints("a single image", r"X\[None\]", np.zeros((8, 8))),
]

# Labels given to `score` and the metrics, where the classes are the integers 0, 1, 2.
BAD_TRUTHS = [
    BadPoints("the labels as strings", "string.*integer", Y_GOOD.astype(str)),
    BadPoints("fractions", "float, such as 0.5", Y_GOOD + 0.5),
    BadPoints("booleans", "boolean.*integer", Y_GOOD > 0),
    BadPoints("NaN", "missing labels", np.full(12, np.nan)),
]

BAD_FILES = [
    BadFile("an empty file", "was not written by skvmdls.save", lambda content: b""),
    BadFile(
        "another file", "was not written by skvmdls.save", lambda content: b"hello"
    ),
    BadFile("half a file", "is damaged", lambda content: content[: len(content) // 2]),
    BadFile(
        "a file with a changed byte",
        "is damaged.*checksum",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ),
    BadFile(
        "a file with a header of a terabyte",
        "is damaged",
        lambda content: (2**40).to_bytes(8, "little") + content[8:],
    ),
]


def quick(detector: type) -> Any:
    short = {"autoencoder_epochs": 1} if detector is VMDLSDetector else {}
    return detector(max_epochs=1, contamination=0.1, random_state=0, **short)


def main() -> None:
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    of_rows = quick(VMDLSbDetector).fit(rng.normal(size=(60, 6)), labels)
    of_images = quick(VMDLSbDetector).fit(rng.normal(size=(60, 8, 8)), labels)
    path = Path(tempfile.mkdtemp()) / "detector.safetensors"
    skvmdls.save(of_rows, path)
    content = path.read_bytes()

    def fit(case: BadFit) -> None:
        quick(case.detector).set_params(**case.parameters).fit(
            case.X, case.y, case.groups
        )

    def load(case: BadFile) -> None:
        path.write_bytes(case.changed(content))
        skvmdls.load(path)

    PAGE.write_text(
        "# Input errors\n\n"
        "The message for each kind of bad input. An earlier fit of the detector stays "
        "as it was. Long\nmessages are cut after their first line. `python "
        "tests/bad_inputs.py` makes this page from the\ncases of the tests.\n"
        + section("`fit`", BAD_FITS, fit)
        + section(
            "`predict` and other methods, after a fit to 6 columns",
            BAD_ROWS,
            lambda case: of_rows.predict(case.X),
        )
        + section(
            "`predict` and other methods, after a fit to images of 8x8",
            BAD_IMAGES,
            lambda case: of_images.predict(case.X),
        )
        + section(
            "True labels of `score` and the metrics, for classes 0, 1 and 2",
            BAD_TRUTHS,
            lambda case: of_rows.score(X_GOOD, case.X),
        )
        + section("`skvmdls.load`", BAD_FILES, load)
    )
    print(PAGE)


def section(title: str, cases: list[Any], attempt: Callable[[Any], None]) -> str:
    rows = [f"| {shown(case.given)} | {said(attempt, case)} |" for case in cases]
    head = ["", f"## {title}", "", "| given | error |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


def said(attempt: Callable[[Any], None], case: Any) -> str:
    try:
        attempt(case)
    except (ValueError, TypeError) as error:
        first_line = str(error).strip().split("\n")[0]
        return f"`{type(error).__name__}`: {shown(first_line)}"
    raise SystemExit(f"{case.given} was not refused.")


def shown(text: str) -> str:
    """Leave out what differs from run to run, and what would end a cell."""
    text = re.sub(r" at 0x[0-9a-f]+|/\S*/(?=\w+\.safetensors)|__main__\.", "", text)
    text = re.sub(r"\{(.*?)\}", _sorted_set, text)
    return text.replace("|", "\\|")


def _sorted_set(match: re.Match[str]) -> str:
    return "{" + ", ".join(sorted(match[1].split(", "))) + "}"


if __name__ == "__main__":
    main()
