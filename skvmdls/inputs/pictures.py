"""Read pictures: one reader for image files, PIL's pictures and datasets of them.

Every picture is turned as its EXIF entry demands, palettes become colours, transparent
pixels are laid over one colour, and files with more than 8 bits a channel are scaled by
one rule. The rule is a :class:`PictureFormat`: chosen for a whole set at `fit`, stored
with the detector, and the same for every picture that it scores.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from skvmdls._support.values import warn

__all__ = [
    "IMAGE_ENDINGS",
    "PictureFormat",
    "PictureHeader",
    "UnfitPictureError",
    "are_pictures",
    "opened_picture",
    "picture_header",
    "stacked_pictures",
    "turned_size",
    "warn_of_pages",
]

# Endings of the files that are looked for in folders.
IMAGE_ENDINGS = (
    ".avif",
    ".bmp",
    ".dib",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
)

# Depths of a channel. The values of a 16-bit file are divided by 65535, those of a
# float or 32-bit file stay as they are.
BYTES, SHORTS, INTEGERS, FLOATS = "8-bit", "16-bit", "32-bit integer", "float"
DEPTHS = (BYTES, SHORTS, INTEGERS, FLOATS)
WHITE_OF_SHORTS = 65535

# Modes of PIL whose pixels hold one number, apart from transparency.
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

# PIL reads 16-bit files of these formats as mode "I" in some of its versions.
FORMATS_OF_SHORTS = frozenset({"PNG", "PPM", "JPEG2000"})

ORIENTATION = 0x0112
PHOTOMETRIC = 0x0106
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

WHITE = (255, 255, 255)


class UnfitPictureError(ValueError):
    """A picture that can be read, but does not fit the format of its set."""


@dataclass(frozen=True)
class PictureFormat:
    """How pictures become numbers: the same for all pictures of a detector.

    Parameters
    ----------
    channels : {1, 3}
        1 reads pictures in grey, 3 in red, green and blue.
    depth : {"8-bit", "16-bit", "32-bit integer", "float"}
        What one channel of a file holds. 8-bit pictures become uint8 in [0, 255],
        16-bit ones float32 in [0, 1]. 32-bit integers and floats become float32, and
        keep their values.
    background : tuple of three int, default=(255, 255, 255)
        Red, green and blue, which transparent pixels are laid over.
    size : (height, width) or None, default=None
        Size that pictures are scaled to. None keeps the size of each.

    Examples
    --------
    >>> picture = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    >>> rule = PictureFormat.of(picture)
    >>> rule.channels, rule.depth
    (3, '8-bit')
    >>> rule.as_array(picture)[:, 0, 0]
    array([255, 255, 255], dtype=uint8)
    >>> PictureFormat.from_state(rule.state_dict()) == rule
    True
    """

    channels: int = 3
    depth: str = BYTES
    background: tuple[int, int, int] = WHITE
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, picture: Image.Image, channels: int | None = None) -> "PictureFormat":
        """Choose a format by the mode of one picture.

        Parameters
        ----------
        picture : Image
        channels : {1, 3}, default=None
            None takes 1 for a grey picture, else 3.

        Returns
        -------
        rule : PictureFormat
        """
        if channels is None:
            channels = 1 if is_grey(picture) else 3
        return cls(channels, depth_of(picture))

    @classmethod
    def of_file(
        cls, path: str | os.PathLike[str], channels: int | None = None
    ) -> "PictureFormat":
        """Choose a format by the mode of a file, of which the header is read."""
        with opened_picture(path) as picture:
            return cls.of(picture, channels)

    def state_dict(self) -> dict[str, Any]:
        """Return the format as plain values, which JSON can hold."""
        state = asdict(self)
        lists = {name: list(v) for name, v in state.items() if isinstance(v, tuple)}
        return state | lists

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "PictureFormat":
        """Rebuild a format from :meth:`state_dict`.

        Raises
        ------
        ValueError
            If a value is not one that `state_dict` returns.
        """
        channels, depth = state["channels"], state["depth"]
        background, size = state["background"], state["size"]
        is_sound = (
            type(channels) is int
            and channels in (1, 3)
            and depth in DEPTHS
            and _are_whole(background, 3, 0, 255)
            and (size is None or _are_whole(size, 2, 1, 2**16))
        )
        if not is_sound:
            raise ValueError(f"picture format: found {str(dict(state))[:200]}")
        return cls(channels, depth, tuple(background), size and tuple(size))

    def read(self, source: str | os.PathLike[str] | Image.Image) -> Image.Image:
        """Read a file or a picture into a picture of this format.

        Parameters
        ----------
        source : path or Image

        Returns
        -------
        picture : Image
            Of mode "L" or "RGB" if the depth is 8-bit, else of mode "F", which is grey.
            It has no EXIF entries left.

        Raises
        ------
        UnfitPictureError
            If it has another depth, or too many pixels.
        OSError, ValueError, SyntaxError
            If PIL cannot read it.
        """
        if isinstance(source, Image.Image):
            return self._normalised(source)
        with opened_picture(source) as picture:
            return self._normalised(picture)

    def as_array(self, source: str | os.PathLike[str] | Image.Image) -> np.ndarray:
        """Read a file or a picture into an array (channels, height, width).

        Returns
        -------
        pixels : ndarray of shape (channels, height, width), uint8 or float32
        """
        return self.pixels(self.read(source))

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """Convert a picture of :meth:`read`, or what a transform made of it.

        Returns
        -------
        pixels : ndarray of shape (channels, height, width), uint8 or float32
        """
        if picture.mode not in ("L", "RGB", "F"):
            picture = self._in_bytes(picture)
        pixels = np.asarray(picture)
        if pixels.ndim == 3:
            return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
        # A transform may have made an 8-bit picture grey: then it stays so.
        n_equal = self.channels if picture.mode == "F" else 1
        return np.repeat(pixels[None], n_equal, axis=0)

    def described(self) -> str:
        """Describe the format in a few words.

        Examples
        --------
        >>> PictureFormat(1, "16-bit").described()
        'grey, 16-bit files (values divided by 65535)'
        """
        colour = "grey" if self.channels == 1 else "in colour"
        scale = {
            BYTES: "",
            SHORTS: f" (values divided by {WHITE_OF_SHORTS})",
            INTEGERS: " (values as they are)",
            FLOATS: " (values as they are)",
        }[self.depth]
        return f"{colour}, {self.depth} files{scale}"

    def _normalised(self, picture: Image.Image) -> Image.Image:
        picture.load()
        depth = depth_of(picture)
        if depth != self.depth:
            raise UnfitPictureError(
                f"holds {depth} pixels, but {self.depth} ones are expected, as in the "
                "first image or those of fit. Images of two depths have no common "
                "scale. Convert them to one depth."
            )
        white_is_zero = _is_white_zero(picture)
        picture = _turned(picture)
        if depth == BYTES:
            picture = self._in_bytes(picture)
        else:
            picture = self._in_floats(picture, depth, white_is_zero=white_is_zero)
        # What was applied must not be applied again.
        picture.info = {}
        if self.size is not None and picture.size != self.size[::-1]:
            picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return picture

    def _in_bytes(self, picture: Image.Image) -> Image.Image:
        if is_transparent(picture):
            if picture.mode == "La":
                picture = picture.convert("LA")
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, (*self.background, 255))
            picture = Image.alpha_composite(ground, picture)
        return picture.convert("L" if self.channels == 1 else "RGB")

    def _in_floats(
        self, picture: Image.Image, depth: str, *, white_is_zero: bool
    ) -> Image.Image:
        raw = np.asarray(picture)
        pixels = raw.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise UnfitPictureError("contains NaN or infinity.")
        if depth == SHORTS:
            if white_is_zero:
                pixels = WHITE_OF_SHORTS - pixels
            pixels /= WHITE_OF_SHORTS
        transparent = picture.info.get("transparency")
        if isinstance(transparent, int):
            [[ground]] = np.asarray(
                Image.new("RGB", (1, 1), self.background).convert("L")
            )
            pixels[raw == transparent] = ground / 255
        return Image.fromarray(pixels)


@dataclass(frozen=True)
class PictureHeader:
    """What the header of an image file tells, without its pixels."""

    is_grey: bool
    depth: str
    size: tuple[int, int]
    n_pages: int


def picture_header(path: str | os.PathLike[str]) -> PictureHeader:
    """Read the header of an image file: its size is (height, width), as turned."""
    with opened_picture(path) as picture:
        return PictureHeader(
            is_grey(picture), depth_of(picture), turned_size(picture), n_pages(picture)
        )


def opened_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file; of pages and frames the first one is read.

    Raises
    ------
    UnfitPictureError
        If it has more pixels than PIL reads.
    """
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise UnfitPictureError(
            f"is too large: {error} Scale it down, or, if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS."
        ) from error


