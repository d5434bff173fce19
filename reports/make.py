"""Write the reports of this folder again: `make reports` (about ten minutes on two cores).

Each model is built from its configuration, saved to a file, and analysed from that file by the
command line, as a user would do it. Weights are random (seed 0) but for the trained transformer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))


def gpt2_small(folder: Path) -> list[str]:
    """GPT-2 small's architecture: 12 blocks of width 768, at 64 tokens."""
    from transformers import AutoModelForCausalLM, GPT2Config

    AutoModelForCausalLM.from_config(GPT2Config()).save_pretrained(folder / "gpt2-small")
    return ["gpt2-small", "--input", "input_ids=randint:8,64:0..50257"]


def llama(folder: Path) -> list[str]:
    """A Llama of 8 blocks of width 128."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        num_hidden_layers=8, hidden_size=128, intermediate_size=344, num_attention_heads=4, vocab_size=1000
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "llama")
    return ["llama"]


def bert(folder: Path) -> list[str]:
    """A BERT of 12 blocks of width 128: norms after the additions."""
    from transformers import AutoModel, BertConfig

    config = BertConfig(num_hidden_layers=12, hidden_size=128, intermediate_size=512, num_attention_heads=4)
    AutoModel.from_config(config).save_pretrained(folder / "bert")
    return ["bert"]


def vit(folder: Path) -> list[str]:
    """A ViT of 12 blocks of width 192 on images of 32 x 32."""
    from transformers import AutoModelForImageClassification, ViTConfig

    config = ViTConfig(
        num_hidden_layers=12, hidden_size=192, intermediate_size=768, num_attention_heads=3, image_size=32, patch_size=8
    )
    AutoModelForImageClassification.from_config(config).save_pretrained(folder / "vit")
    return ["vit"]


def resnet18(folder: Path) -> list[str]:
    """ResNet-18 as the field writes it, on images of 64 x 64; a state_dict with --model."""
    from zoo import resnet18 as build

    torch.save(build().state_dict(), folder / "resnet18.pt")
    shutil.copy(HERE.parent / "tests" / "zoo.py", folder / "nets.py")
    return ["resnet18.pt", "--model", "nets.py:resnet18", "--input", "randn:8,3,64,64"]


def exploding_mlp(folder: Path) -> list[str]:
    """100 ReLU layers of width 128 whose weights are 10% too large."""
    layers: list[nn.Module] = []
    for _ in range(100):
        linear = nn.Linear(128, 128)
        nn.init.normal_(linear.weight, std=1.1 * (2 / 128) ** 0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    torch.save(nn.Sequential(*layers), folder / "exploding.pt")
    return ["exploding.pt", "--input", "randn:8,128"]


def trained_transformer(folder: Path) -> list[str]:
    """A pre-norm encoder of 6 blocks, trained on scikit-learn's digits, on 8 of its images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 8 - 1
    labels = torch.tensor(digits.target)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.Sequential(
        nn.Linear(8, 64),
        nn.TransformerEncoder(layer, 6, norm=nn.LayerNorm(64), enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    _train(model, images, labels)
    torch.save(model, folder / "digits.pt")
    torch.save(images[:8].clone(), folder / "images.pt")
    return ["digits.pt", "--input", "@images.pt"]


def _train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(15):
        for batch in torch.randperm(len(images)).split(128):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


MODELS: dict[str, Callable[[Path], list[str]]] = {
    "gpt2-small": gpt2_small,
    "llama": llama,
    "bert": bert,
    "vit": vit,
    "resnet18": resnet18,
    "exploding-mlp": exploding_mlp,
    "trained-transformer": trained_transformer,
}

PAGES = ("gpt2-small", "exploding-mlp", "trained-transformer")  # as HTML too, about 2 MB each


def main(names: list[str]) -> None:
    for name in names or list(MODELS):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            command = MODELS[name](Path(folder))
            files = ["--json", str(HERE / f"{name}.json")]
            files += ["--html", str(HERE / f"{name}.html")] if name in PAGES else []
            done = subprocess.run(
                [sys.executable, "-m", "dynstab", "analyze", *command, *files],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            print(name, "\n".join(done.stdout.splitlines()[:4]) or done.stderr, sep="\n", flush=True)
            done.check_returncode()


if __name__ == "__main__":
    main(sys.argv[1:])
