"""Several steps of a map with their tangents as machine code, for orbits of very many short steps.

Between two ATen calls on a few thousand numbers torch is busy for longer than with the numbers. Compiled they are
fused, several steps to a call, and where the columns have to be kept independent at short intervals that
happens inside. Small tangents lie along the last dimension, where they stay side by side whatever a step does to
the state's own; in front, as rows, where a step is made of matrix products, which are faster so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dynstab.capture.joint_products import join_products
from dynstab.capture.machine_code import machine_code
from dynstab.capture.straight_line import traced_line
from dynstab.core.errors import CaptureError, ConfigError, first_line
from dynstab.linear.layout import Layout
from dynstab.linear.tangent_program import TangentProgram

Context = tuple[Tensor, ...]


class CompiledSteps:
    """(x, contexts, V) -> the states after each step, V pushed through all of them, and what was taken out of V.

    Compared with the steps themselves when made and at calls 1, 2, 4, 8, ...

    Args:
        f: of a tensor and further tensors that do not move; pure, and without branches on values.
        x: an example. contexts: those further tensors, of each step. k: tangents.
        layout: of x, as one sample or several. every: so many steps after each of which V is made independent by
            elimination; 0 is never. program: of f with k tangents.

    Raises:
        ConfigError: it cannot be compiled: there is no C++ compiler, or f is nothing that torch.func follows.
        CaptureError: f takes another way at a later call.
    """

    def __init__(
        self,
        f: Callable[..., Tensor],
        x: Tensor,
        contexts: Sequence[Context],
        program: TangentProgram,
        layout: Layout,
        *,
        every: int = 0,
    ) -> None:
        self._f, self._program, self._layout = f, program, layout
        self.steps, self.every, self.k, self._calls = len(contexts), every, program.k, 0
        self._rows = program.has_products
        tangents = torch.randn(program.k, *x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        arguments = (x, *_stacked(contexts), self._laid(tangents))
        # Waking threads up would cost more than they save.
        self._small = tangents.numel() < 2**16 and not self._rows and x.device.type == "cpu"
        try:
            line = join_products(traced_line(self._all, arguments))
            self._run = machine_code(line, arguments, threads=1 if self._small else None)
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
    def __call__(self, x: Tensor, contexts: Sequence[Context], tangents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a multiple of the steps that were compiled.

        Returns:
            The states (steps, *shape), the (k, *shape) tangents that are left, and the triangular factors
            (eliminations, samples, k, k) that were taken out of them.
        """
        moved, states, factors = self._laid(tangents), [], []
        for start in range(0, len(contexts), self.steps):
            arguments = (x, *_stacked(contexts[start : start + self.steps]), moved.contiguous())
            with _one_thread(self._small):
                after, moved, taken = found = self._run(*arguments)
            x = after[-1]
            states.append(after)
            factors.append(taken)
            self._calls += 1
            if self._calls & (self._calls - 1) == 0:
                self._compare(arguments, found)
        return torch.cat(states), moved if self._rows else moved.movedim(-1, 0), torch.cat(factors)

    def _laid(self, tangents: Tensor) -> Tensor:
        return (tangents if self._rows else tangents.movedim(0, -1)).contiguous()

    def _all(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, *stacks, tangents = arguments
        states, factors = [], [x.new_empty(0, self._layout.samples, self.k, self.k)]
        for row in range(self.steps):
            x, tangents = self._pushed(x, [stack[row] for stack in stacks], tangents)
            states.append(x)
            if self.every and (row + 1) % self.every == 0:
                tangents, upper = self._eliminated(tangents)
                factors.append(upper[None])
        return torch.stack(states), tangents, torch.cat(factors)

    def _pushed(self, x: Tensor, context: Sequence[Tensor], tangents: Tensor) -> tuple[Tensor, Tensor]:
        if self._rows:
            return self._program.recorded(x, *context, tangents)

        def along(tangent: Tensor) -> tuple[Tensor, ...]:
            return torch.func.jvp(lambda x: self._f(x, *context), (x,), (tangent,))

        after, moved = torch.func.vmap(along, in_dims=-1, out_dims=(0, -1))(tangents)
        return after[0], moved

    def _eliminated(self, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """V = F U by LU with partial pivoting; F = V U^-1 needs no list of the rows that changed places."""
        columns = self._layout.flatten((tangents if self._rows else tangents.movedim(-1, 0),))
        upper = torch.linalg.lu_factor_ex(columns)[0][:, : self.k].triu()
        frame = torch.linalg.solve_triangular(upper.mT, columns.mT, upper=False).mT
        (left,) = self._layout.unflatten(frame)
        return left if self._rows else left.movedim(0, -1), upper

    @torch.no_grad()
    def _compare(self, arguments: tuple[Tensor, ...], found: Sequence[Tensor]) -> None:
        pairs = zip(self._put_together(found), self._put_together(self._all(*arguments)), strict=True)
        if not all(_close(a, b) for a, b in pairs):
            raise CaptureError(
                f"the step took another way at call {self._calls} than the one that was compiled",
                expected="a step without branches on values",
                remedy="write the branch with torch.where",
            )

    def _put_together(self, found: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The states and the whole V: which rows elimination chose may hang on a last digit."""
        states, tangents, factors = found
        columns = self._layout.flatten((tangents if self._rows else tangents.movedim(-1, 0),))
        for upper in factors.flip(0):
            columns = columns @ upper
        return states, columns


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Torch's own kernels and LAPACK, which a compiled line calls, on one thread, if so wanted."""
    threads = torch.get_num_threads()
    if wanted and threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted and threads > 1:
            torch.set_num_threads(threads)


def _stacked(contexts: Sequence[Context]) -> list[Tensor]:
    return [torch.stack(tensors) for tensors in zip(*contexts, strict=True)]


def _close(found: Tensor, expected: Tensor) -> bool:
    # Rounding differs, and grows from step to step as the tangents do.
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    scale = float(expected.abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
