"""Every format that is read: the weights are those that a slow computation finds, in OUT's layout and dtype."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoint_folders import write_index
from quantised import STACKS, WRITERS, dequantise, quantise
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.errors import CheckpointError, NumericalError

pytest.importorskip("compressed_tensors")
pytest.importorskip("bitsandbytes")

NAME = "model.layers.0.mlp.up_proj.weight"
STACK = "model.layers.0.mlp.experts.gate_up_proj"


@pytest.fixture(scope="module", name="plain")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16 with two linears, the second one with rows that no block of 64 numbers divides."""
    folder = tmp_path_factory.mktemp("plain") / "plain"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    tensors = {
        NAME: torch.randn(64, 96, generator=draw),
        "model.layers.0.mlp.down_proj.weight": torch.randn(96, 64, generator=draw)[:, :48] * 3,
        "model.layers.0.mlp.up_proj.bias": torch.randn(64, generator=draw),
        "model.norm.weight": torch.randn(64, generator=draw),
    }
    save_file(
        {k: v.bfloat16().contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny", "dtype": "bfloat16"}))
    return folder


@pytest.fixture(scope="module", name="stack")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16 with a stack of experts."""
    folder = tmp_path_factory.mktemp("stack") / "stack"
    folder.mkdir()
    tensors = {STACK: torch.randn(3, 64, 96).bfloat16(), f"{STACK}_bias": torch.randn(3, 96).bfloat16()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"dtype": "bfloat16"}')
    return folder


def test_weights_of_conv1d_are_stored_the_other_way_round(tiny: Any, tmp_path: Path) -> None:
    """GPT-2's, also the square ones, as transformers saves them in eight bits."""
    eight = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny("gpt2").old, quantization_config=eight)
    model.save_pretrained(tmp_path)
    with Checkpoint.open(tiny("gpt2").old, "OLD") as plain, Checkpoint.open(tmp_path, "NEW") as found:
        assert found.unpacking is not None
        assert len(found.unpacking.recipes) == 4 * model.config.n_layer
        for name in found.unpacking.recipes:
            weight = plain.read(name).float()
            step = weight.abs().amax(0) / 127
            assert ((found.read(name).float() - weight).abs() <= step).all()


def quantised(plain: Path, folder: Path, kind: str = "fp8", **config: Any) -> Path:
    """``plain`` in few bits, with these fields in its quantization_config."""
    made = quantise(plain, folder / "quantised", kind)
    path = made / "config.json"
    said = json.loads(path.read_text())
    said["quantization_config"] |= config
    path.write_text(json.dumps(said))
    return made


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder, "NEW")
    return str(caught.value)


@pytest.mark.parametrize("kind", [*WRITERS, *STACKS])
def test_a_format(kind: str, plain: Path, stack: Path, tmp_path: Path) -> None:
    """Values, names, order, head and content are those of the checkpoint that was dequantised before."""
    source = stack if kind in STACKS else plain
    made, held = quantise(source, tmp_path / "quantised", kind), dequantise(source, tmp_path / "held", kind)
    with Checkpoint.open(made, "NEW") as found, Checkpoint.open(held, "NEW") as expected:
        assert found.tensors == expected.tensors
        assert list(found.tensors) == list(expected.tensors)
        assert found.header_bytes("model.safetensors") == expected.header_bytes("model.safetensors")
        with Prefetch(found, found.tensors, 10**6) as ahead:
            for name in expected.tensors:
                wanted = expected.read(name)
                assert torch.equal(ahead.read(name), wanted), name
                assert torch.equal(torch.cat(list(found.pieces(name, 100))), wanted.reshape(-1))
        assert sum(found.computes(name) for name in found.tensors) == (1 if kind in STACKS else 2)
        assert "quantization_config" not in found.config
        assert found.dtype == "bfloat16"
        assert found.dequantised


