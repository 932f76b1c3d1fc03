import numpy as np
import pytest

from sclinguist_core.train.residual import (
    PENALTIES,
    SHARES,
    USUAL_PENALTY,
    Cells,
    _choose,
    _Solver,
    correct,
    folds,
    kernel_widths,
    likeness,
)

N_PROTEINS = 8


def cells_and_target(n, *, left_over, noise=0.6, seed=0):
    """Zero-shot sees a part of the target; `left_over` times a function of the trunk is missed."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(6, N_PROTEINS))
    trunk, own = rng.normal(size=(n, 6)), rng.normal(size=(n, 3))
    zero_shot = rng.normal(size=(n, N_PROTEINS))
    target = zero_shot + left_over * np.tanh(trunk @ mixing) + noise * rng.normal(
        size=(n, N_PROTEINS)
    )  # fmt: skip
    return Cells(zero_shot=zero_shot, trunk=trunk, own=own), target


def correlations(x, y):
    return np.array([np.corrcoef(x[:, p], y[:, p])[0, 1] for p in range(x.shape[1])])


def fit(n, *, left_over, group=None, shift=0.0, **options):
    cells, target = cells_and_target(n, left_over=left_over, **options)
    group = np.zeros(n, int) if group is None else group
    target = target + shift * group[:, None]
    widths = kernel_widths(cells)
    found = correct(cells, target, group, np.full(N_PROTEINS, 0.7), widths=widths)
    new, truth = cells_and_target(1000, left_over=left_over, seed=1)
    after = found.gain * new.zero_shot + found.bias + (
        likeness(new, cells, widths, found.share) @ found.weight
    )  # fmt: skip
    return found, correlations(after, truth), correlations(new.zero_shot, truth)


@pytest.mark.parametrize(("n", "gain"), [(20, 0.01), (100, 0.06), (400, 0.12)])
def test_what_is_left_over_is_learnt(n, gain):
    found, after, before = fit(n, left_over=1.0)
    assert (after - before).mean() > gain
    assert found.amount.mean() > 0.4


@pytest.mark.parametrize("n", [20, 100])
def test_where_nothing_is_left_over_zero_shot_stays(n):
    found, after, before = fit(n, left_over=0.0)
    assert (after - before).mean() > -0.01
    assert (after - before).min() > -0.06
    assert found.amount.min() == 0.0 or found.weight.std() < 0.1


def test_cross_validation_tells_what_new_cells_show():
    _, target = cells_and_target(300, left_over=1.0)
    found, after, _ = fit(300, left_over=1.0)
    assert correlations(found.out_of_fold, target).mean() == pytest.approx(after.mean(), abs=0.04)


def test_an_offset_between_files_changes_nothing():
    group = np.arange(100) % 2
    plain, *_ = fit(100, left_over=1.0, group=group)
    shifted, *_ = fit(100, left_over=1.0, group=group, shift=50.0)
    np.testing.assert_allclose(shifted.gain, plain.gain, rtol=1e-6)
    np.testing.assert_allclose(shifted.weight, plain.weight, atol=1e-8)


def test_the_average_over_the_cells_is_zero():
    cells, target = cells_and_target(60, left_over=1.0)
    widths = kernel_widths(cells)
    found = correct(cells, target, np.zeros(60, int), np.full(N_PROTEINS, 0.7), widths=widths)
    fitted = found.gain * cells.zero_shot + found.bias + (
        likeness(cells, cells, widths, found.share) @ found.weight
    )  # fmt: skip
    np.testing.assert_allclose(fitted.mean(axis=0), 0.0, atol=1e-10)


def test_the_solver_agrees_with_the_normal_equations():
    cells, target = cells_and_target(40, left_over=1.0)
    group = np.zeros(40, int)
    kernel = likeness(cells, cells, kernel_widths(cells), 0.0)
    gain, weight = _Solver(kernel, cells.zero_shot, target, group, np.zeros(N_PROTEINS)).solve(2.0)
    for p in range(N_PROTEINS):
        # The same as a Gaussian process: kernel / penalty, an offset, and the gain's prior.
        centre = np.eye(40) - 1 / 40
        z = centre @ cells.zero_shot[:, p]
        covariance = centre @ kernel @ centre / 2.0 + 0.1 * np.outer(z, z) + np.eye(40)
        dual = np.linalg.solve(covariance, centre @ target[:, p])
        assert gain[p] == pytest.approx(0.1 * z @ dual)
        np.testing.assert_allclose(weight[:, p], dual / 2.0, atol=1e-9)


def test_folds_leave_out_whole_files():
    rng = np.random.default_rng(0)
    assert folds(np.array([4, 4, 7, 7, 9]), rng).tolist() == [0, 0, 1, 1, 2]
    assert sorted(folds(np.zeros(20, int), rng)) == list(range(20))
    assert np.bincount(folds(np.zeros(100, int), rng)).tolist() == [5] * 20
    assert np.bincount(folds(np.zeros(1000, int), rng)).tolist() == [200] * 5


def test_the_usual_penalty_wins_when_nothing_speaks_against_it():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(30, 4))
    good = {
        (penalty, share): target + rng.normal(size=(30, 4))
        for penalty in PENALTIES
        for share in SHARES
    }
    assert _choose(good, target)[0] in PENALTIES[2:7]
    clear = {key: value + 3.0 for key, value in good.items()} | {(10.0, 0.5): target}
    assert _choose(clear, target) == (10.0, 0.5)
    assert USUAL_PENALTY in PENALTIES


def test_the_kernel_of_a_cell_with_itself_is_one():
    cells, _ = cells_and_target(5, left_over=0.0)
    for share in SHARES:
        kernel = likeness(cells, cells, kernel_widths(cells), share)
        np.testing.assert_allclose(np.diag(kernel), 1.0, atol=1e-9)
