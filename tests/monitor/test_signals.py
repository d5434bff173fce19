"""The numbers that are taken at every step, against their definitions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dynstab
from dynstab.core.run import Signal
from dynstab.monitor.distributed import Processes
from dynstab.monitor.listening import MOST_ENTRIES, MOST_PASSES, RETURNS, TURNS, Listener
from dynstab.monitor.places import MOST_PLACES, audible, find_blocks, find_groups
from dynstab.monitor.signals import Signals
from dynstab.monitor.store import read_run


class Net(nn.Module):
    """Two blocks; keeps what they returned."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(width, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            if x.requires_grad:
                x.retain_grad()
            self.seen.append(x)
        return self.head(x)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def signals(net: Net) -> Iterator[Signals]:
    taken = Signals(net, Processes(net))
    yield taken
    taken.close()


def taken(signals: Signals, step: int = 0) -> Signal:
    return signals.take(step, 0.0, None).signal()


def rms(tensor: Tensor | None) -> float:
    assert tensor is not None
    return float(tensor.detach().square().mean().sqrt())


def test_places_are_blocks_and_groups_are_blocks_and_what_is_between(signals: Signals) -> None:
    assert signals.places == ("blocks.0", "blocks.1")
    assert signals.groups == ("stem", "blocks.0", "blocks.1", "head")


def test_activations_and_gradients_are_root_mean_squares_of_what_the_blocks_return(net: Net, signals: Signals) -> None:
    net(torch.randn(5, 4)).square().sum().backward()
    signal = taken(signals)
    assert signal.activation_rms == pytest.approx([rms(x) for x in net.seen], rel=1e-6)
    assert signal.gradient_rms == pytest.approx([rms(x.grad) for x in net.seen], rel=1e-6)
    assert signal.nonfinite_fraction == (0.0, 0.0)


def test_micro_batches_count_together(net: Net, signals: Signals) -> None:
    for size in (2, 6):
        net(torch.randn(size, 4)).sum().backward()
    whole = [torch.cat([net.seen[i], net.seen[i + 2]]) for i in range(2)]
    assert taken(signals).activation_rms == pytest.approx([rms(x) for x in whole], rel=1e-6)


def test_places_take_turns_and_keep_what_they_had_between() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(2 * TURNS)))
    signals = Signals(net, Processes(net))
    inputs, before = torch.randn(5, 3), None
    for step in range(2 * RETURNS * TURNS):
        with torch.no_grad():
            net[0].bias += 1.0
        net(inputs).sum().backward()
        signal = taken(signals, step)
        if before is not None:
            renewed = [now != old for now, old in zip(signal.activation_rms, before.activation_rms, strict=True)]
            assert renewed == [place % TURNS == step % TURNS for place in range(2 * TURNS)]
        before = signal
    signals.close()


def test_gradients_at_the_places_are_heard_once_in_sixteen_steps_each() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(TURNS + 1)))
    signals = Signals(net, Processes(net))
    heard: list[list[int]] = []
    previous = (math.nan,) * (TURNS + 1)
    for step in range(2 * RETURNS * TURNS):
        net(torch.randn(5, 3)).square().sum().backward()
        now = taken(signals, step).gradient_rms
        heard.append([place for place in range(TURNS + 1) if now[place] != previous[place]])
        previous = now
    period = RETURNS * TURNS
    assert heard[0] == list(range(TURNS + 1))
    assert heard[1:] == [[step % period] if step % period <= TURNS else [] for step in range(1, 2 * period)]
    signals.close()


def test_what_is_not_finite_is_seen_by_the_places_behind_it(net: Net, signals: Signals) -> None:
    net(torch.randn(5, 4)).sum().backward()
    assert taken(signals).nonfinite_fraction == (0.0, 0.0)
    for step in range(1, 3):
        with torch.no_grad():
            net.blocks[0][0].bias.fill_(math.nan)
        net(torch.randn(5, 4)).sum().backward()
        assert max(taken(signals, step).nonfinite_fraction) == 1.0


def test_of_many_micro_batches_some_at_even_distances_are_heard() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.zero_()
    listener = Listener(find_blocks(net))
    for passes in (MOST_PASSES, MOST_PASSES + 1, 5 * MOST_PASSES):
        for index in range(passes):
            net(torch.full((1, 2), float(index))).sum().backward()
        ((forward, _),) = listener.take().values()
        found = [float(sample[0, 0]) for sample in forward.samples]
        assert MOST_PASSES // 2 <= len(found) <= MOST_PASSES
        assert found[0] == 0.0
        assert len({b - a for a, b in zip(found, found[1:], strict=False)}) == 1
    listener.close()


