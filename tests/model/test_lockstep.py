"""model/: the paused, streamed forward is the ordinary one, with one unit in memory at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import greenlet
import mixtures
import pytest
import torch
import transformers
from cases import TinyCase
from curvatures import assert_holds
from reference import captured_inputs, load_model
from streaming import Samples, check, meta_model_of
from tiny_models import ARCHITECTURES, model_inputs
from torch import Tensor, nn
from transformers import PreTrainedModel

from hpa_merge.core import Curvature
from hpa_merge.model import ActivationHooks, ForwardError, MetaModel, PausedForwards, Unit, WatchedWeight

IMAGE = 500

TEXT: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
GROUPED = {"num_key_value_heads": 2}


def ids(length: int) -> Tensor:
    return torch.randint(5, 400, (1, length))


def text(count: int = 3) -> Samples:
    return [{"input_ids": (x := ids(9 + i)), "attention_mask": torch.ones_like(x)} for i in range(count)]


def qwen3_moe() -> tuple[PreTrainedModel, Samples]:
    config = transformers.Qwen3MoeConfig(**TEXT, **GROUPED, **EXPERTS, head_dim=16, moe_intermediate_size=32)
    return transformers.Qwen3MoeForCausalLM(config), text()


def jamba() -> tuple[PreTrainedModel, Samples]:
    """State space and attention blocks, dense and sparse ones, in one stack."""
    places = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    config = transformers.JambaConfig(**TEXT, **GROUPED, **EXPERTS, **places, use_mamba_kernels=False, mamba_d_state=8)
    return transformers.JambaForCausalLM(config), text()


def mllama() -> tuple[PreTrainedModel, Samples]:
    """Self and cross attention blocks in one stack; a block of the latter sees samples with an image only."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_global_layers": 1,
        "attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "max_num_tiles": 1,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [1],
        "supported_aspect_ratios": [[1, 1]],
    }
    rotary = {"rope_type": "default", "rope_theta": 10000.0}
    words = {**TEXT, **GROUPED, "cross_attention_layers": [1, 3], "rope_parameters": rotary, "pad_token_id": 0}
    config = transformers.MllamaConfig(vision_config=vision, text_config=words, image_token_index=IMAGE)
    samples = text(4)
    for sample in samples[1::2]:
        sample["input_ids"][:, 3] = IMAGE
        sample["pixel_values"] = torch.randn(1, 1, 1, 3, 28, 28, dtype=torch.bfloat16)
        sample["aspect_ratio_ids"] = torch.ones(1, 1, dtype=torch.long)
        sample["aspect_ratio_mask"] = torch.ones(1, 1, 1, dtype=torch.long)
        sample["cross_attention_mask"] = torch.ones(1, sample["input_ids"].shape[1], 1, 1, dtype=torch.long)
    return transformers.MllamaForConditionalGeneration(config), samples


def opt() -> tuple[PreTrainedModel, Samples]:
    """Linears before and after the blocks, registered in the other order."""
    config = transformers.OPTConfig(**TEXT, ffn_dim=128, word_embed_proj_dim=32)
    return transformers.OPTForCausalLM(config), text()


def gpt_oss() -> tuple[PreTrainedModel, Samples]:
    return mixtures.gpt_oss(), [{"input_ids": sample["input_ids"] % 256} for sample in text()]


def t5() -> tuple[PreTrainedModel, Samples]:
    config = transformers.T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4, vocab_size=512)
    samples = [{"input_ids": ids(9 + i), "decoder_input_ids": ids(5 + i)} for i in range(3)]
    return transformers.T5ForConditionalGeneration(config), samples


def in_dtype(samples: Samples, dtype: torch.dtype) -> Samples:
    return [{k: v.to(dtype) if v.is_floating_point() else v for k, v in sample.items()} for sample in samples]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tiny_models(name: str, tiny: Callable[..., TinyCase]) -> None:
    case = tiny(name, "bfloat16")
    check(case.new, in_dtype(model_inputs(name, case.task), torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "stored", "dtype"),
    [
        ("llava", "bfloat16", torch.float32),
        ("qwen2_tied", "bfloat16", torch.float32),
        ("phi3", "float16", torch.float32),
        ("llama", "float32", torch.bfloat16),
    ],
)
def test_in_another_dtype(name: str, stored: str, dtype: torch.dtype, tiny: Callable[..., TinyCase]) -> None:
    case = tiny(name, stored)
    check(case.new, in_dtype(model_inputs(name, case.task), dtype), dtype=dtype)


