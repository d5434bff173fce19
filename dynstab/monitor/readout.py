"""Numbers on their way from a device to the host, for which nobody waits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Readout:
    """The values of vectors, copied without synchronising the device.

    On CUDA the copy goes to pinned memory behind the work already queued, with an event after it; on the
    CPU the numbers are there at once.
    """

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self._vectors, self._event = list(vectors), None
        if any(not vector.is_cpu for vector in vectors):
            flat = _joined(vectors)
            self._vectors = [flat]
            if flat.is_cuda:
                host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
                host.copy_(flat, non_blocking=True)
                self._event = torch.cuda.Event()
                self._event.record(torch.cuda.current_stream(flat.device))
                self._vectors = [host]

    @property
    def ready(self) -> bool:
        """Whether `values` answers without waiting."""
        return self._event is None or self._event.query()

    def values(self) -> list[float]:
        """The numbers, one vector after another; waits for them where they are not there yet."""
        if self._event is not None:
            self._event.synchronize()
        return [value for vector in self._vectors for value in vector.tolist()]


def _joined(vectors: Sequence[Tensor]) -> Tensor:
    # Copies to an accelerator are ordered by its stream; copies from it to the host would have to be waited for.
    home = next(vector.device for vector in vectors if not vector.is_cpu)
    wide = torch.float64 if any(vector.dtype == torch.float64 for vector in vectors) else torch.float32
    return torch.cat([vector.to(home, wide, non_blocking=True) for vector in vectors])