def test_an_evaluation_is_not_heard(net: Net, signals: Signals) -> None:
    with torch.no_grad():
        net(torch.randn(5, 4))
    assert all(math.isnan(value) for value in taken(signals).activation_rms)


def test_entries_that_are_not_finite_are_counted(net: Net, signals: Signals) -> None:
    inputs = torch.randn(5, 4)
    inputs[0] = math.nan
    net(inputs).sum().backward()
    assert taken(signals).nonfinite_fraction == pytest.approx((0.2, 0.2))


def test_of_a_large_tensor_rows_at_even_distances_tell_the_rms() -> None:
    torch.manual_seed(0)
    net = Net(width=64)
    signals = Signals(net, Processes(net))
    net(torch.randn(4096, 4)).sum().backward()
    assert net.seen[0].numel() > 8 * MOST_ENTRIES
    assert taken(signals).activation_rms == pytest.approx([rms(x) for x in net.seen], rel=0.05)
    signals.close()


def test_gradient_norms_are_those_of_the_groups(net: Net, signals: Signals) -> None:
    net(torch.randn(5, 4)).sum().backward()
    net.stem.weight.grad = net.stem.bias.grad = None
    expected = [math.hypot(*(float(p.grad.norm()) for p in m.parameters() if p.grad is not None)) for m in net.blocks]
    found = taken(signals).gradient_norm
    assert found[1:3] == pytest.approx(expected, rel=1e-6)
    assert found[0] == 0.0


def test_groups_take_turns_with_the_norms_of_their_gradients() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(2 * TURNS)))
    signals = Signals(net, Processes(net))
    previous: tuple[float, ...] = ()
    for step in range(2 * TURNS):
        net(torch.randn(2, 3)).sum().backward()
        for i, layer in enumerate(net):
            for parameter in layer.parameters():
                parameter.grad = torch.full_like(parameter, float(1 + step + 100 * i))
        now = taken(signals, step).gradient_norm
        read = [i for i in range(len(net)) if step == 0 or i % TURNS == step % TURNS]
        assert [now[i] for i in read] == pytest.approx([(1 + step + 100 * i) * 12**0.5 for i in read])
        assert step == 0 or all(now[i] == previous[i] for i in range(len(net)) if i not in read)
        previous = now
    signals.close()


def test_a_step_without_gradients_leaves_none_and_forgets_none(net: Net, signals: Signals) -> None:
    net(torch.randn(5, 4)).sum().backward()
    first = taken(signals).gradient_norm
    net.zero_grad()
    assert all(math.isnan(norm) for norm in taken(signals, 1).gradient_norm)
    net(torch.randn(5, 4)).sum().backward()
    again = taken(signals, 2).gradient_norm
    assert [i for i in range(4) if again[i] == first[i]] == [0, 1, 3]


def test_gradients_are_read_before_the_loop_clears_them(net: Net) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    signals = Signals(net, Processes(net), optimizer)
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    signal = taken(signals)
    assert all(norm > 0 for norm in signal.gradient_norm)
    assert signal.learning_rate == 0.1
    signals.close()


