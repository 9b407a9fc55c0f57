"""Features of a frozen pretrained net, for detectors of few photographs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import nn

from skvmdls._support.devices import resolve_device
from skvmdls._support.files import write_atomically
from skvmdls.inputs.pictures import PictureFormat
from skvmdls.nets import pretrained

__all__ = ["FrozenNet", "beside"]

ENDING = ".backbone"
KEY = "skvmdls_backbone"


def beside(detector: Path) -> Path:
    """Return where the net of a detector is stored: next to it."""
    return detector.with_name(f"{detector.name}{ENDING}")


@dataclass(frozen=True)
class FrozenNet:
    """A pretrained net without its classifier, which is never trained.

    `name` is that of :func:`skvmdls.nets.pretrained`.
    """

    name: str
    module: nn.Module
    transform: Any

    @classmethod
    def named(cls, name: str, weights: Path | None) -> "FrozenNet":
        """Get a net of torchvision or timm, with weights of a file or their own."""
        if weights is not None and not weights.is_file():
            raise ValueError(f"--weights {weights}: there is no such file.")
        factory = pretrained(name, "DEFAULT" if weights is None else weights)
        return cls(name, factory.module.eval(), factory.transform)

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Bring an array (3, height, width) to the net's size and scale."""
        if pixels.dtype == np.uint8:
            given: Any = Image.fromarray(pixels.transpose(1, 2, 0))
        else:
            given = torch.from_numpy(pixels)
        return np.asarray(self.transform(given), dtype=np.float32)

    @torch.inference_mode()
    def features(self, batch: np.ndarray) -> np.ndarray:
        """Compute features (n, k), float32, of prepared images (n, 3, ...)."""
        device = resolve_device("auto")
        module = self.module.to(device)
        parts = torch.from_numpy(batch).split(32)
        found = [module(part.to(device)).flatten(1).float().cpu() for part in parts]
        return torch.cat(found).numpy()

    def save(self, path: Path, pictures: PictureFormat) -> None:
        """Write the net to a file, and how images are read for it."""
        head = {"name": self.name, "pictures": pictures.state_dict()}
        tensors = {
            name: tensor.cpu().contiguous()
            for name, tensor in self.module.state_dict().items()
        }
        write_atomically(path, serialized(tensors, {KEY: json.dumps(head)}))

    @classmethod
    def load(cls, path: Path) -> tuple[PictureFormat, "FrozenNet"]:
        """Read a file of :meth:`save`; it needs no network.

        Raises
        ------
        ValueError
            If the file is damaged or not of :meth:`save`.
        """
        try:
            with safe_open(path, framework="pt") as file:
                head = json.loads(file.metadata()[KEY])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            factory = pretrained(head["name"], None)
            factory.module.load_state_dict(state)
            pictures = PictureFormat.from_state(head["pictures"])
        except (SafetensorError, LookupError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        net = cls(head["name"], factory.module.eval(), factory.transform)
        return pictures, net