def test_parts_in_several_shards(plain: Path, tmp_path: Path) -> None:
    """A scale may lie in another file than its weight; a file with scales alone has no counterpart in OUT."""
    made = quantised(plain, tmp_path)
    tensors = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    shards = {"a": f"model-{1:05}-of-00002.safetensors", "b": f"model-{2:05}-of-00002.safetensors"}
    scales = {key: value for key, value in tensors.items() if "scale" in key}
    save_file({key: value for key, value in tensors.items() if key not in scales}, made / shards["a"], {"format": "pt"})
    save_file(scales, made / shards["b"], {"format": "pt"})
    write_index(made, {key: shards["b" if key in scales else "a"] for key in tensors})
    held = load_file(dequantise(plain, tmp_path / "held", "fp8") / "model.safetensors")
    with Checkpoint.open(made, "NEW") as found:
        assert found.shards == (shards["a"],)
        assert found.disk_shards == tuple(shards.values())
        assert torch.equal(found.read(NAME), held[NAME])
        index = json.loads(found.index_bytes() or b"")
        assert index["weight_map"] == dict.fromkeys(sorted(held), shards["a"])
        assert index["metadata"]["total_size"] == sum(value.nbytes for value in held.values())


@pytest.mark.parametrize("scales", [torch.float8_e8m0fnu, torch.uint8, torch.bfloat16])
def test_scales_of_other_dtypes(scales: torch.dtype, tmp_path: Path) -> None:
    """Powers of two as DeepSeek V3.1 and MXFP8 have them, and bfloat16."""
    weight, powers = torch.randn(32, 64).to(torch.float8_e4m3fn), torch.randint(-9, 9, (2, 2))
    stored = (powers + 127).to(torch.uint8) if scales == torch.uint8 else powers.double().exp2().float().to(scales)
    save_file({"a.weight": weight, "a.weight_scale_inv": stored}, tmp_path / "model.safetensors")
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 32]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    grid = powers.double().exp2().repeat_interleave(16, 0).repeat_interleave(32, 1)
    with Checkpoint.open(tmp_path, "NEW") as found:
        assert torch.equal(found.read("a.weight"), (weight.double() * grid).bfloat16())


def test_other_names_of_scales_and_what_out_does_not_need(plain: Path, tmp_path: Path) -> None:
    made = quantised(plain, tmp_path)
    tensors = load_file(made / "model.safetensors")
    stored = {key.replace(".weight_scale_inv", ".scale"): value for key, value in tensors.items()}
    spare = ("up_proj.input_scale", "up_proj.activation_scale", "down_proj.k_scale")
    stored |= {f"model.layers.0.mlp.{leaf}": torch.tensor(1.0) for leaf in spare}
    save_file(stored, made / "model.safetensors")
    (made / "quantize_config.json").write_text("{}")
    with Checkpoint.open(made, "NEW") as found:
        assert found.tensors.keys() == load_file(plain / "model.safetensors").keys()
        assert found.side_files().left_out == (Path("quantize_config.json"),)


@pytest.mark.parametrize(
    ("kind", "config", "complaint"),
    [
        ("fp8", {"quant_method": "hqq"}, "method hqq), and that is not among the formats that are read here (fp8, "),
        ("fp8", {"weight_block_size": "all"}, "weight_block_size is 'all', which is not a pair of sizes: "),
        ("fp8", {"weight_block_size": [128, 0]}, "weight_block_size is [128, 0], which is not a pair of sizes: "),
        ("modelopt", {"quant_algo": "NVFP4"}, "quant_algo 'NVFP4' is not read here, only FP8 is: "),
        ("gptq", {"bits": 5}, "bits is 5, which is not read here: "),
        ("gptq", {"bits": 8}, "model.layers.0.mlp.down_proj.qzeros is [3, 12] instead of [3, 24]: "),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin', which is made for one kernel: "),
        ("awq", {"version": "gemv"}, "its version is 'gemv', which is made for one kernel: "),
        ("ct-int4", {"config_groups": {}}, "its configuration has no config_groups: "),
        ("ct-int4", {"transform_config": {"config_groups": {"a": {}}}}, "its weights are rotated (transform_config), "),
        ("ct-int4", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "its weights are stored sparse ("),
        ("ct-int4", {"format": "marlin-24"}, "its weights are stored sparse (marlin-24): "),
        ("ct-int4", {"config_groups": {"a": {"weights": {"num_bits": 8, "strategy": "channel"}}}}, "no group of the "),
        (
            "ct-int4",
            {"config_groups": {"a": {"weights": {"num_bits": "x"}}}},
            "is not one that compressed-tensors reads",
        ),
    ],
)
def test_refusals(kind: str, config: dict[str, Any], complaint: str, plain: Path, tmp_path: Path) -> None:
    said = refused(quantised(plain, tmp_path, kind, **config))
    assert said.startswith(f"NEW {tmp_path / 'quantised'} is quantised (quantization_config in config.json, method ")
    assert complaint in said
    assert said.endswith("give the checkpoint that it was made from, or one that its own library dequantised.")


