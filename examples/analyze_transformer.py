"""Is this transformer stable at initialisation? One call, one report.

python examples/analyze_transformer.py
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

import dynstab


def main(
    *, layers: int = 6, width: int = 64, tokens: int = 16, effort: Literal["quick", "standard", "thorough"] = "standard"
) -> dynstab.Report:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(
        width, nhead=4, dim_feedforward=4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    model = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
    report = dynstab.analyze(model, torch.randn(8, tokens, width), config=dynstab.Config(effort=effort))
    print(report)
    return report


if __name__ == "__main__":
    main()
