"""The report: everything that was found, as plain data, schema version 1.0."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError

from dynstab.core.config import Config
from dynstab.core.errors import ConfigError, ReportError
from dynstab.core.files import write_whole
from dynstab.core.flag import Flag, Verdict
from dynstab.core.frozen import Frozen
from dynstab.core.measurements import Measurements

SCHEMA_VERSION = "1.0"


class Provenance(Frozen):
    """Who measured, when, with what. `routes` counts the ops by how they were linearised."""

    dynstab: str
    torch: str
    device: str
    dtype: str
    seed: int
    config: Config
    created: str
    seconds: float
    products: int
    samples: int = 1
    routes: dict[str, int] = {}
    interrupted: bool = False


class ModelInfo(Frozen):
    """What was analysed.

    Attributes:
        source: the file, directory or reference; the class for a module in memory. format: how it was read.
        class_name: of the module, "class" in JSON. parameters: how many numbers it learns.
        trusted: whether code that the file names was run. dtype: of most of the parameters.
        fresh_norms: BatchNorm layers that have never seen a batch: in eval mode they do not normalise yet.
    """

    source: str
    format: str
    class_name: str = Field(validation_alias=AliasChoices("class", "class_name"), serialization_alias="class")
    parameters: int
    trusted: bool
    dtype: str = "float32"
    fresh_norms: int = 0

    model_config = {**Frozen.model_config, "populate_by_name": True, "serialize_by_alias": True}


class Check(Frozen):
    """One verification of the capture. `error` is the largest relative deviation; `detail` says what was compared."""

    check: str
    passed: bool
    error: float | None
    detail: str = ""


class StateInfo(Frozen):
    """`size` counts the entries for one input; `tokens` is how many positions share the features, if any."""

    index: int
    name: str
    shape: tuple[int, ...]
    size: int
    tokens: int | None = None


class StepInfo(Frozen):
    """One step, from state `source` to state `target`.

    Attributes:
        kind: residual (h + f(h)), plain (of the same size), or transition (to another size or shape).
        residual_coefficient: a in h_{l+1} = a h_l + f(h_l), None where the step has no identity path.
        block: module path of the block that it belongs to. parameters: that it reads.
    """

    index: int
    name: str
    kind: Literal["residual", "plain", "transition"]
    source: int
    target: int
    residual_coefficient: float | None = None
    block: str = ""
    parameters: int = 0


class Choices(Frozen):
    """What an analysis had to settle where a model leaves more than one answer.

    Attributes:
        branches: where forward turned a value that depends on the input into a Python number, "net.py:12": the
            analysis follows the path that was taken at these inputs.
        functions: custom autograd Functions that forward calls.
        linearisation: whose derivative is shown, that of their forward or what their own backward says.
        backward_gap: how far the model's own gradient is from the one shown, relative to its norm; None
            where the two agree.
    """

    branches: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    linearisation: Literal["forward", "backward"] = "forward"
    backward_gap: float | None = None


class SystemInfo(Frozen):
    """The dynamical system that the model was read as.

    Attributes:
        kind: depth, time, flow or training. time_unit: what one step is. inputs: the example inputs, in words.
        states, steps: in order; step l leads from state l to state l + 1. rung: by what the graph was captured.
        notes: what a reader should know before the numbers.
    """

    kind: str
    time_unit: str
    inputs: tuple[str, ...]
    states: tuple[StateInfo, ...]
    steps: tuple[StepInfo, ...]
    rung: str = ""
    notes: tuple[str, ...] = ()
    choices: Choices = Choices()

    @property
    def axis(self) -> str:
        """Along what the steps lie, in a word: depth, time, or training."""
        return {"flow": "time"}.get(self.kind, self.kind)


class Report(Frozen):
    """What `dynstab analyze` found: see the schema in `Report.model_json_schema()`."""

    schema_version: str = SCHEMA_VERSION
    provenance: Provenance
    model: ModelInfo
    verification: tuple[Check, ...]
    system: SystemInfo
    measurements: Measurements
    flags: tuple[Flag, ...]
    verdict: Verdict

    def to_json(self) -> str:
        """The report as JSON text, non-finite numbers as strings."""
        return self.model_dump_json(indent=1, by_alias=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, whole or not at all.

        Raises:
            ReportError: the file cannot be written.
        """
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read a report of this major schema version.

        Raises:
            ReportError: no such file, not JSON, not a report, or of another schema version.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ReportError(f"{path} cannot be read as a report ({reason})", expected="a report.json") from error
        try:
            report = cls.model_validate_json(text)
        except (ValidationError, ConfigError) as error:
            if isinstance(error, ConfigError):
                cause = f"provenance.config: {error.got}"
            else:
                first = error.errors()[0]
                cause = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
            got = f"{path} is not a dynstab report ({cause})"
            raise ReportError(got, expected="JSON that dynstab wrote") from error
        if report.schema_version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ReportError(
                f"{path} has schema version {report.schema_version}",
                expected=f"{SCHEMA_VERSION.split('.')[0]}.x",
                remedy="render it with the dynstab that wrote it",
            )
        return report

    def to_html(self, path: str | os.PathLike[str], *, assets: str = "inline") -> None:
        """Write the report as one HTML page that opens offline, with the documentation of the rules that were run.

        Args:
            assets: "inline" keeps the charts' script inside the page; "shared" writes it once beside the page,
                for a folder of reports.

        Raises:
            ReportError: the file cannot be written.
        """
        from dynstab.diagnostics import selected_rules
        from dynstab.render import write_html

        config = self.provenance.config
        write_html(self, path, rules=selected_rules(config.select, config.ignore), assets=assets)

    def figures(self) -> dict[str, Any]:
        """The interactive charts of the report by name, each a plotly `Figure`; those without numbers are left out."""
        from dynstab.render import figures

        return figures(self)

    def _repr_html_(self) -> str:
        from dynstab.render import notebook_html

        return notebook_html(self)

    def __str__(self) -> str:
        from dynstab.render import render

        return render(self, "console")

    def __repr__(self) -> str:
        return f"<Report {self.model.class_name}: {self.verdict.kind}, {len(self.flags)} flags>"
