"""
Start from a trained net
========================

You have a net that was trained as a softmax classifier. ``from_module`` makes a
backbone of it. This page compares a detector on that net with one that begins from
nothing.

You can run this page as a script. It takes half a minute on one processor core::

    python examples/fine_tune.py
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.metrics import auroc, closed_set_accuracy
from skvmdls.nets import cnn, from_module

# %%
# A net that you may have
# -----------------------
# A small convolutional net learns six digits with cross-entropy.

digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
X = torch.from_numpy(digits.X_train).float()[:, None]
X, y = (X - X.mean()) / X.std(), torch.from_numpy(digits.y_train)

torch.manual_seed(0)
classifier = nn.Sequential(
    OrderedDict(backbone=cnn((1, 8, 8)), head=nn.Linear(128, len(digits.known)))
)
optimizer = torch.optim.AdamW(classifier.parameters())
for _ in range(20):
    for batch in torch.randperm(len(X)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(classifier(X[batch]), y[batch]).backward()
        optimizer.step()

# %%
# Make it a backbone
# ------------------
# ``taps`` are three submodules whose outputs become features. With ``freeze_epochs=2``
# only ``mu`` and ``sigma`` train in the first two epochs, and then everything trains.

pretrained = from_module(classifier.backbone, taps=("stage1", "stage2", "stage3"))

print("epochs  start         accuracy  AUROC")
is_known = np.isin(digits.y_test, digits.known)
for epochs in (4, 16):
    for name, backbone, freeze_epochs in (
        ("nothing", "cnn", 0),
        ("trained net", pretrained, 2),
    ):
        detector = VMDLSbDetector(
            backbone=backbone,
            freeze_epochs=freeze_epochs,
            max_epochs=epochs,
            random_state=0,
        ).fit(digits.X_train, digits.y_train)
        accuracy = closed_set_accuracy(
            digits.y_test, detector.predict_known(digits.X_test), detector.classes_
        )
        area = auroc(is_known, detector.score_samples(digits.X_test))
        print(f"{epochs:6}  {name:12}  {accuracy:8.3f}  {area:.3f}")

# %%
# After few epochs the trained net is ahead. For nets of torchvision or timm with their
# own weights, see :func:`skvmdls.nets.pretrained`.
