"""Numbers on their way from a device to the host, for which nobody waits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Readout:
    """The values of 0-dimensional tensors, then of vectors, copied without synchronising the device.

    On CUDA the copy goes to pinned memory behind the work already queued, with an event after it; on the
    CPU the numbers are there at once.
    """

    def __init__(self, scalars: Sequence[Tensor], vectors: Sequence[Tensor] = ()) -> None:
        self._flat, self._event = _joined(scalars, vectors), None
        if self._flat.is_cuda:
            host = torch.empty(self._flat.shape, dtype=self._flat.dtype, pin_memory=True)
            host.copy_(self._flat, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(self._flat.device))
            self._flat = host

    @property
    def ready(self) -> bool:
        """Whether `values` answers without waiting."""
        return self._event is None or self._event.query()

    def values(self) -> list[float]:
        """The numbers, in the order given; waits for them where they are not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return self._flat.tolist()


def _joined(scalars: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
    tensors = (*scalars, *vectors)
    if not tensors:
        return torch.empty(0)
    # Copies to an accelerator are ordered by its stream; copies from it to the host would have to be waited for.
    home = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    alike = [
        [each if (each.device, each.dtype) == (home, wide) else each.to(home, wide, non_blocking=True) for each in held]
        for held in (scalars, vectors)
    ]
    parts = [torch.stack(alike[0])] if scalars else []
    return torch.cat([*parts, *alike[1]])
