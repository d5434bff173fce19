"""At least one call for every rule of the table of linearisations: (name of the op, its arguments, keywords).

Every floating-point tensor among the arguments moves, but for parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def positive(*shape: int) -> Tensor:
    """Entries in (0.1, 0.9): inside the domain of logit, acos, log and sqrt."""
    return 0.1 + 0.8 * torch.rand(*shape, dtype=torch.float64, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)
# Parameters of a case do not move.
FIXED = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), requires_grad=False)
INDEX = torch.tensor([2, 0, 0, 1])
MASK = torch.tensor([[True, False, True, True], [False, True, False, True], [True, True, False, False]])

UNIT_INTERVAL = """abs acos asin asinh atan celu cos cosh deg2rad digamma elu erf erfc erfinv exp exp2 expm1 frac gelu
hardshrink hardsigmoid hardswish hardtanh i0 leaky_relu lgamma log log10 log1p log2 logit mish nan_to_num neg rad2deg
reciprocal relu relu6 rsqrt selu sgn sigmoid silu sin sinc sinh softplus softshrink sqrt square special_entr
special_erfcx special_ndtr special_log_ndtr tan tanh atanh angle clone alias contiguous positive lift_fresh
lift_fresh_copy"""
BOTH_SIGNS = "abs elu gelu leaky_relu relu relu6 hardtanh hardswish mish silu softplus selu celu hardshrink"
TWO_TENSORS = "atan2 copysign.Tensor fmax fmin hypot logaddexp logaddexp2 maximum max.other minimum min.other"


def pointwise_cases() -> Iterator[tuple[Any, ...]]:
    for name in UNIT_INTERVAL.split():
        yield name, positive(3, 4)
    for name in BOTH_SIGNS.split():
        yield name, randn(3, 4)
    for name in TWO_TENSORS.split():
        yield name, randn(3, 4), randn(4)
    yield "acosh", 1 + positive(3, 4)
    yield "clamp", randn(3, 4), -0.5, 0.5
    yield "clamp.Tensor", randn(3, 4), -positive(4), positive(3, 1)
    yield "clamp_min", randn(3, 4), 0.2
    yield "clamp_max", randn(3, 4), 0.2
    yield "threshold", randn(3, 4), 0.2, 5.0
    yield "gelu", randn(3, 4), {"approximate": "tanh"}
    yield "_prelu_kernel", randn(3, 4), randn(1, 4)
    yield "addcdiv", randn(3, 4), randn(4), positive(3, 1), {"value": 2.0}
    yield "addcmul", randn(3, 4), randn(4), positive(3, 1), {"value": 2.0}
    yield "float_power.Tensor_Scalar", positive(3, 4), 1.5
    yield "pow.Tensor_Scalar", randn(3, 4), 3
    yield "pow.Tensor_Tensor", positive(3, 4), randn(4)
    yield "pow.Scalar", 2.0, randn(3, 4)
    yield "fmod.Tensor", 5 * randn(3, 4), 1 + positive(4)
    yield "remainder.Tensor", 5 * randn(3, 4), 1 + positive(4)
    yield "lerp.Tensor", randn(3, 4), randn(4), randn(3, 1)
    yield "special_xlog1py", randn(3, 4), positive(4)
    yield "xlogy.Tensor", randn(3, 4), positive(4)
    yield "add.Tensor", randn(3, 4), randn(4), {"alpha": 3}
    yield "add.Tensor", randn(4), randn(2, 1, 4)
    yield "add.Scalar", randn(3, 4), 2.0
    yield "sub.Tensor", randn(3, 1), randn(4), {"alpha": 3}
    yield "rsub.Scalar", randn(3, 4), 2.0, 3.0
    yield "rsub.Tensor", randn(3, 4), randn(4), {"alpha": 3}
    yield "mul.Tensor", randn(3, 4), randn(3, 1)
    yield "mul.Scalar", randn(3, 4), 2
    yield "div.Tensor", randn(3, 1), positive(4)
    yield "div.Scalar", randn(3, 1), 4
    yield "true_divide.Tensor", randn(3), positive(3)
    yield "copy", randn(3, 4), randn(4)
    yield "where.self", MASK, randn(3, 4), randn(4)
    yield "where.ScalarOther", MASK, randn(3, 4), 2.0
    yield "where.ScalarSelf", MASK, 2.0, randn(3, 4)
    yield "masked_fill.Scalar", randn(3, 4), MASK, -1e4
    yield "masked_fill.Tensor", randn(3, 4), MASK, randn(1)[0]


def view_cases() -> Iterator[tuple[Any, ...]]:
    for name in ("view", "_unsafe_view", "reshape", "view_copy"):
        yield name, randn(3, 4), [2, 6]
    yield "_reshape_alias", randn(3, 4), [2, 6], [6, 1]
    yield "flatten.using_ints", randn(2, 3, 4), 1
    yield "unflatten.int", randn(2, 6), 1, [2, 3]
    yield "squeeze.dim", randn(2, 1, 3), 1
    yield "squeeze", randn(2, 1, 3)
    yield "unsqueeze", randn(2, 3), -1
    yield "expand", randn(3, 1), [2, 3, 4]
    yield "expand_copy", randn(3, 1), [3, 4]
    yield "broadcast_to", randn(4), [3, 4]
    yield "permute", randn(2, 3, 4), [2, 0, -2]
    yield "transpose.int", randn(2, 3, 4), -1, 0
    yield "swapaxes", randn(2, 3, 4), 0, 1
    yield "movedim.int", randn(2, 3, 4), 0, -1
    for name in ("t", "numpy_T", "mT"):
        yield name, randn(3, 4)
    yield "select.int", randn(2, 3, 4), -2, -1
    yield "slice.Tensor", randn(7, 2), 0, 1, -1, 2
    yield "narrow", randn(7, 2), 0, 2, 3
    yield "split.Tensor", randn(2, 7), 3, -1
    yield "unsafe_split.Tensor", randn(2, 7), 3, -1
    yield "split_copy.Tensor", randn(2, 7), 3, -1
    yield "split_with_sizes", randn(7, 2), [1, 4, 2]
    yield "chunk", randn(7, 2), 3
    yield "unsafe_chunk", randn(7, 2), 3
    yield "tensor_split.sections", randn(7, 2), 3
    yield "unbind.int", randn(3, 2), 1
    yield "cat", [randn(2, 3), randn(2, 1), randn(2, 3)], -1
    yield "cat", [torch.zeros(0, dtype=torch.float64), randn(2, 3)]
    yield "stack", [randn(2, 3), randn(2, 3)], -1
    yield "_to_copy", randn(2, 3), {"dtype": torch.float64}
    yield "to.dtype", randn(2, 3), torch.float64
    yield "glu", randn(2, 6), -1


def product_cases() -> Iterator[tuple[Any, ...]]:
    yield "mm", randn(2, 3), randn(3, 4)
    yield "mv", randn(2, 3), randn(3)
    yield "dot", randn(3), randn(3)
    yield "vdot", randn(3), randn(3)
    yield "outer", randn(3), randn(2)
    yield "ger", randn(3), randn(2)
    yield "bmm", randn(2, 3, 4), randn(2, 4, 5)
    yield "addmm", randn(4), randn(2, 3), randn(3, 4), {"alpha": 2.0, "beta": 3.0}
    yield "baddbmm", randn(2, 1, 5), randn(2, 3, 4), randn(2, 4, 5), {"alpha": 2.0, "beta": 3.0}
    yield "addmv", randn(2), randn(2, 3), randn(3), {"alpha": 2.0, "beta": 3.0}
    yield "linear", randn(2, 3, 4), randn(5, 4), randn(5)
    yield "linear", randn(4), randn(5, 4)
    yield "matmul", randn(2, 1, 3, 4), randn(5, 4, 2)
    yield "matmul", randn(3), randn(2, 3, 4)
    yield "matmul", randn(2, 3, 4), randn(4)
    yield "matmul", randn(3), randn(3)


def normalisation_cases() -> Iterator[tuple[Any, ...]]:
    yield "native_layer_norm", randn(2, 3, 4), [3, 4], randn(3, 4), randn(3, 4), 1e-5
    yield "native_layer_norm", randn(2, 3, 4), [4], None, None, 1e-5
    yield "native_group_norm", randn(2, 6, 3, 2), randn(6), randn(6), 2, 6, 6, 3, 1e-5
    yield "native_batch_norm", randn(4, 3, 2), randn(3), randn(3), None, None, True, 0.1, 1e-5
    statistics = (FIXED, torch.nn.Parameter(FIXED.square() + 0.5, requires_grad=False))
    yield "native_batch_norm", randn(4, 3, 2), randn(3), randn(3), *statistics, False, 0.1, 1e-5
    yield "_native_batch_norm_legit.no_stats", randn(4, 3), None, None, True, 0.1, 1e-5
    yield "_native_batch_norm_legit", randn(4, 3), randn(3), randn(3), *statistics, True, 0.1, 1e-5
    yield "_native_batch_norm_legit_functional", randn(4, 3), randn(3), randn(3), *statistics, True, 0.1, 1e-5
    yield "_native_batch_norm_legit_no_training", randn(4, 3, 2), randn(3), randn(3), *statistics, 0.1, 1e-5
    for name in ("_softmax", "_log_softmax"):
        yield name, randn(2, 3, 4), 1, False
    for name in ("softmax.int", "log_softmax.int"):
        yield name, randn(2, 3), -1
    yield "_safe_softmax", torch.where(MASK, randn(3, 4), -torch.inf), 1


def reduction_cases() -> Iterator[tuple[Any, ...]]:
    yield "sum.dim_IntList", randn(2, 3, 4), [0, -1], True
    yield "sum", randn(2, 3)
    yield "mean.dim", randn(2, 3, 4), [1]
    yield "mean", randn(2, 3)
    for name in ("amax", "amin"):
        yield name, randn(2, 3, 4), [-1]
    yield "logsumexp", randn(2, 3, 4), [0, 1], True
    yield "linalg_vector_norm", randn(2, 3), 2, [1]
    yield "norm.ScalarOpt_dim", randn(2, 3), 2, [1]
    for name in ("max", "min", "median", "prod", "nansum"):
        yield name, randn(3, 4)
    for name in ("max.dim", "min.dim", "median.dim", "kthvalue", "mode", "cummax", "cummin"):
        yield (name, randn(3, 4), *((2,) if name == "kthvalue" else ()), 1)
    yield "prod.dim_int", randn(3, 4), 1
    yield "std.correction", randn(3, 4), [1]
    yield "var.correction", randn(3, 4), [0], {"correction": 0, "keepdim": True}
    yield "cumsum", randn(3, 4), 1
    yield "topk", randn(3, 4), 2
    yield "sort", randn(3, 4), 0, True
    yield "sort.stable", randn(3, 4), {"stable": True}


def convolution_cases() -> Iterator[tuple[Any, ...]]:
    yield "convolution", randn(2, 4, 7), randn(6, 2, 3), randn(6), [2], [1], [1], False, [0], 2
    yield "convolution", randn(2, 2, 5, 5), randn(3, 2, 3, 3), None, [1, 2], [1, 0], [1, 1], False, [0, 0], 1
    yield "convolution", randn(2, 4, 3, 3), randn(4, 1, 2, 2), randn(2), [2, 2], [0, 1], [1, 1], True, [1, 1], 2
    yield "convolution", randn(1, 2, 3, 3, 3), randn(2, 2, 2, 2, 2), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1
    flags = (False, False, False, False)
    yield "_convolution", randn(2, 2, 5), randn(3, 2, 3), None, [1], [2], [2], False, [0], 1, *flags
    yield "avg_pool1d", randn(2, 3, 6), [2]
    yield "avg_pool2d", randn(2, 3, 5, 5), [2, 2], [1, 1], [1, 1]
    yield "avg_pool2d", randn(3, 4, 4), [2, 2]
    yield "avg_pool3d", randn(2, 1, 4, 4, 4), [2, 2, 2]
    yield "_adaptive_avg_pool2d", randn(2, 3, 5, 4), [2, 3]
    yield "_adaptive_avg_pool3d", randn(2, 1, 4, 4, 5), [2, 2, 2]
    yield "adaptive_avg_pool1d", randn(2, 3, 5), [2]
    yield "adaptive_avg_pool2d", randn(2, 3, 5, 4), [2, 3]
    yield "adaptive_avg_pool3d", randn(2, 1, 4, 4, 5), [2, 2, 2]
    yield "col2im", randn(2, 12, 4), [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]
    yield "im2col", randn(2, 3, 4, 4), [2, 2], [1, 1], [0, 0], [2, 2]
    for name in ("upsample_bicubic2d", "upsample_bilinear2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa"):
        yield name, randn(2, 2, 3, 4), [5, 7], False
    yield "upsample_linear1d", randn(2, 2, 3), [5], True
    yield "upsample_trilinear3d", randn(1, 2, 3, 2, 2), [4, 3, 3], False
    yield "upsample_nearest1d", randn(2, 2, 3), [5]
    yield "upsample_nearest2d", randn(2, 2, 3, 4), [5, 7]
    yield "_upsample_nearest_exact2d", randn(2, 2, 3, 4), [5, 7]
    yield "upsample_nearest3d", randn(1, 2, 3, 2, 2), [4, 3, 3]
    yield "max_pool2d_with_indices", randn(2, 2, 5, 5), [3, 3], [2, 2], [1, 1]
    yield "max_pool3d_with_indices", randn(1, 2, 4, 4, 4), [2, 2, 2]
    yield "adaptive_max_pool2d", randn(2, 2, 5, 4), [2, 2]
    yield "adaptive_max_pool3d", randn(1, 2, 4, 4, 4), [2, 2, 2]


def movement_cases() -> Iterator[tuple[Any, ...]]:
    yield "as_strided", randn(3, 4).t(), [2, 2], [1, 4], 1
    yield "as_strided_copy", randn(3, 4), [2, 2], [4, 1], 1
    yield "channel_shuffle", randn(1, 4, 2, 2), 2
    yield "diag_embed", randn(2, 3)
    yield "diagonal", randn(3, 4), 1
    yield "diagonal_scatter", randn(3, 4), randn(3)
    yield "flip", randn(3, 4), [0, 1]
    yield "roll", randn(3, 4), [1, -1], [0, 1]
    yield "rot90", randn(3, 4)
    yield "tril", randn(3, 4), 1
    yield "triu", randn(3, 4)
    yield "repeat", randn(3, 4), [2, 1, 2]
    yield "unfold", randn(3, 5), 1, 3, 1
    yield "take", randn(3, 4), INDEX
    yield "gather", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]])
    yield "index_select", randn(3, 4), 0, INDEX
    yield "index.Tensor", randn(3, 4), [INDEX, None]
    yield "_unsafe_index.Tensor", randn(3, 4), [None, INDEX]
    yield "masked_select", randn(3, 4), MASK
    yield "masked_scatter", randn(3, 4), MASK, randn(8)
    yield "select_scatter", randn(3, 4), randn(4), 0, 1
    yield "slice_scatter", randn(5, 4), randn(2, 4), 0, 1, 3
    yield "scatter.src", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]]), randn(1, 4)
    yield "scatter.value", randn(3, 4), 0, torch.tensor([[0, 2, 1, 1]]), 2.0
    yield "scatter_add", randn(3, 4), 0, torch.tensor([[0, 2, 1], [0, 0, 1]]), randn(2, 3)
    yield "index_add", randn(3, 4), 0, INDEX, randn(4, 4), {"alpha": 2.0}
    yield "index_fill.int_Scalar", randn(3, 4), 0, torch.tensor([1]), 2.0
    yield "fill.Scalar", randn(3, 4), 2.0
    yield "index_put", randn(3, 4), [torch.tensor([2, 0])], randn(2, 4)
    yield "_unsafe_index_put", randn(3, 4), [torch.tensor([2, 0])], randn(2, 4)
    yield "constant_pad_nd", randn(3, 4), [1, 2, -1, 0], 7.0
    yield "pixel_shuffle", randn(1, 4, 2, 2), 2
    yield "pixel_unshuffle", randn(1, 1, 4, 4), 2
    yield "embedding", randn(5, 3), torch.tensor([[0, 2], [2, 4]])
    for kind in ("reflection", "replication"):
        yield f"{kind}_pad1d", randn(2, 3, 5), [1, 2]
        yield f"{kind}_pad2d", randn(2, 3, 5, 4), [1, 2, 0, 1]
        yield f"{kind}_pad3d", randn(2, 1, 4, 4, 4), [1, 1, 0, 1, 1, 0]


CASES = [
    *pointwise_cases(),
    *view_cases(),
    *product_cases(),
    *normalisation_cases(),
    *reduction_cases(),
    *convolution_cases(),
    *movement_cases(),
]
