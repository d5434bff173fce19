"""A straight-line functional graph of ATen ops, with live parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from dynstab.core.report import Choices


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a module computed on given inputs.

    Placeholders of `module` are the parameters and buffers, then the tensors among the
    inputs, in that order. Each node's `meta` holds `path`, the module that it ran in,
    and `call`, how often that module had been entered by then.

    Attributes:
        parameters: live: the graph sees an optimizer's update (names as in `named_parameters`).
        inputs: the tensors among the inputs, in the order of the flattened arguments.
        input_names: for people, e.g. "input_ids".
        output_paths: where each output sat in what forward returned, e.g. "logits".
        rung: which way of tracing succeeded. notes: what a reader of the report should know.
        choices: what was settled where the model leaves more than one answer.
    """

    module: fx.GraphModule
    parameters: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...] = ()
    output_paths: tuple[str, ...] = ()
    rung: str = "pre-dispatch"
    notes: tuple[str, ...] = field(default=())
    choices: Choices = Choices()

    def arguments(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The values for the placeholders: the parameters as they are now, then the inputs."""
        return [*(p.detach() for p in self.parameters.values()), *(self.inputs if inputs is None else inputs)]

    @property
    def placeholders(self) -> list[fx.Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]

    @property
    def parameter_nodes(self) -> dict[fx.Node, str]:
        """Placeholders of parameters and buffers, with their names."""
        return dict(zip(self.placeholders, self.parameters, strict=False))

    @property
    def input_nodes(self) -> list[fx.Node]:
        return self.placeholders[len(self.parameters) :]

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        """The nodes that hold the tensors that forward returned."""
        (node,) = (n for n in self.module.graph.nodes if n.op == "output")
        return tuple(node.args[0])  # type: ignore[arg-type]

    def call(self, inputs: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Run the graph: the outputs, in the order of `output_paths`."""
        with torch.no_grad():
            result: Any = self.module(*self.arguments(inputs))
        return list(result)
