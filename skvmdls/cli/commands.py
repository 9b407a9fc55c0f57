"""The command line: detectors for folders of images, without writing Python."""

import argparse
import csv
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skvmdls import VMDLSbDetector, VMDLSDetector, __version__, load, save
from skvmdls._support.patience import say_nothing
from skvmdls.cli.conclusion import conclusion
from skvmdls.cli.folders import (
    UNREADABLE,
    Failures,
    ImageBatch,
    ImageReader,
    Judged,
    choose_format,
    described_scaling,
    images_below,
    in_pixels,
    joined,
    judged_in_batches,
    labelled_images,
    read_all,
    surveyed,
)
from skvmdls.cli.frozen import FrozenNet, beside
from skvmdls.cli.options import Parser, check_options
from skvmdls.cli.parts import meanings_of
from skvmdls.cli.report import report_page
from skvmdls.cli.trials import (
    BACKBONE_HELPS,
    Trial,
    check_enough_held_out,
    held_out_rows,
    try_held_out,
    try_left_out_classes,
    try_noise_and_plain,
)
from skvmdls.detector.base import BaseDetector
from skvmdls.inputs.image_folders import FoundImages, is_litter
from skvmdls.inputs.pictures import BYTES, SHORTS, PictureFormat, picture_header

__all__ = ["entry", "main"]

INCOMPLETE, FAILED, INTERRUPTED = 1, 2, 130

# If chance alone may let a detector reject a larger share of known images, `fit` warns.
WIDEST = 0.5

ABOUT = """\
Learn to tell classes of images apart, and to say which images are of none of them.

Four steps, from a folder with a sub-folder of images for each known class:

  skvmdls fit good_parts/ --out parts.safetensors
  skvmdls predict parts.safetensors new_images/
  skvmdls explain parts.safetensors new_images/strange.png
  skvmdls report parts.safetensors new_images/ --out report.html

Each command says more with --help. Without the script: python -m skvmdls.
"""

EXITS = """\
Exits with 0 if all went well, with 1 if it finished without some images, since they
could not be read, with 2 and a message if something is wrong with what was given, and
with 130 if it was interrupted."""

FIT = """\
Train on FOLDER/CLASS/IMAGE.png: the name of each sub-folder is a label. At least two
classes are needed. Hundreds of images a class are good. Unknown images are not needed,
and not used.

Of 40 images 4 are held out, and 3 of these set the threshold: a new image of a known
class is rejected with a chance of at most --contamination. That needs
1 / contamination - 1 images that set the threshold, which is checked before the
training. For the default of 0.05 they are 19, so 255 images in all are the least. With
--backbone fewer are enough, since all of up to 2,000 images set the threshold.

All images are scaled to one size. It is --size, or the size of more than half of them,
if that is at most 96 pixels a side, or else 64 x 64. Images are turned as their EXIF
entry demands, and transparent pixels become white. All must have one depth (8 bits,
16 bits or floats). Training takes about a minute for 2,000 small images on two cores.

After the training the detector is tried: on the held-out images, in a second training
without some of the classes, and on noise. Poor results are warned of. For photographs
by the hundred use --backbone NAME, as resnet18: the features of a net that was trained
on millions of photographs. It stays as it is, and is stored next to the detector.

To resume a training that was interrupted, repeat the command."""

PREDICT = """\
Print a line for each image: file, answer, p_value, and the nearest known class. The
answer is the name of a class, or -1 for "never seen anything like it". The p-value
tells how well the image fits the known ones: 0.5 is ordinary. Images of known classes
have one of at most 0.05 with a chance of at most 5 %. Of a file that cannot be read the
answer is "unreadable"."""

EXPLAIN = """\
Say of a few images why they were accepted or rejected: a number for each part of the
evidence. 0 is what known images usually get, -1 the end of their usual range, -4 four
times as far out; beyond, the scale is logarithmic: -10 is 18 times as far out, -20 is
216 times. The last lines explain what each part looks at. t1, t2, mu, residual and
texture are at most 0, because they count only against an image."""

