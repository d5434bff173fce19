"""Where everything passes through one complex tensor, its real view becomes a node of the graph, and so a state."""

from __future__ import annotations

from torch import Tensor, fx

from dynstab.capture.complex import as_complex, as_real
from dynstab.capture.graph import Graph
from dynstab.systems.cuts import Sweep
from dynstab.systems.dependence import Chain, Values


def with_real_states(graph: Graph, chain: Chain, values: Values) -> bool:
    """Insert real views of the complex tensors that cut the chain; whether there were any."""
    sweep = Sweep(chain, values)
    places = [i for i in range(len(chain.nodes)) if sweep.sizes[i] == 1]
    complex_nodes = [node for i in places for node in sweep.cut(i).live if _is_complex(values[node])]
    for node in complex_nodes:
        _insert(graph.module.graph, node, values[node].ndim)
    graph.module.recompile()
    return bool(complex_nodes)


def _is_complex(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_complex()


def _insert(graph: fx.Graph, node: fx.Node, dimensions: int) -> None:
    with graph.inserting_after(node):
        real = graph.call_function(as_real, (node,))
    with graph.inserting_after(real):
        back = graph.call_function(as_complex, (real, dimensions))
    real.meta, back.meta = dict(node.meta), dict(node.meta)
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not real)
