"""A model whose own forward fails in one release of transformers is merged and asked all the same."""

from pathlib import Path

import torch
from families import FAMILIES
from family_pairs import make_pair
from transformers import Llama4ForConditionalGeneration

from hpa_merge.evaluation.generate import _load
from hpa_merge.model.transformers_fixes import repair

PROMPT = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def llama4(folder: Path) -> Path:
    (family,) = (family for family in FAMILIES if family.name == "Llama 4")
    return make_pair(family, folder, dtype=torch.float32).old


def test_llama_4_answers(tmp_path: Path) -> None:
    model = _load(llama4(tmp_path), torch.device("cpu"), None, None, None)
    assert model.generate(**PROMPT, max_new_tokens=3, do_sample=False).shape == (1, 7)


def test_a_repair_changes_no_number_and_nothing_of_the_library(tmp_path: Path) -> None:
    folder = llama4(tmp_path)
    model = Llama4ForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        hidden = model.language_model.model(**PROMPT, use_cache=False).last_hidden_state
        wanted = model.language_model.lm_head(hidden)
        repair(model)
        assert torch.equal(model(**PROMPT, use_cache=False).logits, wanted)
    assert not Llama4ForConditionalGeneration.from_pretrained(folder).language_model._forward_hooks
