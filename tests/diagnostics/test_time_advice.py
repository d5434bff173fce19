"""What a recurrence that forgets is advised to change: something that it has."""

from __future__ import annotations

import pytest

from dynstab.core.time_dynamics import GateUse
from dynstab.diagnostics import matching_rules
from dynstab.diagnostics.case import Case


def advice(*gates: str) -> str:
    uses = tuple(GateUse(name=name) for name in gates)
    case = Case(time="time", kind="plain", dynamics={"reach": 5.0, "sequence": 200, "gates": uses})
    (flag,) = matching_rules("DS602")[0].check(case.facts())
    return " ".join(flag.advice)


def test_a_recurrence_without_gates_is_advised_about_its_weights_and_not_about_gates() -> None:
    told = advice()
    assert "orthogonal or near the identity" in told and "bias" not in told


@pytest.mark.parametrize(
    ("gates", "named", "unnamed"),
    [
        (("input gate, layer 0", "forget gate, layer 0", "output gate, layer 0"), "forget gates", "update gates"),
        (("reset gate", "update gate"), "update gates", "forget gates"),
        (("gate",), "gates where they keep the state", "forget gates"),
    ],
)
def test_a_recurrence_with_gates_is_advised_to_open_those_that_keep_its_state(
    gates: tuple[str, ...], named: str, unnamed: str
) -> None:
    told = advice(*gates)
    assert named in told and unnamed not in told and "or use a cell with gates" not in told.lower()


@pytest.mark.parametrize("rate", [0.4, -0.4])
def test_a_flow_is_advised_about_its_field_and_interval_and_not_about_layers(rate: float) -> None:
    (flag,) = matching_rules("DS101" if rate > 0 else "DS102")[0].check(
        Case(time="flow", kind="plain", gradient_rate=rate).facts()
    )
    told = " ".join(flag.advice)
    assert "Shorten the interval" in told and "skip connections" not in told
