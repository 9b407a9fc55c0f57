"""Parts of the evidence: which there are, what they hold, and their common unit."""

import json
import math

import numpy as np
import pytest
import torch

from skvmdls.scoring.evidence import (
    BELOW_RANGE,
    BOUNDARY,
    JOINT,
    RESIDUAL,
    TEXTURE,
    Evidence,
    PartSelection,
    default_weights,
    log_tail,
    residual_features,
    resolve_features,
    unit_and_length,
)

ALL = ("x", "t1", "t2", "t3", "g", "mu", "logit")
PAPERS = ("t1", "t2", "t3", "g", "mu")
EVERYTHING = {"fusion": "late", "is_table": True, "has_head": True}


# ------------------------------------------------------------------- which parts


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, ALL),
        ({"is_table": False}, (*PAPERS, TEXTURE, "logit", BOUNDARY)),
        ({"has_head": False}, ALL[:-1]),
        ({"is_table": False, "has_head": False}, (*PAPERS, TEXTURE)),
        ({"is_table": False, "fusion": "early"}, PAPERS),
        ({"fusion": "early"}, PAPERS),
    ],
    ids=str,
)
def test_auto_is_all_that_there_is_and_early_the_papers(there, expected):
    assert resolve_features("auto", **EVERYTHING | there) == expected


@pytest.mark.parametrize("fusion", ["late", "early"])
@pytest.mark.parametrize("make", [tuple, list, np.array])
def test_named_parts_are_taken_in_their_order(make, fusion):
    names = ["logit", "x", "t2"]
    found = resolve_features(make(names), **EVERYTHING | {"fusion": fusion})
    assert found == tuple(names)


@pytest.mark.parametrize(
    ("features", "there", "message"),
    [
        ("mu", {}, r"features='mu' must be 'auto' or a sequence.*as \('mu',\)"),
        ("all", {}, r"must be 'auto' or a sequence of names, some of \('x', 't1', "),
        ((), {}, r"features=\(\) must be 'auto' or name parts.*each once: some of"),
        (("mu", "t4"), {}, r"features=\('mu', 't4'\) must be 'auto' or name parts"),
        (("mu", "mu"), {}, "each once"),
        ([["mu"]], {}, r"features=\[\['mu'\]\] must be 'auto' or name parts"),
        ((1, 2), {}, "must be 'auto' or name parts"),
        (("residual",), {}, "must be 'auto' or name parts"),
        (
            ("mu", "x"),
            {"is_table": False},
            "names 'x', but the input itself is a part for tables only, and X holds im",
        ),
        (("g", "texture"), {}, "names 'texture', but it is a part for images with fus"),
        (
            ("g", "texture"),
            {"is_table": False, "fusion": "early"},
            "names 'texture', but it is a part for images with fusion='late'",
        ),
        (
            ("logit",),
            {"has_head": False},
            "names 'logit', but with classification_weight=0 .* use features='auto'",
        ),
    ],
)
def test_parts_that_are_not_there_are_explained(features, there, message):
    with pytest.raises(ValueError, match=message):
        resolve_features(features, **EVERYTHING | there)


# ------------------------------------------------------------------------ the view


def view(features=ALL, fusion="late", normalize=True, residual=True):
    return PartSelection(features, fusion, normalize, residual)


def test_late_fusion_has_a_block_a_part_and_early_one_of_all():
    late = view()
    assert late.blocks == {name: (name,) for name in ALL if name != "logit"}
    assert late.names == (*ALL[:-1], RESIDUAL, "logit")
    assert view(residual=False).names == ALL
    assert view(("logit",), residual=False).blocks == {}
    early = view(fusion="early")
    assert early.blocks == {JOINT: ALL}
    # There the logits are columns of the joint Gaussian.
    assert early.names == (JOINT, RESIDUAL)
    assert view(("mu",), "early", residual=False).names == (JOINT,)


def test_the_texture_has_gaussians_but_is_no_part_of_the_likelihood():
    images = view(("g", TEXTURE, "logit"))
    assert list(images.blocks) == ["g"]
    assert images.names == ("g", RESIDUAL, TEXTURE, "logit")
    assert images.of_ensemble == ("g", "logit")
    lengths = images.lengths(SIZES | {TEXTURE: 26}, 1)
    assert lengths == {"g": 41, RESIDUAL: 10, TEXTURE: 26}


