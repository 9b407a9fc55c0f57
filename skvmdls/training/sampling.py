"""Class-balanced batches (Dinari & Freifeld 2022, section 3.1)."""

import torch
from torch import Tensor

__all__ = ["BalancedBatchSampler"]


class BalancedBatchSampler:
    """Draw batches of a few random classes with equally many examples of each.

    Each class walks through random permutations of its examples, one after the other,
    so that a class is seen whole before any of its examples comes again; a class with
    fewer than `samples_per_class` examples repeats them within a batch. `labels` (n,)
    go from 0, each present; an epoch, of `n_batches`, visits about as many examples as
    there are.

    Examples
    --------
    >>> import torch
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> sampler = BalancedBatchSampler(labels, 2, 2, torch.Generator().manual_seed(0))
    >>> batches = sampler.epoch()
    >>> batches.shape
    torch.Size([2, 4])
    >>> labels[batches[0]].bincount()
    tensor([2, 2])
    """

    def __init__(
        self,
        labels: Tensor,
        classes_per_batch: int,
        samples_per_class: int,
        generator: torch.Generator,
    ) -> None:
        labels = labels.cpu()
        self.members = [
            torch.nonzero(labels == label).squeeze(1)
            for label in range(int(labels.max()) + 1)
        ]
        self.classes_per_batch = min(classes_per_batch, len(self.members))
        self.samples_per_class = samples_per_class
        self.generator = generator
        batch_size = self.classes_per_batch * samples_per_class
        self.n_batches = max(1, round(len(labels) / batch_size))

    def epoch(self) -> Tensor:
        """Positions of an epoch, (n_batches, classes_per_batch * samples_per_class)."""
        chances = torch.rand(
            self.n_batches, len(self.members), generator=self.generator
        )
        drawn = chances.argsort(dim=1)[:, : self.classes_per_batch]
        indices = torch.empty(*drawn.shape, self.samples_per_class, dtype=torch.int64)
        for label, members in enumerate(self.members):
            places = drawn == label
            n_needed = int(places.sum()) * self.samples_per_class
            indices[places] = self._walk(members, n_needed).view(
                -1, self.samples_per_class
            )
        return indices.flatten(start_dim=1)

    def _walk(self, members: Tensor, n_needed: int) -> Tensor:
        n_rounds = -(-n_needed // len(members))
        chances = torch.rand(n_rounds, len(members), generator=self.generator)
        return members[chances.argsort(dim=1)].flatten()[:n_needed]