REPORT = """\
Write one HTML page: how many images were accepted, of which class, and each rejected
image with what is strange about it. The page needs no network, so it can be mailed.

Where FOLDER has sub-folders, their names are taken as the truth: those that the
detector knows should be accepted, all others are unknown to it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command; by default those that the program was called with.

    Returns
    -------
    status : int
        0, or what went wrong: 1 if some images could not be read, 2 for bad input,
        130 for an interruption.
    """
    # A name that the output's encoding lacks must not cost the rest of the table.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    say_nothing()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options = _parsed(sys.argv[1:] if arguments is None else arguments)
            return options.command(options)
    except BrokenPipeError:
        # Whoever reads the output has seen enough. Python would write to it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (
        ValueError,
        OSError,
        FloatingPointError,
        MemoryError,
        ImportError,
    ) as error:
        _tell(f"error: {error}")
        return FAILED
    except KeyboardInterrupt as error:
        _tell(f"interrupted. {error}")
        return INTERRUPTED


def entry() -> None:
    """Run as a program: the script ``skvmdls`` that an installation makes."""
    sys.exit(main())


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        "skvmdls",
        description=ABOUT,
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str, about: str) -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=about,
            epilog=EXITS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        sub.add_argument("--quiet", action="store_true", help="no progress bars")
        sub.add_argument(
            "--strict",
            action="store_true",
            help="stop at an image that cannot be read, instead of leaving it out",
        )
        return sub

    fit = command("fit", _fit, "train on a folder of known images", FIT)
    fit.add_argument(
        "folder", type=Path, metavar="FOLDER", help="one sub-folder a class"
    )
    _add_fit_options(fit)
    predict = command("predict", _predict, "label images, or reject them", PREDICT)
    explain = command("explain", _explain, "say why images were rejected", EXPLAIN)
    for sub in (predict, explain):
        sub.add_argument("detector", type=Path, metavar="DETECTOR", help="file of fit")
        sub.add_argument(
            "images",
            type=Path,
            nargs="+",
            metavar="IMAGE",
            help="images, or folders of them",
        )
    predict.add_argument(
        "--out", type=Path, help="write a CSV file instead of printing"
    )
    explain.add_argument("--plot", type=Path, help="draw it too (extra: plot)")
    report = command("report", _report, "one HTML page about a folder", REPORT)
    report.add_argument("detector", type=Path, metavar="DETECTOR", help="file of fit")
    report.add_argument("folder", type=Path, metavar="FOLDER", help="of new images")
    report.add_argument("--out", type=Path, required=True, help="the page to write")
    report.add_argument(
        "--most", type=int, default=200, help="rejected images that are shown (200)"
    )
    check_options(words, parser, commands.choices)
    return parser.parse_args(words)


def _add_fit_options(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("--out", type=Path, required=True, help="the file to write")
    fit.add_argument(
        "--contamination",
        type=float,
        default=0.05,
        help="share of new known images that may be rejected (0.05)",
    )
    fit.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="scale images to"
    )
    fit.add_argument("--epochs", type=int, help="passes over the images")
    fit.add_argument(
        "--augmentation",
        choices=("auto", "affine", "crop_flip", "none"),
        help="vary the images in training: affine turns and shifts them a little, "
        "crop_flip shifts and mirrors them, auto mirrors them if they keep their class "
        "(auto)",
    )
    fit.add_argument(
        "--without-autoencoder",
        action="store_true",
        help="train faster, and see less of what is strange",
    )
    fit.add_argument(
        "--backbone",
        metavar="NAME",
        help="learn from the features of a pretrained net of torchvision, such as "
        "resnet18, or of timm, such as timm/resnet10t: for photographs",
    )
    fit.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights of --backbone, a state_dict; by default they are fetched",
    )
    fit.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="where the training is kept after every epoch (default: next to --out)",
    )
    fit.add_argument(
        "--without-trials",
        action="store_true",
        help="do not train a second time to estimate what is rejected",
    )
    fit.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")


