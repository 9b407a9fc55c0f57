"""One reader of pictures, whatever way they come in."""

import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps, TiffImagePlugin
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import Grayscale, PILToTensor, Resize

from skvmdls import VMDLSbDetector
from skvmdls.datasets import DatasetRows, ImageFiles, image_folder
from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.pictures import (
    PictureFormat,
    picture_header,
    stacked_pictures,
)

QUICK = {
    "precision": "float32",
    "max_epochs": 1,
    "contamination": 0.2,
    "random_state": 0,
    "device": "cpu",
}
ORIENTATION = 0x0112


class Opening(Dataset):
    """A dataset of the user's own, which opens pictures and no more."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return Image.open(self.paths[i]), 0


def in_classes(paths):
    """Lay files out as FOLDER/CLASS/IMAGE, and return the folder."""
    folder = paths[0].parent / "classes"
    (folder / "one").mkdir(parents=True)
    for path in paths:
        (folder / "one" / path.name).write_bytes(path.read_bytes())
    return folder


# Each takes the paths of pictures, and returns X.
WAYS = {
    "files": lambda paths: paths,
    "names in an array": lambda paths: np.array(list(map(os.fspath, paths))),
    "ImageFiles": ImageFiles,
    "image_folder": lambda paths: image_folder(in_classes(paths))[0],
    "ImageFolder": lambda paths: ImageFolder(in_classes(paths)),
    "a part of an ImageFolder": lambda paths: Subset(
        ImageFolder(in_classes(paths)), range(len(paths))
    ),
    "two datasets": lambda paths: ConcatDataset(
        [ImageFiles(paths[:1]), ImageFiles(paths[1:])]
    ),
    "pictures": lambda paths: [Image.open(path) for path in paths],
    "pictures in an array": lambda paths: _objects(map(Image.open, paths)),
    "a dataset of pictures": Opening,
}


def _objects(values):
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def read(X):
    """Read X as `fit` does: (n, channels, height, width)."""
    return np.asarray(check_inputs(VMDLSbDetector(), X, None))


def in_colour(X):
    return np.repeat(X, 3, axis=1) if X.shape[1] == 1 else X


def pixels(seed=0, height=5, width=7):
    return np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def stored(folder, pictures, ending, **options):
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / f"{i:02}.{ending}" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, **options)
    return paths


# ------------------------------------------------------------------- orientation


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_entry_demands(way, orientation, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pictures = [Image.fromarray(pixels(seed)) for seed in range(2)]
    paths = stored(tmp_path / "files", pictures, "png", exif=exif)
    expected = [np.asarray(ImageOps.exif_transpose(Image.open(p))) for p in paths]
    found = read(WAYS[way](paths))
    np.testing.assert_array_equal(found, np.stack(expected).transpose(0, 3, 1, 2))
    height, width = found.shape[2:]
    assert picture_header(paths[0]).size == (height, width)
    assert (height, width) == ((7, 5) if orientation > 4 else (5, 7))


@pytest.mark.parametrize("ending", ["jpg", "tif", "webp", "png"])
def test_the_entry_is_followed_once_in_every_format(ending, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture = Image.new("RGB", (32, 16))
    picture.paste((255, 255, 255), (0, 0, 16, 16))  # The left half is white.
    [path] = stored(tmp_path / "files", [picture], ending, exif=exif)
    assert picture_header(path).size == (32, 16)
    for given in ([path], [Image.open(path)], Opening([path])):
        found = read(given)
        assert found.shape == (1, 3, 32, 16)
        assert found[0, :, :14].min() > 200  # Now the upper half is.
        assert found[0, :, 18:].max() < 55


def test_a_transform_sees_the_picture_turned_and_it_is_not_turned_again(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    [path] = stored(tmp_path / "f", [Image.fromarray(pixels())], "png", exif=exif)
    expected = pixels()[::-1, ::-1].transpose(2, 0, 1)
    for transform in (None, PILToTensor(), Resize((5, 7)), lambda picture: picture):
        found = read(ImageFiles([path], transform))
        np.testing.assert_array_equal(found[0], expected)


def test_a_damaged_exif_entry_does_not_cost_the_picture(tmp_path):
    [path] = stored(
        tmp_path / "f", [Image.fromarray(pixels())], "png", exif=b"Exif\0\0II*\0\xff"
    )
    np.testing.assert_array_equal(read([path])[0], pixels().transpose(2, 0, 1))


def test_an_orientation_in_xmp_is_followed_too(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    [path] = stored(tmp_path / "f", [Image.fromarray(pixels())], "webp", xmp=xmp)
    turned = read([path])[0]
    plain = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(turned, plain[:, ::-1, ::-1])


# ------------------------------------------------------------------- colours


def palette(picture):
    return picture.quantize(8)


MODES = {
    "1": lambda p: p.convert("1"),
    "L": lambda p: p.convert("L"),
    "P": palette,
    "CMYK": lambda p: p.convert("CMYK"),
    "YCbCr": lambda p: p.convert("YCbCr"),
    "HSV": lambda p: p.convert("HSV"),
    "RGBX": lambda p: p.convert("RGBX"),
}


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_any_mode_are_read_in_colour(mode):
    picture = MODES[mode](Image.fromarray(pixels()))
    assert picture.mode == mode
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    found = read([picture, Image.fromarray(pixels())])
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("way", WAYS)
def test_palettes_become_colours_in_every_way(way, tmp_path):
    pictures = [palette(Image.fromarray(pixels(seed))) for seed in range(2)]
    paths = stored(tmp_path / "files", pictures, "png")
    expected = [np.asarray(p.convert("RGB")).transpose(2, 0, 1) for p in pictures]
    np.testing.assert_array_equal(read(WAYS[way](paths)), expected)


def test_lists_of_pictures_are_grey_only_if_all_are():
    grey, colour = Image.new("L", (7, 5), 9), Image.fromarray(pixels())
    assert read([grey, grey]).shape == (2, 1, 5, 7)
    for given in ([grey, colour], [colour, grey]):
        assert read(given).shape == (2, 3, 5, 7)


def test_a_dataset_whose_first_picture_is_grey_loses_no_colours_unnoticed():
    class Mixed(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return Image.new("RGB" if i else "L", (7, 5))

    with pytest.raises(ValueError, match=r"Row 1 of X is in colour.*convert\('RGB'\)"):
        np.asarray(DatasetRows(Mixed()))


def test_a_transform_may_make_pictures_grey(tmp_path):
    paths = stored(tmp_path / "files", [Image.fromarray(pixels())], "png")
    X = DatasetRows(ImageFiles(paths, Grayscale()))
    assert X.shape == (1, 1, 5, 7)
    assert X.picture_format.channels == 1


# ------------------------------------------------------------------- transparency


def with_alpha(mode, hidden):
    """A red square, around which `hidden` lies under transparent pixels."""
    colours = np.full((6, 6, 4), (*hidden, 0), np.uint8)
    colours[2:4, 2:4] = (255, 0, 0, 255)
    picture = Image.fromarray(colours)
    if mode == "RGBA":
        return picture
    if mode in ("LA", "La"):
        return picture.convert("LA").convert(mode)
    if mode == "PA":
        return picture.convert("RGB").quantize(4).convert("PA")
    raise ValueError(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("way", WAYS)
def test_what_lies_under_transparent_pixels_is_not_read(mode, way, tmp_path):
    pictures = [with_alpha(mode, hidden) for hidden in ((0, 0, 0), (250, 9, 80))]
    found = read(WAYS[way](stored(tmp_path / "files", pictures, "png")))
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0, 0, 0, 0] == 255
    assert found[0, -1, 2, 2] == (0 if mode == "RGBA" else 76)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (Image.new("L", (6, 6), 40), {"transparency": 40}),
        (Image.new("RGB", (6, 6), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (Image.new("1", (6, 6), 0), {"transparency": 0}),
        (palette(Image.new("RGB", (6, 6), (1, 2, 3))), {"transparency": 0}),
        (
            palette(Image.new("RGB", (6, 6), (1, 2, 3))),
            {"transparency": bytes(8)},
        ),
    ],
    ids=["grey", "colour", "1 bit", "palette", "palette with alpha"],
)
def test_one_transparent_colour_is_laid_over_white_too(picture, options, tmp_path):
    paths = stored(tmp_path / "files", [picture], "png", **options)
    assert (read(paths) == 255).all()
    assert (read([Image.open(paths[0])]) == 255).all()


def test_half_transparent_pixels_are_mixed_with_the_ground():
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert np.unique(read([picture])).tolist() == [127]
    dark = PictureFormat(background=(0, 0, 0))
    assert (dark.as_array(picture) == 0).all()


@pytest.mark.parametrize("mode", ["La", "PA"])
def test_rarer_modes_with_transparency_are_read(mode):
    assert read([with_alpha(mode, (0, 0, 0))]).shape[2:] == (6, 6)


# ------------------------------------------------------------------- depths


def shorts(seed=0, largest=65535):
    rng = np.random.default_rng(seed)
    return rng.integers(0, largest, (5, 7), dtype=np.uint16, endpoint=True)


@pytest.mark.parametrize("largest", [255, 256, 4095, 65535])
@pytest.mark.parametrize("way", WAYS)
def test_16_bits_keep_all_their_levels_on_one_scale(way, largest, tmp_path):
    raw = [shorts(seed, largest) for seed in range(2)]
    paths = stored(tmp_path / "files", [Image.fromarray(r) for r in raw], "png")
    found = read(WAYS[way](paths))
    expected = (np.stack(raw) / np.float32(65535)).astype(np.float32)
    np.testing.assert_array_equal(in_colour(found), in_colour(expected[:, None]))


@pytest.mark.parametrize("way", WAYS)
def test_float_files_keep_their_values(way, tmp_path):
    raw = [np.random.default_rng(i).uniform(size=(5, 7)) for i in range(2)]
    raw = np.stack(raw).astype(np.float32)
    paths = stored(tmp_path / "files", [Image.fromarray(r) for r in raw], "tif")
    found = in_colour(read(WAYS[way](paths)))
    np.testing.assert_array_equal(found, in_colour(raw[:, None]))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_both_orders_of_bytes_are_read(mode):
    raw = shorts()
    swapped = raw.astype({"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2"}[mode])
    picture = Image.frombytes(mode, (7, 5), swapped.tobytes())
    assert picture.mode == mode
    found = read([picture])
    np.testing.assert_allclose(found[0, 0] * 65535, raw, rtol=1e-6)


def test_32_bit_integers_keep_their_values(tmp_path):
    raw = np.array([[-70000, 0], [255, 2_000_000]], dtype=np.int32)
    paths = stored(tmp_path / "files", [Image.fromarray(raw)], "tif")
    np.testing.assert_array_equal(read(paths)[0, 0], raw)


@pytest.mark.parametrize("way", WAYS)
def test_files_in_which_zero_is_white_are_read_as_they_are_shown(way, tmp_path):
    """Scanners and X-ray machines write such TIFFs."""
    raw = shorts()
    white_is_zero = TiffImagePlugin.ImageFileDirectory_v2()
    white_is_zero[262] = 0
    folder = tmp_path / "files"
    usual = stored(folder / "usual", [Image.fromarray(raw)], "tif")
    paths = stored(folder, [Image.fromarray(raw)] * 2, "tif", tiffinfo=white_is_zero)
    found = read(WAYS[way](paths))
    expected = (65535 - raw) / np.float32(65535)
    np.testing.assert_array_equal(found[:, 0], [expected, expected])
    np.testing.assert_array_equal(read(usual)[0, 0], raw / np.float32(65535))


def test_a_transparent_value_of_a_16_bit_file_becomes_the_ground(tmp_path):
    raw = shorts()
    raw[0, 0] = 1234
    path = tmp_path / "transparent.png"
    Image.fromarray(raw).save(path, transparency=1234)
    with Image.open(path) as opened:
        opened.load()
        opened.info["transparency"] = 1234
        [[found]] = read([opened])
    assert found[0, 0] == 1.0
    np.testing.assert_allclose(found[1:] * 65535, raw[1:], rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_set_of_two_depths_is_named(way, tmp_path):
    paths = stored(
        tmp_path / "files", [Image.new("L", (7, 5)), Image.fromarray(shorts())], "png"
    )
    named = r"1 of X.*(holds 16-bit pixels, but 8-bit ones are expected|dtype float32)"
    with pytest.raises(ValueError, match=named):
        read(WAYS[way](paths))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_float_file_with_nan_or_infinity_is_named(bad, tmp_path):
    raw = np.full((5, 7), 0.5, np.float32)
    pictures = [Image.fromarray(raw), Image.fromarray(np.where(np.eye(5, 7), bad, raw))]
    pictures = [picture.convert("F") for picture in pictures]
    paths = stored(tmp_path / "files", pictures, "tif")
    with pytest.raises(ValueError, match=r"Row 1 .*01\.tif.* contains NaN or infinity"):
        read(paths)
    with pytest.raises(ValueError, match="Image 1 of X contains NaN or infinity"):
        read(pictures)


# ------------------------------------------------------------------- kept with the fit


@pytest.fixture(scope="module")
def of_shorts():
    """A detector of 16-bit pictures, whose values use 12 bits; and its pictures."""
    rng = np.random.default_rng(0)
    y = np.repeat(["dark", "light"], 40)
    X = (
        rng.integers(0, 1000, (80, 8, 9))
        + np.where(y == "light", 3000, 0)[:, None, None]
    )
    pictures = [Image.fromarray(x.astype(np.uint16)) for x in X]
    return VMDLSbDetector(**QUICK).fit(pictures, y), pictures


def test_the_format_of_fit_is_kept_and_used(of_shorts, tmp_path):
    detector, pictures = of_shorts
    assert detector.picture_format_ == PictureFormat(1, "16-bit")
    expected = detector.score_samples(pictures)
    for way in ("files", "image_folder", "ImageFolder", "a dataset of pictures"):
        paths = stored(tmp_path / way, pictures, "png")
        found = detector.score_samples(WAYS[way](paths))
        np.testing.assert_array_equal(found, expected, err_msg=way)


def test_pictures_of_another_depth_than_at_fit_are_refused(of_shorts, tmp_path):
    detector, _ = of_shorts
    paths = stored(tmp_path / "files", [Image.new("L", (9, 8))], "png")
    for given in (paths, [Image.open(paths[0])], Opening(paths)):
        with pytest.raises(ValueError, match="holds 8-bit pixels, but 16-bit ones"):
            detector.predict(given)


def test_a_detector_of_grey_arrays_reads_files_in_grey(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 90, (60, 8, 9), dtype=np.uint8)
    y = np.arange(60) % 2
    X[y == 1] += 150
    detector = VMDLSbDetector(**QUICK).fit(X, y)
    assert detector.picture_format_ is None
    paths = stored(tmp_path / "files", [Image.fromarray(x) for x in X], "png")
    expected = detector.score_samples(X)
    np.testing.assert_array_equal(detector.score_samples(paths), expected)
    colour = [Image.fromarray(x).convert("RGB") for x in X]
    np.testing.assert_array_equal(detector.score_samples(colour), expected)
    with pytest.raises(ValueError, match="holds 16-bit pixels, but 8-bit"):
        detector.predict([Image.fromarray(shorts())])


def test_a_format_goes_through_json_and_back():
    for rule in (
        PictureFormat(),
        PictureFormat(1, "float", (0, 1, 2), (64, 48)),
    ):
        state = json.loads(json.dumps(rule.state_dict()))
        assert PictureFormat.from_state(state) == rule
    good = PictureFormat().state_dict()
    for name, bad in (
        ("channels", 2),
        ("channels", True),
        ("depth", "7-bit"),
        ("background", [0, 0, 256]),
        ("background", "red"),
        ("size", [0, 5]),
        ("size", [5.0, 5]),
    ):
        with pytest.raises(ValueError, match="picture format"):
            PictureFormat.from_state(good | {name: bad})


def test_a_size_scales_every_picture():
    rule = PictureFormat(size=(3, 4))
    for size in ((8, 6), (4, 3), (1, 1)):
        assert rule.as_array(Image.new("RGB", size)).shape == (3, 3, 4)
    deep = PictureFormat(1, "16-bit", size=(3, 4))
    assert deep.as_array(Image.fromarray(shorts())).shape == (1, 3, 4)


# ------------------------------------------------------------------- torchvision's


class Renamed(ImageFolder):
    """A folder with classes of the user's own, read as torchvision reads."""

    def find_classes(self, directory):
        return ["a class"], {"a class": 0}

    @staticmethod
    def make_dataset(directory, class_to_idx, **_):
        paths = sorted(Path(directory).rglob("*.png"))
        return [(os.fspath(path), 0) for path in paths]


