from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from sparsesc.stats.core._student import log_normal_tail, log_p_two_sided, t_of_normal


def test_agrees_with_scipy_over_all_sizes_of_t_and_df():
    rng = np.random.default_rng(0)
    t = np.concatenate([10 ** rng.uniform(-4, 4, 20_000), rng.normal(size=20_000) * 4])
    df = 10 ** rng.uniform(0, 5, len(t))
    expected = 2 * stats.t.sf(np.abs(t), df)
    representable = expected > 1e-290
    np.testing.assert_allclose(np.exp(log_p_two_sided(t, df))[representable], expected[representable], rtol=1e-7)


def test_no_underflow_far_out():
    log_p = log_p_two_sided(np.array([50.0, 200.0, 1e4]), 1e5)
    assert np.isfinite(log_p).all()
    assert (np.diff(log_p) < 0).all()
    assert log_p[0] == pytest.approx(np.log(2) + special.log_ndtr(-50.0), rel=2e-2)  # nearly normal


def test_zero_has_p_of_one_and_sign_does_not_matter():
    assert log_p_two_sided(np.zeros(2), 7.5).tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(log_p_two_sided(np.array([-3.0]), 9), log_p_two_sided(np.array([3.0]), 9))


@pytest.mark.parametrize("z", [0.0, 1.0, 8.0, 24.9, 25.1, 300.0])
def test_normal_tail(z):
    assert log_normal_tail(z) == pytest.approx(special.log_ndtr(-z), rel=1e-12)


@pytest.mark.parametrize("df", [1.0, 2.0, 3.0, 5.0, 11.0, 40.0, 1e3])
def test_t_of_a_normal_deviate_has_its_tail(df):
    z = np.array([1e-3, 0.1, 0.7, 1.96, 3.0, 5.0, 9.0])
    t = np.array([t_of_normal(each, df) for each in z])
    np.testing.assert_allclose(stats.t.logsf(t, df), special.log_ndtr(-z), rtol=1e-6)
    assert (t >= z).all()
    assert t_of_normal(0.0, df) == 0
