"""Covariant Lyapunov vectors of systems whose directions are known."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor

from dynstab.estimators.covariant import covariant_vectors
from dynstab.linear.operator import DenseOperator

F64 = torch.float64


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def henon_steps(count: int) -> tuple[list[DenseOperator], Tensor]:
    """Jacobians and states of the Henon map on its attractor."""
    state, operators, states = torch.tensor([0.1, 0.1], dtype=F64), [], []
    for time in range(count + 100):
        if time >= 100:
            operators.append(DenseOperator(torch.stack([torch.stack([-2.8 * state[0], state.new_ones(())]),
                                                        torch.tensor([0.3, 0.0], dtype=F64)])))  # fmt: skip
            states.append(state)
        state = torch.stack([1 - 1.4 * state[0] ** 2 + state[1], 0.3 * state[0]])
    return operators, torch.stack(states)


def test_vectors_of_a_tied_linear_map_are_its_eigenvectors() -> None:
    basis, multipliers = seeded(4, 4), torch.tensor([2.0, 1.0, 0.5, 0.1], dtype=F64)
    matrix = basis @ torch.diag(multipliers) @ torch.linalg.inv(basis)
    found = covariant_vectors([DenseOperator(matrix)] * 180, 4, lead_in=70, lead_out=70, keep_frames=True)
    unit = basis / basis.norm(dim=0)
    assert found.outcome == "converged"
    for time in (0, 20, 39):
        cosines = (found.vectors[0, time].mT @ unit).abs().diagonal()
        torch.testing.assert_close(cosines, torch.ones(4, dtype=F64))
    torch.testing.assert_close(found.growth[0], multipliers.log())
    expected = (unit.mT @ unit).abs().clamp(max=1).acos().fill_diagonal_(0.0)
    torch.testing.assert_close(found.angles()[0, 10], expected, rtol=0, atol=1e-7)


def test_splitting_is_the_smallest_principal_angle_between_the_two_spans() -> None:
    basis = seeded(5, 5, seed=3)
    matrix = basis @ torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.3, 0.1], dtype=F64)) @ torch.linalg.inv(basis)
    found = covariant_vectors([DenseOperator(matrix)] * 200, 5, lead_in=80, lead_out=80)
    first, second = torch.linalg.qr(basis[:, :2]).Q, torch.linalg.qr(basis[:, 2:]).Q
    expected = float(torch.linalg.svdvals(first.mT @ second).amax().acos())
    assert found.splitting(2)[0].tolist() == pytest.approx([expected] * 40, abs=1e-8)


def test_a_step_carries_each_vector_into_itself() -> None:
    operators = [DenseOperator(seeded(6, 6, seed=i) / 6**0.5) for i in range(300)]
    found = covariant_vectors(operators, 4, lead_in=120, lead_out=120, keep_frames=True)
    for time in range(found.vectors.shape[1] - 1):
        image = operators[120 + time].matrices[0] @ found.vectors[0, time]
        image = image / image.norm(dim=0)
        cosines = (image * found.vectors[0, time + 1]).sum(0).abs()
        torch.testing.assert_close(cosines, torch.ones(4, dtype=F64), rtol=0, atol=1e-8)


def test_henon_directions_are_those_of_a_long_push_and_a_long_push_back() -> None:
    operators, _ = henon_steps(400)
    found = covariant_vectors(operators, 2, lead_in=100, lead_out=100, keep_frames=True)
    # By brute force: any tangent pushed forth turns unstable, any tangent pushed back turns stable.
    for time in (100, 150, 200, 299):
        forth = torch.tensor([1.0, 0.3], dtype=F64)
        for operator in operators[time - 60 : time]:
            forth = operator.matrices[0] @ forth
            forth = forth / forth.norm()
        back = torch.tensor([0.4, 1.0], dtype=F64)
        for operator in reversed(operators[time : time + 60]):
            back = torch.linalg.solve(operator.matrices[0], back)
            back = back / back.norm()
        vectors = found.vectors[0, time - 100]
        assert float((vectors[:, 0] * forth).sum().abs()) == pytest.approx(1, abs=1e-9)
        assert float((vectors[:, 1] * back).sum().abs()) == pytest.approx(1, abs=1e-9)


def test_henon_has_tangencies_and_the_exponents_of_its_orbit() -> None:
    operators, _ = henon_steps(4000)
    found = covariant_vectors(operators, 2, lead_in=100, lead_out=100)
    angles = found.splitting(1)[0]
    assert 0 < float(angles.min()) < 0.02 and float(angles.max()) <= pi / 2
    assert found.growth[0].tolist() == pytest.approx([0.41922, -1.62319], abs=0.03)


def test_a_lost_direction_has_no_vector_and_that_is_said() -> None:
    singular = DenseOperator(torch.diag(torch.tensor([1.0, 0.5, 0.0], dtype=F64)))
    found = covariant_vectors([singular] * 60, 3, lead_in=20, lead_out=20)
    assert "a direction is lost" in found.outcome and bool(found.coefficients.isnan().any())


def test_no_step_between_the_transients_is_refused() -> None:
    with pytest.raises(ValueError, match="leave none"):
        covariant_vectors([DenseOperator(torch.eye(2, dtype=F64))] * 10, 2, lead_in=5, lead_out=5)
