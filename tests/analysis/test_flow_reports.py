"""Neural differential equations from a file to a report, and what the report then says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

import dynstab
from dynstab.cli import app
from dynstab.core.config import Config
from dynstab.core.report import Report
from dynstab.render.charts import figures
from dynstab.render.charts.flow_stability import boundary
from dynstab.render.topics import topics

torchdiffeq = pytest.importorskip("torchdiffeq", reason="neural ODEs are torchdiffeq's")

QUICK = Config(effort="quick")
SCRIPT = """
import torch
from torch import nn
from torchdiffeq import odeint


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, t, x):
        return self.net(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.field, self.head = Field(), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(odeint(self.field, x, torch.linspace(0.0, 1.0, 5), method="rk4")[-1])


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(8, 3)


def field():
    torch.manual_seed(0)
    return Field()
"""


class Linear(nn.Module):
    def __init__(self, matrix: Tensor, end: float = 2.0, steps: int = 20, **how: Any) -> None:
        super().__init__()
        self.matrix, self.how = nn.Parameter(matrix), how
        self.times = torch.linspace(0.0, end, steps + 1)

    def forward(self, x: Tensor) -> Tensor:
        return torchdiffeq.odeint(lambda t, y: y @ self.matrix.T, x, self.times.to(x), **self.how)[-1]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="dynstab")


def codes(report: Report) -> set[str]:
    return {flag.code for flag in report.flags}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flows") / "ode.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("system", ["flow", "auto"])
def test_a_neural_ode_is_analysed_from_the_command_line(script: Path, tmp_path: Path, system: str) -> None:
    out = tmp_path / "r.json"
    result = command("analyze", f"{script}:make", "--system", system, "--effort", "quick", "--json", out)
    assert result.exit_code == 0, result.output
    report = Report.load(out)
    assert report.system.kind == "flow" and report.measurements.flow is not None
    assert report.measurements.flow.solver == "rk4" and report.measurements.flow.accepted == 4
    assert all(check.passed for check in report.verification)
    assert "Flow  x' = f(t, x), t = 0 to 1" in result.output


def test_a_vector_field_is_analysed_from_the_command_line(script: Path) -> None:
    result = command("analyze", f"{script}:field", "--system", "flow", "--input", "randn:8,3", "--effort", "quick")
    assert result.exit_code == 0, result.output
    assert "forward is read as the vector field" in " ".join(result.output.split())


def test_a_model_that_solves_nothing_is_refused_with_a_way_on() -> None:
    with pytest.raises(dynstab.DynstabError) as refused:
        dynstab.analyze(nn.Linear(3, 2), torch.randn(4, 3), config=Config(system="flow"))
    assert "solves no differential equation" in str(refused.value) and "expected" in str(refused.value)


def test_every_format_shows_the_chapter_and_the_report_survives_its_file(tmp_path: Path) -> None:
    report = dynstab.analyze(Linear(-torch.eye(3)), torch.randn(4, 3), config=QUICK)
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report
    (chapter,) = [topic for topic in topics(report) if topic.title == "Flow"]
    assert dict(chapter.remarks)["solver"].startswith("7 steps, 0 rejected") or chapter.tables
    drawn = figures(report)
    assert {"flow_stability", "flow_steps"} <= set(drawn)
    report.to_html(tmp_path / "r.html")
    assert "stability region" in (tmp_path / "r.html").read_text()


def test_the_boundary_of_the_region_is_where_the_modulus_is_one() -> None:
    for polynomial in ((1.0, 1.0), (1.0, 1.0, 0.5, 1 / 6, 1 / 24)):
        x, y = boundary(polynomial)
        points = [complex(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
        sizes = [abs(sum(c * z**j for j, c in enumerate(polynomial))) for z in points]
        assert max(abs(size - 1) for size in sizes) < 2e-3


def test_a_decay_beyond_the_region_is_flagged_and_a_gentle_one_is_not() -> None:
    x = torch.randn(4, 3)
    report = dynstab.analyze(Linear(-30 * torch.eye(3), method="rk4"), x, config=QUICK)
    assert "DS612" in codes(report)
    (flag,) = [flag for flag in report.flags if flag.code == "DS612"]
    assert flag.evidence["value"] == pytest.approx(1.375, abs=1e-4)
    assert not codes(dynstab.analyze(Linear(-0.5 * torch.eye(3), method="rk4"), x, config=QUICK)) & {
        "DS611", "DS612", "DS613", "DS614", "DS615", "DS616",
    }  # fmt: skip


def test_a_stiff_field_is_flagged() -> None:
    matrix = torch.diag(torch.tensor([-400.0, -1.0, -0.5]))
    report = dynstab.analyze(Linear(matrix, end=1.0, rtol=1e-3, atol=1e-3), torch.randn(4, 3), config=QUICK)
    assert "DS613" in codes(report)
    flow = report.measurements.flow
    assert flow is not None and flow.stiffness_ratio.value == pytest.approx(800.0, rel=1e-3)


def test_a_coarse_adjoint_is_flagged() -> None:
    class Coarse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
            self.field = Wrapped(self.net)

        def forward(self, x: Tensor) -> Tensor:
            times = torch.tensor([0.0, 1.0])
            return torchdiffeq.odeint_adjoint(self.field, x, times, method="euler", options={"step_size": 0.25})[-1]

    class Wrapped(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return 4 * self.net(x)

    report = dynstab.analyze(Coarse(), torch.randn(8, 3), config=QUICK)
    assert "DS614" in codes(report)


def test_a_solution_that_blows_up_is_an_error_and_never_a_plausible_number() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torchdiffeq.odeint(lambda t, y: y.square(), x, torch.tensor([0.0, 2.0]))[-1]

    report = dynstab.analyze(Square(), torch.tensor([[1.0], [0.5]]), config=QUICK)
    (flag,) = [flag for flag in report.flags if flag.code == "DS611"]
    assert flag.severity == "error" and "did not reach t = 2" in flag.message
    assert report.measurements.flow is not None and not report.measurements.flow.solution_error.measured
    assert report.verdict.kind != "stable"


def test_the_part_of_a_solution_before_it_stops_is_no_stable_system() -> None:
    """A field that is NaN after t = 1: nothing grows before, and nothing is known of the rest."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            times = torch.tensor([0.0, 2.0])
            return torchdiffeq.odeint(lambda t, y: torch.sqrt(1 - t) * y, x, times, rtol=1e-6, atol=1e-6)[-1]

    report = dynstab.analyze(Root(), torch.randn(4, 2), config=QUICK)
    assert "DS611" in codes(report) and report.verdict.kind == "inconclusive"
    assert "not solved to its end" in report.verdict.summary


def test_the_report_says_that_a_stiff_decay_was_not_followed_and_why_steps_back_miss():
    class Stiff(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -2000 * (x - torch.cos(t))

    report = dynstab.analyze(Stiff(), torch.ones(1, 2), config=Config(effort="standard", system="flow"))
    (stiff,) = (flag for flag in report.flags if flag.code == "DS613")
    assert "do not follow that decay" in stiff.message
    chapter = next(topic for topic in topics(report) if topic.title == "Flow")
    assert dict(chapter.remarks)["exponents"].startswith("of the solver's map")
    assert "trained by" not in dict(chapter.remarks)

    coarse = dynstab.analyze(Linear(torch.tensor([[0.0, 3.0], [-3.0, 0.0]]), method="euler"), torch.ones(1, 2))
    (back,) = (flag for flag in coarse.flags if flag.code == "DS615")
    assert "information was lost" not in back.message and back.advice[1].startswith("Take smaller steps")


def test_a_way_back_that_leaves_the_numbers_is_infinite_and_told(tmp_path: Path) -> None:
    class Lorenz(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            a, b, c = x.unbind(-1)
            return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], dim=-1)

    class Solved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = Lorenz()

        def forward(self, x: Tensor) -> Tensor:
            times = torch.tensor([0.0, 5.0])
            how = {"method": "rk4", "options": {"step_size": 0.02}, "adjoint_params": ()}
            return torchdiffeq.odeint_adjoint(self.field, x, times, **how)[-1]

    report = dynstab.analyze(Solved(), torch.tensor([[1.0, 1.0, 20.0]]), config=QUICK)
    flow = report.measurements.flow
    assert flow is not None
    assert flow.outcome == "converged" and flow.reversal_error.value == torch.inf
    said = {flag.code: flag.message for flag in report.flags}
    assert "infinity or NaN" in said["DS615"] and "infinite or NaN" in said["DS614"]
    report.save(tmp_path / "report.json")
    loaded = Report.load(tmp_path / "report.json")
    assert loaded.measurements.flow == flow and codes(loaded) == codes(report)


def test_a_decay_that_steps_follow_with_ease_is_not_called_stiff() -> None:
    matrix = torch.diag(torch.tensor([-400.0, -1.0]))
    fine = Linear(matrix, end=1.0, steps=1000, method="rk4")
    assert "DS613" not in codes(dynstab.analyze(fine, torch.randn(4, 2), config=QUICK))
