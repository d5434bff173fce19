"""Recurrences in every form that people write them, against autograd and against answers known in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynstab.core.errors import InputError, StateError
from dynstab.systems.time import WINDOW, TimeSystem, is_recurrent, time_system
from dynstab.systems.time_recurrence import HELD_STEPS

T, B, F, H = 12, 3, 2, 4


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def initialised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Double precision, entries that do not depend on torch's global state."""
    module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 * seeded(*parameter.shape, seed=seed + i).to(parameter.dtype))
    return module


class Wrapped(nn.Module):
    """Embedding, recurrent layer, head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(7, F), nn.GRU(F, H, batch_first=True)
        self.head = nn.Linear(H, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(tokens))[0])


class Looped(nn.Module):
    """A cell in a loop of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(F, H), nn.Linear(H, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        state = (sequence.new_zeros(sequence.shape[1], H),) * 2
        outputs = []
        for x in sequence:
            state = self.cell(x, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs)


class Tied(nn.Module):
    """One block applied again and again."""

    def __init__(self, times: int = 5) -> None:
        super().__init__()
        self.times, self.block = times, nn.Sequential(nn.Linear(H, H), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.block(x)
        return x.sum(-1)


class Cell(nn.Module):
    """A user's cell, forward(state, drive) -> (output, state)."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.drive = nn.Linear(H, H), nn.Linear(F, H)

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.own(state) + self.drive(x))
        return state.sum(-1), state


class PairCell(nn.Module):
    """A user's cell with a state of two parts, forward(input, state)."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.drive = nn.Linear(H, H), nn.Linear(F, H)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        fast, slow = state
        slow = 0.9 * slow + self.drive(x)
        return torch.tanh(self.own(fast) + slow), slow


class Stepping(nn.Module):
    """A module that says itself how it steps, as state-space layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.linspace(0.5, 0.95, H, dtype=torch.float64))

    def default_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, H, dtype=torch.float64)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.rate * state + x.sum(-1, keepdim=True)
        return state.sum(-1), state

    def forward(self, x: Tensor) -> Tensor:
        return x


class LRU(nn.Module):
    """A complex diagonal recurrence (Orvieto et al. 2023), scanned in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.05, 0.6, H))
        self.phase = nn.Parameter(torch.linspace(0.1, 2.0, H))

    def eigenvalues(self) -> Tensor:
        return torch.exp(torch.complex(-self.decay, self.phase))

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], H, dtype=torch.complex64)
        outputs = []
        for t in range(x.shape[1]):
            state = self.eigenvalues() * state + x[:, t, :1].to(torch.complex64)
            outputs.append(state.real.sum(-1))
        return torch.stack(outputs, 1)


def assert_is_verified(system: TimeSystem) -> None:
    assert system.checks and all(check.passed for check in system.checks), system.checks


def assert_jacobians_are_autograds(system: TimeSystem) -> None:
    """Of the last step, sample by sample, against torch.autograd on the module's own step."""
    recurrence, last = system.recurrence, system.trajectory.states[-2]
    inputs = recurrence.at(recurrence.length - 1)

    def step(columns: Tensor) -> Tensor:
        state = tuple(tensor[0] for tensor in last.layout.unflatten(columns[:, :, None]))
        return last.layout.flatten(tuple(tensor[None] for tensor in recurrence.step(state, inputs)))[:, :, 0]

    columns = last.layout.flatten(tuple(tensor[None] for tensor in last.value))[:, :, 0]
    expected = torch.autograd.functional.jacobian(step, columns)
    found = system.trajectory.steps[-1].jacobian.dense()
    for i in range(last.layout.samples):
        for j in range(last.layout.samples):
            block = expected[i, :, j]
            torch.testing.assert_close(found[i] if i == j else torch.zeros_like(block), block, rtol=1e-9, atol=1e-12)


