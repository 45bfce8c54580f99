from __future__ import annotations

import numpy as np
import pytest

from diffopt.search.surrogate import fit, rank_correlation


def landscape(count: int, seed: int = 0, noise: float = 0.02) -> tuple[list[dict[str, float]], np.ndarray]:
    rng = np.random.default_rng(seed)
    features = [
        {f"f{i}": float(rng.integers(0, 2)) for i in range(6)} | {"size": float(rng.normal())} for _ in range(count)
    ]
    targets = np.array([[f["f0"] - 2 * f["f1"] + f["size"], 3 * f["f2"] * f["f3"] + f["f4"], 0.0] for f in features])
    return features, targets + noise * rng.standard_normal(targets.shape)


def test_it_ranks_what_it_has_not_seen() -> None:
    features, targets = landscape(60)
    model = fit(features[:40], targets[:40])
    assert model is not None
    mean, deviation = model.predict(features[40:])
    assert rank_correlation(mean[:, 0], targets[40:, 0]) > 0.95
    assert rank_correlation(mean[:, 1], targets[40:, 1]) > 0.7
    assert (deviation > 0).all()


def test_leave_one_out_is_what_refitting_without_the_point_gives() -> None:
    features, targets = landscape(12)
    model = fit(features, targets)
    assert model is not None
    head, at = model.heads[0], 5
    gram = np.linalg.inv(head.inverse) - head.penalty * np.eye(12)
    rest = [i for i in range(12) if i != at]
    weights = np.linalg.solve(gram[np.ix_(rest, rest)] + head.penalty * np.eye(11), targets[rest, 0] - head.mean)
    shortcut = targets[at, 0] - head.weights[at] / head.inverse[at, at]
    assert head.mean + gram[at, rest] @ weights == pytest.approx(shortcut)


def test_few_points_are_no_model() -> None:
    features, targets = landscape(7)
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
    model = fit(features, targets)
    assert model is not None
    if model.correlations[2] < 0.3:
        assert model.predict(features)[0][:, 2] == pytest.approx(targets[:, 2].mean())


def test_an_unknown_feature_widens_the_doubt() -> None:
    features, targets = landscape(30)
    model = fit(features, targets)
    assert model is not None
    known, strange = model.predict([features[0], features[0] | {"new": 1.0}])[1]
    assert (strange[:2] > known[:2]).all()


def test_equal_values_share_their_rank() -> None:
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([5.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) == 0.0
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([9.0, 5.0, 1.0])) == pytest.approx(-1.0)
