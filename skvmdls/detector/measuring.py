"""How a fitted detector looks at points: checked, standardised, measured, scored."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skvmdls._support.devices import (
    float64_device,
    place,
    place_to_score,
    resolve_device,
)
from skvmdls._support.values import InputLike, plain
from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.rows import Rows, rows_of
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.network import VariationalNetwork
from skvmdls.scoring.decisions import KnownClasses, Measured
from skvmdls.scoring.evidence import View
from skvmdls.scoring.features import measure

__all__ = ["Measuring"]


class Measuring:
    """Mixin of the detectors: from X (n, ...) to what nets and Gaussians say of it."""

    input_shape_: tuple[int, ...]
    standardizer_: Standardizer
    network_: VariationalNetwork
    gaussians_: Any
    evidence_: Any
    view_: View
    fit_positions_: np.ndarray
    batch_size: int
    num_workers: int
    device: str | torch.device

    def _check_new(self, X: InputLike) -> Rows:
        check_is_fitted(self)
        checked = check_inputs(self, X, self.input_shape_)
        rows = rows_of(checked, plain(self.num_workers))
        self.standardizer_.warn_of_other_units(rows)
        return rows

    def _batches(self, X: Rows) -> Iterator[Tensor]:
        device = resolve_device(self.device)
        is_table = len(self.input_shape_) == 1
        # Loaded or trained elsewhere, the nets are brought to where they score.
        nets = (self.network_, getattr(self, "autoencoder_", None))
        placed = place_to_score(device, is_table, *nets)
        place(self.gaussians_, float64_device(device), torch.float64)
        return self.standardizer_.batches(X, plain(self.batch_size), *placed)

    def _measure(self, X: Rows, *, by_class: bool = False) -> Measured:
        autoencoder = getattr(self, "autoencoder_", None)
        return self._measure_as(self.view_, autoencoder, X, by_class=by_class)

    def _measure_features(self, X: Rows) -> Measured:
        """Measure without the autoencoder, where only likelihoods are asked for."""
        if (self.fit_positions_ < 0).any():
            # Between added classes and the others all evidence decides.
            return self._measure(X)
        return self._measure_as(replace(self.view_, residual=False), None, X)

    def _measure_as(
        self,
        view: View,
        autoencoder: nn.Module | None,
        X: Rows,
        *,
        by_class: bool = False,
    ) -> Measured:
        gaussians: Any = self.gaussians_
        return measure(
            self.network_,
            gaussians,
            autoencoder,
            self._batches(X),
            len(X),
            view,
            self._known,
            by_class=by_class,
        )

    @property
    def _known(self) -> KnownClasses:
        return KnownClasses(
            self.fit_positions_,
            getattr(self, "evidence_", None),
            getattr(self, "weight_calibration_", None),
        )

    def _scores(self, measured: Measured) -> np.ndarray:
        return self._known.score(measured.raw, measured.log_likelihood, measured.weight)
