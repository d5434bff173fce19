"""Small models of the kinds that people bring, each with inputs: name -> (module, args, kwargs, blocks).

`blocks` is how many residual blocks the configuration declares, None where it declares none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Specimen(NamedTuple):
    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    blocks: int | None = None


class UNet(nn.Module):
    """Two levels down, two up, with long skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _pair(3, 8), _pair(8, 16), _pair(16, 16)
        self.up2, self.up1, self.head = _pair(32, 8), _pair(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        deep = self.middle(nn.functional.max_pool2d(second, 2))
        up = self.up2(torch.cat([nn.functional.interpolate(deep, scale_factor=2), second], 1))
        return self.head(self.up1(torch.cat([nn.functional.interpolate(up, scale_factor=2), first], 1)))


def _pair(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU()
    )


class ConvBlock(nn.Module):
    """A basic residual block as the field writes it (He et al. 2016)."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
            if stride != 1 or inside != outside
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """The bottleneck of ResNet-50 (He et al. 2016)."""

    def __init__(self, inside: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outside = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
            if stride != 1 or inside != outside
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """ResNet-18 with basic blocks, ResNet-50 with bottlenecks; `width` is that of the first stage."""

    def __init__(self, depths: tuple[int, ...], width: int = 64, bottleneck: bool = False, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inside, self.stages = width, len(depths)
        for stage, depth in enumerate(depths):
            outside, blocks = width * 2**stage, []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append((Bottleneck if bottleneck else ConvBlock)(inside, outside, stride))
                inside = 4 * outside if bottleneck else outside
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inside, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(width: int = 64) -> ResNet:
    return ResNet((2, 2, 2, 2), width)


def resnet50(width: int = 64) -> ResNet:
    return ResNet((3, 4, 6, 3), width, bottleneck=True)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.BatchNorm1d(16), nn.Linear(16, 16),
        nn.Tanh(), nn.Linear(16, 3),
    )  # fmt: skip


_SMALL: dict[str, Any] = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=64, num_attention_heads=2)


def _tokens(batch: int = 2, length: int = 6, vocabulary: int = 50) -> Tensor:
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def _gpt2() -> Specimen:
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=32)
    return Specimen(AutoModelForCausalLM.from_config(config), (), {"input_ids": _tokens()}, 2)


def _llama() -> Specimen:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**_SMALL, num_key_value_heads=1, vocab_size=50)
    return Specimen(AutoModelForCausalLM.from_config(config), (), {"input_ids": _tokens()}, 2)


def _mixtral() -> Specimen:
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = MixtralConfig(**_SMALL, num_key_value_heads=2, vocab_size=50, num_local_experts=4)
    return Specimen(AutoModelForCausalLM.from_config(config), (), {"input_ids": _tokens()}, 2)


def _mamba() -> Specimen:
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(num_hidden_layers=2, hidden_size=32, vocab_size=50)
    return Specimen(AutoModelForCausalLM.from_config(config), (), {"input_ids": _tokens()}, None)


def _bert() -> Specimen:
    from transformers import AutoModel, BertConfig

    return Specimen(AutoModel.from_config(BertConfig(**_SMALL, vocab_size=50)), (), {"input_ids": _tokens()}, 2)


def _t5() -> Specimen:
    from transformers import AutoModelForSeq2SeqLM, T5Config

    config = T5Config(num_layers=2, d_model=32, d_ff=64, num_heads=2, d_kv=16, vocab_size=50)
    kwargs = {"input_ids": _tokens(), "decoder_input_ids": _tokens(length=4)}
    return Specimen(AutoModelForSeq2SeqLM.from_config(config), (), kwargs, None)


def _vit() -> Specimen:
    from transformers import AutoModelForImageClassification, ViTConfig

    config = ViTConfig(**_SMALL, image_size=32, patch_size=8)
    return Specimen(AutoModelForImageClassification.from_config(config), (torch.randn(2, 3, 32, 32),), {}, 2)


def _encoder(batch_first: bool, norm_first: bool) -> Specimen:
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=batch_first, norm_first=norm_first)
    shape = (2, 6, 32) if batch_first else (6, 2, 32)
    return Specimen(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(shape),), {}, 2)


HUGGING_FACE: dict[str, Callable[[], Specimen]] = {
    "GPT-2": _gpt2,
    "Llama": _llama,
    "BERT": _bert,
    "ViT": _vit,
    "T5": _t5,
    "Mixtral": _mixtral,
    "Mamba": _mamba,
}
TORCH: dict[str, Callable[[], Specimen]] = {
    "ResNet-18": lambda: Specimen(resnet18(8), (torch.randn(2, 3, 32, 32),)),
    "ResNet-50": lambda: Specimen(resnet50(4), (torch.randn(2, 3, 32, 32),)),
    "TransformerEncoder": lambda: _encoder(True, False),
    "TransformerEncoder, norm first": lambda: _encoder(True, True),
    "TransformerEncoder, sequence first": lambda: _encoder(False, True),
    "MLP": lambda: Specimen(mlp(), (torch.randn(3, 12),)),
    "U-Net": lambda: Specimen(UNet(), (torch.randn(2, 3, 16, 16),)),
}
ZOO = {**HUGGING_FACE, **TORCH}


def specimen(name: str, seed: int = 0) -> Specimen:
    """A model of the zoo with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ZOO[name]()
