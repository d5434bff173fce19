"""A small configuration of any architecture, by rules on the names of its fields.

No rule knows a model: a field called `hidden_size` or `n_embd` is a width wherever it stands, nested
configurations are made small by the same rules, and lists with one entry a layer are cut to the
number of layers with every kind of entry kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

LAYERS, VOCABULARY = 2, 256
_LEAST_SPREAD = 0.02  # of random weights: some default to 1e-10, at which no input reaches the output
_MOST_KINDS = 4  # layers of a hybrid, at most


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Sizes: where an architecture refuses one set (grouped queries, a width not divisible by 3), another may do.

    Attributes:
        side: of images, in pixels. fill: sizes that a configuration leaves open are given too.
        lists: lists of widths are made small, too. divided: each entry by eight, so that two lists stay alike.
    """

    layers: int = LAYERS
    width: int = 64
    heads: int = 4
    key_value_heads: int = 2
    head_width: int = 16
    side: int = 32
    fill: bool = False
    lists: bool = True
    divided: bool = False

    @property
    def limits(self) -> dict[str, int]:
        """The most that is kept of each kind of field in `_KINDS`."""
        return {
            "layers": self.layers,
            "key-value heads": self.key_value_heads,
            "state-space heads": 2 * self.heads,
            "heads": self.heads,
            "query width": 2 * self.head_width,
            "head width": self.head_width,
            "inner width": 3 * self.width // 2,
            "rank": 16,
            "experts": 4,
            "experts per token": 2,
            "expert groups": 1,
            "state-space groups": 2,
            "vocabulary": VOCABULARY,
            "queries": 8,
            "frames": 64,
            "context": 128,
            "groups": self.width,
            "width": self.width,
        }


# The first pattern that matches the whole name of a field decides its kind.
_KINDS = {
    "layers": r"(.*_)?(num_hidden_layers|num_layers|n_layers?|depth|(en|de)coder_layers|num_(en|de)coder_layers"
    r"|num_blocks|num_res_blocks)|[lxr]_layers|(.*_)?(encoder|decoder|memory|resampler|qformer|speech)_(.*_)?layers",
    "key-value heads": r"(.*_)?(num|n)_(key_value|kv)_heads|num_(key_value|kv)_groups|multi_query_group_num",
    "state-space heads": r"mamba_(n|num)_heads",
    "query width": r"qk_head_dim",
    "head width": r"(.*_)?(head_dim|rotary_dim|d_kv|d_head|attention_head_size|kv_channels|head_size)",
    "heads": r"(.*_)?heads?",
    "inner width": r"(.*_)?(intermediate|inner|ffn|ff|mlp|feed_?forward)(_.*)?_(size|dim|channels)|n_inner|d_ff"
    r"|dim_feedforward|ffn_dim|mlp_dim",
    "rank": r"(.*_)?(rank|lora_dim)",
    "experts": r".*num_(local_|routed_|total_)?experts|n_routed_experts|moe_num_experts|.*zero_expert(s|_num)",
    "experts per token": r"(moe_)?(num_experts_per_(tok|token)|top_?k|topk)|moe_k|.*_topk|.*_top_k",
    "expert groups": r"n_group|topk_group",
    "state-space groups": r"(mamba_)?n_?groups",
    "vocabulary": r".*vocab_size(_.*)?|.*_vocab|.*codebook_size|num_embeddings",
    "queries": r"(.*_)?(num_(object_)?queries|num_query_tokens|n_latents|num_latents|num_query|num_denoising)",
    "frames": r"max_source_positions",
    "context": r"context_length",
    "groups": r"(up|down)sample_groups",
    "width": r"(.*_)?(hidden|model|embeddings?|embed|proj(ection|ector)?|output|encoder|decoder|fusion|bottleneck)"
    r"_(size|dim|dimension|channels)|d_model|n_embd|dim|(.*_)?width|d_latents|emb_dim|codebook_dim"
    r"|.*_initial_channels?|.*d_ssm",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}
_OPEN = ("key-value heads", "head width", "vocabulary", "experts per token")
_SIDE = re.compile(r"(.*_)?(image_size|input_size|train_size)")
_DEPTHS = re.compile(r"depths|.*num_blocks|blocks_per_stage|.*numb_of_layers|block_sizes|num_block_repeats|layers")
_WIDTH_LIST = re.compile(r".*(hidden|embed|channel|dim|width|size).*")
_LAYER_LIST = re.compile(r".*(layers|ind(ex|ic)es|indexes|ids|idxs)")
_SCALE = re.compile(r"(width|depth)_(coefficient|multiplier)")
_TOKEN = re.compile(r".*(token|tok)_(id|index|idx)|.*_(bos|eos|pad|cls)_id|(bos|eos|pad)_index")


def is_layer_count(name: str) -> bool:
    """Whether a field of this name says how many layers there are."""
    return bool(_PATTERNS["layers"].fullmatch(name))


