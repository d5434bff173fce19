"""Several steps of a map with their tangents as machine code, for orbits of very many short steps.

Between two ATen calls on a few thousand numbers torch does nothing for longer than it computes. torch.compile
fuses all of them; several steps to a call spread what the call itself costs. Tangents lie along the
last dimension, where whatever a step does to the state's own dimensions leaves them side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynstab.capture.straight_line import straight_line
from dynstab.core.errors import CaptureError, ConfigError, first_line

_WORTH_A_THREAD = 2**16  # tangent entries: below, waking threads up costs more than they save


class CompiledSteps:
    """(x, contexts, V) -> the states after each step, and V pushed through all of them.

    Compared with the steps themselves when made and at calls 1, 2, 4, 8, ...

    Args:
        f: of a tensor and further tensors that do not move; pure, and without branches on values.
        x: an example. contexts: of the steps, alike in shapes. k: tangents.

    Raises:
        ConfigError: torch.compile refuses: there is no C++ compiler, or f is nothing that torch.func follows.
        CaptureError: f takes another way at a later call.
    """

    def __init__(self, f: Callable[..., Tensor], x: Tensor, contexts: Sequence[tuple[Tensor, ...]], k: int) -> None:
        self._f, self._calls = f, 0
        generator = torch.Generator().manual_seed(0)
        tangents = torch.randn(*x.shape, k, generator=generator).to(x)
        arguments = (x, *_stacked(contexts), tangents)
        options = {"cpp.threads": 1} if tangents.numel() < _WORTH_A_THREAD else {}
        try:
            # The traced code is this orbit's own: compiled by itself it shares no limit with other orbits.
            line = straight_line(self._both, arguments)
            self._run = torch.compile(line, fullgraph=True, dynamic=False, options=options)
            with torch.no_grad():
                found = self._run(*arguments)
        except (RuntimeError, CaptureError, ValueError) as error:
            raise ConfigError(
                f"compile=True: {type(error).__name__}: {first_line(error)[:200]}",
                expected="a C++ compiler, and a step of torch operations without branches on values",
                remedy="compile=False needs neither",
            ) from error
        self._compare(arguments, found)

    @torch.no_grad()
    def __call__(
        self, x: Tensor, contexts: Sequence[tuple[Tensor, ...]], tangents: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The states, and (k, *shape) tangents moved."""
        arguments = (x, *_stacked(contexts), tangents.movedim(0, -1).contiguous())
        found = self._run(*arguments)
        self._calls += 1
        if self._calls & (self._calls - 1) == 0:
            self._compare(arguments, found)
        return list(found[0].unbind()), found[1].movedim(-1, 0)

    def _both(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, *stacks, tangents = arguments
        states = []
        for row in range(self._steps(stacks)):
            context = [stack[row] for stack in stacks]
            x, tangents = _pushed(lambda x, context=context: self._f(x, *context), x, tangents)
            states.append(x)
        return torch.stack(states), tangents

    @torch.no_grad()
    def _compare(self, arguments: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> None:
        # Rounding grows on the way as the tangents do.
        if not all(_close(a, b) for a, b in zip(found, self._both(*arguments), strict=True)):
            raise CaptureError(
                f"the step took another way at call {self._calls} than the one that was compiled",
                expected="a step without branches on values",
                remedy="write the branch with torch.where, or leave compile=True out",
            )
