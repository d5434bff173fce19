"""Pointwise ops: the derivative is one factor per argument.

The few ops that run in every step of a recurrence have their factor written out; for all
others it is one call of autograd on the op itself, so that no formula can be mistyped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.linear.rules.table import Call, Diagonal, Factor, pointwise


@pointwise(
    "abs acos acosh angle asin asinh atan atanh celu clamp_max clamp_min cos cosh deg2rad digamma elu erf erfc erfinv "
    "exp2 expm1 frac gelu hardshrink hardsigmoid hardswish hardtanh i0 leaky_relu lgamma log log10 log1p log2 logit "
    "mish nan_to_num rad2deg reciprocal relu6 selu sgn silu sin sinc sinh softplus softshrink square "
    "special_entr special_erfcx special_ndtr special_log_ndtr tan threshold",
    "_prelu_kernel addcdiv addcmul atan2 clamp copysign float_power fmax fmin fmod hypot lerp logaddexp logaddexp2 "
    "maximum max.other minimum min.other pow remainder special_xlog1py xlogy",
)
def by_autograd(call: Call) -> Diagonal:
    """Every output entry depends on one entry of each argument: pull ones through the op."""
    shape = call.output.shape
    with torch.enable_grad():
        inputs = [tensor.detach().expand(shape).clone().requires_grad_() for tensor in call.inputs]
        output = call.rerun(inputs)
        factors = torch.autograd.grad(output, inputs, torch.ones_like(output))
    return Diagonal(factors)


@pointwise("clone alias contiguous lift_fresh lift_fresh_copy positive")
def identity(call: Call) -> Diagonal:
    return Diagonal((1.0,))


@pointwise("copy")
def copy(call: Call) -> Diagonal:
    """copy(self, src) has the value of src."""
    return Diagonal(tuple(1.0 if slot == ("src",) else 0.0 for slot in call.slots))


@pointwise("neg")
def neg(call: Call) -> Diagonal:
    return Diagonal((-1.0,))


@pointwise("add sub")
def add(call: Call) -> Diagonal:
    sign = 1.0 if "sub" not in call.op._schema.name else -1.0
    other = sign * call.get("alpha", 1)
    return Diagonal(tuple(other if slot == ("other",) else 1.0 for slot in call.slots))


@pointwise("rsub")
def rsub(call: Call) -> Diagonal:
    alpha = -float(call.get("alpha", 1))
    return Diagonal(tuple(1.0 if slot == ("other",) else alpha for slot in call.slots))


@pointwise("mul")
def mul(call: Call) -> Diagonal:
    partner = {"self": call["other"], "other": call["self"]}
    return Diagonal(tuple(_factor(partner[slot[0]], call.output) for slot in call.slots))


@pointwise("div.Tensor div.Scalar true_divide")
def div(call: Call) -> Diagonal:
    other = call["other"]
    inverse = _factor(other.reciprocal() if isinstance(other, Tensor) else 1.0 / other, call.output)
    return Diagonal(tuple(inverse if slot == ("self",) else -call.output * inverse for slot in call.slots))


def _factor(value: float | Tensor, like: Tensor) -> Factor:
    return value.to(like.dtype) if isinstance(value, Tensor) else float(value)


@pointwise("relu")
def relu(call: Call) -> Diagonal:
    return Diagonal(((call.output > 0).to(call.output.dtype),))


@pointwise("tanh")
def tanh(call: Call) -> Diagonal:
    return Diagonal((1.0 - call.output.square(),))


@pointwise("sigmoid")
def sigmoid(call: Call) -> Diagonal:
    return Diagonal((call.output * (1.0 - call.output),))


@pointwise("exp")
def exp(call: Call) -> Diagonal:
    return Diagonal((call.output,))


@pointwise("sqrt")
def sqrt(call: Call) -> Diagonal:
    return Diagonal((0.5 / call.output,))


@pointwise("rsqrt")
def rsqrt(call: Call) -> Diagonal:
    return Diagonal((-0.5 * call.output / call["self"],))


@pointwise("where.self where.ScalarOther where.ScalarSelf")
def where(call: Call) -> Diagonal:
    chosen = call["condition"].to(call.output.dtype)
    return Diagonal(tuple(chosen if slot == ("self",) else 1.0 - chosen for slot in call.slots))


@pointwise("masked_fill")
def masked_fill(call: Call) -> Diagonal:
    mask = call["mask"].to(call.output.dtype)
    return Diagonal(tuple(1.0 - mask if slot == ("self",) else mask for slot in call.slots))


@pointwise("native_dropout", first_output_only=True)
def native_dropout(call: Call) -> Diagonal:
    """Linear in its input, with the mask that was drawn in the recorded run."""
    output, mask = call.output
    if call["train"] is False:
        return Diagonal((1.0,))
    kept = 1.0 - float(call["p"])
    return Diagonal((mask.to(output.dtype) / kept if kept > 0 else 0.0,))
