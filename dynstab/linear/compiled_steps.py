"""Several steps of a map with their tangents as machine code, for orbits of very many short steps.

Between two ATen calls on a few thousand numbers torch is busy for longer than with the numbers. torch.compile
fuses them all, and several steps to a call spread what the call itself costs. Tangents lie along the
last dimension, where they stay side by side whatever a step does to the state's own dimensions.
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
        x: an example. contexts: those further tensors, of each step. k: tangents.

    Raises:
        ConfigError: torch.compile refuses: there is no C++ compiler, or f is nothing that torch.func follows.
        CaptureError: f takes another way at a later call.
    """

    def __init__(self, f: Callable[..., Tensor], x: Tensor, contexts: Sequence[tuple[Tensor, ...]], k: int) -> None:
        self._f, self._steps, self._calls, self.k = f, len(contexts), 0, k
        tangents = torch.randn(*x.shape, k, generator=torch.Generator().manual_seed(0)).to(x)
        arguments = (x, *_stacked(contexts), tangents)
        options: dict[str, str | int | bool | Callable[..., object]] = {}
        if tangents.numel() < _WORTH_A_THREAD:
            options["cpp.threads"] = 1
        try:
            # The traced code is this orbit's own: it shares no limit on recompilations with other orbits.
            line = straight_line(self._both, arguments)
            self._run = torch.compile(line, fullgraph=True, dynamic=False, options=options)
            with torch.no_grad():
                found = self._run(*arguments)
        except (RuntimeError, CaptureError) as error:
            raise ConfigError(
                f"compile=True: {type(error).__name__}: {first_line(error)[:160]}",
                expected="a C++ compiler, and a step that torch.func can follow",
                remedy="compile=False needs neither",
            ) from error
        self._compare(arguments, found)

    @torch.no_grad()
    def __call__(self, x: Tensor, contexts: Sequence[tuple[Tensor, ...]], tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The states (steps, *shape), and what the (k, *shape) tangents have become."""
        arguments = (x, *_stacked(contexts), tangents.movedim(0, -1).contiguous())
        found = self._run(*arguments)
        self._calls += 1
        if self._calls & (self._calls - 1) == 0:
            self._compare(arguments, found)
        return found[0], found[1].movedim(-1, 0)

    def _both(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, *stacks, tangents = arguments
        states = []
        for row in range(self._steps):
            x, tangents = self._pushed(x, [stack[row] for stack in stacks], tangents)
            states.append(x)
        return torch.stack(states), tangents

    def _pushed(self, x: Tensor, context: Sequence[Tensor], tangents: Tensor) -> tuple[Tensor, Tensor]:
        def along(tangent: Tensor) -> tuple[Tensor, ...]:
            return torch.func.jvp(lambda x: self._f(x, *context), (x,), (tangent,))

        after, moved = torch.func.vmap(along, in_dims=-1, out_dims=(0, -1))(tangents)
        return after[0], moved

    @torch.no_grad()
    def _compare(self, arguments: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> None:
        if not all(_close(a, b) for a, b in zip(found, self._both(*arguments), strict=True)):
            raise CaptureError(
                f"the step took another way at call {self._calls} than the one that was compiled",
                expected="a step without branches on values",
                remedy="write the branch with torch.where",
            )


def _stacked(contexts: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.stack(tensors) for tensors in zip(*contexts, strict=True)]


def _close(found: Tensor, expected: Tensor) -> bool:
    # Rounding differs, and grows from step to step as the tangents do.
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    scale = float(expected.abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
