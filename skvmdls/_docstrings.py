"""What both detectors' docstrings say alike, written once."""

import inspect
from typing import TypeVar

PARAMETERS = """
backbone : str or callable, default="auto"
    The net ``g``: a name in :data:`skvmdls.backbones.BACKBONES`, or a factory
    ``factory(input_shape) -> nn.Module`` (see :mod:`skvmdls.backbones`). ``"auto"``
    is ``"mlp"`` for tables and ``"cnn"`` for images.
latent_dim : int, default=32
    Dimension ``d`` of the latent space.
triplet_margin : float, default=0.1
    ``M_t``, in squared distance (paper, eq. 2).
distancing_margin : float, default=None
    ``M_d``, in squared distance: how far apart points of different classes are pushed
    (eq. 3). None is `latent_dim`.
margin_warmup : float in [0, 1], default=0.5
    Share of the training over which ``M_d`` rises from 0.
kl_warmup : float in [0, 1], default=0.5
    Share of the epochs before KL is switched on: the classes must begin to separate
    before it pulls each of them together.
prior_variance : float, default=0.1
    ``s^2`` of the classes' priors in the latent space.
kl_weight : float, default=0.1
    Weight of the KL loss (eqs. 5-7).
features : sequence of str, default=("t1", "t2", "t3", "g", "mu")
    Parts of the feature ensemble that the Gaussians are fitted to: the three taps of
    the backbone, its output, and the latent mean.
covariance_type : {"full", "tied", "diag"}, default="full"
    A covariance for each class, one for all, or variances only.
covariance_estimator : estimator, default=None
    Any estimator of :mod:`sklearn.covariance`; None is Ledoit-Wolf shrinkage.
covariance_pooling : float in [0, 1], default=0.05
    Share that the covariance pooled over all classes has in that of each class
    (regularised discriminant analysis, Friedman 1989). 0 leaves each class its own, as
    in the paper; ``"tied"`` does not use it, since there it is all.
contamination : float in [0, 0.5], default=0.05
    Share of new known points that may be rejected; sets the threshold. May be changed
    on a fitted detector, with `set_params`.
threshold : float, default=None
    Threshold on ``score_samples``; overrides `contamination`. May be changed on a
    fitted detector.
calibration_fraction : float in (0, 0.5], default=0.1
    Share of the training data, stratified, that is held out to set the threshold.
classes_per_batch : int, default=None
    ``B_C``, at least 2. None is 10, or the number of classes if that is smaller.
samples_per_class : int, default=16
    ``B_N``, at least 2.
max_epochs : int, default=20
    Epochs of training the net; each visits about as many points as there are.
learning_rate : float, default=0.001
    Peak of the one-cycle schedule.
weight_decay : float, default=0.01
    Decoupled, as in AdamW.
augmentation : str or callable, default=None
    ``"affine"`` or ``"crop_flip"`` for images, or a function from a standardised batch
    (a tensor) to one of the same shape.
freeze_epochs : int, default=0
    Epochs at the start in which only ``mu`` and ``sigma`` train, for a backbone that
    comes with trained weights.
batch_size : int, default=256
    Rows that are scored at a time.
device : str or torch.device, default="auto"
    ``"auto"`` picks CUDA, MPS or the CPU, whatever is there.
precision : {"auto", "float32", "bfloat16"}, default="auto"
    What the net trains in. ``"auto"`` is bfloat16 where the hardware has instructions
    for it. The autoencoder's training and scoring do not use bfloat16.
memory : path or joblib.Memory, default=None
    Keeps trained nets and Gaussians on disk under all that went into them, so that fits
    that differ only in what follows training (`features`, `covariance_type`,
    `covariance_estimator`, `covariance_pooling`, `weighting`, `contamination`,
    `threshold`) train once. Like every pickle, load only from a folder that you trust.
checkpoint : path, default=None
    A file that holds the state of the training after every epoch. A `fit` that was
    interrupted or killed, started again with the same data and parameters, goes on
    from there and ends where it would have ended. Delete the file to start anew.
verbose : int, default=0
    1 shows progress bars.
random_state : int, RandomState or None, default=None
    With an int, training repeats itself bit for bit on one CPU.
"""

ATTRIBUTES = """
classes_ : ndarray of shape (n_classes,)
    The known labels, sorted.
n_features_in_ : int
    Numbers in one input: features, or channels x height x width.
feature_names_in_ : ndarray of shape (n_features_in_,)
    Names of the columns, if X was a DataFrame.
input_shape_ : tuple of int
    (features,) or (channels, height, width).
features_ : tuple of str
    Parts of the ensemble that the Gaussians were fitted to.
offset_ : float
    The threshold: points that score at least this are accepted. It follows
    `threshold` and `contamination` as they are now.
network_ : VariationalNetwork
    The trained net.
gaussians_ : ClassGaussians
    The classes' Gaussians.
standardizer_ : Standardizer
    Statistics of the training inputs.
calibration_scores_ : ndarray
    Scores of the held-out points that set the threshold.
history_ : dict of str to list of float
    Figures of each epoch (see :func:`skvmdls.training.train_network`), all of one
    length: ``pd.DataFrame(detector.history_).plot(subplots=True)``.
"""

REFERENCES = """
.. [1] O. Dinari and O. Freifeld, "Variational- and Metric-based Deep Latent Space for
   Out-of-Distribution Detection", UAI 2022.
"""

Class = TypeVar("Class", bound=type)


def documented(cls: Class) -> Class:
    """Fill the placeholders in a class's docstring."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    for name, text in (
        ("{parameters}", PARAMETERS),
        ("{attributes}", ATTRIBUTES),
        ("{references}", REFERENCES),
    ):
        doc = doc.replace(name, text.strip())
    cls.__doc__ = doc
    return cls
