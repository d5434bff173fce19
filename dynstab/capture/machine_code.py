"""A straight line of ATen calls as machine code.

TorchInductor takes the graph as it is. By torch.compile it would first be run by Dynamo, which takes longer than
the compilation, and would be guarded at every call by what Dynamo saw, which takes longer than the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, fx


def machine_code(
    line: fx.GraphModule, example: Sequence[Tensor], *, threads: int | None
) -> Callable[..., Sequence[Tensor]]:
    """The calls of `line` on tensors of the example's shapes, dtypes and strides; on so many threads, or all.

    Raises:
        RuntimeError: there is no C++ compiler, or an operator that TorchInductor does not know.
    """
    import torch._inductor  # a second that only those who compile should wait for

    options = {} if threads is None else {"cpp.threads": threads}
    return cast(Callable[..., Sequence[Tensor]], torch._inductor.compile(line, list(example), options=options))
