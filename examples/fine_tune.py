"""From a net that is trained already
==================================

Start from a net trained as a softmax classifier, and count the epochs saved.

A small net learns six of scikit-learn's digits with cross-entropy, as a net that a user
already has would have. The detector then takes it over: for two epochs only `mu` and
`sigma` train, then everything. The table sets it beside the same net trained from
scratch, after few and after many epochs. Takes two minutes on two CPU cores and needs
no network.

    python examples/fine_tune.py
"""

from collections import OrderedDict

import numpy as np
import torch
from sklearn.utils import Bunch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.metrics import auroc, closed_set_accuracy
from skvmdls.nets import ModuleFactory, cnn, from_module

SOFTMAX_EPOCHS = 20
EPOCHS = (4, 8, 16, 32)
SEEDS = (0, 1, 2)


def main() -> None:
    digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    classifier = train_softmax(digits)
    pretrained = from_module(classifier.backbone, taps=("stage1", "stage2", "stage3"))
    print(f"Means of {len(SEEDS)} seeds; unknown: digits 6 to 9.\n")
    print(
        "| epochs | start | closed-set accuracy | smallest distance of means | AUROC |"
    )
    print("|---:|---|---:|---:|---:|")
    for epochs in EPOCHS:
        for start, backbone, freeze_epochs in (
            ("scratch", "cnn", 0),
            ("softmax net", pretrained, 2),
        ):
            accuracy, separation, area = np.mean(
                [
                    evaluate(digits, backbone, freeze_epochs, epochs, seed)
                    for seed in SEEDS
                ],
                axis=0,
            )
            print(
                f"| {epochs} | {start} | {accuracy:.3f} | {separation:.2f} "
                f"| {area:.3f} |",
                flush=True,
            )


def train_softmax(digits: Bunch) -> nn.Module:
    torch.manual_seed(0)
    X = torch.from_numpy(digits.X_train).float()
    X = ((X - X.mean()) / X.std())[:, None]
    y = torch.from_numpy(digits.y_train)
    classifier = nn.Sequential(
        OrderedDict(
            backbone=cnn(tuple(X.shape[1:])), head=nn.Linear(128, len(digits.known))
        )
    )
    optimizer = torch.optim.AdamW(classifier.parameters())
    for _ in tqdm(range(SOFTMAX_EPOCHS), desc="softmax net", unit="epoch"):
        for batch in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(classifier(X[batch]), y[batch]).backward()
            optimizer.step()
    return classifier


def evaluate(
    digits: Bunch,
    backbone: str | ModuleFactory,
    freeze_epochs: int,
    epochs: int,
    seed: int,
) -> tuple[float, float, float]:
    detector = VMDLSbDetector(
        backbone=backbone,
        freeze_epochs=freeze_epochs,
        max_epochs=epochs,
        random_state=seed,
    ).fit(digits.X_train, digits.y_train)
    is_known = np.isin(digits.y_test, digits.known)
    return (
        closed_set_accuracy(
            digits.y_test, detector.predict_known(digits.X_test), detector.classes_
        ),
        detector.history_["separation"][-1],
        auroc(is_known, detector.score_samples(digits.X_test)),
    )


if __name__ == "__main__":
    main()