@pytest.mark.filterwarnings("ignore:`hidden_state` is deprecated:FutureWarning")  # transformers', inside Mllama
@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        *((make, torch.bfloat16) for make in (qwen3_moe, jamba, mllama, opt, t5)),
        *((make, torch.float32) for make in (qwen3_moe, jamba, t5, gpt_oss)),
    ],
)
def test_unusual_models(
    make: Callable[[], tuple[PreTrainedModel, Samples]], dtype: torch.dtype, tmp_path: Path
) -> None:
    """In their own dtype, and upcast."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, samples = make()
    model.bfloat16().save_pretrained(tmp_path, max_shard_size="100KB")
    unvisited = frozenset({"shared"} if make is t5 else set())  # T5's stacks look up tied copies of it
    check(tmp_path, in_dtype(samples, dtype), unvisited, dtype=dtype)


# --- what goes wrong ---


@pytest.fixture
def llama(tiny: Callable[..., TinyCase]) -> Iterator[tuple[MetaModel, Callable[[str], Tensor]]]:
    with meta_model_of(tiny("llama").new) as made:
        yield made


def test_calls_from_outside_are_refused(llama: tuple[MetaModel, Callable[[str], Tensor]]) -> None:
    meta, read = llama
    forwards = PausedForwards(meta.model, meta.units)
    sample = {"input_ids": torch.tensor([[5, 6, 7]])}
    forwards.start([sample])
    with pytest.raises(RuntimeError, match="called from outside"):
        meta.model(**sample)
    with pytest.raises(RuntimeError, match="called from outside"):
        greenlet.greenlet(lambda: meta.model(**sample)).switch()
    assert forwards.next_unit == meta.units[0]  # and the sample that is on its way does not notice
    meta.load(meta.units[0], read)
    assert list(forwards.run(meta.units[0])) == [0]
    assert forwards.next_unit == meta.units[1]
    forwards.close()


def test_an_exception_names_its_sample_and_the_others_can_be_closed(
    llama: tuple[MetaModel, Callable[[str], Tensor]],
) -> None:
    meta, read = llama
    forwards = PausedForwards(meta.model, meta.units)
    outputs = []
    forwards.start([{"input_ids": torch.tensor([[5, t, 7]])} for t in (6, 512, 8)], lambda *_: outputs.append(_))
    embedding = forwards.next_unit
    assert embedding is not None
    meta.load(embedding, read)
    with pytest.raises(ForwardError, match="sample 1") as raised:
        list(forwards.run(embedding))
    assert raised.value.sample == 1
    assert isinstance(raised.value.__cause__, IndexError)
    forwards.close()
    assert forwards.next_unit is None
    assert not outputs
    assert not any(module._forward_pre_hooks for module in meta.model.modules())
    assert torch.is_grad_enabled()


def test_an_exception_before_the_first_unit(llama: tuple[MetaModel, Callable[[str], Tensor]]) -> None:
    forwards = PausedForwards(llama[0].model, llama[0].units)
    with pytest.raises(ForwardError, match="sample 1"):
        forwards.start([{"input_ids": torch.tensor([[5]])}, {"attention_mask": torch.tensor([[1]])}])
    forwards.close()


def test_a_sample_that_is_not_needed_may_fail_and_decides_nothing(
    llama: tuple[MetaModel, Callable[[str], Tensor]],
) -> None:
    meta, read = llama
    forwards = PausedForwards(meta.model, meta.units)
    samples = [{"input_ids": torch.tensor([[5, t, 7]])} for t in (6, 512, 8)]
    outputs: list[int] = []
    forwards.start([*samples, {"attention_mask": torch.tensor([[1]])}], lambda n, _: outputs.append(n), needed=1)
    ran = []
    while (unit := forwards.next_unit) is not None:
        meta.load(unit, read)
        ran.append(list(forwards.run(unit)))
        meta.free(unit)
    forwards.close()
    assert ran[0] == [0, 1, 2]
    assert all(each == [0, 2] for each in ran[1:])
    assert outputs == [0, 2]


# --- hooks ---


def walk(made: tuple[MetaModel, Callable[[str], Tensor]], samples: Samples, watched: Mapping[str, Sequence[str]]):
    """Through all units with hooks on ``watched``, linears by unit; the curvatures, and how many outputs there were."""
    meta, read = made
    forwards, outputs = PausedForwards(meta.model, meta.units), []
    hooks = ActivationHooks(meta.model, meta.observed)
    hooks.on_read = forwards.end_if_last
    forwards.start(samples, lambda *_: outputs.append(_))
    found: dict[str, Curvature] = {}
    unit: Unit | None
    while (unit := forwards.next_unit) is not None:
        meta.load(unit, read)
        with hooks.watching(watched.get(unit.name, ())):
            for _ in forwards.run(unit, last=unit.name == "lm_head" and "lm_head" in watched, reads=True):
                hooks.end_sample()
        found |= hooks.curvatures()
        meta.free(unit)
    forwards.close()
    return found, len(outputs)


def test_linears_that_share_an_input_share_a_curvature(
    llama: tuple[MetaModel, Callable[[str], Tensor]], tiny: Callable[..., TinyCase]
) -> None:
    samples = model_inputs("llama", tiny("llama").safety)
    block = "model.layers.1"
    attention, mlp = f"{block}.self_attn", f"{block}.mlp"
    names = [f"{attention}.{x}_proj" for x in "qkvo"] + [f"{mlp}.{x}_proj" for x in ("gate", "up", "down")]
    found, outputs = walk(llama, samples, {block: names, "lm_head": ["lm_head"]})
    assert sorted(found) == sorted([*names, "lm_head"])  # the head: a leaf that is a unit itself
    q, k, v, o, gate, up, down = (found[name] for name in names)
    assert q is k is v
    assert gate is up
    assert len({id(x) for x in (q, o, gate, down, found["lm_head"])}) == 5
    read = captured_inputs(load_model(tiny("llama").new), samples)
    for name, curvature in found.items():
        assert_holds(curvature, torch.cat(read[name]))
    assert outputs == 0  # the head was the last of interest: its outputs, the largest of all, are never made


def hooks_on(linears: Mapping[str, nn.Module]) -> ActivationHooks:
    """Hooks on linear modules, by name."""
    return ActivationHooks(nn.ModuleDict(linears), [WatchedWeight(f"{name}.weight", (name,), 1) for name in linears])


def test_linears_that_share_in_one_sample_only_get_exactly_their_tokens() -> None:
    a, b, c = (nn.Linear(6, 2) for _ in range(3))
    hooks = hooks_on({"a": a, "b": b, "c": c})
    draw = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(1, n, 6, generator=draw) for n in (4, 3, 7))
    with hooks.watching(["a", "b", "c"]), torch.no_grad():
        a(x), b(x), c(x)
        hooks.end_sample()
        a(y), b(z), c(y)
        hooks.end_sample()
    found = hooks.curvatures()
    assert found["a"] is found["c"]
    assert found["a"] is not found["b"]
    assert_holds(found["a"], torch.cat([x[0], y[0]]))
    assert_holds(found["b"], torch.cat([x[0], z[0]]))


def test_what_is_written_over_in_place_was_read_before() -> None:
    a, b = nn.Linear(6, 2), nn.Linear(6, 2)
    hooks = hooks_on({"a": a, "b": b})
    before = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    x = before.clone()
    with hooks.watching(["a", "b"]), torch.no_grad():
        a(x)
        x.mul_(3.0)
        x[:, 0] = 0.0
        b(x)
        hooks.end_sample()
        x.zero_()
    found = hooks.curvatures()
    assert_holds(found["a"], before)
    assert_holds(found["b"], torch.cat([before.new_zeros(5, 1), 3 * before[:, 1:]], dim=1))


def test_only_what_is_watched_and_read_is_found() -> None:
    linears = {name: nn.Linear(4, 4) for name in ("watched", "unwatched", "unread", "empty")}
    hooks = hooks_on(linears)
    before = {name: linear.weight for name, linear in linears.items()}
    with hooks.watching(["watched", "unread", "empty"]), torch.no_grad():
        for name in ("watched", "unwatched"):
            linears[name](torch.ones(2, 4))
        linears["empty"](torch.ones(0, 4))  # an expert that no token is sent to
    hooks.end_sample()
    assert set(hooks.curvatures()) == {"watched"}
    assert all(linear.weight is before[name] for name, linear in linears.items())