SEQUENCE = seeded(T, B, F, seed=9)
LAYERS: dict[str, tuple[nn.Module, tuple[Any, ...], int]] = {
    "rnn": (nn.RNN(F, H), (SEQUENCE,), H),
    "rnn, relu, batch first": (nn.RNN(F, H, nonlinearity="relu", batch_first=True), (SEQUENCE.transpose(0, 1),), H),
    "lstm, two layers": (nn.LSTM(F, H, 2), (SEQUENCE,), 4 * H),
    "lstm, projected": (nn.LSTM(F, H, proj_size=2), (SEQUENCE,), H + 2),
    "lstm, given a state": (nn.LSTM(F, H), (SEQUENCE, (seeded(1, B, H), seeded(1, B, H, seed=1))), 2 * H),
    "gru": (nn.GRU(F, H), (SEQUENCE,), H),
    "gru, both directions, two layers": (nn.GRU(F, H, 2, bidirectional=True), (SEQUENCE,), 4 * H),
    "lstm, both directions, projected": (nn.LSTM(F, H, proj_size=3, bidirectional=True), (SEQUENCE,), 2 * (H + 3)),
    "rnn cell": (nn.RNNCell(F, H), (SEQUENCE,), H),
    "lstm cell": (nn.LSTMCell(F, H), (SEQUENCE,), 2 * H),
    "gru cell": (nn.GRUCell(F, H), (SEQUENCE, seeded(B, H)), H),
    "cell in a loop": (Looped(), (SEQUENCE,), 2 * H),
    "embedded": (Wrapped(), (torch.randint(0, 7, (B, T), generator=torch.Generator().manual_seed(0)),), H),
    "user's cell, state first": (Cell(), (seeded(B, H), SEQUENCE), H),
    "user's cell, a pair": (PairCell(), (SEQUENCE, (seeded(B, H), seeded(B, H, seed=1))), 2 * H),
}


@pytest.mark.parametrize(("module", "args", "size"), LAYERS.values(), ids=LAYERS.keys())
def test_a_recurrence_has_the_states_and_jacobians_of_the_module(module: nn.Module, args: Any, size: int) -> None:
    system = time_system(initialised(module), args)
    trajectory = system.trajectory
    assert_is_verified(system)
    assert (trajectory.kind, trajectory.time_unit, trajectory.held) == ("time", "step", False)
    # A first state of zeros is left out: it has no size to compare with.
    assert len(trajectory.steps) in (T - 1, T) and trajectory.states[-1].size == size
    assert trajectory.samples == B and not trajectory.coupled
    assert_jacobians_are_autograds(system)


def test_the_directions_of_a_layer_are_its_two_halves_on_sequences_that_run_both_ways() -> None:
    layer = initialised(nn.LSTM(F, H, bidirectional=True))
    assert isinstance(layer, nn.LSTM)
    system = time_system(layer, (SEQUENCE,))
    both = system.trajectory.states[-1].value
    _, (h, c) = layer(SEQUENCE)
    for found, expected in zip(both, (h[0], c[0], h[1], c[1]), strict=True):
        torch.testing.assert_close(found, expected.detach())
    matrix = system.trajectory.steps[-1].jacobian.dense()[0]
    assert not matrix[: 2 * H, 2 * H :].any() and not matrix[2 * H :, : 2 * H].any()


def test_the_upper_layer_of_a_bidirectional_stack_is_driven_by_both_directions_below() -> None:
    layer = initialised(nn.GRU(F, H, 2, bidirectional=True))
    assert isinstance(layer, nn.GRU)
    system = time_system(layer, (SEQUENCE,))
    _, h = layer(SEQUENCE)
    for i, found in enumerate(system.trajectory.states[-1].value):
        torch.testing.assert_close(found, h[i].detach())


def test_an_unbatched_sequence_is_one_input() -> None:
    system = time_system(initialised(nn.GRU(F, H)), (SEQUENCE[:, 0],))
    assert_is_verified(system)
    assert system.trajectory.samples == 1 and system.trajectory.states[0].size == H