def _fit(options: argparse.Namespace) -> int:
    _check_fit_options(options)
    found, labels = labelled_images(options.folder)
    _check_classes(labels, options.folder)
    paths = found.paths
    headers, failures = surveyed(paths)
    if not headers or (options.strict and failures):
        raise _none_readable(failures, len(paths))
    _check_none_lost(labels, (labels[i] for i in headers), failures)
    size = options.size and tuple(options.size)
    pictures = choose_format(paths, headers, size)
    detector = _new_detector(options)
    check_enough_held_out(
        np.array([labels[i] for i in headers]),
        detector,
        options.contamination,
        is_table=options.backbone is not None,
    )
    reader = _reader(pictures, options.backbone, options.weights)
    if size is None and reader.pictures.size is not None:
        scaling = described_scaling(paths, headers, reader.pictures.size)
        if scaling:
            _tell(scaling)
    readable = sorted(headers)
    batch = read_all(reader, [paths[i] for i in readable], progress=not options.quiet)
    failures += batch.failures
    if batch.X is None or (options.strict and failures):
        raise _none_readable(failures, len(paths))
    y = np.array([labels[readable[i]] for i in batch.positions])
    _check_none_lost(labels, y.tolist(), failures)
    _tell_of_files(found, failures, batch.n_further_pages)
    # It names a parameter of Python; _print_fit warns in the words of the options.
    warnings.filterwarnings("ignore", r"\d+ calibration points are too few")
    _fit_with_checkpoint(detector, batch.X, y, options)
    detector.picture_format_ = reader.pictures
    net = reader.net
    if net is not None:
        net.save(beside(options.out), reader.pictures)
    save(detector, options.out)
    _print_fit(detector, batch, y, reader, options)
    return INCOMPLETE if failures else 0


def _check_fit_options(options: argparse.Namespace) -> None:
    """Refuse options that could not be used, in the words of the command line."""
    _check_out(options.out)
    if options.checkpoint is not None:
        _check_out(options.checkpoint, "--checkpoint")
    if options.weights is not None and options.backbone is None:
        raise ValueError("--weights FILE goes with --backbone NAME, which is missing.")
    if options.backbone is not None and options.augmentation is not None:
        raise ValueError(
            "--augmentation varies images, but with --backbone the detector learns "
            "from features. Leave one of them out."
        )
    if not 0 <= options.contamination <= 0.5:
        raise ValueError(
            f"--contamination {options.contamination:g}: expected a share of the known "
            "images from 0 to 0.5, such as 0.05."
        )
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"--epochs {options.epochs}: expected 1 or more.")
    if options.size is not None and not all(1 <= n < 2**16 for n in options.size):
        raise ValueError(
            f"--size {options.size[0]} {options.size[1]}: expected a height and a "
            "width in pixels, such as 64 64."
        )
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed {options.seed}: expected a number from 0 to 2**32.")


def _check_classes(labels: Sequence[str], folder: Path) -> None:
    """Refuse the names of sub-folders that cannot be the classes."""
    classes = set(labels)
    if UNREADABLE in classes:
        raise ValueError(
            f"A class is named {UNREADABLE!r}, which 'predict' writes for images that "
            "cannot be read. Rename its folder."
        )
    if len(classes) == 1:
        raise ValueError(
            f"{folder} holds one class, {labels[0]!r}; expected two or more, since the "
            "detector learns by telling classes apart. Give FOLDER a sub-folder for "
            "each class, such as each kind of the known objects."
        )


def _check_none_lost(
    labels: Iterable[str], readable: Iterable[str], failures: Failures
) -> None:
    """Refuse classes of which no image can be read."""
    if lost := sorted(set(labels) - set(readable)):
        raise ValueError(
            f"None of the images of {', '.join(lost)} can be read, so these classes "
            f"cannot be learned.{_listed(failures)}"
        )


def _new_detector(options: argparse.Namespace) -> BaseDetector:
    is_plain = options.without_autoencoder or options.backbone is not None
    kind = VMDLSbDetector if is_plain else VMDLSDetector
    augmentation = options.augmentation or "auto"
    return kind(
        contamination=options.contamination,
        max_epochs=options.epochs or "auto",
        augmentation=None if augmentation == "none" else augmentation,
        # Held-out images show how many labels are right, which is printed.
        calibration="split" if options.backbone is None else "auto",
        random_state=options.seed,
        verbose=0 if options.quiet else 1,
    )


def _fit_with_checkpoint(
    detector: BaseDetector, X: np.ndarray, y: np.ndarray, options: argparse.Namespace
) -> None:
    """Train with a checkpoint next to the output, deleted once the file is there."""
    path = options.checkpoint
    if path is None:
        path = options.out.with_name(f"{options.out.name}.checkpoint")
    places = (path, path.with_name(f"{path.name}.previous"))
    detector.set_params(checkpoint=path)
    was_there = path.exists()
    try:
        detector.fit(X, y)
    except ValueError as error:
        is_ours = options.checkpoint is None and was_there
        if not is_ours or not str(error).startswith("checkpoint="):
            raise
        # Left by an interrupted training of other images or settings.
        for place in places:
            place.unlink(missing_ok=True)
        detector.fit(X, y)
    detector.set_params(checkpoint=None)
    for place in places:
        place.unlink(missing_ok=True)


