"""Training on several processes: what each of them may do alone, and what all of them must do together.

DDP     the module behind the wrapper is whole on every process: the first one probes it alone
FSDP2   every process gathers the whole parameters (a collective) into a plain copy of the module;
        the module itself is never unsharded by a probe, so there is nothing to reshard
tensor parallel, FSDP1    refused
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dynstab.capture.capture import unwrap
from dynstab.core.errors import ConfigError


class Processes:
    """The processes that train one model.

    Attributes:
        rank, count: of this one, and how many there are. sharded: no process holds the whole parameters.

    Raises:
        ConfigError: the parameters are spread in a way that is not served.
    """

    def __init__(self, model: nn.Module) -> None:
        alone = not (dist.is_available() and dist.is_initialized())
        self.rank, self.count = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
        self.sharded = _is_sharded(model)
        tensors = (tensor for tensor in (*model.parameters(), *model.buffers()))
        self._device = next((local(tensor).device for tensor in tensors), torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process keeps the records."""
        return self.rank == 0

    def largest(self, value: float) -> float:
        """The largest `value` over all processes. Collective."""
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=self._device)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return float(held)

    def norms(self, parts: Tensor) -> Tensor:
        """Norms of whole tensors from the norms of this process's parts. Collective where they are sharded."""
        if not self.sharded or self.count == 1:
            return parts
        squares = parts.square()
        dist.all_reduce(squares)
        return squares.sqrt()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors without their shards, detached. Collective where they are sharded."""
        return {name: _whole(tensor.detach()) for name, tensor in tensors.items()}

    def plain(self, model: nn.Module) -> nn.Module:
        """The model as one process would have it; the module itself unless it is sharded. Collective."""
        root = unwrap(model)
        if not self.sharded:
            return root
        from dynstab.capture.plain import plain_copy

        return plain_copy(root, lambda tensor: _whole(tensor.detach()))


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, or the tensor itself."""
    return tensor.to_local() if _is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def _is_distributed(tensor: Tensor) -> bool:
    if not dist.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if _is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def _is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` holds the parameters.

    Raises:
        ConfigError: they are spread by tensor parallelism, or by FullyShardedDataParallel.
    """
    if not dist.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    modules = list(model.modules())
    if any(isinstance(module, FullyShardedDataParallel) for module in modules):
        raise ConfigError(
            "a model in FullyShardedDataParallel, which hides its parameters in flat ones",
            remedy="use torch.distributed.fsdp.fully_shard",
        )
    spread = [parameter for parameter in model.parameters() if _is_distributed(parameter)]
    if not spread:
        return False
    managed = any(isinstance(module, FSDPModule) for module in modules)
    if not managed or any(_is_tensor_parallel(parameter) for parameter in spread):
        raise ConfigError(
            "a tensor-parallel model: its layers are split over processes",
            expected="a model on one process, or under DistributedDataParallel or fully_shard",
            remedy="monitor a smaller copy that fits on one device",
        )
    return True


def _is_tensor_parallel(parameter: Tensor) -> bool:
    """`fully_shard` alone shards over the last dimension of the mesh, and replicates over the others."""
    *others, last = parameter.placements  # type: ignore[attr-defined]
    return not last.is_shard() or any(not placement.is_replicate() for placement in others)
