from __future__ import annotations

import numpy as np
import pytest

from diffopt.search.design import Part
from diffopt.search.surrogate import fit, rank_correlation

PARTS = tuple(
    Part(f"f{i}", 50.0, known=({f"f{i}": 1.0, f"f{i}.n": 1.0}, {f"f{i}": 1.0, f"f{i}.n": 4.0})) for i in range(6)
)


def landscape(count: int, seed: int = 0, noise: float = 0.02) -> tuple[list[dict[str, float]], np.ndarray]:
    rng = np.random.default_rng(seed)
    features: list[dict[str, float]] = [{}]
    while len(features) < count:
        chosen = [i for i in range(6) if rng.random() < 0.5]
        features.append({k: v for i in chosen for k, v in ((f"f{i}", 1.0), (f"f{i}.n", float(rng.integers(1, 5))))})
    targets = []
    for f in features:
        on = [f.get(f"f{i}", 0.0) for i in range(6)]
        error = 1e-8 + 1e-5 * on[2] * f.get("f2.n", 0) + 1e-4 * on[3] * on[4] + 1e-3 * on[5]
        targets.append([0.2 * on[0] - 0.5 * on[1] * (1 + 0.3 * on[2]), 10 * np.log10(error), 0.0])
    return features, np.array(targets) + noise * rng.standard_normal((count, 3))


def test_it_ranks_what_it_has_not_seen() -> None:
    features, targets = landscape(60)
    model = fit(features[:40], targets[:40], PARTS)
    assert model is not None
    mean, deviation = model.predict(features[40:])
    assert rank_correlation(mean[:, 0], targets[40:, 0]) > 0.9
    assert rank_correlation(mean[:, 1], targets[40:, 1]) > 0.7
    assert (deviation > 0).all()


def test_few_points_are_no_model() -> None:
    features, targets = landscape(4)
    assert fit(features, targets) is None


def test_it_switches_itself_off_on_noise() -> None:
    features, targets = landscape(20)
    rng = np.random.default_rng(3)
    assert fit(features, rng.standard_normal(targets.shape)) is None


def test_it_steps_aside_where_nothing_varies() -> None:
    _, targets = landscape(10)
    assert fit([{"same": 1.0}] * 10, targets) is None


def test_an_objective_without_signal_is_predicted_by_its_mean() -> None:
    features, targets = landscape(30)
    targets[:, 2] = np.random.default_rng(1).standard_normal(30)
    model = fit(features, targets, PARTS)
    assert model is not None
    if model.correlations[2] < 0.3:
        assert model.predict(features)[0][:, 2] == pytest.approx(targets[:, 2].mean())


def test_an_unknown_feature_widens_the_doubt() -> None:
    features, targets = landscape(30)
    model = fit(features, targets, PARTS)
    assert model is not None
    known, strange = model.predict([features[0], features[0] | {"new": 1.0}])[1]
    assert (strange[:2] > known[:2]).all()


def test_an_order_never_seen_is_no_doubt_of_its_own() -> None:
    features, targets = landscape(30)
    model = fit(features, targets, PARTS)
    assert model is not None
    known, ordered = model.predict([features[0], features[0] | {"f1 < f0": 1.0}])[1]
    assert ordered == pytest.approx(known)


def test_many_new_features_are_as_strange_as_one() -> None:
    features, targets = landscape(30)
    model = fit(features, targets, PARTS)
    assert model is not None
    one, many = model.predict([features[0] | {"new": 1.0}, features[0] | {"new": 1.0, "newer": 1.0}])[1]
    assert many == pytest.approx(one)


def test_equal_values_share_their_rank() -> None:
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([5.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) == 0.0
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([9.0, 5.0, 1.0])) == pytest.approx(-1.0)