SIZES = {"x": 6, "t1": 10, "t2": 20, "t3": 30, "g": 40, "mu": 5, "logit": 3}


@pytest.mark.parametrize("places", [1, 49])
def test_lengths_are_those_of_the_parts_and_a_column_for_each_length(places):
    residual = {RESIDUAL: 10 if places == 1 else 20}
    sizes = {name: size for name, size in SIZES.items() if name != "logit"}
    plain = view(normalize=False).lengths(SIZES, places)
    assert plain == sizes | residual
    # The input is not normalised: its length means nothing by itself.
    longer = {name: size + (name != "x") for name, size in sizes.items()}
    assert view().lengths(SIZES, places) == longer | residual
    joint = sum(SIZES.values())
    early = view(fusion="early", residual=False)
    assert early.lengths(SIZES, places) == {JOINT: joint + len(ALL) - 1}
    paper = view(PAPERS, "early", normalize=False, residual=False)
    assert paper.lengths(SIZES, places) == {JOINT: 10 + 20 + 30 + 40 + 5}


@pytest.mark.parametrize(
    "kept",
    [
        view(),
        view(fusion="early", normalize=False, residual=False),
        view(("logit",), residual=False),
    ],
    ids=str,
)
def test_a_view_comes_back_from_its_state(kept):
    state = json.loads(json.dumps(kept.state_dict()))
    assert PartSelection.from_state(state, is_table=True, has_head=True) == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "middle"}, "a view of"),
        ({"fusion": ["late"]}, "a view of"),
        ({"normalize": 1}, "a view of"),
        ({"residual": "yes"}, "a view of"),
        ({"average_flips": 1}, "a view of"),
        ({"more": 1}, "a view of"),
        ({"features": None}, "a view of"),
        ({"features": "auto"}, "a view of"),
        ({"features": ["mu", "t9"]}, "must be 'auto' or name parts"),
        ({"features": [["mu"]]}, "must be 'auto' or name parts"),
        ({"features": []}, "must be 'auto' or name parts"),
        ({"features": ["x"]}, "a part for tables only"),
        ({"features": ["logit"]}, "there is no head"),
    ],
    ids=str,
)
def test_a_state_of_no_view_is_refused(change, message):
    state = view(("g", "mu")).state_dict()
    with pytest.raises(ValueError, match=message):
        PartSelection.from_state(state | change, is_table=False, has_head=False)


def test_a_state_from_before_there_were_flips_has_none():
    state = view().state_dict()
    del state["average_flips"]
    assert PartSelection.from_state(state, is_table=True, has_head=True) == view()


def test_flips_of_tables_are_refused():
    state = view(("g", "mu")).state_dict() | {"average_flips": True}
    assert PartSelection.from_state(state, is_table=False, has_head=True).average_flips
    with pytest.raises(ValueError, match="mirrored images, of a table"):
        PartSelection.from_state(state, is_table=True, has_head=True)


def test_a_state_that_is_none_or_lacks_something_is_refused():
    state = view().state_dict()
    del state["normalize"]
    for wrong in (None, [], "late", state):
        with pytest.raises(ValueError, match="a view of"):
            PartSelection.from_state(wrong, is_table=True, has_head=True)


# --------------------------------------------------------------------- the features


def test_unit_and_length_equal_doing_it_row_by_row():
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 30
    found = unit_and_length(features)
    for row, given in zip(found.tolist(), features.tolist(), strict=True):
        length = math.hypot(*given)
        expected = [value / length for value in given] + [math.log(length)]
        assert row == pytest.approx(expected, rel=1e-5)
    shrunk = unit_and_length(features / 1000)
    torch.testing.assert_close(shrunk[:, :-1], found[:, :-1])
    torch.testing.assert_close(shrunk[:, -1], found[:, -1] - math.log(1000))


def test_points_of_length_zero_and_of_any_size_stay_finite():
    features = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1e18, 1e18]])
    assert torch.isfinite(unit_and_length(features)).all()
    assert unit_and_length(features)[0, :2].tolist() == [0, 0]


def test_residuals_equal_doing_it_place_by_place():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 4, 5, generator=generator)
    found = residual_features(one, other)
    assert found.shape == (3, 8)
    for i in range(3):
        for channel in range(4):
            gaps = [float(one[i, channel, j] - other[i, channel, j]) for j in range(5)]
            size = math.log(sum(abs(gap) for gap in gaps) / 5)
            assert found[i, channel].item() == pytest.approx(sum(gaps) / 5, abs=1e-6)
            assert found[i, 4 + channel].item() == pytest.approx(size, rel=1e-4)