def test_a_tied_block_is_a_recurrence_that_goes_on_where_the_model_stops() -> None:
    module = initialised(Tied())
    system = time_system(module, (seeded(B, H),))
    assert_is_verified(system)
    trajectory = system.trajectory
    assert trajectory.held and len(trajectory.steps) == 5
    assert trajectory.whole is not None and len(trajectory.whole.steps) == 200
    x = seeded(B, H)
    for _ in range(5):
        x = module.block(x)  # type: ignore[operator]
    torch.testing.assert_close(trajectory.states[-1].value[0], x.detach())


def test_a_fixed_point_that_a_solver_seeks_is_iterated_from_where_it_stopped() -> None:
    class Equilibrium(nn.Module):
        """Damped iteration: no call takes what the last one returned."""

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(F, H)

        def forward(self, x: Tensor) -> Tensor:
            z = x.new_zeros(x.shape[0], H)
            for _ in range(60):
                z = 0.5 * z + 0.5 * self.cell(x, z)
            return z

    module = initialised(Equilibrium())
    with torch.no_grad():
        module.cell.weight_hh.mul_(0.3)  # type: ignore[union-attr, operator]
    system = time_system(module, (SEQUENCE[0],))
    assert_is_verified(system)
    rest = module(SEQUENCE[0]).detach()
    assert system.trajectory.whole is not None
    torch.testing.assert_close(system.trajectory.whole.states[0].value[0], rest, rtol=1e-6, atol=1e-8)


def test_a_map_of_the_state_alone_is_followed() -> None:
    class Henon(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return torch.stack([1 - 1.4 * state[0] ** 2 + state[1], 0.3 * state[0]])

    system = time_system(Henon(), (torch.tensor([0.1, 0.1], dtype=torch.float64),))
    assert_is_verified(system)
    assert system.trajectory.held and len(system.trajectory.steps) == WINDOW
    assert system.trajectory.whole is not None and len(system.trajectory.whole.steps) == HELD_STEPS
    determinants = torch.linalg.det(torch.stack([step.jacobian.dense()[0] for step in system.trajectory.steps]))
    torch.testing.assert_close(determinants, torch.full_like(determinants, -0.3))


def test_a_module_with_a_step_steps_as_it_says() -> None:
    module = Stepping()
    system = time_system(module, (SEQUENCE.transpose(0, 1),))
    assert_is_verified(system)
    matrix = system.trajectory.steps[-1].jacobian.dense()
    torch.testing.assert_close(matrix[0], torch.diag(module.rate.detach()))


class S4D(nn.Module):
    """A diagonal state-space layer (Gu et al. 2022) that steps on complex states of (features, modes)."""

    def __init__(self, modes: int = 3) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.complex(-torch.linspace(0.1, 0.5, modes), torch.arange(1.0, 1.0 + modes)))
        self.out = nn.Parameter(
            torch.randn(F, modes, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        )

    def default_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, *self.out.shape, dtype=torch.complex64)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.rate.exp() * state + x[..., None]
        return (self.out * state).real.sum(-1), state


def test_a_step_on_complex_states_has_the_eigenvalues_of_its_multipliers() -> None:
    module = S4D().double()
    system = time_system(module, (SEQUENCE.transpose(0, 1),), dtype=torch.float64)
    assert_is_verified(system)
    assert (system.trajectory.samples, system.trajectory.states[-1].size) == (B, F * 3 * 2)
    found = torch.linalg.eigvals(system.trajectory.steps[-1].jacobian.dense()[0])
    multipliers = module.rate.detach().to(torch.complex128).exp()
    wanted = torch.cat([multipliers, multipliers.conj()])
    assert max(float((found - value).abs().min()) for value in wanted) < 1e-9
    assert max(float((wanted - value).abs().min()) for value in found) < 1e-9


