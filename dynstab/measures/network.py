"""The whole network in a few numbers: what happens to a gradient and to the signal from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, log, pi

import torch
from torch import Tensor

from dynstab.core.estimate import CONVERGED, Estimate, Label
from dynstab.estimators.result import NON_FINITE, Result
from dynstab.measures.aggregate import summarise
from dynstab.measures.blocks import repeated_blocks
from dynstab.measures.flow_profile import FlowProfile
from dynstab.measures.growth import fit_growth
from dynstab.measures.refinement import depth_smoothness, refinement_order
from dynstab.measures.survey import Finding, Survey
from dynstab.measures.width_null import width_null


def measure_network(survey: Survey) -> Iterator[Finding]:
    """Reads what the measures of gains, singular values and gradient flow left."""
    trajectory = survey.trajectory
    yield Finding("network", 0, {"causal": trajectory.causal, "batch_coupled": trajectory.coupled})
    if survey.flow is None:
        return
    yield Finding("network", 0, _signal_fields(survey))
    yield Finding("network", 0, _gradient_fields(survey, survey.flow))
    yield Finding("network", 0, {"underflow_depth": _range_depth(survey, survey.flow)})
    yield Finding("network", 0, _refinement_fields(survey))
    for index, bound in enumerate(_product_bounds(survey)):
        yield Finding("gradient", index, {"product_upper": bound})


def _signal_fields(survey: Survey) -> dict[str, Estimate]:
    growth = (survey.sizes[:, -1] / survey.sizes[:, 0]).log()
    if bool((survey.sizes[:, 0] == 0).any()):
        return {"log_signal_gain": Estimate.unmeasured("the first state is zero for some input", unit="nat")}
    return {"log_signal_gain": _mean_over_inputs(growth, torch.zeros_like(growth), products=0)}


def _gradient_fields(survey: Survey, flow: FlowProfile) -> dict[str, object]:
    noise, products = flow.log_error[:, 0], flow.products
    shares = [survey.estimate("step", step.index, "branch_share") for step in survey.trajectory.steps]
    fields: dict[str, object] = {
        "raw_log_gradient_gain": _mean_over_inputs(flow.log_gain[:, 0], noise, products=products),
        "null_log_gain": _null(survey, [1.0 if share is None else share.value or 0.0 for share in shares]),
    }
    relative = survey.log_relative_gain
    if bool((survey.sizes[:, 0] == 0).any()):
        missing = Estimate.unmeasured("the first state is zero for some input: there is no relative scale", unit="nat")
        return fields | dict.fromkeys(("log_gradient_gain", "median_log_gradient_gain"), missing)
    return fields | {
        "log_gradient_gain": _mean_over_inputs(relative[:, 0], noise, products=products),
        "median_log_gradient_gain": _median_over_inputs(relative[:, 0], products=products),
        "growth": fit_growth(relative.mean(dim=0)),
    }


def _null(survey: Survey, shares: list[float]) -> Estimate:
    if survey.trajectory.kind == "depth":
        return width_null(survey.trajectory.states, shares)
    return Estimate.unmeasured("a law of layers drawn one by one: here one map acts at every step", unit="nat")


def _mean_over_inputs(logs: Tensor, noise: Tensor, *, products: int) -> Estimate:
    """Mean with its standard error over the inputs, which holds the noise of the probes too."""
    count = len(logs)
    result = Result(
        values=logs[:, None],
        errors=noise[:, None],
        label=Label.ESTIMATE,
        method=f"mean over {count} inputs, error over inputs" if count > 1 else "one input, error of the probes",
        products=products,
    )
    estimate = summarise(result, unit="nat")
    if count == 1 or estimate.spread is None:
        return estimate
    return estimate.model_copy(update={"error": estimate.spread / count**0.5})


def _median_over_inputs(logs: Tensor, *, products: int) -> Estimate:
    """Median; its standard error is sqrt(pi/2) times that of the mean for normal scatter."""
    count, finite = len(logs), bool(logs.isfinite().all())
    error = (pi / 2) ** 0.5 * logs.std().item() / count**0.5 if count > 1 and finite else None
    return Estimate(
        value=logs.quantile(0.5).item() if finite else logs.sort().values[(count - 1) // 2].item(),
        error=error,
        unit="nat",
        method=f"median over {count} inputs",
        outcome=CONVERGED if finite else NON_FINITE,
        products=products,
        samples=count,
    )


def _range_depth(survey: Survey, flow: FlowProfile) -> Estimate:
    """Steps until a gradient of the measured size at the last state leaves the training dtype's normal range.

    The gradient's entries at the last state are taken as 1, or as what the given cotangent has.
    """
    dtype = survey.training_dtype or survey.trajectory.states[-1].value[0].dtype
    rate = float(flow.log_gain[:, 0].mean()) / (flow.log_gain.shape[1] - 1)
    start = 1.0
    if survey.cotangent is not None:
        entries = torch.cat([tensor.flatten().double() for tensor in survey.cotangent])
        start = float(entries.square().mean().sqrt())
    if not (abs(rate) < inf and 0 < start < inf):
        return Estimate.unmeasured("the gradient is zero or not finite", unit="steps")
    limits, name = torch.finfo(dtype), str(dtype).removeprefix("torch.")
    room = log(start / limits.tiny) if rate < 0 else log(limits.max / start)
    return Estimate(
        value=max(0.0, room) / abs(rate) if rate else inf,
        unit="steps",
        method=f"ln({'g/tiny' if rate < 0 else 'max/g'}) over {abs(rate):.3g} nat per step, {name}",
        label=Label.ESTIMATE,
        samples=len(flow.log_gain),
    )


def _refinement_fields(survey: Survey) -> dict[str, Estimate]:
    blocks = repeated_blocks(survey.trajectory)
    if blocks is None:
        missing = Estimate.unmeasured("needs four residual blocks that repeat")
        return {"refinement_order": missing, "depth_smoothness": missing}
    order = refinement_order(blocks)
    return {"refinement_order": order, "depth_smoothness": depth_smoothness(blocks)}


def _product_bounds(survey: Survey) -> list[Estimate]:
    """From every state on, the product of the steps' largest singular values, greatest over the inputs.

    An upper bound only where each of them is exact and measured at the same inputs as the gain.
    """
    bounds = [Estimate(value=1.0, error=0.0, method="empty product", label=Label.EXACT)]
    total, rigorous = torch.zeros(1, dtype=torch.float64), survey.exact_flow
    for step in reversed(survey.trajectory.steps):
        norm = survey.norms.get(step.index)
        if norm is None:
            reason = f"the largest singular value of step {step.index} was not measured"
            bounds += [Estimate.unmeasured(reason)] * (step.index + 1)
            break
        total = total + (norm.values + norm.errors)[:, 0].log()
        rigorous = rigorous and norm.label is Label.EXACT
        bounds.append(_product_bound(total, rigorous))
    return bounds[::-1]


def _product_bound(total: Tensor, rigorous: bool) -> Estimate:
    value = float(total.exp().amax())
    note = "" if rigorous else ", each with its error; no bound if one was missed or at other inputs"
    return Estimate(
        value=value,
        error=0.0,
        method=f"product of the steps' largest singular values{note}",
        label=Label.UPPER if rigorous else Label.ESTIMATE,
        outcome=CONVERGED if value < inf else NON_FINITE,
        samples=len(total),
    )
