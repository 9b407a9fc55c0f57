"""The histogram of the page that `report` writes."""

import numpy as np
import pytest

from skvmdls.cli.report import HIGHEST, LEFT, RIGHT, _histogram


@pytest.mark.parametrize("n", [1, 33, 5_000])
@pytest.mark.parametrize("centre", [-300.0, -1.0, 0.2, 7.0])
def test_bars_count_all_images_and_none_is_on_both_sides_of_the_threshold(n, centre):
    margins = centre + np.random.default_rng(0).normal(size=n)
    found = _histogram(margins)
    counts = [(bar, bar.height / HIGHEST * found.most) for bar in found.bars]
    assert sum(count for _, count in counts) == pytest.approx(n)
    accepted = sum(count for bar, count in counts if bar.is_accepted)
    assert accepted == pytest.approx(np.sum(margins >= 0))
    assert all(
        (bar.x > found.threshold_x - 0.01) == bar.is_accepted for bar in found.bars
    )
    assert len(found.bars) <= (12 if n < 50 else 42)


def test_ticks_are_round_numbers_within_the_frame():
    found = _histogram(np.linspace(-42, 17, 200))
    assert [number for _, number in found.ticks] == [
        "-40",
        "-30",
        "-20",
        "-10",
        "0",
        "10",
    ]
    assert all(LEFT <= x <= RIGHT for x, _ in found.ticks)