def test_sequence_and_state_of_a_step_may_come_in_either_order_and_either_layout() -> None:
    class StateFirst(Stepping):
        def step(self, state: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.rate * state + x.sum(-1, keepdim=True)

    start = seeded(B, H)
    for module in (Stepping(), StateFirst()):
        runs = [
            time_system(module, args)
            for sequence in (SEQUENCE, SEQUENCE.transpose(0, 1))
            for args in ((sequence, start), (start, sequence))
        ]
        lasts = [run.trajectory.states[-1].value[0] for run in runs]
        assert all(torch.equal(last, lasts[0]) for last in lasts)
        assert runs[0].recurrence.length == T


def test_a_real_state_that_comes_back_complex_is_told() -> None:
    with pytest.raises(InputError, match="give a complex first state"):
        time_system(S4D(), (SEQUENCE.float(), torch.zeros(B, F, 3)))


def test_a_scan_of_complex_states_has_the_eigenvalues_of_its_multipliers() -> None:
    module = LRU()
    system = time_system(module, (SEQUENCE.transpose(0, 1).float(),))
    assert_is_verified(system)
    found = torch.linalg.eigvals(system.trajectory.steps[-1].jacobian.dense()[0].double())
    wanted = torch.cat([module.eigenvalues(), module.eigenvalues().conj()]).detach()
    for value in wanted:
        assert float((found - value).abs().min()) < 1e-6


def test_mamba_remembers_by_the_exponential_of_its_input_dependent_step() -> None:
    transformers = pytest.importorskip("transformers", reason="Mamba is transformers' own")
    config = transformers.MambaConfig(num_hidden_layers=2, hidden_size=8, state_size=4, vocab_size=11)
    model = transformers.MambaModel(config).eval()
    tokens = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(0))
    system = time_system(model, (), {"input_ids": tokens})
    assert_is_verified(system)
    trajectory = system.trajectory
    assert trajectory.states[-1].size == 2 * 16 * 4 and trajectory.samples == 2
    # A = -exp(A_log) < 0 and dt > 0: every multiplier lies in (0, 1), and the Jacobian is diagonal.
    matrix = trajectory.steps[-1].jacobian.dense()
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)
    assert bool(((diagonal > 0) & (diagonal < 1)).all())
    torch.testing.assert_close(matrix, torch.diag_embed(diagonal))


def test_a_gated_cell_that_is_written_out_is_no_scan() -> None:
    class Gated(nn.Module):
        """h <- z h + (1 - z) x with a gate z that looks at h: the multiplier depends on the state."""

        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                z = torch.sigmoid(self.gate(h))
                h = z * h + (1 - z) * x[:, t]
            return h.sum(0, keepdim=True)

    with pytest.raises(InputError, match="no recurrence"):
        time_system(Gated(), (seeded(B, T, 1).float(),))


def test_a_long_sequence_is_looked_at_near_its_end() -> None:
    system = time_system(initialised(nn.GRU(F, H)), (seeded(300, B, F),))
    assert_is_verified(system)
    trajectory = system.trajectory
    assert len(trajectory.steps) == WINDOW and trajectory.states[-1].name.endswith("t=300")
    assert trajectory.whole is not None and len(trajectory.whole.steps) == 299
    # The same Jacobian, kept and linearised anew.
    kept, anew = trajectory.steps[-1].jacobian, trajectory.whole.steps[-1].jacobian
    torch.testing.assert_close(kept.dense(), anew.dense())
    cotangents = seeded(B, H, 2)
    torch.testing.assert_close(kept.rmatmat(cotangents), anew.rmatmat(cotangents))