def _print_fit(
    detector: BaseDetector,
    batch: ImageBatch,
    y: np.ndarray,
    reader: ImageReader,
    options: argparse.Namespace,
) -> None:
    X = batch.X
    assert X is not None
    classes = ", ".join(map(str, detector.classes_))
    size = reader.pictures.size
    of_size = f" of {in_pixels(size)}" if size else ""
    print(
        f"Learned {len(detector.classes_)} classes ({classes}) from {len(X)} images"
        f"{of_size}, {reader.pictures.described()}."
    )
    if reader.net is not None:
        print(f"They are seen by the features of {reader.net.name}, which stays fixed.")
    n_set, setting = len(detector.calibration_scores_), "held-out images"
    if not len(held_out_rows(detector)):
        setting = "images, each scored without having been trained on,"
    print(
        f"{n_set} {setting} set the threshold: of new images of these classes at most "
        f"{options.contamination:.3g} of all are rejected on average. "
        f"{detector.summary().splitlines()[0]}"
    )
    written = str(options.out)
    if reader.net is not None:
        written += f", {beside(options.out)} (the net: keep it next to the detector)"
    highest = detector.rejection_range_[1]
    if options.contamination > 0 and not np.isfinite(detector.offset_):
        are = "image is" if n_set == 1 else "images are"
        _tell(
            f"warning: no image will ever be rejected, since {n_set} held-out {are} "
            f"too few for --contamination {options.contamination:g}. Equal images "
            "count once. Give more images that differ."
        )
    elif highest > WIDEST:
        _tell(
            f"warning: up to {highest:.0%} of new images of these classes may be "
            "rejected, since few held-out images set the threshold. More images make "
            "this range narrower."
        )
    # Before the trials, since an interruption of these loses nothing.
    print(f"Written: {written}", flush=True)
    is_poor = False
    trials = _trials(detector, X, y, reader, with_second=not options.without_trials)
    for trial in trials:
        print(trial.told, flush=True)
        if trial.warning:
            _tell(f"warning: {trial.warning}")
            is_poor = True
    if is_poor:
        more = f" {BACKBONE_HELPS}" if reader.net is None else ""
        _tell(f"warning: more images of each class make a better detector.{more}")


def _trials(
    detector: BaseDetector,
    X: np.ndarray,
    y: np.ndarray,
    reader: ImageReader,
    with_second: bool,
) -> Iterator[Trial]:
    if len(held_out_rows(detector)):
        yield try_held_out(detector, X, y)
    if with_second:
        trial = try_left_out_classes(detector, X, y)
        if trial is not None:
            yield trial
    yield try_noise_and_plain(detector, reader.strange_images(X))


def _predict(options: argparse.Namespace) -> int:
    if options.out is not None:
        _check_out(options.out)
    detector, found = _detector(options.detector), images_below(options.images)
    reader = _reader_of(detector, options.detector, found.paths)
    batches = judged_in_batches(
        detector, reader, found.paths, progress=not options.quiet
    )
    if options.out is None:
        return _written_answers(sys.stdout, batches, found, reader, options)[0]
    with options.out.open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        status, counted = _written_answers(file, batches, found, reader, options)
    print(f"{counted}. Written: {options.out}")
    return status


