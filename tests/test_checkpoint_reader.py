"""checkpoint/reader.py, shard.py and sidefiles.py: what is opened, what is refused in which words, what is read."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError

INDEX = "model.safetensors.index.json"

MIXED = {
    "model.embed.weight": torch.arange(24, dtype=torch.float32).reshape(6, 4).bfloat16(),
    "model.proj.weight": torch.linspace(-1, 1, 20, dtype=torch.float16).reshape(4, 5),
    "model.norm.weight": torch.arange(4, dtype=torch.float32),
    "model.double": torch.tensor([1.5, -2.5], dtype=torch.float64),
    "model.position_ids": torch.arange(7),
    "model.mask": torch.tensor([True, False, True]),
    "model.scale": torch.tensor(3.25, dtype=torch.bfloat16),
    "model.nothing": torch.empty(0, 3, dtype=torch.float16),
    "model.freqs": torch.tensor([1 + 2j], dtype=torch.complex64),
}


def write_raw(path: Path, header: dict[str, Any] | bytes, data: bytes, padding: int = 0) -> None:
    """A safetensors file with exactly this header."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    head += b" " * padding
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A folder with one model.safetensors of every dtype."""
    folder = tmp_path / "single"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    save_file(MIXED, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder with three shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weight_map = {}
    for number in (1, 2, 3):
        shard = f"model-{number:05}-of-00003.safetensors"
        tensors = {f"layers.{number}.{part}": torch.randn(3, number) for part in ("b", "a")}
        save_file(tensors, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard)
    write_index(folder, weight_map)
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))


def refused(folder: Path, role: str = "OLD") -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder, role)
    return str(caught.value)


# --- what is read ----------------------------------------------------------------------------------------------------


def test_every_dtype_is_placed_and_read(single: Path) -> None:
    content = (single / "model.safetensors").read_bytes()
    with Checkpoint.open(str(single), "NEW") as checkpoint:
        assert (checkpoint.folder, checkpoint.role, checkpoint.config) == (single, "NEW", {"model_type": "tiny"})
        assert (checkpoint.shards, checkpoint.index) == (("model.safetensors",), None)
        assert checkpoint.tensors.keys() == MIXED.keys()
        for name, expected in MIXED.items():
            info, found = checkpoint.tensors[name], checkpoint.read(name)
            assert (info.name, info.shard) == (name, "model.safetensors")
            assert (info.dtype, info.shape) == (expected.dtype, tuple(expected.shape))
            assert (found.dtype, found.shape, found.device.type) == (expected.dtype, expected.shape, "cpu")
            assert torch.equal(found, expected)
            assert content[info.start : info.stop] == found.reshape(-1).view(torch.uint8).numpy().tobytes()
            assert info.nbytes == found.nbytes
        starts = [info.start for info in checkpoint.tensors.values()]
        assert starts == sorted(starts)
        assert max(info.stop for info in checkpoint.tensors.values()) == len(content)


def test_shards_follow_the_index(sharded: Path) -> None:
    (sharded / "consolidated.safetensors").write_bytes(b"not part of it, and never opened")
    with Checkpoint.open(sharded, "OLD") as checkpoint:
        assert checkpoint.index == INDEX
        assert checkpoint.shards == tuple(f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3))
        assert [info.shard for info in checkpoint.tensors.values()] == [s for s in checkpoint.shards for _ in range(2)]
        for shard in checkpoint.shards:
            for name, expected in load_file(sharded / shard).items():
                assert torch.equal(checkpoint.read(name), expected)


def test_the_index_wins_over_a_single_file(sharded: Path) -> None:
    save_file({"stale": torch.zeros(1)}, sharded / "model.safetensors")
    assert "stale" not in Checkpoint.open(sharded, "NEW").tensors


def test_one_file_of_any_name_will_do(single: Path) -> None:
    (single / "model.safetensors").rename(single / "weights.safetensors")
    assert Checkpoint.open(single, "NEW").shards == ("weights.safetensors",)


def test_model_safetensors_wins_over_others(single: Path) -> None:
    save_file({"a": torch.zeros(1)}, single / "consolidated.safetensors")
    assert Checkpoint.open(single, "NEW").shards == ("model.safetensors",)


def test_what_is_read_is_our_own_memory(single: Path) -> None:
    before = (single / "model.safetensors").read_bytes()
    with Checkpoint.open(single, "NEW") as checkpoint:
        checkpoint.read("model.norm.weight").zero_()
        assert torch.equal(checkpoint.read("model.norm.weight"), MIXED["model.norm.weight"])
    assert (single / "model.safetensors").read_bytes() == before


def test_header_bytes_are_raw(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    header = {"__metadata__": {"b": "2", "a": "1"}, "x": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}
    write_raw(tmp_path / "model.safetensors", header, b"\x01\xff", padding=13)
    checkpoint = Checkpoint.open(tmp_path, "NEW")
    assert checkpoint.header_bytes("model.safetensors") == (tmp_path / "model.safetensors").read_bytes()[:-2]
    assert checkpoint.read("x").tolist() == [1, -1]
    checkpoint.close()


def test_handles_open_late_and_reopen(sharded: Path) -> None:
    checkpoint = Checkpoint.open(sharded, "NEW")
    assert not checkpoint._files
    checkpoint.read("layers.2.a")
    assert list(checkpoint._files) == ["model-00002-of-00003.safetensors"]
    checkpoint.close()
    checkpoint.close()
    assert not checkpoint._files
    checkpoint.read("layers.2.a")
    checkpoint.close()


def test_an_unknown_name_is_our_mistake(single: Path) -> None:
    with pytest.raises(KeyError):
        Checkpoint.open(single, "NEW").read("no.such")


def test_a_file_that_shrinks_during_the_run(single: Path) -> None:
    with Checkpoint.open(single, "NEW") as checkpoint:
        with (single / "model.safetensors").open("r+b") as file:
            file.truncate(len(checkpoint.header_bytes("model.safetensors")))
        with pytest.raises(CheckpointError) as caught:
            checkpoint.read("model.norm.weight")
    assert str(caught.value) == (
        f"NEW {single}: the tensor model.norm.weight cannot be read from model.safetensors (the file has become "
        "shorter since it was opened): check the disk, and that nothing changes the folder during a merge."
    )


def test_hub_cache_layout(single: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("config.json", "model.safetensors")):
        (single / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    with Checkpoint.open(snapshot, "NEW") as checkpoint:
        assert torch.equal(checkpoint.read("model.mask"), MIXED["model.mask"])
        assert checkpoint.side_files().copied == (Path("config.json"),)


# --- what is refused: folder and config ------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert refused(folder) == f"OLD {folder} does not exist: give a folder in Hugging Face layout."


def test_a_file_instead_of_a_folder(single: Path) -> None:
    path = single / "model.safetensors"
    assert refused(path, "NEW") == f"NEW {path} is a file: give the folder that it lies in."


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
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config in config.json, method gptq"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config in config.json, method unknown"),
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            "text_config.quantization_config in config.json, method fp8",
        ),
    ],
)
def test_quantised_by_config(single: Path, config: dict[str, Any], named: str) -> None:
    (single / "config.json").write_text(json.dumps(config))
    assert refused(single) == (
        f"OLD {single} is quantised ({named}): give the checkpoint in bfloat16, float16 or float32, "
        "dequantised with dequantize() if there is no other."
    )


def test_an_empty_quantization_config_says_nothing(single: Path) -> None:
    (single / "config.json").write_text('{"quantization_config": null, "text_config": {"quantization_config": {}}}')
    Checkpoint.open(single, "NEW")


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
        f"OLD {single} is quantised (the tensor {name} in model.safetensors is {code}): "
        "give the checkpoint in bfloat16, float16 or float32."
    )


# --- what is refused: files and index --------------------------------------------------------------------------------


def test_no_weights(single: Path) -> None:
    (single / "model.safetensors").unlink()
    assert refused(single) == f"OLD {single} has no *.safetensors file: fetch or save the checkpoint again."


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_only_pickles(single: Path, name: str) -> None:
    (single / "model.safetensors").rename(single / name)
    assert refused(single) == (
        f"OLD {single} has no *.safetensors file, only {name}, and pickles are not read: convert it, "
        "with from_pretrained and then save_pretrained of transformers."
    )


def test_several_files_without_an_index(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert refused(sharded) == (
        f"OLD {sharded} has 3 *.safetensors files (model-00001-of-00003.safetensors …) and no {INDEX} that says which "
        "belong together: add the index, or leave one file."
    )


@pytest.mark.parametrize("weight_map", [None, [], {}, "x", {"a": 1}, {"a": None}])
def test_index_without_a_mapping(sharded: Path, weight_map: Any) -> None:
    write_index(sharded, weight_map)
    assert refused(sharded) == (
        f"OLD {sharded}: {INDEX} has no weight_map from tensors to files: fetch or save the checkpoint again."
    )


def test_a_shard_is_missing(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert refused(sharded) == (
        f"OLD {sharded}: the shard model-00002-of-00003.safetensors is missing, though {INDEX} names it: "
        "fetch the checkpoint again, completely."
    )


@pytest.mark.parametrize("entry", ["/etc/passwd", "../x.safetensors", "sub/x.safetensors", "a\\b", "..", "", "a\0b"])
def test_index_points_elsewhere(sharded: Path, entry: str) -> None:
    write_index(sharded, {"layers.1.a": entry})
    assert refused(sharded) == (
        f"OLD {sharded}: {INDEX} points to {entry!r}, and only files directly in the folder are read: "
        "use an index whose weight_map holds plain file names."
    )


@pytest.mark.parametrize("name", ["layers.2.a", "layers.9.a"])
def test_index_names_a_tensor_that_is_elsewhere_or_nowhere(sharded: Path, name: str) -> None:
    weight_map = json.loads((sharded / INDEX).read_text())["weight_map"]
    write_index(sharded, weight_map | {name: "model-00001-of-00003.safetensors"})
    assert refused(sharded) == (
        f"OLD {sharded}: {INDEX} says that the tensor {name} is in model-00001-of-00003.safetensors, but it is not: "
        "fetch the index and its shards again, from one and the same revision."
    )


def test_a_tensor_twice(sharded: Path) -> None:
    first, third = (f"model-0000{n}-of-00003.safetensors" for n in (1, 3))
    save_file({**load_file(sharded / third), "layers.1.a": torch.zeros(1)}, sharded / third)
    assert refused(sharded) == (
        f"OLD {sharded} holds the tensor layers.1.a twice, in {first} and in {third}: "
        "save the model again with save_pretrained."
    )


# --- what is refused: one shard --------------------------------------------------------------------------------------


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


# --- side files ------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_side_files(sharded: Path, tmp_path: Path) -> None:
    wanted = ["LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "spiece.model", "1_Pool/x.json"]
    wanted += ["additional_chat_templates/tool_use.jinja", "sub/hpa_report.json", "modeling_tiny.py", "tokenizer.json"]
    unwanted = ["pytorch_model.bin", "PYTORCH.BIN", "pytorch_model.bin.index.json", "consolidated.safetensors"]
    unwanted += ["other.safetensors.index.json", "optimizer.pt", "rng.pth", "x.ckpt", "tf_model.h5", "f.msgpack"]
    unwanted += ["q.gguf", "onnx/model.onnx", "rust_model.ot", "a.pkl", "b.npz", "checkpoint-5/model.safetensors"]
    touch(sharded, *wanted, *unwanted, ".gitattributes", ".cache/huggingface/x", "sub/.hidden", "hpa_report.json")
    touch(tmp_path, "elsewhere/secret.txt")
    (sharded / "linked_folder").symlink_to(tmp_path / "elsewhere")
    (sharded / "linked_file.txt").symlink_to(tmp_path / "elsewhere" / "secret.txt")
    (sharded / "broken_link.txt").symlink_to("gone")
    side = Checkpoint.open(sharded, "NEW").side_files()
    assert side.copied == tuple(sorted(map(Path, [*wanted, "config.json", "linked_file.txt"])))
    assert side.left_out == tuple(sorted(map(Path, [*unwanted, "linked_folder", "broken_link.txt"])))