def test_the_optimizer_of_another_model_is_noticed_at_once(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    for owner, times in ((net, 0), (Net(), 1)):
        Signals(net, Processes(net), torch.optim.SGD(owner.parameters(), lr=0.1)).close()
        assert caplog.text.count("holds none of the model's parameters") == times


@pytest.mark.parametrize("memory", ["contiguous", "channels last", "with gaps"])
def test_the_update_of_a_step_of_sgd_is_the_rate_times_the_gradient(memory: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 60, 3), nn.Flatten(), nn.Linear(60, 100))
    if memory == "channels last":
        net = net.to(memory_format=torch.channels_last)
    if memory == "with gaps":
        net[3].weight = nn.Parameter(torch.randn(100, 120)[:, ::2])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    signals = Signals(net, Processes(net), optimizer)
    net(torch.randn(8, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    signal = taken(signals)
    weights = [math.hypot(*(float(p.detach().norm()) for p in net[i].parameters())) for i in (0, 1, 3)]
    # The update is followed on a sample.
    assert signal.update_norm[:2] == pytest.approx([0.1 * norm for norm in signal.gradient_norm[:2]], rel=0.15)
    assert signal.weight_norm[:2] == pytest.approx(weights[:2], rel=0.15)
    assert all(norm > 0 for norm in signal.update_norm)
    signals.close()


def test_updates_of_small_tensors_are_exact(net: Net, signals: Signals) -> None:
    with torch.no_grad():
        net.head.bias += 3.0
    assert taken(signals).update_norm == pytest.approx((0.0, 0.0, 0.0, 3.0 * 3**0.5), rel=1e-5)


def test_weights_that_were_moved_elsewhere_are_followed_there(net: Net, signals: Signals) -> None:
    net.head.bias.data = net.head.bias.data.clone()
    assert all(math.isnan(value) for value in taken(signals).update_norm)
    with torch.no_grad():
        net.head.bias += 3.0
    assert taken(signals, 1).update_norm[3] == pytest.approx(3.0 * 3**0.5, rel=1e-5)


def test_a_group_that_is_not_finite_does_not_spoil_the_others(net: Net, signals: Signals) -> None:
    with torch.no_grad():
        net.blocks[0][0].bias[0] = math.nan
        net.head.bias += 3.0
    update = taken(signals).update_norm
    assert math.isnan(update[1])
    assert update[3] == pytest.approx(3.0 * 3**0.5, rel=1e-5)


def test_half_precision_does_not_overflow() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(torch.float16)
    signals = Signals(net, Processes(net))
    nn.init.constant_(net[0].bias, 6e4)
    net[0](torch.zeros(500, 4, dtype=torch.float16)).float().sum().backward()
    assert taken(signals).activation_rms[0] == pytest.approx(6e4, rel=1e-2)
    signals.close()


def test_a_place_without_a_norm_falls_silent_and_the_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight * x).to_sparse() if x.is_sparse is False else x

    net = nn.ModuleList([Odd(), nn.Linear(2, 2)])
    signals = Signals(net, Processes(net))
    net[0](torch.ones(2, 2)).to_dense().sum().backward()
    net[1](torch.ones(2, 2)).sum().backward()
    signal = taken(signals)
    assert math.isnan(signal.activation_rms[0]) and signal.activation_rms[1] > 0
    assert "0 is not listened to any more" in caplog.text
    signals.close()


def test_deep_models_are_listened_to_at_evenly_spaced_blocks() -> None:
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3 * MOST_PLACES)))
    places = audible(find_blocks(net))
    assert [place.name for place in places] == [str(i) for i in range(0, 3 * MOST_PLACES, 3)]
    assert len(find_groups(net, find_blocks(net))) == 3 * MOST_PLACES


def test_stages_are_opened_and_blocks_of_single_layers_are_not() -> None:
    block = lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh())  # noqa: E731
    net = nn.Sequential(block(), nn.Sequential(block(), block()), nn.Linear(2, 2))
    assert [place.name for place in find_blocks(net)] == ["0", "1.0", "1.1", "2"]


def test_a_list_that_is_never_called_is_no_place() -> None:
    """Shared blocks are one module, and a list of one is listened to at its member."""
    block = nn.Linear(8, 8)
    net = Net()
    net.blocks = nn.ModuleList([block, block])
    assert [place.name for place in find_blocks(net)] == ["stem", "blocks.0", "head"]
    signals = Signals(net, Processes(net))
    net(torch.randn(3, 4)).sum().backward()
    signal = taken(signals)
    signals.close()
    assert all(map(math.isfinite, signal.activation_rms))
    assert signal.activation_rms[1] == pytest.approx(math.hypot(*map(rms, net.seen)) / 2**0.5, rel=1e-5)


def test_loss_and_rate_may_be_tensors(tmp_path: Path, net: Net) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=torch.tensor(0.25))
    with dynstab.Monitor(net, optimizer=optimizer, run=tmp_path / "run.sqlite") as monitor:
        loss = net(torch.randn(5, 4)).square().mean()
        loss.backward()
        monitor.step(0, loss=loss)
        monitor.step(1, loss=2.5)
    first, second = read_run(tmp_path / "run.sqlite").signals
    assert first.loss == pytest.approx(float(loss.detach()))
    assert first.learning_rate == 0.25
    assert second.loss == 2.5
