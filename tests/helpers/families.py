"""The whole matrix, row by row, and what is refused."""

from families_experts import EXPERT_FAMILIES
from families_text import TEXT_FAMILIES
from families_vision import VISION_FAMILIES

__all__ = ["EXPERT_FAMILIES", "FAMILIES", "REFUSED", "TEXT_FAMILIES", "VISION_FAMILIES"]

FAMILIES = (*TEXT_FAMILIES, *EXPERT_FAMILIES, *VISION_FAMILIES)

REFUSED = {
    "a model that reads no text (ViT, Whisper, …)": (
        "refused: “… takes pixel_values, and calibration samples are texts, with or without images: only models that "
        "read text can be merged.”"
    ),
    "an encoder-decoder without `decoder_start_token_id`": (
        "refused: “… is an encoder-decoder, and neither config.json nor generation_config.json has its "
        "decoder_start_token_id: add it to one of them.”"
    ),
    "an architecture that the installed transformers does not have": (
        "refused: “…'s architecture is …, which transformers … does not have: install a version that does.”"
    ),
    "a weight whose inputs cannot be seen: multiplied in parts, or in a kernel that is not torch's": (
        "uncalibrated: NEW's, or as `--uncalibrated` says, and named in the report"
    ),
    "convolutions, tables of positions, and parameters whose product the source does not show (DBRX's experts)": (
        "NEW's, named in the report's `unmerged`"
    ),
}
"""What is not merged, and what a user sees; the sentences are pinned in the tests of refusals."""


IN_BFLOAT16 = (
    "Gemma 2", "Phi-3", "Falcon (40B)", "OPT", "Mamba 2", "T5", "Mixtral", "gpt-oss", "DeepSeek-V3", "Llama 4",
    "LLaVA-NeXT", "Qwen3-VL-MoE", "InternVL 3", "Llama 3.2 Vision",
)  # fmt: skip
