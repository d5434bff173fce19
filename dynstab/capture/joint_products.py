"""Two products by one large matrix, that of a step and that of its tangents, taken as one.

A matrix that outgrows the cache is read anew for every product, and one row then costs a third of what ten rows
do. A step and the push of its tangents multiply by the same matrix, and neither waits for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx
from torch.fx.passes.tools_common import stable_topological_sort

aten = torch.ops.aten

_LARGE = 2**20  # bytes of a matrix; smaller ones are still in the cache when the second product begins
_MULTIPLE = 4  # the number of rows is made a multiple of that: MKL takes a quarter longer for 11 than for 12


# Where the rows and the matrix stand among the arguments.
_ROWS_AND_MATRIX: dict[object, tuple[int, int]] = {
    aten.mv.default: (1, 0),
    aten.mm.default: (0, 1),
    aten.addmm.default: (1, 2),
}


@dataclass(frozen=True)
class _Product:
    """`rows @ matrix`, or that added to something, where the matrix is a constant."""

    node: fx.Node
    value: Tensor

    @property
    def of_vector(self) -> bool:
        """Whether it is `matrix^T @ row`."""
        return self.node.target is aten.mv.default

    @property
    def count(self) -> int:
        """Rows."""
        return 1 if self.of_vector else self.node.meta["val"].shape[0]

    def rows(self, graph: fx.Graph) -> fx.Node:
        rows = cast(fx.Node, self.node.args[_ROWS_AND_MATRIX[self.node.target][0]])
        return graph.call_function(aten.unsqueeze.default, (rows, 0)) if self.of_vector else rows

    def matrix(self, graph: fx.Graph) -> fx.Node:
        matrix = cast(fx.Node, self.node.args[_ROWS_AND_MATRIX[self.node.target][1]])
        return graph.call_function(aten.t.default, (matrix,)) if self.of_vector else matrix

    def result(self, graph: fx.Graph, both: fx.Node, start: int) -> fx.Node:
        """From the rows of the joint product that begin there."""
        if self.of_vector:
            return graph.call_function(aten.select.int, (both, 0, start))
        result = graph.call_function(aten.slice.Tensor, (both, 0, start, start + self.count))
        if self.node.target is aten.addmm.default:
            return graph.call_function(aten.add.Tensor, (result, self.node.args[0]))
        return result


def join_products(line: fx.GraphModule) -> fx.GraphModule:
    """The line itself, changed in place."""
    products = [product for node in line.graph.nodes if (product := _product(line, node))]
    while products:
        first = products.pop(0)
        partner = next((other for other in products if _may_be_joined(first, other)), None)
        if partner is not None:
            products.remove(partner)
            _join(line.graph, first, partner)
    # What used the first product's result may stand before the second one.
    stable_topological_sort(line).recompile()
    return line


def _product(line: fx.GraphModule, node: fx.Node) -> _Product | None:
    if node.target not in _ROWS_AND_MATRIX or node.kwargs:
        return None
    matrix = node.args[_ROWS_AND_MATRIX[node.target][1]]
    if not isinstance(matrix, fx.Node) or matrix.op != "get_attr":
        return None
    value = cast(Tensor, getattr(line, str(matrix.target)))
    value = value.T if node.target is aten.mv.default else value
    return _Product(node, value) if value.nbytes >= _LARGE else None


def _may_be_joined(first: _Product, other: _Product) -> bool:
    one, two = first.value, other.value
    same = one.data_ptr() == two.data_ptr() and one.shape == two.shape and one.stride() == two.stride()
    return same and not _waits(other.node, first.node) and not _waits(first.node, other.node)


def _waits(node: fx.Node, other: fx.Node) -> bool:
    """Whether it needs what the other gives."""
    seen, left = set(), [node]
    while left:
        current = left.pop()
        if current is other:
            return True
        if current not in seen:
            seen.add(current)
            left.extend(current.all_input_nodes)
    return False


def _join(graph: fx.Graph, first: _Product, other: _Product) -> None:
    with graph.inserting_before(other.node):
        parts = [first.rows(graph), other.rows(graph)]
        if empty := -(first.count + other.count) % _MULTIPLE:
            parts.append(graph.call_function(aten.new_zeros.default, (parts[0], [empty, first.value.shape[0]])))
        rows = graph.call_function(aten.cat.default, (parts,))
        both = graph.call_function(aten.mm.default, (rows, other.matrix(graph)))
        results = first.result(graph, both, 0), other.result(graph, both, first.count)
    for product, result in zip((first, other), results, strict=True):
        product.node.replace_all_uses_with(result)
        graph.erase_node(product.node)
