"""checkpoint/folder.py, reader.py and shard.py: which folders are refused, and in which words."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_folders import INDEX, sharded_folder, single_folder, write_index, write_raw  # noqa: F401 - fixtures
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError


def refused(folder: Path, role: str = "OLD") -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder, role)
    return str(caught.value)


# --- folder and config -----------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert refused(folder) == f"OLD {folder} does not exist: give a folder in Hugging Face layout."


def test_a_file_instead_of_a_folder(single: Path) -> None:
    path = single / "model.safetensors"
    assert refused(path, "NEW") == f"NEW {path} is a file: give its folder."


def test_no_config(single: Path) -> None:
    (single / "config.json").unlink()
    assert refused(single) == (
        f"OLD {single} has no config.json: give a folder in Hugging Face layout, as save_pretrained writes it."
    )


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter(tmp_path: Path, with_config: bool) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    if with_config:  # as LLaVA's trainer leaves it
        (tmp_path / "config.json").write_text("{}")
    assert refused(tmp_path) == (
        f"OLD {tmp_path} holds a PEFT adapter without its model: merge it into its base first, with "
        "merge_and_unload() and then save_pretrained()."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "adapters.safetensors",
            "holds an adapter of MLX (adapters.safetensors), which peft does not read: give the checkpoint that "
            "mlx_lm.fuse makes of it and its base.",
        ),
        (
            "adapter.safetensors",
            "holds adapter_config.json and adapter.safetensors, a name that peft does not look for: rename it to "
            "adapter_model.safetensors if it is the adapter, or move it out of the folder.",
        ),
    ],
)
def test_an_adapter_under_another_name(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, tmp_path / name)
    assert refused(tmp_path, "NEW") == f"NEW {tmp_path} {sentence}"


@pytest.mark.parametrize("name", ["config.json", INDEX])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (
            b'{"a": "\xff"}',
            "is not valid JSON ('utf-8' codec can't decode byte 0xff in position 7: invalid start byte)",
        ),
        (b"[1]", "holds a JSON list instead of an object"),
        (b"null", "holds a JSON NoneType instead of an object"),
    ],
)
def test_broken_json(sharded: Path, name: str, content: bytes, complaint: str) -> None:
    (sharded / name).write_bytes(content)
    assert refused(sharded) == f"OLD {sharded}: {name} {complaint}: fetch or save the checkpoint again."


def test_a_broken_link_cannot_be_read(single: Path) -> None:
    (single / "config.json").unlink()
    (single / "config.json").symlink_to("../../blobs/gone")
    assert refused(single) == (
        f"OLD {single}: config.json cannot be read (No such file or directory): "
        "check its permissions, or fetch it again."
    )


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quantization_config": {"quant_method": "hqq"}}, "quantization_config in config.json, method hqq"),
        ({"compression_config": "all"}, "compression_config in config.json, method all"),
        (
            {"text_config": {"quantization_config": {"bits": 4}}},
            "text_config.quantization_config in config.json, method unknown",
        ),
    ],
)
def test_quantised_by_config(single: Path, config: dict[str, Any], named: str) -> None:
    (single / "config.json").write_text(json.dumps(config))
    assert refused(single) == (
        f"OLD {single} is quantised ({named}), and that is not among the formats that are read here (fp8, "
        "compressed-tensors, fbgemm_fp8, modelopt, mxfp4, bitsandbytes, gptq, awq): give the checkpoint that it was "
        "made from, or one that its own library dequantised; an adapter that was trained on the quantised one fits it "
        "too."
    )


def test_an_empty_quantization_config_says_nothing(single: Path) -> None:
    (single / "config.json").write_text('{"quantization_config": null, "text_config": {"quantization_config": {}}}')
    Checkpoint.open(single, "NEW")


def test_a_configuration_of_weights_that_are_not_quantised(single: Path) -> None:
    """As of a model that was to be quantised when it is loaded: its tensors are read as they are."""
    (single / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}, "dtype": "float32"}')
    with Checkpoint.open(single, "NEW") as found:
        assert not any(map(found.computes, found.tensors))
        assert found.config == {"dtype": "float32"}


@pytest.mark.parametrize(
    ("name", "tensor", "code"),
    [
        ("a.weight", torch.zeros(2).to(torch.float8_e4m3fn), "F8_E4M3"),
        ("a.bias", torch.zeros(2).to(torch.float8_e5m2), "F8_E5M2"),
        ("a.qweight", torch.zeros(2, dtype=torch.int32), "I32"),
        ("a.weight", torch.zeros(2, dtype=torch.uint8), "U8"),
        ("a.weight_packed", torch.zeros(2, dtype=torch.int32), "I32"),
    ],
)
def test_quantised_by_dtype(single: Path, name: str, tensor: torch.Tensor, code: str) -> None:
    save_file({name: tensor}, single / "model.safetensors")
    assert refused(single) == (
        f"OLD {single} is quantised (the tensor {name} in model.safetensors is {code}), and nothing says how: give the "
        "checkpoint in bfloat16, float16 or float32, or its config.json with the quantization_config."
    )


# --- files and index -------------------------------------------------------------------------------------------------


def test_no_weights(single: Path) -> None:
    (single / "model.safetensors").unlink()
    assert refused(single) == f"OLD {single} has no *.safetensors file: fetch or save the checkpoint again."


@pytest.mark.parametrize("weight_map", [None, [], {}, "x", {"a": 1}, {"a": None}])
def test_index_without_a_mapping(sharded: Path, weight_map: Any) -> None:
    write_index(sharded, weight_map)
    assert refused(sharded) == (
        f"OLD {sharded}: {INDEX} has no weight_map from tensors to files: fetch or save the checkpoint again."
    )


@pytest.mark.parametrize("entry", ["/etc/passwd", "../x.safetensors", "sub/x.safetensors", "a\\b", "..", "", "a\0b"])
def test_index_points_elsewhere(sharded: Path, entry: str) -> None:
    write_index(sharded, {"layers.1.a": entry})
    assert refused(sharded) == (
        f"OLD {sharded}: {INDEX} points to {entry!r}, and only files directly in the folder are read: "
        "move the shards there, and leave the folders out in its weight_map."
    )


def test_a_tensor_twice(sharded: Path) -> None:
    first, third = (f"model-0000{n}-of-00003.safetensors" for n in (1, 3))
    save_file({**load_file(sharded / third), "layers.1.a": torch.zeros(1)}, sharded / third)
    assert refused(sharded) == (
        f"OLD {sharded} holds the tensor layers.1.a twice, in {first} and in {third}, and transformers takes the "
        "second: load it and save it again with save_pretrained."
    )


# --- one shard -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cut", "complaint"), [(-3, "truncated"), (2, "too long")])
def test_wrong_length(single: Path, cut: int, complaint: str) -> None:
    path = single / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] if cut < 0 else whole + b"x" * cut)
    relation = "of" if cut < 0 else "instead of"
    assert refused(single) == (
        f"OLD {single}: model.safetensors is {complaint} ({len(whole) + cut} bytes {relation} {len(whole)}): "
        "fetch or save the checkpoint again."
    )


def entry(start: int, stop: int, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda path: path.write_bytes(b""), "header too small"),
        (lambda path: path.write_bytes(b"\xff" * 100), "header too large"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "invalid header length"),
        (lambda path: write_raw(path, b"hello", b""), "invalid JSON in header"),
        (lambda path: write_raw(path, b"[]", b""), "invalid JSON in header"),
        (lambda path: write_raw(path, {"a": 3}, b""), "invalid JSON in header"),
        (lambda path: write_raw(path, {"a": entry(0, 2, "I4", (4,))}, b"xx"), "invalid JSON in header"),
        (lambda path: write_raw(path, {"a": entry(0, 8), "b": entry(12, 20)}, b"x" * 20), "invalid offset"),
        (lambda path: write_raw(path, {"a": entry(0, 8), "b": entry(4, 12)}, b"x" * 12), "invalid offset"),
        (lambda path: write_raw(path, {"a": entry(0, 12)}, b"x" * 12), "info data_offsets mismatch|invalid shape"),
    ],
)
def test_broken_header(single: Path, break_it: Callable[[Path], object], reason: str) -> None:
    break_it(single / "model.safetensors")
    sentence = refused(single)
    assert sentence.startswith(f"OLD {single}: model.safetensors has a broken header (Error while deserializing header")
    assert sentence.endswith("): fetch or save the checkpoint again.")
    assert re.search(reason, sentence)


def test_git_lfs_pointer(single: Path) -> None:
    (single / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert refused(single) == (
        f"OLD {single}: model.safetensors is a Git LFS pointer instead of weights: run git lfs pull in the folder."
    )
