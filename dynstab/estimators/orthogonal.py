"""Orthonormal bases of batches of columns: reduced QR, and blocks that extend a Krylov basis."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
_WIDE = 48  # columns from which blocked reflectors pay


def random_frame(samples: int, size: int, k: int, *, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Haar-distributed orthonormal columns, (samples, size, k), the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(samples, size, k, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.to(device=device, dtype=dtype)


def gaussian_probes(samples: int, size: int, k: int, *, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Independent standard normal columns, (samples, size, k), the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, size, k, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)


def orthonormalise(block: Tensor) -> tuple[Tensor, Tensor]:
    """Reduced QR of (samples, size, k): Q in the dtype of the block, R in float64.

    LAPACK on the CPU, where with several threads Q is formed by applying the reflectors to the identity: blocked,
    which torch's own way is not. On an accelerator, where batched Householder QR is slow, two rounds of Cholesky
    of a float64 Gram matrix; Householder QR again where that matrix is not positive definite.
    """
    work = block.float() if block.dtype in HALF else block
    if work.is_cuda and block.shape[1] >= block.shape[2]:
        q, r = _cholesky_qr(work.double())
    elif work.device.type == "cpu" and block.shape[1] >= block.shape[2] >= _WIDE and torch.get_num_threads() > 1:
        q, r = _blocked_qr(work)
    else:
        q, r = torch.linalg.qr(work)
    return q.to(block.dtype), r.double()


def _blocked_qr(block: Tensor) -> tuple[Tensor, Tensor]:
    size, k = block.shape[1:]
    reflectors, scales = torch.geqrf(block)
    identity = torch.eye(size, k, dtype=block.dtype).expand_as(block)
    # LAPACK stores columns: read the other way round, the triangle is cut out of rows that lie together.
    return torch.ormqr(reflectors, scales, identity), reflectors.mT[:, :, :k].tril().mT


def _cholesky_qr(block: Tensor) -> tuple[Tensor, Tensor]:
    q, r = block, torch.eye(block.shape[2], dtype=block.dtype, device=block.device)
    for _ in range(2):
        factor, info = torch.linalg.cholesky_ex(q.mT @ q, upper=True)
        if bool((info != 0).any()) or not bool(factor.isfinite().all()):
            return torch.linalg.qr(block)
        q = torch.linalg.solve_triangular(factor, q, upper=True, left=False)
        r = factor @ r
    return q, r


def extend(basis: Tensor | None, block: Tensor, *, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Orthonormal columns for what `block` adds to the span of `basis`; zero columns where it adds nothing.

    A dependent direction becomes a zero column, not an arbitrary one: the batch keeps its shape while
    each sample may meet an invariant subspace at a time of its own.

    Args:
        basis: (samples, size, j), columns orthonormal or zero.
        block: (samples, size, b).
        scale: (samples,), the size below which (times 16 eps) a column counts as zero; the
            block's own norm by default.

    Returns:
        The new columns (samples, size, b), and the singular values of what the block added (samples, b), float64.
    """
    if scale is None:
        scale = _norms(block)
    noise = scale.double() * (16 * torch.finfo(block.dtype).eps)
    fresh, sizes = _independent(_project_out(basis, block, rounds=2), noise)
    # Columns kept from a near cancellation are not yet orthogonal to the basis: once more, on unit columns.
    columns, _ = _independent(_project_out(basis, fresh, rounds=1), torch.full_like(noise, 0.1))
    return columns, sizes


def complete(basis: Tensor | None, block: Tensor, *, seed: int) -> Tensor:
    """The block with its zero columns replaced by random unit columns orthogonal to it and to `basis`.

    Nonzero columns come first; zero columns are left only where the space is full.
    """
    empty = (block == 0).all(dim=1)
    if not bool(empty.any()):
        return block
    samples, size, width = block.shape
    taken = block if basis is None else torch.cat([basis, block], dim=2)
    random = gaussian_probes(samples, size, width, seed=seed, dtype=block.dtype, device=block.device)
    pool = torch.cat([block, extend(taken, random)[0]], dim=2)
    order = (pool == 0).all(dim=1).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    return pool.gather(2, order[:, None, :].expand(-1, size, -1))


def _norms(block: Tensor) -> Tensor:
    return block.double().flatten(1).norm(dim=1)


def _project_out(basis: Tensor | None, block: Tensor, *, rounds: int) -> Tensor:
    if basis is None:
        return block
    for _ in range(rounds):
        block = block - basis @ (basis.mT @ block)
    return block


def _independent(block: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors of the block, those at or below `noise` set to zero, and the singular values."""
    q, r = orthonormalise(block)
    left, sizes, _ = torch.linalg.svd(r)
    # The block may be wider than long: then the missing directions are zero columns too.
    width, found = block.shape[2], sizes.shape[1]
    kept = (sizes > noise[:, None]).to(q.dtype)
    columns = (q @ left[:, :, :found].to(q.dtype)) * kept[:, None, :]
    if found < width:
        columns = torch.nn.functional.pad(columns, (0, width - found))
        sizes = torch.nn.functional.pad(sizes, (0, width - found))
    return columns, sizes