def are_pictures(X: Any) -> bool:
    """Whether X is a list, or a column of objects, that holds pictures of PIL.

    Raises
    ------
    ValueError
        If it holds pictures and other things, which would be read by other rules.
    """
    is_list = isinstance(X, list | tuple)
    is_column = getattr(X, "ndim", 0) == 1 and str(getattr(X, "dtype", "")) == "object"
    if not (is_list or is_column):
        return False
    others = [i for i, item in enumerate(X) if not isinstance(item, Image.Image)]
    if others and len(others) < len(X):
        kind = type(list(X)[others[0]]).__name__
        raise ValueError(
            f"X holds pictures, but item {others[0]} is of type {kind}; expected one "
            "kind. Make a picture of each: PIL.Image.open(path), or "
            "PIL.Image.fromarray(array)."
        )
    return len(X) > 0 and not others


def stacked_pictures(
    pictures: Sequence[Image.Image],
    rule: PictureFormat | None = None,
    channels: int | None = None,
) -> tuple[np.ndarray, PictureFormat]:
    """Read pictures of PIL into one array (n, channels, height, width).

    Parameters
    ----------
    pictures : sequence of Image
    rule : PictureFormat, default=None
        None chooses one: by the first picture's depth, and in grey if all are grey.
    channels : {1, 3}, default=None
        How many a chosen format has.

    Returns
    -------
    X : ndarray of shape (n, channels, height, width), uint8 or float32
    rule : PictureFormat

    Raises
    ------
    ValueError
        If a picture cannot be read, or differs in size or depth; the message names it.

    Examples
    --------
    >>> X, rule = stacked_pictures([Image.new("P", (4, 3)), Image.new("RGB", (4, 3))])
    >>> X.shape, X.dtype
    ((2, 3, 3, 4), dtype('uint8'))
    """
    pictures = list(pictures)
    if rule is None:
        if channels is None:
            channels = 1 if all(map(is_grey, pictures)) else 3
        rule = PictureFormat.of(pictures[0], channels)
    rows: list[np.ndarray] = []
    for i, picture in enumerate(pictures):
        try:
            row = rule.as_array(picture)
        except UnfitPictureError as error:
            raise ValueError(f"Image {i} of X {error}") from error
        except Exception as error:
            raise ValueError(
                f"Image {i} of X cannot be read: {type(error).__name__}: {error}"
            ) from error
        if rows and row.shape != rows[0].shape:
            (height, width), (usual, usual_width) = row.shape[1:], rows[0].shape[1:]
            raise ValueError(
                f"Image {i} of X has {height}x{width} pixels, but the first has "
                f"{usual}x{usual_width}; expected one size. Bring them to one first: "
                "X = [image.resize((width, height)) for image in X]."
            )
        rows.append(row)
    return np.stack(rows), rule