@pytest.mark.parametrize(
    ("kind", "leaf", "value", "complaint"),
    [
        ("fp8", "weight_scale_inv", torch.ones(5, 7), "the scales of model.layers.0.mlp.up_proj.weight are [5, 7]"),
        ("nf4", "weight.absmax", None, "the tensors of model.layers.0.mlp.up_proj.weight do not hold a weight of"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", torch.zeros(4, dtype=torch.uint8), "cannot be read ("),
        ("bnb-int8", "SCB", torch.ones(3), "the scales of model.layers.0.mlp.up_proj.weight do not fit its shape"),
        ("bnb-int8", "weight_format", torch.tensor(2, dtype=torch.uint8), "is a layout for one kind of GPU: "),
        ("gptq", "scales", None, "model.layers.0.mlp.up_proj has qweight without qzeros or scales: "),
        ("awq", "qzeros", torch.zeros(1, 1, dtype=torch.int32), "qzeros is [1, 1] instead of [6, 8]: "),
        ("fbgemm", "weight_scale", torch.ones(7), "weight is [64, 96] with the scales [7]: "),
        ("ct-int4", "weight_g_idx", torch.arange(96), "are in another order (weight_g_idx): "),
        ("ct-int4", "weight_scale", None, "and no group of the configuration describes that: "),
    ],
)
def test_tensors_that_do_not_fit(
    kind: str, leaf: str, value: torch.Tensor | None, complaint: str, plain: Path, tmp_path: Path
) -> None:
    made = quantised(plain, tmp_path, kind)
    tensors: dict[str, Any] = {**load_file(made / "model.safetensors"), NAME.replace("weight", leaf): value}
    save_file({key: each for key, each in tensors.items() if each is not None}, made / "model.safetensors")
    assert complaint in refused(made)


@pytest.mark.parametrize("kind", [*WRITERS, *STACKS])
def test_tensors_of_any_size(kind: str, plain: Path, stack: Path, tmp_path: Path) -> None:
    """A refusal, or a weight: no other exception, and nothing is read outside of a tensor."""
    made = quantise(stack if kind in STACKS else plain, tmp_path / "quantised", kind)
    stored = load_file(made / "model.safetensors")
    of_the_weight = [name for name in stored if name.startswith((NAME.removesuffix("weight"), STACK))]
    for name in of_the_weight:
        for shape in ((), (3,), (0,), (0, 3), (3, 0), (2, 2, 2), (0, *stored[name].shape[1:])):
            changed = {**stored, name: torch.zeros(shape, dtype=stored[name].dtype)}
            save_file(changed, made / "model.safetensors", {"format": "pt"})
            with contextlib.suppress(CheckpointError), Checkpoint.open(made, "NEW") as found:
                for each in found.tensors:
                    found.read(each)


@pytest.mark.parametrize(
    ("leaf", "value"),
    [
        ("absmax", torch.zeros(95, dtype=torch.uint8)),
        ("absmax", torch.zeros(96)),
        ("nested_absmax", torch.zeros(0)),
        ("nested_absmax", torch.zeros(1, dtype=torch.bfloat16)),
        ("nested_quant_map", torch.zeros(255)),
        ("nested_quant_map", torch.zeros(256, dtype=torch.float16)),
    ],
)
def test_scales_that_bitsandbytes_would_read_beyond_their_end(
    leaf: str, value: torch.Tensor, plain: Path, tmp_path: Path
) -> None:
    made = quantised(plain, tmp_path, "nf4-nested")
    tensors = {**load_file(made / "model.safetensors"), f"{NAME}.{leaf}": value}
    save_file(tensors, made / "model.safetensors")
    assert f"the tensors of {NAME} do not hold a weight of [64, 96]: " in refused(made)


@pytest.mark.parametrize(
    ("field", "value"), [("nested_dtype", "load"), ("nested_offset", None), ("nested_blocksize", 0), ("blocksize", 0)]
)
def test_a_description_that_bitsandbytes_does_not_write(field: str, value: Any, plain: Path, tmp_path: Path) -> None:
    made = quantised(plain, tmp_path, "nf4-nested")
    tensors = load_file(made / "model.safetensors")
    state = f"{NAME}.quant_state.bitsandbytes__nf4"
    described = json.loads(tensors[state].numpy().tobytes()) | {field: value}
    tensors[state] = torch.frombuffer(bytearray(json.dumps(described).encode()), dtype=torch.uint8)
    save_file(tensors, made / "model.safetensors")
    assert f"the description of {NAME} cannot be read (" in refused(made)


def test_an_error_names_the_tensor_whose_parts_are_damaged(plain: Path, tmp_path: Path) -> None:
    made = quantised(plain, tmp_path, "gptq-order")
    tensors = load_file(made / "model.safetensors")
    tensors[NAME.replace("weight", "g_idx")] += 1000
    save_file(tensors, made / "model.safetensors")
    with Checkpoint.open(made, "NEW") as found, pytest.raises(CheckpointError, match="cannot be dequantised"):
        found.read(NAME)


def test_a_library_that_is_not_installed(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = quantised(plain, tmp_path, "nf4")
    real = "hpa_merge.quantisation.recipe.find_spec"
    monkeypatch.setattr(real, lambda name: None if name == "bitsandbytes" else object())
    assert refused(made).endswith(
        "method bitsandbytes), and bitsandbytes is not installed, which reads such weights: "
        "pip install '.[quantized]' in hpa-merge's checkout."
    )


# --- another dtype ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_another_dtype(dtype: torch.dtype, plain: Path, tmp_path: Path) -> None:
    """Weights in few bits are rounded once, to that dtype; the others are cast, or stay if they are to be kept."""
    made = quantised(plain, tmp_path)
    stored, before = load_file(made / "model.safetensors"), load_file(plain / "model.safetensors")
    steps = stored[f"{NAME}_scale_inv"].double().repeat_interleave(16, 0).repeat_interleave(16, 1)
    opened = Checkpoint.open(made, "NEW").read_as(dtype, lambda name: name == "model.norm.weight")
    with opened as found:
        assert torch.equal(found.read(NAME), (stored[NAME].double() * steps).to(dtype))
        bias = "model.layers.0.mlp.up_proj.bias"
        assert torch.equal(found.read(bias), before[bias].to(dtype))
        assert torch.equal(found.read("model.norm.weight"), before["model.norm.weight"])
        assert found.config["dtype"] == str(dtype).removeprefix("torch.")
        assert found.dequantised == "2 weights in block FP8"


def test_a_value_that_does_not_fit_float16(tmp_path: Path) -> None:
    save_file({"a.weight": torch.tensor([1.0, 1e6])}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    opened = Checkpoint.open(tmp_path, "OLD").read_as(torch.float16)
    with (
        opened,
        pytest.raises(NumericalError, match=r"OLD's tensor a.weight does not fit float16: choose another --dtype"),
    ):
        opened.read("a.weight")


def test_the_layout_is_that_of_safetensors(tmp_path: Path) -> None:
    """With every dtype, names in no order, and an empty tensor."""
    kinds = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float64, torch.float16]
    tensors = {f"{name}.{n}é": torch.ones(n + 1, dtype=kind) for name in "ba" for n, kind in enumerate(kinds)}
    tensors |= {"z": torch.empty(0, 3), "c": torch.ones(3, dtype=torch.complex64), "odd": torch.ones(5).bfloat16()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    cast = {k: v.bfloat16() if v.is_floating_point() else v for k, v in tensors.items()}
    (tmp_path / "cast").mkdir()
    save_file(cast, tmp_path / "cast" / "model.safetensors", {"format": "pt"})
    (tmp_path / "cast" / "config.json").write_text("{}")
    with (
        Checkpoint.open(tmp_path, "NEW").read_as(torch.bfloat16) as found,
        Checkpoint.open(tmp_path / "cast", "NEW") as expected,
    ):
        assert list(found.tensors.values()) == list(expected.tensors.values())
        assert found.header_bytes("model.safetensors") == expected.header_bytes("model.safetensors")
