"""Recurrences from the command line and the library to a report that a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import dynstab
from dynstab.cli import app
from dynstab.core.report import Report
from dynstab.render import render

QUICK = dynstab.Config(system="time", effort="quick", k=4)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recurrent(gain: float, units: int = 24) -> nn.RNN:
    torch.manual_seed(0)
    layer = nn.RNN(4, units)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(gain * seeded(units, units, seed=1) / units**0.5)
    return layer


class Equilibrium(nn.Module):
    """z <- tanh(W z + x) forty times from zero; W has one singular value."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(gain * torch.linalg.qr(seeded(6, 6)).Q)
        self.block = Block(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(40):
            z = self.block(z, x)
        return z


class Block(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.weight.T + x)


@pytest.fixture(scope="module")
def chaotic() -> Report:
    return dynstab.analyze(recurrent(4.0), 0.1 * seeded(220, 8, 4), config=dynstab.Config(system="time", k=4))


def names(report: Report) -> set[str]:
    return {flag.name for flag in report.flags}


def test_a_chaotic_network_is_found_to_be_so(chaotic: Report) -> None:
    assert {"chaotic-recurrence", "exploding-gradient"} <= names(chaotic)
    assert chaotic.verdict.kind == "exploding" and "in time" in chaotic.verdict.summary
    (flag,) = (flag for flag in chaotic.flags if flag.name == "chaotic-recurrence")
    assert flag.evidence["value"] == chaotic.measurements.lyapunov.qr[0].value
    assert flag.evidence["threshold"] == pytest.approx(4 * chaotic.measurements.lyapunov.qr[0].error)


def test_a_network_of_small_gain_forgets() -> None:
    report = dynstab.analyze(recurrent(0.4), seeded(120, 8, 4), config=QUICK)
    assert {"forgetting-recurrence", "vanishing-gradient"} <= names(report)
    assert "chaotic-recurrence" not in names(report) and report.verdict.kind == "vanishing"


def test_auto_reads_a_recurrent_layer_as_time_and_a_network_as_depth() -> None:
    config = dynstab.Config(effort="quick", k=2)
    assert dynstab.analyze(nn.GRU(3, 4), seeded(30, 8, 3), config=config).system.kind == "time"
    assert (
        dynstab.analyze(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), seeded(8, 3), config=config).system.kind == "depth"
    )


def test_an_equilibrium_that_attracts_is_stable_and_its_vanishing_gradient_is_no_fault() -> None:
    report = dynstab.analyze(Equilibrium(0.6), 0.1 * seeded(8, 6, seed=2), config=QUICK)
    assert report.verdict.kind == "stable" and "attracts" in report.verdict.summary
    assert "vanishing-gradient" not in names(report)
    assert "rests at" in render(report, "console")


def test_a_start_at_an_exact_zero_that_repels_is_flagged() -> None:
    report = dynstab.analyze(Equilibrium(1.5), torch.zeros(8, 6), config=QUICK)
    (flag,) = (flag for flag in report.flags if flag.name == "unstable-fixed-point")
    assert flag.evidence["value"] == pytest.approx(1.5, abs=1e-3)
    assert report.verdict.kind != "stable"


def test_a_report_over_time_survives_its_file(chaotic: Report, tmp_path: Path) -> None:
    chaotic.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == chaotic


@pytest.mark.parametrize("width", [80, 200])
def test_a_page_over_time_fits_its_width_and_does_not_speak_of_depth(chaotic: Report, width: int) -> None:
    from dynstab.render.formats.console import render as console

    text = console(chaotic, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "Along time" in text and "Covariant Lyapunov vectors" in text
    assert "depth" not in text.replace("depth smoothness", "")


def test_the_page_holds_the_charts_of_the_chapter(chaotic: Report, tmp_path: Path) -> None:
    assert {"time_convergence", "time_memory"} <= set(chaotic.figures())
    chaotic.to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "Exponents as they settle" in text and "Memory: the gradient through time" in text


def test_a_file_is_analysed_over_time_from_the_command_line(tmp_path: Path) -> None:
    torch.save(recurrent(1.0), tmp_path / "rnn.pt")
    arguments = ["analyze", str(tmp_path / "rnn.pt"), "--system", "time", "--input", "randn:120,8,4", "-k", "2"]
    arguments += ["--effort", "quick", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(app, arguments, prog_name="dynstab")
    assert result.exit_code == 0, result.output
    report = Report.load(tmp_path / "r.json")
    assert report.system.kind == "time" and report.measurements.time is not None
    assert report.measurements.time.steps + report.measurements.time.discarded == 119


def test_a_users_own_map_is_analysed_over_time_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "henon.py").write_text(
        "import torch\n"
        "class Henon(torch.nn.Module):\n"
        "    def forward(self, state):\n"
        "        x, y = state[..., 0], state[..., 1]\n"
        "        return torch.stack([1 - 1.4 * x * x + y, 0.3 * x], -1)\n"
    )
    arguments = ["analyze", f"{tmp_path / 'henon.py'}:Henon", "--system", "time", "--effort", "quick"]
    arguments += ["--input", "zeros:1,2:float64", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(app, arguments, prog_name="dynstab")
    assert result.exit_code == 0, result.output
    report = Report.load(tmp_path / "r.json")
    assert report.provenance.dtype == "float64"  # that of the start: the map has no parameters
    leading, last = report.measurements.lyapunov.qr
    assert leading.value is not None and leading.error is not None
    assert abs(leading.value - 0.41922) < 4 * leading.error
    assert leading.value + (last.value or 0.0) == pytest.approx(-1.2039728, abs=1e-6)  # ln 0.3


def test_a_recurrence_without_input_is_answered_in_one_sentence(tmp_path: Path) -> None:
    torch.save(recurrent(1.0), tmp_path / "rnn.pt")
    arguments = ["analyze", str(tmp_path / "rnn.pt"), "--system", "time", "--input", "randn:120,8,5"]
    result = CliRunner().invoke(app, arguments, prog_name="dynstab")
    assert result.exit_code == 2
    assert "(120, 8, 5)" in result.output and "expected" in result.output and "Traceback" not in result.output


def test_fewer_inputs_are_fewer_sequences_and_not_shorter_ones() -> None:
    config = QUICK.model_copy(update={"samples": 3})
    report = dynstab.analyze(nn.GRU(3, 4), seeded(30, 8, 3), config=config)
    assert (report.provenance.samples, len(report.system.steps)) == (3, 29)
    report = dynstab.analyze(nn.GRU(3, 4, batch_first=True), seeded(8, 30, 3), config=config)
    assert (report.provenance.samples, len(report.system.steps)) == (3, 29)


def test_an_inspection_shows_the_steps_in_time() -> None:
    found = dynstab.inspect(nn.LSTM(3, 4), seeded(12, 8, 3), config=QUICK)
    assert found.system.kind == "time" and len(found.system.steps) == 11
