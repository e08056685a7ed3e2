"""checkpoint/folder.py, reader.py, shard.py and sidefiles.py: what is opened and what is read."""

from pathlib import Path

import pytest
import torch
from checkpoint_folders import INDEX, MIXED, sharded_folder, single_folder, write_raw  # noqa: F401 - fixtures
from safetensors.torch import load_file, save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError

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


def test_a_single_file_wins_over_the_index(sharded: Path) -> None:
    save_file({"alone": torch.zeros(1)}, sharded / "model.safetensors")
    with Checkpoint.open(sharded, "NEW") as checkpoint:
        assert (list(checkpoint.tensors), checkpoint.index) == (["alone"], None)
        assert Path(INDEX) in checkpoint.side_files().left_out


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


# --- side files ------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_side_files(sharded: Path, tmp_path: Path) -> None:
    wanted = ["LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "spiece.model", "tokenizer.json"]
    wanted += ["additional_chat_templates/tool_use.jinja", "1_Pooling/config.json", "modeling_tiny.py", "sub/notes.md"]
    unwanted = ["pytorch_model.bin", "PYTORCH.BIN", "pytorch_model.bin.index.json", "consolidated.safetensors"]
    unwanted += ["other.safetensors.index.json", "optimizer.pt", "rng.pth", "x.ckpt", "tf_model.h5", "f.msgpack"]
    unwanted += ["q.gguf", "onnx/model.onnx", "rust_model.ot", "a.pkl", "b.npz"]
    touch(sharded, "checkpoint-5/model.safetensors", "checkpoint-5/config.json", "sub/hpa_report.json")
    touch(sharded, *wanted, *unwanted, ".gitattributes", ".cache/huggingface/x", "sub/.hidden", "hpa_report.json")
    touch(tmp_path, "elsewhere/secret.txt")
    (sharded / "linked_folder").symlink_to(tmp_path / "elsewhere")
    (sharded / "linked_file.txt").symlink_to(tmp_path / "elsewhere" / "secret.txt")
    (sharded / "broken_link.txt").symlink_to("gone")
    side = Checkpoint.open(sharded, "NEW").side_files()
    assert side.copied == tuple(sorted(map(Path, [*wanted, "config.json"])))
    unwanted += ["checkpoint-5", "sub/hpa_report.json", "linked_folder", "linked_file.txt", "broken_link.txt"]
    unwanted[unwanted.index("onnx/model.onnx")] = "onnx"
    assert side.left_out == tuple(sorted(map(Path, unwanted)))