def test_a_step_that_branches_on_values_keeps_its_own_derivatives() -> None:
    class Branching(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return 0.5 * state if float(state.sum()) > 0 else 2.0 * state

    start = torch.tensor([1.0, -0.5], dtype=torch.float64)
    system = time_system(Branching(), (start,))
    assert_is_verified(system)
    first = (system.trajectory.whole or system.trajectory).steps[0].jacobian.dense()[0]
    torch.testing.assert_close(first, 0.5 * torch.eye(2, dtype=torch.float64))


def test_a_state_that_leaves_every_bound_ends_the_trajectory_there() -> None:
    class Logistic(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return 4.5 * state * (1 - state)

    system = time_system(Logistic(), (torch.tensor([0.3]),))
    states = (system.trajectory.whole or system.trajectory).states
    assert not states[-1].value[0].isfinite().all() and all(s.value[0].isfinite().all() for s in states[:-1])
    last = len(states) - 1
    assert f"the run ends at t={last} of {HELD_STEPS}, where a state is not finite" in system.trajectory.notes


def test_a_sequence_that_is_not_finite_is_told_from_a_state_that_diverges() -> None:
    sequence = SEQUENCE.clone()
    sequence[4, 0, 0] = math.nan
    system = time_system(initialised(nn.GRU(F, H)), (sequence,))
    assert f"the run ends at t=5 of {T}, where the input is not finite" in system.trajectory.notes
    start = torch.full((1, B, H), math.nan, dtype=torch.float64)
    system = time_system(initialised(nn.GRU(F, H)), (SEQUENCE, start))
    assert "the first state is not finite" in system.trajectory.notes


def test_one_step_of_a_sequence_is_driven_by_it_and_no_map_of_the_state_alone() -> None:
    assert not time_system(initialised(nn.GRU(F, H)), (SEQUENCE[:1],)).trajectory.held
    assert time_system(initialised(nn.GRU(F, H)), (SEQUENCE[:1].expand(5, -1, -1),)).trajectory.held


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        (nn.LSTM(F, H), (), "given no input"),
        (nn.LSTM(F, H), (torch.zeros(T, B, F + 1),), "an input of shape"),
        (nn.GRUCell(F, H), (torch.zeros(0, B, F),), "without a step"),
        (nn.RNN(F, H), (nn.utils.rnn.pack_sequence([torch.zeros(3, F), torch.zeros(2, F)]),), "packed sequence"),
        (nn.Linear(F, H), (torch.zeros(B, F),), "of a state .3, 2. float32 it makes .3, 4. float32"),
        (nn.Identity(), (torch.zeros(B, F, dtype=torch.int64),), "int64 is no state of floating-point"),
    ],
)
def test_what_cannot_be_stepped_is_answered_in_a_sentence(module: nn.Module, args: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        time_system(module, args)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("module", [nn.LSTM(F, H), nn.GRU(F, H, bidirectional=True), nn.LSTMCell(F, H)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_an_input_of_another_dtype_is_answered_in_a_sentence(module: nn.Module, dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=f"{str(dtype)[6:]}.*expected float32, as its weights are"):
        time_system(module, (torch.ones(T, B, F, dtype=dtype),))


@pytest.mark.parametrize("module", [nn.GRU(F, H), nn.GRUCell(F, H)])
def test_a_state_of_another_size_is_answered_in_a_sentence(module: nn.Module) -> None:
    shape = (1, B + 1, H) if isinstance(module, nn.GRU) else (B + 1, H)
    with pytest.raises(InputError, match="expected .* a state of its size"):
        time_system(module, (torch.ones(T, B, F), torch.zeros(shape)))


def test_a_forward_that_is_iterated_is_said_to_be_and_a_sequence_is_given_a_way_on() -> None:
    halving = nn.Linear(F, F).double()
    with torch.no_grad():
        halving.weight.copy_(0.5 * torch.eye(F, dtype=torch.float64))
    (note,) = (n for n in time_system(halving, (SEQUENCE[0],)).trajectory.notes if "map" in n)
    assert "its input (3, 2) float64 is the first state" in note and "sequence" not in note
    (note,) = (n for n in time_system(halving, (SEQUENCE,)).trajectory.notes if "map" in n)
    assert "if that is a sequence" in note and "step(input, state)" in note


def test_other_recurrent_parts_of_a_model_are_named() -> None:
    class Decoding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.GRU(F, H), nn.GRUCell(F, H)

        def forward(self, sequence: Tensor) -> Tensor:
            h = self.encoder(sequence)[1][0]
            for _ in range(3):
                h = self.decoder(sequence[-1], h)
            return h

    notes = time_system(initialised(Decoding()), (SEQUENCE,)).trajectory.notes
    assert "the recurrence is encoder, the largest layer; not part of it: decoder" in notes

    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleList([nn.GRUCell(F, H), nn.GRUCell(H, H)])

        def forward(self, sequence: Tensor) -> Tensor:
            low = high = sequence.new_zeros(B, H)
            for x in sequence:
                low = self.cells[0](x, low)
                high = self.cells[1](low, high)
            return high

    notes = time_system(initialised(Stacked()), (SEQUENCE,)).trajectory.notes
    assert "the recurrence is cells.0; not part of it: cells.1" in notes


def test_a_step_that_counts_in_a_buffer_counts_in_one_of_its_own() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, state: Tensor) -> Tensor:
            self.calls += 1
            return 0.5 * state

    module = Counting()
    trajectory = time_system(module, (torch.ones(B, H),)).trajectory
    trajectory.steps[0].function(trajectory.states[0].value)
    assert module.calls == 0


def test_a_script_without_a_single_forward_can_be_asked_whether_it_steps() -> None:
    assert not is_recurrent(torch.jit.script(nn.LSTM(F, H)), (), {})


@pytest.mark.parametrize("layer", [nn.LSTM(F, H), nn.GRU(F, H)])
def test_a_script_is_refused_with_a_way_on(layer: nn.Module) -> None:
    with pytest.raises(InputError, match="script.*expected the module.*factory"):
        time_system(torch.jit.script(layer), (torch.ones(T, B, F),))


def test_a_step_that_forgets_its_state_is_no_recurrence() -> None:
    class Forgetting(nn.Module):
        def forward(self, state: Tensor) -> Tensor:
            return torch.ones_like(state)

    with pytest.raises(StateError, match="does not depend"):
        time_system(Forgetting(), (torch.ones(2),))


def test_a_cell_without_a_sequence_has_its_input_held_and_the_report_says_so() -> None:
    system = time_system(initialised(nn.LSTMCell(F, H)), (SEQUENCE[0],))
    assert system.trajectory.held and any("held for" in note for note in system.trajectory.notes)


def test_the_module_comes_back_as_it_was() -> None:
    module = nn.LSTM(F, H, 2, dropout=0.5).double()
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    time_system(module, (SEQUENCE,))
    assert module.training and torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters()) and not module._forward_hooks


def test_auto_takes_what_is_recurrent_and_little_else() -> None:
    assert is_recurrent(nn.LSTM(F, H), (), {}) and is_recurrent(nn.GRUCell(F, H), (), {})
    assert is_recurrent(Wrapped(), (), {})
    assert not is_recurrent(nn.Sequential(nn.Conv1d(2, 2, 3), nn.LSTM(F, H)), (), {})
    assert not is_recurrent(nn.Linear(2, 2), (), {})


def test_the_states_are_computed_in_the_dtype_that_was_asked_for() -> None:
    module = nn.GRU(F, H)
    system = time_system(module, (SEQUENCE.float(),), dtype=torch.float64)
    assert_is_verified(system)
    assert system.trajectory.states[-1].value[0].dtype is torch.float64
    assert module.weight_hh_l0.dtype is torch.float32


def test_gates_are_named_in_the_order_of_their_sigmoids() -> None:
    layer = nn.LSTM(F, H).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0.copy_(
            torch.cat([torch.full((H,), bias, dtype=torch.float64) for bias in (1.0, 2.0, 0.0, 3.0)])
        )
    system = time_system(layer, (SEQUENCE,))
    gates = {each.name: float(each.output.mean()) for each in system.trajectory.steps[-1].activations}
    wanted = {"input gate": 1.0, "forget gate": 2.0, "output gate": 3.0}
    assert gates == pytest.approx({name: 1 / (1 + math.exp(-bias)) for name, bias in wanted.items()})
