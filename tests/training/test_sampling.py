"""Class-balanced batches."""

import torch

from skvmdls.training.sampling import BalancedBatchSampler


def sampler_of(counts, classes_per_batch, samples_per_class, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels))]
    generator = torch.Generator().manual_seed(seed)
    sampler = BalancedBatchSampler(
        labels, classes_per_batch, samples_per_class, generator
    )
    return labels, sampler


def test_every_batch_has_the_asked_for_classes_and_examples():
    labels, sampler = sampler_of([30, 30, 30, 30, 30], 3, 4)
    for batch in sampler.epoch():
        counts = labels[batch].bincount(minlength=5)
        assert sorted(counts.tolist()) == [0, 0, 4, 4, 4]


def test_an_epoch_visits_about_as_many_examples_as_there_are():
    labels, sampler = sampler_of([100, 57, 80], 3, 8)
    assert abs(sampler.epoch().numel() - len(labels)) <= 3 * 8 / 2


def test_balanced_classes_are_seen_whole_in_an_epoch():
    labels, sampler = sampler_of([32, 32], 2, 8)
    assert sorted(sampler.epoch().flatten().tolist()) == list(range(len(labels)))


def test_classes_smaller_than_their_share_repeat_and_large_ones_do_not():
    labels, sampler = sampler_of([2, 40], 2, 8)
    for batch in sampler.epoch():
        large = batch[labels[batch] == 1]
        assert len(set(large.tolist())) == 8
        assert (labels[batch] == 0).sum() == 8


def test_more_classes_than_fit_a_batch_all_come_up():
    labels, sampler = sampler_of([6] * 50, 4, 2)
    seen = torch.cat([labels[sampler.epoch().flatten()] for _ in range(10)])
    assert len(seen.unique()) == 50


def test_classes_per_batch_is_capped_by_the_number_of_classes():
    _, sampler = sampler_of([5, 5], 10, 2)
    assert sampler.epoch().shape[1] == 4


def test_the_same_seed_draws_the_same_batches_and_epochs_differ():
    labels, first = sampler_of([20, 20, 20], 2, 4, seed=3)
    second = BalancedBatchSampler(labels, 2, 4, torch.Generator().manual_seed(3))
    one, other = first.epoch(), second.epoch()
    assert torch.equal(one, other)
    assert not torch.equal(first.epoch(), one)
