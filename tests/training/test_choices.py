"""What a training takes where its settings are left at "auto"."""

from types import SimpleNamespace

import pytest
import torch

from skvmdls.training.choices import Situation, choose_training, usual_epochs
from skvmdls.training.mirroring import MirrorTrial

AUTO = {
    "optimizer": "auto",
    "learning_rate": "auto",
    "weight_decay": "auto",
    "augmentation": "auto",
    "max_epochs": "auto",
    "classification_weight": 1.0,
}
PHOTOGRAPHS = Situation((3, 32, 32), n_rows=20_000, n_batches=125)
TABLE = Situation((10,), n_rows=5_000, n_batches=31)


def chosen(situation, keeps_classes=True, **given):
    settings = SimpleNamespace(**AUTO | given)
    trial = MirrorTrial(0.6, 0.59 if keeps_classes else 0.3, keeps_classes)
    return choose_training(settings, situation, lambda: trial)


def never():
    raise AssertionError("Nothing depends on mirroring.")


def test_images_are_trained_by_muon_and_tables_by_adamw():
    assert chosen(PHOTOGRAPHS).optimizer == "muon"
    assert chosen(TABLE).optimizer == "adamw"
    assert chosen(PHOTOGRAPHS).learning_rate > chosen(TABLE).learning_rate


def test_only_a_net_made_for_long_steps_takes_them():
    fast = chosen(PHOTOGRAPHS._replace(is_fast=True))
    assert fast.learning_rate > chosen(PHOTOGRAPHS).learning_rate
    by_adamw = chosen(PHOTOGRAPHS._replace(is_fast=True), optimizer="adamw")
    assert by_adamw.learning_rate == chosen(TABLE).learning_rate


def test_trained_nets_and_nets_without_a_head_keep_small_steps():
    tuned = chosen(PHOTOGRAPHS._replace(is_trained=True))
    without_head = chosen(PHOTOGRAPHS, classification_weight=0.0)
    assert tuned.optimizer == without_head.optimizer == "adamw"
    assert tuned.learning_rate == without_head.learning_rate == 1e-3


def test_only_images_that_keep_their_classes_are_mirrored():
    assert chosen(PHOTOGRAPHS).augmentation == "crop_flip"
    assert chosen(PHOTOGRAPHS, keeps_classes=False).augmentation == "affine"
    assert chosen(TABLE).augmentation is None


def test_the_reason_holds_both_accuracies():
    text = str(chosen(PHOTOGRAPHS, keeps_classes=False))
    assert "No mirroring" in text
    assert "0.60" in text
    assert "0.30" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "adamw"),
        ("learning_rate", 0.5),
        ("weight_decay", 0.0),
        ("augmentation", None),
        ("augmentation", torch.flip),
        ("max_epochs", 3),
    ],
)
def test_a_value_that_is_given_is_taken_as_it_is(name, value):
    assert getattr(chosen(PHOTOGRAPHS, **{name: value}), name) is value


def test_a_given_augmentation_needs_no_trial():
    settings = SimpleNamespace(**AUTO | {"augmentation": "affine"})
    assert choose_training(settings, PHOTOGRAPHS, never).reason == ""


def test_the_rate_follows_the_optimizer_that_is_given():
    assert chosen(PHOTOGRAPHS, optimizer="adamw").learning_rate == 1e-3
    assert chosen(TABLE, optimizer="muon").learning_rate == (
        chosen(PHOTOGRAPHS).learning_rate
    )


def test_fewer_images_are_seen_more_often_but_fewer_times_in_all():
    sizes = (500, 2_000, 8_000, 20_000, 50_000)
    epochs = [usual_epochs(PHOTOGRAPHS._replace(n_rows=n)) for n in sizes]
    assert epochs == sorted(epochs, reverse=True)
    visits = [e * n for e, n in zip(epochs, sizes, strict=True)]
    assert visits == sorted(visits)
