"""The kind of an architecture, by rule: from the automatic mappings of transformers and from its made-up input."""

from __future__ import annotations

import re
from typing import Any

import transformers.models.auto.modeling_auto as auto

_AUDIO = ("AUDIO_CLASSIFICATION", "CTC", "RNNT", "TDT", "SPEECH_SEQ_2_SEQ", "AUDIO_XVECTOR", "TEXT_TO_SPECTROGRAM",
          "TEXT_TO_WAVEFORM", "AUDIO_FRAME_CLASSIFICATION")  # fmt: skip
_VISION = ("IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION", "VIDEO_CLASSIFICATION",
           "MASKED_IMAGE_MODELING", "IMAGE", "BACKBONE")  # fmt: skip
_DETECTION = ("OBJECT_DETECTION", "UNIVERSAL_SEGMENTATION", "INSTANCE_SEGMENTATION", "MASK_GENERATION",
              "KEYPOINT_DETECTION", "KEYPOINT_MATCHING", "ZERO_SHOT_OBJECT_DETECTION", "TEXT_RECOGNITION",
              "TABLE_RECOGNITION")  # fmt: skip
_STATE_SPACE = re.compile(r"mamba|rwkv|ssm|bamba|jamba|zamba|recurrent|xlstm|falcon_h1|granitemoehybrid|nemotron_h")
_TIME = ("TIME_SERIES_PREDICTION", "TIME_SERIES_CLASSIFICATION", "TIME_SERIES_REGRESSION")
KINDS = (
    "decoder, text", "decoder with mixture of experts", "state space and hybrids", "encoder, text",
    "encoder-decoder, text", "vision transformer", "convolutional and hierarchical vision", "detection, segmentation",
    "audio and speech", "several modalities", "time series", "other", "timm (vision)",
)  # fmt: skip


def kind_of(row: dict[str, Any]) -> str:
    """One of `KINDS` for a row of the coverage run."""
    family, given = row["family"], " ".join(row.get("inputs", ()))
    if row["task"] == "timm":
        return "timm (vision)"
    if _STATE_SPACE.search(family):
        return "state space and hybrids"
    if _in(family, _TIME) or "past_values" in given:
        return "time series"
    if _in(family, ("MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT", "ZERO_SHOT_IMAGE_CLASSIFICATION")) or _two(given):
        return "several modalities"
    if _in(family, _AUDIO) or re.search(r"input_features|input_values|audio", given):
        return "audio and speech"
    if _in(family, _DETECTION):
        return "detection, segmentation"
    if _in(family, _VISION) or re.search(r"pixel_values|grid_thw|,3,\d+,\d+", given):
        return "convolutional and hierarchical vision" if row.get("convolutional") else "vision transformer"
    if "decoder_input_ids" in given or _in(family, ("SEQ_TO_SEQ_CAUSAL_LM",)):
        return "encoder-decoder, text"
    if _in(family, ("MASKED_LM", "TEXT_ENCODING")):
        return "encoder, text"
    if _in(family, ("CAUSAL_LM",)) or family.endswith("_text"):
        return "decoder with mixture of experts" if row.get("experts") else "decoder, text"
    return "other"


def _in(family: str, tasks: tuple[str, ...]) -> bool:
    return any(family in getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES", ()) for task in tasks)


def _two(given: str) -> bool:
    text = re.search(r"(?<!decoder_)input_ids", given)
    return bool(text and re.search(r"pixel_values|input_features|input_values", given))
