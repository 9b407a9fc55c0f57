"""The command line: detectors for folders of images, without writing Python."""

import argparse
import csv
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skvmdls import VMDLSbDetector, VMDLSDetector, load, save
from skvmdls.cli.folders import (
    Judged,
    common_shape,
    images_below,
    judged,
    labelled_images,
    read_images,
)
from skvmdls.cli.report import report_page

__all__ = ["main"]

FAILED, INTERRUPTED = 2, 130
ABOUT = """\
Learn to tell classes of images apart, and to say which images are of none of them.

Four steps, from a folder with a sub-folder of images for each known class:

  python -m skvmdls fit good_parts/ --out parts.safetensors
  python -m skvmdls predict parts.safetensors new_images/
  python -m skvmdls explain parts.safetensors new_images/strange.png
  python -m skvmdls report parts.safetensors new_images/ --out report.html

Each command says more with --help.
"""

EXITS = """\
Exits with 0 if all went well, with 2 and a message if something is wrong with what was
given, and with 130 if it was interrupted."""

FIT = """\
Train on FOLDER/CLASS/IMAGE.png: the name of each sub-folder is a label. Twenty images a
class are the least, hundreds are good. Unknown images are not needed, and not used.

A tenth of the images is held out to set the threshold: a new image of a known class is
rejected with a chance of at most --contamination. That needs 1 / contamination - 1
held-out images, so 253 in all for 0.05.

Images that have one size of at most 96 pixels keep it; others are scaled to 64 x 64, or
to --size. Training takes about a minute for 2,000 small images on two cores."""

PREDICT = """\
Print a line for each image: file, answer, p-value, and the most likely known class. The
answer is the name of a class, or -1 for "never seen anything like it". The p-value says
how well the image fits the known ones: 0.5 is ordinary; images of known classes have
one of at most 0.05 with a chance of at most 5 %."""

EXPLAIN = """\
Say of a few images why they were accepted or rejected: a number for each part of the
evidence. 0 is what known images usually get, -1 the end of their usual range, -4 four
times as far out; beyond, the scale is logarithmic: -10 is 18 times as far out, -20 is
216 times. t1 to t3 are what early to late stages of the net see, g and mu what it makes
of them, logit how sure it is of a class, and residual what an autoencoder of the known
images cannot reconstruct. t1, t2, mu and residual are at most 0: they speak only
against an image."""

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
        0, or what went wrong: 2 for bad input, 130 for an interruption.
    """
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options.command(options)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"skvmdls: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        print(f"skvmdls: interrupted. {error}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m skvmdls",
        description=ABOUT,
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    explain.add_argument("--picture", type=Path, help="draw it too (extra: plot)")
    report = command("report", _report, "one HTML page about a folder", REPORT)
    report.add_argument("detector", type=Path, metavar="DETECTOR", help="file of fit")
    report.add_argument("folder", type=Path, metavar="FOLDER", help="of new images")
    report.add_argument("--out", type=Path, required=True, help="the page to write")
    report.add_argument(
        "--most", type=int, default=200, help="rejected images that are shown (200)"
    )
    return parser


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
    fit.add_argument("--epochs", type=int, help="passes over the images (20)")
    fit.add_argument(
        "--augmentation",
        choices=("affine", "crop_flip"),
        help="vary the images in training: affine for what may come turned or shifted "
        "a little, crop_flip for photographs",
    )
    fit.add_argument(
        "--without-autoencoder",
        action="store_true",
        help="train faster, and see less of what is strange",
    )
    fit.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")


def _fit(options: argparse.Namespace) -> None:
    if not options.out.absolute().parent.is_dir():
        raise ValueError(f"--out {options.out}: there is no such folder to write to.")
    paths, labels = labelled_images(options.folder)
    shape = common_shape(paths, options.size and tuple(options.size))
    X = read_images(paths, shape, progress=not options.quiet)
    kind = VMDLSbDetector if options.without_autoencoder else VMDLSDetector
    detector = kind(
        contamination=options.contamination,
        max_epochs=options.epochs or "auto",
        augmentation=options.augmentation,
        random_state=options.seed,
        verbose=0 if options.quiet else 1,
    )
    detector.fit(X, np.array(labels))
    save(detector, options.out)
    classes = ", ".join(detector.classes_)
    print(
        f"Learned {len(detector.classes_)} classes ({classes}) from {len(X)} images of "
        f"{shape[1]} x {shape[2]} pixels, {'grey' if shape[0] == 1 else 'in colour'}.\n"
        f"{len(detector.calibration_scores_)} held-out images set the threshold.\n"
        f"Written: {options.out}"
    )


def _predict(options: argparse.Namespace) -> None:
    detector, paths = _detector(options.detector), images_below(options.images)
    found = judged(detector, paths, progress=not options.quiet)
    if options.out is None:
        _write_answers(sys.stdout, found)
        return
    with options.out.open("w", newline="") as file:
        _write_answers(file, found)
    print(
        f"{np.sum(found.is_rejected)} of {len(paths)} rejected. Written: {options.out}"
    )


def _write_answers(file: Any, found: Judged) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("file", "answer", "p_value", "nearest"))
    columns = found.paths, found.answers, found.p_values, found.nearest[:, 0]
    for path, answer, p_value, nearest in zip(*columns, strict=True):
        writer.writerow((path, answer, f"{p_value:.4f}", nearest))


def _explain(options: argparse.Namespace) -> None:
    detector, paths = _detector(options.detector), images_below(options.images)
    found = judged(detector, paths, progress=not options.quiet)
    for i, path in enumerate(paths):
        print(
            f"{path}: {found.verdict(i)}, p-value {found.p_values[i]:.4f}, "
            f"nearest {', '.join(found.known_nearest(i))}"
        )
        for name, value in sorted(found.parts(i), key=lambda part: part[1]):
            note = "outside the usual range" if value < -1 else ""
            print(f"  {name:10} {value:10.2f}  {note}".rstrip())
    if options.picture is not None:
        from skvmdls.plotting import ExplanationDisplay

        X = read_images(paths, detector.input_shape_)
        figure: Any = ExplanationDisplay.from_estimator(detector, X).figure_
        figure.savefig(options.picture)
        print(f"Drawn: {options.picture}")


def _report(options: argparse.Namespace) -> None:
    if options.most < 0:
        raise ValueError(f"--most {options.most}: expected 0 or more images.")
    detector = _detector(options.detector)
    has_classes = options.folder.is_dir() and any(
        place.is_dir() for place in options.folder.iterdir()
    )
    labels: list[str] | None = None
    if has_classes:
        paths, labels = labelled_images(options.folder)
    else:
        paths = images_below([options.folder])
    found = judged(detector, paths, progress=not options.quiet)
    page = report_page(detector, found, labels, options.folder, options.most)
    options.out.write_text(page, encoding="utf-8")
    print(
        f"{np.sum(found.is_rejected)} of {len(paths)} images rejected. "
        f"Written: {options.out} ({len(page.encode()) / 1e6:.1f} MB)"
    )


def _detector(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(
            f"There is no file {str(path)!r}; expected one that 'fit --out' wrote."
        )
    detector = load(path)
    if len(detector.input_shape_) != 3:
        raise ValueError(
            f"{path} is a detector for tables, of {detector.input_shape_[0]} columns; "
            "this command line is for images. Use it from Python: skvmdls.load(path)."
        )
    return detector


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"skvmdls: warning: {message}", file=sys.stderr)
