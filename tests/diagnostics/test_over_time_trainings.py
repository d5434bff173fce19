"""The rules over time on real trainings under the real monitor: one that diverges and one that does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pytest.importorskip("sklearn", reason="the runs train on scikit-learn's digits")
    import early_warning
    import early_warning_runs

    with caplog.at_level(logging.CRITICAL, "dynstab.monitor"):  # puts back the level that the study sets
        yield SimpleNamespace(**vars(early_warning), runs=early_warning_runs)


def test_a_learning_rate_that_climbs_is_warned_of_before_the_loss_doubles(study: SimpleNamespace) -> None:
    found = study.outcome((study.runs.ramp_momentum, 0), ["dense"])
    assert found.diverged is not None
    assert found.lead() >= 20
    assert found.warned["dense"].by == "warmup-too-short"


@pytest.mark.parametrize("kind", ["healthy_momentum", "healthy_dropout_adam"])
def test_a_network_at_a_rate_that_suits_it_has_no_warning(study: SimpleNamespace, kind: str) -> None:
    found = study.outcome((getattr(study.runs, kind), 0), ["dense"])
    assert (found.diverged, found.warned["dense"].step) == (None, None)


def test_divergence_is_a_smoothed_loss_that_doubles_or_is_not_finite(study: SimpleNamespace) -> None:
    steady, doubling, broken = study.Divergence(), study.Divergence(), study.Divergence()
    assert not any(steady.seen(1.0 + 0.5 * (step % 2)) for step in range(100))
    seen = [doubling.seen(1.0 if step < 50 else 3.0) for step in range(70)]
    # 3 - 2 * 0.9^n passes 2 at n = 7.
    assert seen.index(True) == 50 + 7 - 1
    assert [broken.seen(loss) for loss in (1.0, float("nan"))] == [False, True]
