"""A training's state on disk after every epoch (parameter `checkpoint`).

The file holds the stages of a fit in their order: the network, the autoencoder, the
Gaussians. Next to it is the file of one write before, for when it is damaged.
"""

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from skvmdls._support.files import write_atomically
from skvmdls._support.values import warn
from skvmdls.training.distributed import broadcast_object, rank
from skvmdls.training.fingerprints import what_decides

__all__ = ["Checkpoint", "Stage", "State"]

State = dict[str, Any]

FIRST_LINE = b"skvmdls checkpoint 1 sha256 "
CONTENT = {"ingredients", "seed", "stages"}


class Stage:
    """One stage of a fit that has no checkpoint: `keep` does nothing.

    Attribute `state` is what an interrupted fit stored last, or None.
    """

    state: State | None = None

    def keep(self, state: State) -> None:
        """Replace what is kept: tensors, numbers, strings, and containers of these."""


class Checkpoint:
    """The stages of one fit on disk, and the ingredients that decided it, by name.

    A file that is there is continued; one of another fit is refused with a ValueError
    that names the ingredients that differ. In place of a damaged one, the one of a
    write before is used, with a warning. Path None keeps nothing.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fit.checkpoint"
    >>> Checkpoint(path, {"learning_rate": 0.1}).stage("network").keep({"epoch": 3})
    >>> Checkpoint(path, {"learning_rate": 0.1}).stage("network").state
    {'epoch': 3}
    >>> Checkpoint(path, {"learning_rate": 0.2})
    Traceback (most recent call last):
        ...
    ValueError: ... is of another fit, which differs in learning_rate. ...
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, ingredients: dict[str, Any]
    ) -> None:
        self.path = None if path is None else Path(path)
        self._seed = secrets.randbits(31)
        self._stages: dict[str, State] = {}
        # A damaged file must not take the place of the good one before it.
        self._is_good = False
        self._ingredients: dict[str, str] = {}
        if self.path is None:
            return
        if not self.path.absolute().parent.is_dir():
            raise ValueError(
                f"checkpoint={os.fspath(self.path)!r}: there is no folder "
                f"{os.fspath(self.path.parent)!r} to write it to."
            )
        if self.path.is_dir():
            raise ValueError(
                f"checkpoint={os.fspath(self.path)!r} is a folder; expected the path "
                "of a file in it, which the fit will write."
            )
        if self.path.is_symlink():
            # The copy of one write before is next to the file, not the link.
            self.path = Path(os.path.realpath(self.path))
        self._ingredients = what_decides(ingredients)
        path = self.path
        found = broadcast_object(lambda: self._found(path) if path.exists() else None)
        if found is not None:
            stored, self._is_good = found
            self._seed, self._stages = stored["seed"], stored["stages"]

    def seed(self, random_state: Any) -> Any:
        """Give a kept fit without a seed one, so that it can be taken up too."""
        is_drawn = random_state is None and self.path is not None
        return self._seed if is_drawn else random_state

    def stage(self, name: str) -> Stage:
        """One of the fit's stages, by its name."""
        return Stage() if self.path is None else _KeptStage(self, self.path, name)

    @contextmanager
    def named_if_interrupted(self) -> Iterator[None]:
        """Say where the checkpoint is, and how far it came, if the user stops it."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            if self.path is None or not self._stages:
                raise
            *_, (name, state) = self._stages.items()
            finished = f"{name}, epoch {state['epoch']}" if "epoch" in state else name
            raise KeyboardInterrupt(
                f"Stopped. The checkpoint {os.fspath(self.path)!r} holds the fit up to "
                f"{finished}: call fit again with the same data and parameters to go "
                "on."
            ) from interrupt

    def _found(self, path: Path) -> tuple[dict[str, Any], bool]:
        stored, is_good = _last_good(path)
        names = stored["ingredients"].keys() | self._ingredients.keys()
        different = sorted(
            name
            for name in names
            if stored["ingredients"].get(name) != self._ingredients.get(name)
        )
        if different:
            raise ValueError(
                f"checkpoint={os.fspath(path)!r} is of another fit, which differs "
                f"in {', '.join(different)}. Fit with what it was begun with, or give "
                "another path, or delete the file."
            )
        return stored, is_good

    def _keep(self, path: Path, name: str, state: State) -> None:
        self._stages[name] = state
        if rank() > 0:
            return
        content = {
            "ingredients": self._ingredients,
            "seed": self._seed,
            "stages": self._stages,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        body = buffer.getvalue()
        if self._is_good:
            _set_aside(path)
        write_atomically(path, _head(body), body)
        self._is_good = True


class _KeptStage(Stage):
    def __init__(self, checkpoint: Checkpoint, path: Path, name: str) -> None:
        self._checkpoint = checkpoint
        self._path = path
        self._name = name
        self.state = checkpoint._stages.get(name)

    def keep(self, state: State) -> None:
        self._checkpoint._keep(self._path, self._name, state)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _set_aside(path: Path) -> None:
    """Keep the file under a second name; its own is never without a file."""
    if not path.exists():
        return
    second = _previous(path).with_suffix(".unfinished")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # Not all file systems have links.
        shutil.copyfile(path, second)
    os.replace(second, _previous(path))


def _head(body: bytes) -> bytes:
    return FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _last_good(path: Path) -> tuple[dict[str, Any], bool]:
    """Read the file or, where it is damaged, the one before; and say if it was it."""
    try:
        return _read(path), True
    except ValueError as error:
        try:
            stored = _read(_previous(path))
        except (OSError, ValueError):
            raise ValueError(
                f"checkpoint={os.fspath(path)!r} cannot be used: {error}. There is no "
                "earlier one. Delete it to start again, or give another path."
            ) from error
        warn(
            f"checkpoint={os.fspath(path)!r} cannot be used: {error}. The fit goes on "
            f"from the one before, {os.fspath(_previous(path))!r}."
        )
        return stored, False


def _read(path: Path) -> dict[str, Any]:
    head, _, body = path.read_bytes().partition(b"\n")
    if not head.startswith(FIRST_LINE):
        raise ValueError("it is not a checkpoint of this version of skvmdls")
    if head + b"\n" != _head(body):
        raise ValueError("it is damaged: its checksum is not that of its content")
    try:
        stored = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(stored, dict) or set(stored) != CONTENT:
        raise ValueError("it does not hold a fit")
    return stored
