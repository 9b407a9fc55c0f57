"""A net that keeps its input."""

import pytest
import torch
from torch.nn import functional

from skvmdls import VMDLSbDetector
from skvmdls.nets.residual import ResidualMLP, residual_mlp


@pytest.fixture
def rows():
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(0))


def test_an_untrained_net_returns_its_input(rows):
    assert torch.equal(residual_mlp((12,))(rows), rows)


def test_normalised_rows_keep_their_directions(rows):
    g = residual_mlp((12,), normalize=True)(rows)
    torch.testing.assert_close(g / 12**0.5, functional.normalize(rows, dim=1))


def test_a_row_of_zeros_stays_finite():
    assert residual_mlp((12,), normalize=True)(torch.zeros(2, 12)).isfinite().all()


def test_every_weight_learns(rows):
    net = residual_mlp((12,), normalize=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    target = torch.randn(16, 12)
    for _ in range(2):
        optimizer.zero_grad()
        (net(rows) - target).square().mean().backward()
        optimizer.step()
    assert all(weight.grad.abs().max() > 0 for weight in net.parameters())


def test_wide_rows_are_reduced():
    assert ResidualMLP(3000, normalize=False)(torch.zeros(2, 3000)).shape == (2, 1024)


def test_images_are_refused():
    with pytest.raises(ValueError, match="takes tables"):
        residual_mlp((3, 8, 8))


def test_a_detector_trains_it(table):
    X, y = table
    detector = VMDLSbDetector(
        backbone=residual_mlp, max_epochs=3, random_state=0, contamination=0.2
    )
    assert (detector.fit(X, y).predict_known(X) == y).mean() > 0.9
