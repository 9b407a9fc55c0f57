"""The default autoencoders."""

import pytest
import torch

from skvmdls.autoencoder import cnn, mlp
from skvmdls.network import build_autoencoder


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 30), (1, 28, 28), (2, 33, 65)], ids=str
)
def test_cnn_keeps_the_shape_of_any_image(shape):
    assert build_autoencoder(cnn, shape)(torch.randn(3, *shape)).shape == (3, *shape)


@pytest.mark.parametrize("features", [1, 2, 5, 300])
def test_mlp_keeps_the_shape_of_any_table(features):
    output = build_autoencoder(mlp, (features,))(torch.randn(3, features))
    assert output.shape == (3, features)


@pytest.mark.parametrize(("factory", "shape"), [(cnn, (1, 28, 28)), (mlp, (50,))])
def test_the_bottleneck_is_narrower_than_the_input(factory, shape):
    """An autoencoder without one reconstructs anything, and its weight says nothing."""
    autoencoder = factory(shape).eval()
    x = torch.randn(1, *shape)
    jacobian = torch.autograd.functional.jacobian(autoencoder, x)
    n_inputs = x.numel()
    rank = torch.linalg.matrix_rank(jacobian.view(n_inputs, n_inputs))
    assert rank <= n_inputs / 4


@pytest.mark.parametrize(
    ("factory", "shape", "message"),
    [(cnn, (64,), "takes images"), (mlp, (1, 8, 8), "takes tables")],
)
def test_wrong_inputs_are_explained(factory, shape, message):
    with pytest.raises(ValueError, match=message):
        factory(shape)