def small(kind: type[PretrainedConfig], variant: Variant) -> PretrainedConfig:
    """The small configuration of a class.

    Raises:
        Exception: whatever the class says to sizes that it does not accept.
    """
    return _Shrinker(kind(), variant).config()


class _Shrinker:
    def __init__(self, config: PretrainedConfig, variant: Variant) -> None:
        self.kind, self.variant = type(config), variant
        fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
        self.fields = fields | _stages(config)
        counts = [v for name, v in self.fields.items() if is_layer_count(name) and isinstance(v, int)]
        self.depth = max(counts, default=0)
        lists = [v for v in self.fields.values() if isinstance(v, list | tuple)]
        self.kept = _covering(variant.layers, [v for v in lists if len(v) == self.depth > variant.layers])

    def config(self) -> PretrainedConfig:
        changed = {name: new for name, old in self.fields.items() if (new := self.value(name, old)) is not old}
        return self.kind(**{**self.own(), **changed, **self.tokens()})

    def own(self) -> dict[str, Any]:
        """Fields that are not what their class would give them: a nested configuration has some."""
        usual = vars(self.kind())
        return {name: value for name, value in self.fields.items() if name not in usual or usual[name] != value}

    def value(self, name: str, value: Any) -> Any:
        """The small value of a field, the same object where it stays."""
        if isinstance(value, PretrainedConfig):
            return _Shrinker(value, self.variant).config()
        if isinstance(value, dict):
            new = {key: self.value(str(key), item) for key, item in value.items()}
            return value if new == value else new
        if isinstance(value, list | tuple):
            new = self.entries(name, list(value))
            return value if new == list(value) else type(value)(new)
        if value is None and self.variant.fill:
            return next((self.variant.limits[kind] for kind in _OPEN if _PATTERNS[kind].fullmatch(name)), value)
        if name == "initializer_range" and isinstance(value, float):
            return max(value, _LEAST_SPREAD)
        if _SCALE.fullmatch(name) and isinstance(value, float):
            return min(value, 1.0)
        if isinstance(value, int) and not isinstance(value, bool):
            new = self.integer(name, value)
            return value if new == value else new
        return value

    def integer(self, name: str, value: int) -> int:
        if _SIDE.fullmatch(name) and value >= 28:
            return self.variant.side
        if name.endswith("patch_size") and value > 8:
            return 8
        if is_layer_count(name) and value == self.depth:
            return min(value, len(self.kept))
        for kind, pattern in _PATTERNS.items():
            if pattern.fullmatch(name):
                return min(value, self.variant.limits[kind])
        return value

    def entries(self, name: str, values: list[Any]) -> list[Any]:
        if len(values) == self.depth > self.variant.layers:
            values = [values[i] for i in self.kept]
        if not values or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            return values
        if _SIDE.fullmatch(name):
            return [self.variant.side for _ in values]
        if name == "mrope_section":
            half = self.variant.head_width // 2
            return [half // 4, half * 3 // 8, half * 3 // 8]
        if _DEPTHS.fullmatch(name):
            return [min(value, LAYERS) for value in values]
        if _LAYER_LIST.fullmatch(name) and self.depth:
            last = len(self.kept) - (max(values) < self.depth)  # some count the stem, and end with the depth
            return [value for value in values if value <= last] or [last]
        fixed = min(values) < 16 and not self.variant.divided
        if fixed or not (self.variant.lists and _WIDTH_LIST.fullmatch(name)):
            return values
        if self.variant.divided:
            return [value if value < 16 else max(2, value // 8) for value in values]
        shrunk = [max(16, 16 * round(2 * value / values[0])) for value in values]
        return shrunk if max(values) > self.variant.width else values

    def tokens(self) -> dict[str, int]:
        """Special tokens stay different from each other and inside the vocabulary."""
        far = [name for name, value in self.fields.items() if _TOKEN.fullmatch(name) and _largest(value) >= VOCABULARY]
        return {name: VOCABULARY - 1 - i for i, name in enumerate(far)}


def _stages(config: PretrainedConfig) -> dict[str, Any]:
    """The stages that a backbone hands out, where they are not those of its class."""
    chosen = getattr(config, "out_indices", None)
    return {"out_indices": list(chosen)} if chosen and chosen != getattr(type(config)(), "out_indices", None) else {}


def _largest(value: Any) -> int:
    values = value if isinstance(value, list | tuple) else [value]
    return max((v for v in values if isinstance(v, int)), default=-1)


def _covering(fewest: int, per_layer: list[Any]) -> list[int]:
    """Layers to keep, in order: the first of each kind, and at least `fewest` of them."""
    first: dict[str, int] = {}
    for i, kinds in enumerate(zip(*per_layer, strict=True) if per_layer else ()):
        first.setdefault(repr(kinds), i)
    kept = sorted(first.values())[:_MOST_KINDS]
    return kept if len(kept) >= fewest else sorted({*kept, *range(fewest)})[:fewest]