FOLDERS = {
    "DatasetFolder": lambda folder, **options: DatasetFolder(
        folder, pil_loader, extensions=(".png",), **options
    ),
    "a subclass": Renamed,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_torchvisions_folders_are_turned_before_their_transform(kind, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    paths = stored(tmp_path / "f", [Image.fromarray(pixels())], "png", exif=exif)
    dataset = FOLDERS[kind](in_classes(paths), transform=PILToTensor())
    expected = np.rot90(pixels(), -1).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(dataset)[0], expected)


def test_a_loader_of_the_users_own_stays(tmp_path):
    paths = stored(tmp_path / "f", [Image.fromarray(pixels())], "png")
    dataset = ImageFolder(in_classes(paths), loader=lambda path: Image.new("L", (3, 2)))
    assert read(dataset).shape == (1, 1, 2, 3)


# ------------------------------------------------------------------- what is wrong


PICTURE = Image.new("RGB", (9, 9))


def encoded():
    file = io.BytesIO()
    PICTURE.save(file, "png")
    return file


def kind(value):
    """Name a case by its message: representations of objects hold addresses."""
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PICTURE, r"one picture; expected a list of pictures: X = \[X\]"),
        ("a.PNG", r"the name of one image; expected a list of names: X = \[X\]"),
        ([PICTURE, np.zeros((9, 9, 3))], "item 1 is of type ndarray; expected one"),
        (["a.png", PICTURE], r"item 0 is of type str.*PIL.Image.open\(path\)"),
        ([PICTURE, None], "item 1 is of type NoneType"),
        ([encoded()], r"open files.*\[PIL.Image.open\(file\) for file in X\]"),
        ([encoded().getvalue()], r"bytes of image files.*io.BytesIO\(content\)"),
        (map(str, "ab"), r"X is a map; .*list\(X\)"),
        (pd.DataFrame({"p": [PICTURE]}), r"column of pictures.*: X\['p'\]"),
        (pd.DataFrame({"p": ["a.jpg"], "q": [1]}), r"names of images.*: X\['p'\]"),
    ],
    ids=kind,
)
def test_what_is_no_list_of_pictures_is_refused_with_the_line_that_helps(
    given, message
):
    with pytest.raises(ValueError, match=message):
        read(given)


