"""Softmaxes: diag(p) - p p^T is symmetric."""

from __future__ import annotations

import torch
from torch import Tensor

from dynstab.linear.rules.table import Call, Linearisation, rule


@rule("_softmax _safe_softmax softmax")
def softmax(call: Call) -> Linearisation:
    p = call.output
    if p.ndim == 0:
        return Linearisation(lambda tangents: torch.zeros_like(tangents[0]), lambda c: (torch.zeros_like(c),))
    dim = call["dim"] % p.ndim + 1

    def apply(moving: Tensor) -> Tensor:
        weighted = moving * p
        return weighted.addcmul_(p, weighted.sum(dim, keepdim=True), value=-1)

    return Linearisation(lambda tangents: apply(tangents[0]), lambda cotangent: (apply(cotangent),))


@rule("_log_softmax log_softmax")
def log_softmax(call: Call) -> Linearisation:
    p = call.output.exp()
    if p.ndim == 0:
        return Linearisation(lambda tangents: torch.zeros_like(tangents[0]), lambda c: (torch.zeros_like(c),))
    dim = call["dim"] % p.ndim + 1
    return Linearisation(
        lambda tangents: tangents[0] - (tangents[0] * p).sum(dim, keepdim=True),
        lambda cotangent: (cotangent - p * cotangent.sum(dim, keepdim=True),),
    )
