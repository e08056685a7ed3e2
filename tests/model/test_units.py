"""What is a unit, and what stays resident."""

import torch
from family_pairs import SIZES
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from hpa_merge.model.units import find_units


def test_a_fixed_table_of_positions_is_no_unit() -> None:
    """Whisper's kind of encoder reads its weight and does not call it; an embedding that is trained is a unit."""
    audio = {"num_mel_bins": 8, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(audio_config=audio, text_config={"model_type": "qwen2", **SIZES})
        )
    tables = [name for name in dict(model.named_modules()) if name.endswith("embed_positions")]
    assert len(tables) == 1
    names = {unit.name for unit in find_units(model)}
    assert not names & set(tables)
    assert any(name.endswith("embed_tokens") for name in names)