def test_pictures_of_two_sizes_are_named_with_the_line_for_pictures():
    with pytest.raises(ValueError, match=r"Image 1 of X has 5x6 .*image.resize"):
        stacked_pictures([Image.new("L", (7, 5)), Image.new("L", (6, 5))])


def test_a_giant_picture_is_refused_with_the_way_out(tmp_path, monkeypatch):
    paths = stored(tmp_path / "files", [Image.new("L", (40, 40))], "png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="is too large.*MAX_IMAGE_PIXELS"):
        read(paths)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp"])
def test_pages_behind_the_first_are_warned_of_once(ending, tmp_path):
    pages = [Image.new("L", (7, 5), 60 * i) for i in range(4)]
    paths = [tmp_path / f"{i}.{ending}" for i in range(3)]
    for path in paths:
        options = {"lossless": True} if ending == "webp" else {}
        pages[1].save(path, save_all=True, append_images=pages[2:], **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read(paths)
    assert (found == 60).all()
    told = [str(w.message) for w in said if "pages" in str(w.message)]
    assert len(told) == 1
    assert "3 pages or frames" in told[0]


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_damaged_files_are_read_or_named(ending, tmp_path):
    """A few bytes are changed, or the end is cut off."""
    rng = np.random.default_rng(0)
    [path] = stored(tmp_path / "files", [Image.fromarray(pixels())], ending)
    whole = path.read_bytes()
    for trial in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 11)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(whole))] if trial % 4 else damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read([path])
            except ValueError as error:
                assert path.name in str(error)
            else:
                assert found.dtype in (np.uint8, np.float32)


def test_a_palette_file_may_hold_one_transparent_entry_behind_the_transform(tmp_path):
    """The way through torchvision's transforms keeps what the reader decided."""
    picture = palette(Image.fromarray(pixels()))
    paths = stored(tmp_path / "files", [picture], "png", transparency=0)
    direct = read(paths)
    through = read(ImageFiles(paths, lambda picture: picture))
    np.testing.assert_array_equal(direct, through)