def is_grey(picture: Image.Image) -> bool:
    """Whether a pixel of the picture is one number, apart from its transparency."""
    return picture.mode.partition(";")[0] in GREY_MODES


def depth_of(picture: Image.Image) -> str:
    """Return what a channel of the picture holds, one of `DEPTHS`."""
    mode = picture.mode
    if mode == "F":
        return FLOATS
    if mode.startswith("I;") or (mode == "I" and picture.format in FORMATS_OF_SHORTS):
        return SHORTS
    return INTEGERS if mode == "I" else BYTES


def is_transparent(picture: Image.Image) -> bool:
    """Whether the picture may have transparent pixels."""
    return picture.mode in ALPHA_MODES or "transparency" in picture.info


def n_pages(picture: Image.Image) -> int:
    """Count pages of a TIFF, or frames of an animation; 1 for other pictures."""
    # Phones store a small copy, or a second view, behind a photograph.
    if picture.format == "MPO" or not getattr(picture, "is_animated", False):
        return 1
    return int(getattr(picture, "n_frames", 1))


def turned_size(picture: Image.Image) -> tuple[int, int]:
    """Return (height, width) of a picture after it is turned."""
    width, height = picture.size
    # PIL turns the size of a TIFF itself.
    if picture.format != "TIFF" and _orientation(picture) >= 5:
        return width, height
    return height, width


def _turned(picture: Image.Image) -> Image.Image:
    """Turn and mirror a loaded picture as its EXIF entry demands."""
    turn = TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:
        # Entries that are damaged tell nothing, and the pixels may well be whole.
        return 1
    return found if isinstance(found, int) else 1


def _is_white_zero(picture: Image.Image) -> bool:
    """Whether 0 means white in a TIFF. PIL inverts such files if they have 8 bits."""
    return bool(getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0)


def _are_whole(values: Any, n: int, smallest: int, largest: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == n
        and all(type(v) is int and smallest <= v <= largest for v in values)
    )


def warn_of_pages(path: str, picture: Image.Image) -> bool:
    """Warn if only a part of a file is read; return whether it did."""
    pages = n_pages(picture)
    if pages > 1:
        warn(
            f"{path!r} holds {pages} pages or frames, of which the first is read. To "
            "use the others, store them as files of their own."
        )
    return pages > 1
