"""Which class a model of its own code has, and what is found in its tree of modules without knowing it."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from own_code import AUTO, FILES, SEER, make_decoder_pair, write_code
from safetensors.torch import save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.custom_code.running import class_of, running
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.inputs.own_code import Trust
from hpa_merge.model import MetaModel
from hpa_merge.model.classes import read_model_config


def meta_of(folder: Path) -> MetaModel:
    with Trust(True).with_code(Checkpoint.open(folder, "OLD")) as opened:
        return meta_model(opened, torch.device("cpu"))


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder_pair(tmp_path_factory.mktemp("own"))[0]


@pytest.mark.parametrize(
    ("architectures", "auto"),
    [
        (["TinyDecForText"], {"AutoModel": "modeling_tinydec.TinyDecForText"}),
        (["Renamed"], {"AutoModelForCausalLM": "modeling_tinydec.TinyDecForText"}),  # as ChatGLM has it
        (None, {"AutoModel": "tinydec_parts.Mixer", "AutoModelForCausalLM": "modeling_tinydec.TinyDecForText"}),
    ],
)
def test_the_class(architectures: list[str] | None, auto: Mapping[str, str], decoder: Path) -> None:
    configure(decoder, architectures=architectures, auto_map={"AutoConfig": AUTO["AutoConfig"]} | auto)
    meta = meta_of(decoder)
    assert type(meta.model).__name__ == "TinyDecForText"
    assert [unit.name for unit in meta.units] == ["words", "blobs.0", "blobs.1", "blobs.2", "voice"]
    assert [unit.name for unit in meta.units if unit.text] == ["blobs.0", "blobs.1", "blobs.2"]
    assert Counter(meta.components.values()) == {"language": 18, "embeddings": 1, "head": 1}
    assert len(meta.linears) == 13


def test_a_model_of_two_parts(tmp_path: Path) -> None:
    """An eye that the code registers with transformers, and transformers' own Qwen 2, under names of its own; twice."""
    write_code(tmp_path, {"seer.py": SEER} | FILES)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "vocab_size": 512}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    auto = {"AutoConfig": "seer.SeerConfig", "AutoModel": "seer.Seer"}
    config = {"model_type": "own_seer", "architectures": ["Seer"], "auto_map": auto, "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config | {"eye_config": {"size": 16}, "dtype": "float32"}))
    code = Trust(True).code_of(tmp_path, "OLD")
    assert code is not None
    assert set(code.parts[""].files) == {"seer.py"}
    with running(code), torch.device("meta"):
        model = class_of(code, code.references[1])(read_model_config(tmp_path, "OLD", code))
    tensors = {name: torch.zeros(value.shape) for name, value in model.named_parameters()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        meta = meta_of(tmp_path)
        stacks = Counter(unit.stack for unit in meta.units if unit.stack)
        assert stacks == {"eye.blocks": 2, "brain.model.layers": 3}
        assert {unit.stack for unit in meta.units if unit.text} == {"brain.model.layers"}
        linears = Counter(meta.components[linear.key] for linear in meta.linears.values())
        assert linears == {"vision": 4, "projector": 1, "language": 21, "head": 1}