def test_residuals_of_vectors_are_the_differences():
    one, other = torch.randn(2, 3, 4, 1)
    assert torch.equal(residual_features(one, other), (one - other)[:, :, 0])


def test_what_cancels_out_over_the_places_is_seen_and_perfection_is_finite():
    t1 = torch.tensor([[[3.0, -3.0]], [[0.0, 0.0]]])
    found = residual_features(t1, torch.zeros(2, 1, 2))
    assert found[:, 0].tolist() == [0, 0]
    assert found[0, 1] == pytest.approx(math.log(3))
    assert torch.isfinite(found).all()


# ------------------------------------------------------------------ the common unit


NAMES = ("t1", "g", "logit")
WEIGHTS = np.array([0.5, 1.0, 2.0])


def raw_scores(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gumbel(size=(n, 3)) * [1.0, 500.0, 0.01] + [0.0, 4000.0, -7.0]


def fitted(n=400, n_training=None, change=lambda raw: raw):
    training = None if n_training is None else change(raw_scores(n_training, 1) * 0.9)
    return Evidence.fit(NAMES, change(raw_scores(n)), WEIGHTS, training)


@pytest.mark.parametrize("n", [1, 2, 20, 401])
@pytest.mark.parametrize("n_training", [None, 300])
def test_the_median_is_nought_and_more_is_more(n, n_training):
    evidence = fitted(n, n_training)
    in_spreads = evidence.in_spreads(raw_scores(n))
    np.testing.assert_allclose(np.median(in_spreads, axis=0), 0, atol=1e-9)
    standard = evidence.standardize(raw_scores(n))
    assert np.isfinite(standard).all()
    assert (evidence.spread > 0).all()
    order = np.argsort(raw_scores(n), axis=0)
    ordered = np.take_along_axis(standard, order, axis=0)
    steps, is_cut = np.diff(ordered, axis=0), ordered[1:] == evidence.highest
    assert np.all((steps > 0) | is_cut)
    assert np.all(ordered <= evidence.highest)
    higher = raw_scores(n) + np.array([0.0, 1.0, 0.0])
    assert np.all(evidence.total(higher) > evidence.total(raw_scores(n)))


def test_minus_one_is_what_a_twentieth_falls_below():
    standard = fitted(400).standardize(raw_scores(400))
    np.testing.assert_allclose(np.quantile(standard, 0.05, axis=0), -1)
    assert np.mean(standard < -1, axis=0).tolist() == [0.05] * 3


def test_few_points_lean_on_training_points_and_many_do_not():
    training = raw_scores(3000, 1) * 0.5 + 0.5 * np.median(raw_scores(3000), axis=0)
    there = Evidence.fit(NAMES, training, WEIGHTS).spread
    for n, weight in ((5, 0.2), (20, 0.5), (2000, 0.99)):
        held_out = fitted(n).spread
        mixed = Evidence.fit(NAMES, raw_scores(n), WEIGHTS, training)
        expected = held_out**weight * there ** (1 - weight)
        np.testing.assert_allclose(mixed.spread, expected, rtol=0.01)
        np.testing.assert_array_equal(mixed.typical, fitted(n).typical)


@pytest.mark.parametrize("n_training", [None, 300])
def test_the_unit_of_a_raw_score_does_not_matter(n_training):
    def otherwise(raw):
        return raw * [1e-3, 7.0, 1e4] + [5.0, -1e3, 0.1]

    one, other = fitted(30, n_training), fitted(30, n_training, otherwise)
    points = raw_scores(50, 3)
    np.testing.assert_allclose(
        other.standardize(otherwise(points)), one.standardize(points), rtol=1e-6
    )
    np.testing.assert_allclose(
        other.total(otherwise(points)), one.total(points), rtol=1e-6
    )


def test_the_total_is_the_weighted_sum():
    evidence, points = fitted(), raw_scores(9, 3)
    expected = [
        sum(
            weight * min((score - typical) / spread, highest)
            for score, typical, spread, weight, highest in zip(
                row,
                evidence.typical,
                evidence.spread,
                [0.5, 1.0, 2.0],
                [0.0, 4.0, 4.0],
                strict=True,
            )
        )
        for row in points
    ]
    np.testing.assert_allclose(evidence.total(points), expected)


@pytest.mark.parametrize("n_training", [None, 300])
def test_the_usual_sum_is_there_with_texture_alone_and_is_stored(n_training):
    assert fitted().usual_sum is None
    names = ("t1", TEXTURE, "logit")
    raw = raw_scores(401)
    training = None if n_training is None else raw_scores(n_training, 1) * 0.9
    evidence = Evidence.fit(names, raw, WEIGHTS, training)
    totals = evidence.total(raw)
    assert evidence.usual_sum[0] == np.median(totals)
    below = np.median(totals) - np.quantile(totals, 0.05)
    tolerance = 1e-12 if n_training is None else 0.2
    assert evidence.usual_sum[1] == pytest.approx(below, rel=tolerance)
    state = evidence.state_dict()
    again = Evidence.from_state(state, names, 2)
    np.testing.assert_array_equal(again.usual_sum, evidence.usual_sum)
    with pytest.raises(ValueError, match="usual_sum"):
        Evidence.from_state(state, NAMES, 2)
    del state["usual_sum"]
    with pytest.raises(ValueError, match="usual_sum"):
        Evidence.from_state(state, names, 2)


@pytest.mark.parametrize("n_training", [None, 300])
@pytest.mark.parametrize("level", [0.0, -5.0, 1e6, 1e30])
def test_parts_that_are_always_the_same_stay_finite(level, n_training):
    evidence = fitted(40, n_training, lambda raw: np.full_like(raw, level))
    standard = evidence.standardize(np.array([[level] * 3, [level - 1.0] * 3]))
    assert np.isfinite(standard).all()
    assert standard[0].tolist() == [0, 0, 0]
    assert level == 1e30 or np.all(standard[1] < -0.99)


@pytest.mark.parametrize(("is_table", "logit"), [(True, 1.0), (False, 2.0)])
def test_each_part_counts_and_early_ones_by_half(is_table, logit):
    weights = dict(zip(ALL, default_weights(ALL, is_table=is_table), strict=True))
    half = dict.fromkeys(("t1", "t2", "mu"), 0.5)
    assert weights == dict.fromkeys(ALL, 1.0) | half | {"logit": logit}
    alone, beside = [TEXTURE], [TEXTURE, "g"]
    assert default_weights(alone, is_table=is_table).tolist() == [0.5]
    assert default_weights(beside, is_table=is_table).tolist() == [0.0, 1.0]
    rest = default_weights([RESIDUAL, JOINT], is_table=is_table)
    assert rest.tolist() == [0.5, 1.0]


def test_early_parts_speak_only_against_a_point():
    evidence, points = fitted(), raw_scores(400)
    standard, in_spreads = evidence.standardize(points), evidence.in_spreads(points)
    np.testing.assert_array_equal(standard[:, 0], np.minimum(in_spreads[:, 0], 0))
    assert np.mean(standard[:, 0] == 0) == 0.5
    assert np.all(np.mean(standard[:, 1:] > 0, axis=0) == 0.5)


def test_early_parts_of_images_count_beyond_their_usual_range_alone():
    training = Evidence.fit(NAMES, raw_scores(400), WEIGHTS, only_below=BELOW_RANGE)
    points = raw_scores(400, 3)
    standard, in_spreads = training.standardize(points), training.in_spreads(points)
    is_usual = in_spreads[:, 0] >= -1
    assert 0.8 < is_usual.mean() < 1
    assert np.all(standard[is_usual, 0] == 0)
    moderate = ~is_usual & (in_spreads[:, 0] > -4)
    np.testing.assert_allclose(standard[moderate, 0], in_spreads[moderate, 0] + 1)
    again = Evidence.from_state(training.state_dict(), NAMES, 2)
    np.testing.assert_array_equal(again.standardize(points), standard)


def test_evidence_of_earlier_files_has_a_flag_for_parts_below_the_median():
    evidence, points = fitted(), raw_scores(50, 3)
    state = evidence.state_dict()
    state["only_against"] = (state.pop("highest") == 0).astype(float)
    again = Evidence.from_state(state, NAMES, 2)
    np.testing.assert_array_equal(
        again.standardize(points), evidence.standardize(points)
    )


def test_no_part_speaks_for_a_point_without_bounds():
    """Inputs without bounds give logits without bounds: they were accepted."""
    evidence = fitted()
    points = np.tile(evidence.typical, (2, 1))
    points[1] += [-100, -100, 1e9] * evidence.spread
    assert evidence.total(points[1:]) < evidence.total(points[:1]) - 10


@pytest.mark.parametrize("names", [("t1",), ("logit",), (JOINT,)])
def test_a_single_part_has_an_even_scale(names):
    """The paper's method to the letter: the likelihood alone ranks."""
    raw = raw_scores(400)[:, :1]
    evidence = Evidence.fit(names, raw, np.ones(1))
    far = np.array([[-1e6], [1e6]])
    np.testing.assert_array_equal(evidence.standardize(far), evidence.in_spreads(far))
    again = Evidence.from_state(evidence.state_dict(), names, 2)
    np.testing.assert_array_equal(again.standardize(far), evidence.in_spreads(far))


def test_parts_that_would_speak_only_against_a_point_speak_for_it_if_no_other_does():
    raw = raw_scores(400)[:, :2]
    evidence = Evidence.fit(("t1", "mu"), raw, np.ones(2))
    assert np.all(np.mean(evidence.standardize(raw) > 0, axis=0) == 0.5)


def with_log_tail(scores, start):
    return log_tail(torch.from_numpy(scores), torch.tensor(start).double()).numpy()


@pytest.mark.parametrize("bend", [-1.0, -4.0, -9.5])
def test_far_below_a_score_grows_as_its_logarithm_does(bend):
    scores = np.array([3.0, 0.0, bend, 2 * bend, 11 * bend, -1e300])
    found = with_log_tail(scores, bend)
    by_hand = [
        score
        if score >= bend
        else bend - abs(bend) * math.log(1 + (bend - score) / abs(bend))
        for score in scores
    ]
    np.testing.assert_allclose(found, by_hand)
    assert np.all(np.diff(found) < 0)
    close = with_log_tail(np.array([bend + 1e-6, bend - 1e-6]), bend)
    np.testing.assert_allclose(close, [bend + 1e-6, bend - 1e-6], atol=1e-9)


def test_without_a_bend_the_scale_is_even():
    scores = np.array([[3.0], [-5.0], [-1e300]])
    single = Evidence.unfitted(["g"])
    np.testing.assert_array_equal(single.standardize(scores), scores)


def test_one_part_does_not_outvote_all_others():
    evidence = fitted()
    one, all_parts = np.full((2, 3), evidence.typical)
    one[0] -= 1e5 * evidence.spread[0]
    all_parts -= 40 * evidence.spread
    assert evidence.total(all_parts) < evidence.total(one) < -10


def test_evidence_comes_back_from_its_state():
    evidence = fitted()
    again = Evidence.from_state(evidence.state_dict(), NAMES, 2)
    points = raw_scores(9, 3)
    np.testing.assert_array_equal(again.total(points), evidence.total(points))
    assert again.names == NAMES


def test_evidence_of_files_without_a_bend_has_an_even_scale():
    state = fitted().state_dict()
    del state["bend"], state["highest"]
    old, far = Evidence.from_state(state, NAMES, 2), np.full((1, 3), -1e6)
    np.testing.assert_array_equal(old.standardize(far), fitted().in_spreads(far))
    assert old.state_dict().keys() == state.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spread": np.array([1.0, 0.0, 1.0])}, "evidence.spread must be positive"),
        ({"typical": np.zeros(2)}, r"evidence.typical has shape \(2,\), expected \(3,"),
        ({"weights": np.ones((3, 1))}, "evidence.weights is an array of float64 and s"),
        ({"weights": np.ones(3, np.float32)}, "an array of float32"),
        ({"typical": np.full(3, np.nan)}, "typical holds numbers that are not finite"),
        ({"bend": np.array([0.0])}, "evidence.bend must be negative"),
        ({"highest": np.ones(2)}, r"evidence.highest has shape \(2,\), expected \(3,"),
        ({"bend": np.full(3, -4.0)}, r"evidence.bend has shape \(3,\), expected \(1,"),
    ],
    ids=str,
)
def test_a_state_of_no_evidence_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Evidence.from_state(fitted().state_dict() | change, NAMES, 2)
    state = fitted().state_dict()
    del state["spread"]
    with pytest.raises(KeyError, match="spread"):
        Evidence.from_state(state, NAMES, 2)
