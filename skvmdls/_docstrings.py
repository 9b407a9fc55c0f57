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
classification_weight : float, default=1
    Weight of the cross-entropy of a classification head on ``g``, trained along. 0: no
    head, the paper's losses alone.
metric_weight : float, default=1
    Weight of triplet + distancing + `kl_weight` x KL; 1: the paper's. Beside a head
    they count less where the margins cannot be met, so that one weight serves digits
    and photographs (see :func:`skvmdls.training.joint_loss`).
features : "auto" or sequence of str, default="auto"
    Parts of the evidence: ``"x"`` (the standardised input itself, for tables),
    ``"t1"``, ``"t2"``, ``"t3"`` (the taps of the backbone), ``"g"`` (its output),
    ``"mu"`` (the latent mean) and ``"logit"`` (the head's largest logit). ``"auto"`` is
    all that there are; with ``fusion="early"``, the paper's five.
fusion : {"late", "early"}, default="late"
    ``"late"``: each part has class Gaussians of its own, its score is standardised on
    held-out known points, and the standardised scores are added (``t1``, ``t2``, ``mu``
    and the reconstruction's residual by half). ``"early"``: one Gaussian for each class
    over all parts, as in the paper.
normalize : "auto" or bool, default="auto"
    Whether each part is L2-normalised, with the logarithm of its length as one more
    column. ``"auto"``: with late fusion on images.
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
guarantee : {"marginal", "class"}, default="marginal"
    Whom `contamination` is promised to. ``"marginal"``: over all known points together.
    ``"class"``: for each class on its own, from its own held-out points, of which it
    needs ``1 / contamination - 1`` (label-conditional conformal prediction); `predict`
    then answers the class of the largest of `p_values` that is not excluded. May be
    changed on a fitted detector; a `threshold` overrides it.
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
    that differ only in what follows training (`features`, `fusion`, `normalize`,
    `covariance_type`, `covariance_estimator`, `covariance_pooling`, `weighting`,
    `contamination`, `threshold`) train once. Like every pickle, load only from a
    folder that you trust.
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
    Parts of the evidence, as resolved from `features`.
evidence_names_ : tuple of str
    Columns of :meth:`evidence`.
offset_ : float
    The threshold: points that score at least this are accepted. It follows
    `threshold` and `contamination` as they are now.
network_ : VariationalNetwork
    The trained net.
gaussians_ : ModuleDict of str to ClassGaussians
    The classes' Gaussians of each part; with ``fusion="early"``, of ``"ensemble"``.
evidence_ : Evidence
    Constants that standardise the parts' scores, and their weights.
split_ : HeldOut
    Positions of the rows that trained, that set the evidence's constants, and that set
    the threshold.
view_ : View
    Which parts are looked at, and how.
standardizer_ : Standardizer
    Statistics of the training inputs.
calibration_scores_ : ndarray of shape (n_calibration,)
    Scores of the held-out points that set the threshold.
calibration_class_scores_ : ndarray of shape (n_calibration,)
    Their scores each under its own class, which set the classes' own thresholds.
calibration_labels_ : ndarray of shape (n_calibration,), int
    Positions of their classes in ``classes_``.
calibration_winners_ : ndarray of shape (n_calibration, n_parts), int
    Positions of the classes whose likelihoods their scores are made of.
fit_positions_ : ndarray of shape (n_classes,), int
    Position of each class among those of `fit`; -1 if it was added since.
history_ : dict of str to list of float
    Figures of each epoch (see :func:`skvmdls.training.train_network`).
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
