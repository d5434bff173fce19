"""Fine cuts -> the steps that a person would name.

Three grains: every cut (fine), every residual update or layer (step), every block (block).
Norms, activations and other pointwise work join the step that they follow in the same
block; reshapes and constant shifts never make a step of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from math import prod

from torch import Tensor, fx

from dynstab.core.errors import StateError
from dynstab.systems.cuts import Cut
from dynstab.systems.dependence import Chain, Values, is_mixing, op_name
from dynstab.systems.naming import block_of, common_path, name_of
from dynstab.systems.residual import SAME_ORDER, Alpha, coefficient, shift


class Weight(Enum):
    """How much a fine segment does."""

    TRIVIAL = 0  # J = alpha I: reshapes, copies, constant shifts
    POINTWISE = 1  # norms, activations, pooling
    MIXING = 2  # a matrix product or a convolution
    RESIDUAL = 3


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What happens between two fine cuts; `alpha` is the multiple of the source, None where there is none."""

    low: Cut
    high: Cut
    nodes: tuple[fx.Node, ...]
    weight: Weight
    alpha: Alpha | None
    block: str


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step before it is linearised: the live sets on both sides and the nodes between.

    `update` is where its one residual sum begins and ends, if there is a norm or an activation before or behind it.
    """

    low: Cut
    high: Cut
    nodes: tuple[fx.Node, ...]
    alpha: Alpha | None
    block: str
    name: str = ""
    update: tuple[Cut, Cut] | None = None


def plan_steps(
    chain: Chain,
    cuts: list[Cut],
    values: Values,
    *,
    granularity: str = "step",
    states: tuple[str, ...] = (),
    batch: int | None = None,
) -> list[PlannedStep]:
    """Group the segments between fine cuts into steps and name them.

    Raises:
        StateError: `states` matches no module on the chain.
    """
    segments = [_segment(chain, low, high, values) for low, high in zip(cuts, cuts[1:], strict=False)]
    if states:
        groups = _by_name(segments, states)
    elif granularity == "fine":
        groups = _settle(_apart(segments, values, batch), values, batch)
    else:
        groups = _settle(_gather(segments), values, batch)
        if granularity == "block":
            groups = _by_block(groups)
    return _aligned(_named([_step(group) for group in groups if group]))


def _aligned(steps: list[PlannedStep]) -> list[PlannedStep]:
    """The steps with every tensor that a step leaves alone in the place where its state had it."""
    found: list[PlannedStep] = []
    for step in steps:
        low = found[-1].high if found else step.low
        found.append(replace(step, low=low, high=step.high.aligned(low)))
    return found


def _segment(chain: Chain, low: Cut, high: Cut, values: Values) -> Segment:
    nodes = tuple(chain.nodes[low.position + 1 : high.position + 1])
    alpha, scale = coefficient(low, high, values), shift(low, high, values)
    if alpha is not None:
        weight = Weight.RESIDUAL
    elif scale is not None:
        weight = Weight.TRIVIAL
    else:
        weight = Weight.MIXING if any(is_mixing(node) for node in nodes) else Weight.POINTWISE
    paths = [node.meta.get("path", "") for node in nodes]
    where = paths[-1] if weight is Weight.RESIDUAL else common_path(path for path in paths if path)
    return Segment(
        low=low, high=high, nodes=nodes, weight=weight, alpha=scale if alpha is None else alpha, block=block_of(where)
    )


def _gather(segments: list[Segment]) -> list[list[Segment]]:
    """Runs of segments that make one step, before the boundaries are settled."""
    groups: list[list[Segment]] = []
    lead: list[Segment] = []
    for segment in segments:
        if segment.weight in (Weight.TRIVIAL, Weight.POINTWISE):
            if not lead and groups and _follows(groups[-1], segment):
                groups[-1].append(segment)
            else:
                lead.append(segment)
        elif segment.weight is Weight.RESIDUAL and _matters(lead) and lead[-1].block != segment.block:
            groups += [lead, [segment]]
            lead = []
        elif not lead and groups and _same_tangle(groups[-1][-1], segment):
            groups[-1].append(segment)
        else:
            groups.append([*lead, segment])
            lead = []
    if lead:
        groups.append(lead) if _matters(lead) or not groups else groups[-1].extend(lead)
    return groups


def _apart(segments: list[Segment], values: Values, batch: int | None) -> list[list[Segment]]:
    """Every segment by itself, but for trivial ones, and cuts in which the inputs cannot be told apart."""
    groups: list[list[Segment]] = [[]]
    for segment in segments:
        full = any(s.weight is not Weight.TRIVIAL for s in groups[-1])
        if segment.weight is not Weight.TRIVIAL and full and _batched(segment.low, values, batch):
            groups.append([])
        groups[-1].append(segment)
    return groups


def _batched(cut: Cut, values: Values, batch: int | None) -> bool:
    return batch is None or all(batch in values[node].shape for node in cut.live)


def _same_tangle(before: Segment, segment: Segment) -> bool:
    """Whether two products of one block are only parted by a live set of several tensors."""
    plain = before.weight is not Weight.RESIDUAL and segment.weight is Weight.MIXING
    return plain and len(before.high.live) > 1 and bool(segment.block) and before.block == segment.block


def _follows(group: list[Segment], segment: Segment) -> bool:
    """Whether pointwise work belongs to the step before it."""
    main = max(group, key=lambda s: s.weight.value)
    if segment.weight is Weight.TRIVIAL or main.weight is Weight.MIXING:
        return True
    return main.weight is Weight.RESIDUAL and bool(main.block) and segment.block == main.block


def _matters(lead: list[Segment]) -> bool:
    return any(segment.weight is not Weight.TRIVIAL for segment in lead)


def _settle(groups: list[list[Segment]], values: Values, batch: int | None) -> list[list[Segment]]:
    """Choose each boundary within its run of trivial segments: after the last shift, with the batch in front.

    The run at the very start is dropped: the first state is what the stem has put together.
    """
    flat = [segment for group in groups for segment in group]
    ends: list[int] = []
    count = 0
    for group in groups:
        count += len(group)
        ends.append(count)
    first = _best(flat, 0, values, batch)
    bounds = [first, *(_best(flat, _run_start(flat, end), values, batch) for end in ends[:-1]), len(flat)]
    return [flat[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if b > a]


def _run_start(flat: list[Segment], end: int) -> int:
    while end > 0 and flat[end - 1].weight is Weight.TRIVIAL:
        end -= 1
    return end


def _best(flat: list[Segment], start: int, values: Values, batch: int | None) -> int:
    """The boundary (a count of segments) within the trivial run that begins at `start`."""
    stop = start
    while stop < len(flat) and flat[stop].weight is Weight.TRIVIAL:
        stop += 1
    if stop == len(flat):
        return start if start == 0 else stop
    earliest = start
    for i in range(start, stop):
        if not _keeps_values(flat[i]):
            earliest = i + 1
    options = range(earliest, stop + 1)
    return next((i for i in options if _leads(flat, i, values, batch)), earliest)


def _keeps_values(segment: Segment) -> bool:
    """By its ops, not by its numbers: a shift by zero is the shift of a fresh model."""
    return all(op_name(node) in SAME_ORDER for node in segment.nodes)


def _leads(flat: list[Segment], boundary: int, values: Values, batch: int | None) -> bool:
    cut = flat[boundary - 1].high if boundary else flat[0].low
    tensor = values[cut.live[-1]]
    return isinstance(tensor, Tensor) and tensor.ndim > 1 and tensor.shape[0] == batch


def _by_block(groups: list[list[Segment]]) -> list[list[Segment]]:
    """Join neighbours of the same block: exact composition."""
    joined: list[list[Segment]] = []
    for group in groups:
        key = _group_block(group)
        if joined and key and key == _group_block(joined[-1]):
            joined[-1] = joined[-1] + group
        else:
            joined.append(group)
    return joined


def _group_block(group: list[Segment]) -> tuple[str, int] | None:
    main = max(group, key=lambda segment: segment.weight.value)
    return (main.block, main.nodes[-1].meta.get("call", 1)) if main.block else None


def _by_name(segments: list[Segment], globs: tuple[str, ...]) -> list[list[Segment]]:
    """Boundaries where a module that matches a glob has just ended."""

    def inside(segment: Segment) -> str:
        path = segment.nodes[-1].meta.get("path", "")
        parts = path.split(".")
        prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return next((p for p in prefixes if any(fnmatchcase(p, glob) for glob in globs)), "")

    matches = [inside(segment) for segment in segments]
    if not any(matches):
        known = sorted({segment.block or segment.nodes[-1].meta.get("path", "") for segment in segments} - {""})
        raise StateError(
            f"no state on the chain lies in a module that matches {', '.join(globs)}",
            expected=f"globs of module paths such as {', '.join(known[:4]) or 'layers.*'}",
        )
    groups: list[list[Segment]] = [[]]
    for i, segment in enumerate(segments):
        groups[-1].append(segment)
        if matches[i] and (i + 1 == len(segments) or matches[i + 1] != matches[i]):
            groups.append([])
    return [group for group in groups if group]


def _step(group: list[Segment]) -> PlannedStep:
    nodes = tuple(node for segment in group for node in segment.nodes)
    main = max(group, key=lambda segment: segment.weight.value)
    factors = [segment.alpha for segment in group if segment.alpha is not None]
    residual = main.weight is Weight.RESIDUAL and not any(s.weight is Weight.MIXING for s in group)
    alpha = prod(factors) if residual else None
    inside = residual and sum(s.weight is Weight.RESIDUAL for s in group) == 1
    update = (main.low, main.high) if inside and any(s.weight is Weight.POINTWISE for s in group) else None
    return PlannedStep(low=group[0].low, high=group[-1].high, nodes=nodes, alpha=alpha, block=main.block, update=update)


def _named(steps: list[PlannedStep]) -> list[PlannedStep]:
    """Names from module paths; a repeated name gets its number."""
    seen: dict[str, int] = {}
    named = []
    for step in steps:
        name = name_of(step.nodes, step.block)
        seen[name] = seen.get(name, 0) + 1
        named.append(replace(step, name=name if seen[name] == 1 else f"{name} #{seen[name]}"))
    return named
