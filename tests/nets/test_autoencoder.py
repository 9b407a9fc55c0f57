"""The default autoencoders."""

import pytest
import torch

from skvmdls.nets.autoencoder import cnn, mlp
from skvmdls.nets.network import build_autoencoder


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 30), (1, 28, 28), (2, 33, 65)], ids=str
)
def test_cnn_keeps_the_shape_of_any_image(shape):
    assert build_autoencoder(cnn, shape)(torch.randn(3, *shape)).shape == (3, *shape)


@pytest.mark.parametrize("features", [1, 2, 5, 300])
def test_mlp_keeps_the_shape_of_any_table(features):
    output = build_autoencoder(mlp, (features,))(torch.randn(3, features))
    assert output.shape == (3, features)


@pytest.mark.parametrize(
    ("factory", "shape", "share"),
    [(cnn, (1, 28, 28), 1 / 2), (cnn, (3, 16, 16), 1 / 6), (mlp, (50,), 1 / 4)],
)
def test_the_bottleneck_is_narrower_than_the_input(factory, shape, share):
    """An autoencoder without one reconstructs anything, and its weight says nothing."""
    autoencoder = factory(shape).eval()
    x = torch.randn(1, *shape)
    jacobian = torch.autograd.functional.jacobian(autoencoder, x)
    n_inputs = x.numel()
    rank = torch.linalg.matrix_rank(jacobian.view(n_inputs, n_inputs))
    assert rank <= share * n_inputs


@pytest.mark.parametrize(
    ("factory", "shape", "message"),
    [(cnn, (64,), "takes images"), (mlp, (1, 8, 8), "takes tables")],
)
def test_wrong_inputs_are_explained(factory, shape, message):
    with pytest.raises(ValueError, match=message):
        factory(shape)


def test_cnn_codes_each_place_on_its_own():
    """What is unusual in one corner changes nothing in the other."""
    autoencoder = cnn((1, 64, 64)).eval()
    x = torch.randn(2, 1, 64, 64)
    changed = x.clone()
    changed[:, :, :8, :8] += 100
    with torch.no_grad():
        gap = (autoencoder(changed) - autoencoder(x)).abs().amax(dim=(0, 1))
    assert gap[:8, :8].max() > 0.1
    assert torch.all(gap[32:, 32:] < 1e-5)