def _written_answers(
    file: Any,
    batches: Iterable[Judged],
    found: FoundImages,
    reader: ImageReader,
    options: argparse.Namespace,
) -> tuple[int, str]:
    """Write a row for each image as soon as it is judged.

    The exit status is returned, and how many of the images were rejected.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("file", "answer", "p_value", "nearest"))
    failures: Failures = []
    n_rejected = n_pages = n_scaled = n_judged = 0
    for judged in batches:
        _stop_if_strict(judged.failures, options)
        rows = {
            path: (path, answer, f"{p_value:.4f}", nearest)
            for path, answer, p_value, nearest in zip(
                judged.paths,
                judged.answers,
                judged.p_values,
                judged.nearest[:, 0],
                strict=True,
            )
        }
        rows |= {path: (path, UNREADABLE, "", "") for path, _ in judged.failures}
        start = n_judged
        n_judged += len(judged.paths) + len(judged.failures)
        writer.writerows(rows[path] for path in found.paths[start:n_judged])
        file.flush()
        failures += judged.failures
        n_rejected += int(judged.is_rejected.sum())
        n_pages += judged.n_further_pages
        n_scaled += judged.n_scaled
    _tell_of_files(found, failures, n_pages)
    _tell_of_scaled(n_scaled, n_judged - len(failures), reader)
    counted = f"{n_rejected} of {n_judged - len(failures)} images rejected"
    if len(failures) == n_judged:
        _tell("error: none of the images could be read.")
        return FAILED, counted
    return (INCOMPLETE if failures else 0), counted


def _explain(options: argparse.Namespace) -> int:
    if options.plot is not None:
        _check_plot(options.plot)
    detector, found = _detector(options.detector), images_below(options.images)
    reader = _reader_of(detector, options.detector, found.paths)
    judged = _judged(detector, reader, found, options)
    for i, path in enumerate(judged.paths):
        print(
            f"{path}: {judged.verdict(i)}, p-value {judged.p_values[i]:.4f}, "
            f"nearest {', '.join(judged.known_nearest(i))}"
        )
        for name, value in sorted(judged.parts(i), key=lambda part: part[1]):
            note = "outside the usual range" if value < -1 else ""
            print(f"  {name:10} {value:10.2f}  {note}".rstrip())
    print("The parts look at:")
    for name, meaning in meanings_of(judged.names):
        print(f"  {name:10} {meaning}")
    if options.plot is not None:
        from skvmdls.plotting import ExplanationDisplay

        X = read_all(reader, judged.paths).X
        display = ExplanationDisplay.from_estimator(detector, X)
        figure: Any = display.figure_
        figure.savefig(options.plot)
        print(f"Drawn: {options.plot}")
    return INCOMPLETE if judged.failures else 0


def _report(options: argparse.Namespace) -> int:
    if options.most < 0:
        raise ValueError(f"--most {options.most}: expected 0 or more images.")
    _check_out(options.out)
    if options.out.suffix.lower() not in ("", ".html", ".htm"):
        raise ValueError(
            f"--out {options.out}: the report is an HTML page; expected a name that "
            f"ends in .html, such as {options.out.with_suffix('.html')}."
        )
    detector = _detector(options.detector)
    has_classes = options.folder.is_dir() and any(
        place.is_dir() and not is_litter(place.name)
        for place in options.folder.iterdir()
    )
    labels: list[str] | None = None
    if has_classes:
        found, labels = labelled_images(options.folder)
    else:
        found = images_below([options.folder])
    reader = _reader_of(detector, options.detector, found.paths)
    judged = _judged(detector, reader, found, options)
    if labels is not None:
        truth = dict(zip(found.paths, labels, strict=True))
        labels = [truth[path] for path in judged.paths]
    page = report_page(detector, judged, labels, options.folder, options.most, reader)
    options.out.write_text(page, encoding="utf-8", errors="backslashreplace")
    print(
        f"{np.sum(judged.is_rejected)} of {len(judged.paths)} images rejected. "
        f"Written: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)"
    )
    for sentence in conclusion(detector, judged, labels):
        print(sentence)
    return INCOMPLETE if judged.failures else 0


def _judged(
    detector: BaseDetector,
    reader: ImageReader,
    found: FoundImages,
    options: argparse.Namespace,
) -> Judged:
    """Judge all images, of which at least one must be readable."""
    progress = not options.quiet
    batches = []
    for batch in judged_in_batches(detector, reader, found.paths, progress=progress):
        _stop_if_strict(batch.failures, options)
        batches.append(batch)
    judged = joined(batches)
    if not judged.paths:
        raise _none_readable(judged.failures, len(found.paths))
    _tell_of_files(found, judged.failures, judged.n_further_pages)
    _tell_of_scaled(judged.n_scaled, len(judged.paths), reader)
    return judged


def _reader(
    pictures: PictureFormat, backbone: str | None, weights: Path | None
) -> ImageReader:
    if backbone is None:
        return ImageReader(pictures)
    # Its transform brings every image to one size.
    pictures = replace(pictures, channels=3, size=None)
    return ImageReader(pictures, FrozenNet.named(backbone, weights))


def _reader_of(
    detector: BaseDetector, path: Path, images: Sequence[Path]
) -> ImageReader:
    """Read new images as those of `fit` were read."""
    if len(detector.input_shape_) == 1:
        pictures, net = FrozenNet.load(beside(path))
        return ImageReader(pictures, net)
    channels, height, width = detector.input_shape_
    stored: PictureFormat | None = getattr(detector, "picture_format_", None)
    if stored is None:
        depth = BYTES
        if not detector.standardizer_.were_bytes_:
            depth = _first_depth(images)
        stored = PictureFormat(channels, depth)
    return ImageReader(replace(stored, channels=channels, size=(height, width)))


def _first_depth(images: Sequence[Path]) -> str:
    """Depth of the first image that can be read."""
    for path in images:
        try:
            return picture_header(path).depth
        except Exception:
            # It is named when it is judged.
            continue
    return SHORTS


def _detector(path: Path) -> BaseDetector:
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder; expected the file of a detector, which 'fit "
            "--out' wrote. It comes first, and then the images."
        )
    if not path.is_file():
        raise ValueError(
            f"There is no file {str(path)!r}; expected one that 'fit --out' wrote."
        )
    detector = load(path)
    if len(detector.input_shape_) != 3 and not beside(path).is_file():
        raise ValueError(
            f"{path} is a detector for tables, of {detector.input_shape_[0]} columns; "
            "this command line is for images. If 'fit --backbone' wrote it, its net "
            f"{beside(path)} is missing. Else use it from Python: skvmdls.load(path)."
        )
    return detector


def _check_out(path: Path, option: str = "--out") -> None:
    """Refuse what cannot be written before anything is computed."""
    if path.is_dir():
        raise ValueError(
            f"{option} {path}: it is a folder; expected the name of a file to write."
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{option} {path}: there is no such folder to write to.")
    target = path if path.exists() else folder
    if not os.access(target, os.W_OK):
        raise ValueError(f"{option} {path}: you may not write there.")


def _check_plot(path: Path) -> None:
    """Refuse a drawing that cannot be made before anything is computed."""
    _check_out(path, "--plot")
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(
            "--plot needs matplotlib: pip install 'skvmdls[plot]'."
        ) from error
    endings = FigureCanvasBase.get_supported_filetypes()
    ending = path.suffix.lower().removeprefix(".") or "png"
    if ending not in endings:
        raise ValueError(
            f"--plot {path}: expected a name that ends in .png, .pdf, .svg or "
            "another format of matplotlib."
        )


def _stop_if_strict(failures: Failures, options: argparse.Namespace) -> None:
    if options.strict and failures:
        raise _none_readable(failures, len(failures))


def _none_readable(failures: Failures, n_images: int) -> ValueError:
    if len(failures) == 1:
        return ValueError(_listed(failures).strip())
    return ValueError(
        f"{len(failures)} of {n_images} images cannot be read:{_listed(failures)}"
    )


def _listed(failures: Failures) -> str:
    return "".join(f"\n  {path} {reason}" for path, reason in failures)


def _tell_of_files(found: FoundImages, failures: Failures, n_pages: int) -> None:
    """Name on stderr the files that were not read, and count what was passed over."""
    for path, reason in failures:
        _tell(f"{path} {reason}")
    if failures:
        _tell(
            f"{len(failures)} of {len(found.paths)} images could not be read, and were "
            "left out."
        )
    passed_over = FoundImages([], found.passed_over.copy())
    if n_pages:
        passed_over.passed_over["pages or frames behind the first of a file"] += n_pages
    if told := passed_over.described():
        _tell(f"passed over: {told}.")


def _tell_of_scaled(n_scaled: int, n_images: int, reader: ImageReader) -> None:
    """Count on stderr the files of other sizes than the detector's images."""
    size = reader.pictures.size
    if n_scaled and size is not None:
        were = "was" if n_scaled == 1 else "were"
        _tell(
            f"{n_scaled} of {n_images} images {were} scaled to {in_pixels(size)} "
            "(height x width), the size that the detector was trained on."
        )


def _tell(message: str) -> None:
    print(f"skvmdls: {message}", file=sys.stderr)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    _tell(f"warning: {message}")
