"""The models of the reports: each builder saves one into a folder and gives what `dynstab analyze` needs to read it.

Weights are random (seed 0) but for the transformer, the two recurrent networks and the neural ODE, which are trained.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
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
    pixels, labels = _digits()
    images = pixels.reshape(-1, 8, 8) / 8 - 1
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


def lstm(folder: Path) -> list[str]:
    """An LSTM of 32 units as torch initialises it, driven by eight sequences of 400 rows of handwritten digits."""
    torch.save(nn.LSTM(8, 32), folder / "lstm.pt")
    torch.save(_rows(_digits()[0][:400], 400), folder / "rows.pt")
    return ["lstm.pt", "--system", "time", "--dtype", "float64", "--input", "@rows.pt"]


def rnn_chaotic(folder: Path) -> list[str]:
    """A tanh network that starts in chaos, its recurrent weights 2.5 times too large, and is trained on digits."""
    return _recurrent(folder, gain=2.5)


def rnn_trained(folder: Path) -> list[str]:
    """The same network and training from recurrent weights of gain 1."""
    return _recurrent(folder, gain=1.0)


def neural_ode(folder: Path) -> list[str]:
    """A neural ODE that tells two rings apart, solved by dopri5."""
    shutil.copy(HERE.parent / "examples" / "neural_ode.py", folder)
    return ["neural_ode.py:make"]


def hamiltonian(folder: Path) -> list[str]:
    """Twelve leapfrog layers, into the seventh of which a damping was slipped."""
    shutil.copy(HERE.parent / "examples" / "hamiltonian_network.py", folder)
    lines = [
        "import torch",
        "from hamiltonian_network import HamiltonianNetwork",
        "def damped():",
        "    return HamiltonianNetwork(16, 12, damped=6), torch.randn(8, 32)",
    ]
    (folder / "nets.py").write_text("\n".join(lines))
    return ["nets.py:damped"]


def _digits() -> tuple[Tensor, Tensor]:
    """Pixels from 0 to 16, (images, 64), and labels."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)


def _rows(pixels: Tensor, steps: int) -> Tensor:
    """(steps, sequences, 8): a row of eight pixels at each step, images one after another."""
    return (pixels.reshape(-1, steps, 8) / 16 - 0.3).transpose(0, 1).contiguous()


def _recurrent(folder: Path, *, gain: float) -> list[str]:
    pixels, labels = _digits()
    rows = _rows(pixels, 8)
    layer, head = nn.RNN(8, 64), nn.Linear(64, 10)
    with torch.no_grad():
        layer.all_weights[0][1].copy_(gain * torch.randn(64, 64) / 8)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(30):
        for batch in torch.randperm(1500).split(64):
            loss = nn.functional.cross_entropy(head(layer(rows[:, batch])[0][-1]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
    with torch.no_grad():
        right = head(layer(rows[:, 1500:])[0][-1]).argmax(dim=1) == labels[1500:]
    print(f"gain {gain}: {100 * float(right.float().mean()):.1f} % of the digits held back are told right")
    torch.save(layer, folder / "rnn.pt")
    torch.save(_rows(pixels[:400], 400), folder / "rows.pt")
    return ["rnn.pt", "--system", "time", "--dtype", "float64", "--input", "@rows.pt"]


MODELS: dict[str, Callable[[Path], list[str]]] = {
    "gpt2-small": gpt2_small,
    "llama": llama,
    "bert": bert,
    "vit": vit,
    "resnet18": resnet18,
    "exploding-mlp": exploding_mlp,
    "trained-transformer": trained_transformer,
    "hamiltonian": hamiltonian,
    "lstm": lstm,
    "rnn-chaotic": rnn_chaotic,
    "rnn-trained": rnn_trained,
    "neural-ode": neural_ode,
}
