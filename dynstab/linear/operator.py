"""Matrix-free linear maps, one per independent input."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dynstab.linear.layout import Layout


class LinearOperator(ABC):
    """`samples` real matrices of shape (rows, cols) that act on blocks of columns.

    A product is one column through one matrix; blocks are (samples, size, k).

    Attributes:
        products: how many a matrix-free leaf has made so far, all inputs counted; 0 where nobody counts.
    """

    samples: int
    rows: int
    cols: int
    dtype: torch.dtype
    device: torch.device
    products: int = 0

    @abstractmethod
    def matmat(self, columns: Tensor) -> Tensor:
        """J X: (samples, cols, k) -> (samples, rows, k)."""

    @abstractmethod
    def rmatmat(self, columns: Tensor) -> Tensor:
        """J^T Y: (samples, rows, k) -> (samples, cols, k)."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    @property
    def square(self) -> bool:
        return self.rows == self.cols

    def dense(self) -> Tensor:
        """The matrices themselves, (samples, rows, cols), from the shorter side."""
        short = min(self.rows, self.cols)
        identity = torch.eye(short, dtype=self.dtype, device=self.device).expand(self.samples, -1, -1)
        if self.cols <= self.rows:
            return self.matmat(identity)
        return self.rmatmat(identity).mT


class JacobianOperator(LinearOperator):
    """dF/dx at one point: pushes tangents, pulls cotangents.

    Leaves give `push` and `pull` on tensors in the shape of the states (dimension 0 counts
    the tangents, then the state's own shape); columns follow from the layouts.
    """

    source: Layout
    target: Layout

    def __init__(self, source: Layout, target: Layout, dtype: torch.dtype, device: torch.device) -> None:
        self.source, self.target = source, target
        self.samples, self.rows, self.cols = source.samples, target.size, source.size
        self.dtype, self.device = dtype, device

    @property
    def routes(self) -> dict[str, int]:
        """How many ops were linearised which way: "rule", "double backward: aten.foo", "torch.func: why"."""
        return {}

    @abstractmethod
    def push_tensors(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """J t for k tangents: (k, *source shape) each -> (k, *target shape) each."""

    @abstractmethod
    def pull_tensors(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """J^T c for k cotangents: (k, *target shape) each -> (k, *source shape) each."""

    def push(self, tangents: Tensor) -> Tensor:
        """J t for states of a single tensor: (k, *source shape) -> (k, *target shape)."""
        (result,) = self.push_tensors((tangents,))
        return result

    def pull(self, cotangents: Tensor) -> Tensor:
        """J^T c for states of a single tensor: (k, *target shape) -> (k, *source shape)."""
        (result,) = self.pull_tensors((cotangents,))
        return result

    def matmat(self, columns: Tensor) -> Tensor:
        return self.target.flatten(self.push_tensors(self.source.unflatten(columns)))

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.source.flatten(self.pull_tensors(self.target.unflatten(columns)))


class RelaidOperator(JacobianOperator):
    """The same map with other layouts: what was one state becomes the states of independent inputs."""

    def __init__(self, operator: JacobianOperator, source: Layout, target: Layout) -> None:
        super().__init__(source, target, operator.dtype, operator.device)
        self.operator = operator

    @property
    def routes(self) -> dict[str, int]:
        return self.operator.routes

    def push_tensors(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # The inner operator takes all inputs for one.
        self.products += self.samples * tangents[0].shape[0]
        return self.operator.push_tensors(tangents)

    def pull_tensors(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.products += self.samples * cotangents[0].shape[0]
        return self.operator.pull_tensors(cotangents)


class DenseOperator(LinearOperator):
    """Matrices that are there, (samples, rows, cols): the slow twin of every other operator."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices if matrices.ndim == 3 else matrices.unsqueeze(0)
        self.samples, self.rows, self.cols = self.matrices.shape
        self.dtype, self.device = matrices.dtype, matrices.device

    def matmat(self, columns: Tensor) -> Tensor:
        return self.matrices @ columns

    def rmatmat(self, columns: Tensor) -> Tensor:
        return self.matrices.mT @ columns

    def dense(self) -> Tensor:
        return self.matrices


class ProductOperator(LinearOperator):
    """The propagator J_{L-1} ... J_0 of operators given in the order in which they act.

    Raises:
        ValueError: the sizes of two neighbours differ, or there is no operator.
    """

    def __init__(self, operators: tuple[LinearOperator, ...]) -> None:
        if not operators:
            raise ValueError("a product needs at least one operator")
        for first, second in zip(operators, operators[1:], strict=False):
            if first.rows != second.cols:
                raise ValueError(f"a step to size {first.rows} is followed by one from size {second.cols}")
        self.operators = operators
        self.samples, self.cols, self.rows = operators[0].samples, operators[0].cols, operators[-1].rows
        self.dtype, self.device = operators[0].dtype, operators[0].device

    def matmat(self, columns: Tensor) -> Tensor:
        for operator in self.operators:
            columns = operator.matmat(columns)
        return columns

    def rmatmat(self, columns: Tensor) -> Tensor:
        for operator in reversed(self.operators):
            columns = operator.rmatmat(columns)
        return columns
