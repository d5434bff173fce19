"""Everything is analysed in eval mode, and the report says so where that is not how the model came."""

from __future__ import annotations

import torch
from torch import nn

import dynstab
from dynstab.systems.modes import mode_notes

QUICK = dynstab.Config(effort="quick", k=1)


def _normed(depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(8, 8), nn.BatchNorm1d(8))])


def test_a_model_in_train_mode_is_told_to_be_analysed_in_eval_mode() -> None:
    network = _normed()
    network(torch.randn(64, 8))
    report = dynstab.analyze(network, torch.randn(8, 8), config=QUICK)
    said = "the model came in train mode and was analysed in eval mode (BatchNorm by running statistics)"
    assert report.system.notes == (said,)
    assert said in " ".join(str(report).split())
    assert not dynstab.analyze(network.eval(), torch.randn(8, 8), config=QUICK).system.notes


def test_dropout_of_layers_of_any_kind_is_told_to_be_off() -> None:
    noisy = (nn.Dropout(0.1), nn.LSTM(2, 2, 2, dropout=0.1), nn.MultiheadAttention(4, 2, dropout=0.1))
    assert all("dropout off" in " ".join(mode_notes(layer)) for layer in noisy)
    assert not any(mode_notes(layer.eval()) for layer in noisy)
    assert not mode_notes(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0))
    assert not mode_notes(nn.InstanceNorm1d(4))


def test_a_verdict_on_norms_that_never_saw_a_batch_is_not_of_high_confidence() -> None:
    fresh, inputs = _normed(), torch.randn(32, 8)
    verdict = dynstab.analyze(fresh, inputs, config=QUICK).verdict
    assert "3 BatchNorm layers that never saw a batch do not normalise in eval mode" in verdict.summary
    assert verdict.confidence != "high"
    alone = dynstab.analyze(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), inputs, config=QUICK).verdict
    assert "1 BatchNorm layer that never saw a batch does not normalise in eval mode" in alone.summary
    fresh(torch.randn(64, 8))
    assert dynstab.analyze(fresh, inputs, config=QUICK).verdict.confidence == "high"
