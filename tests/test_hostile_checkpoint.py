"""Checkpoints that lie, point elsewhere or are out of all proportion: one sentence, little memory, no waiting."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cases import Call, assert_refused_cheaply, status
from measured import measured
from safetensors.torch import save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.errors import CheckpointError
from hpa_merge.model.building import MOST_MODULES, bounded_modules, count_tensors

INDEX = "model.safetensors.index.json"
AGAIN = "fetch or save the checkpoint again."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def write(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)


def entry(shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


def refused(folder: Path, *, mebibytes: int = 100) -> str:
    """The sentence; what it takes to come to it is bounded."""
    done = measured(Checkpoint.open, folder, "NEW")
    assert done.error is not None, done
    kind, sentence = done.error
    assert kind == "CheckpointError"
    assert done.cpu_seconds < 20
    assert done.peak < mebibytes * 2**20
    return sentence


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**8 + 1, 99 * 10**6])
def test_a_header_length_that_lies(folder: Path, length: int) -> None:
    write(folder, b"{}", length=length)
    assert " has a broken header (Error while deserializing header" in refused(folder)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"a": entry([2**62, 4], 0, 4)}, "overflow"),
        ({"a": entry([1], 2**64 - 4, 2**64 - 1)}, "truncated"),
        ({"a": entry([1], 10**30, 10**30 + 4)}, "truncated"),
        ({"a": entry([-1], 0, 4)}, "broken header"),
        ({"a": entry([2**60], 0, 2**62)}, "truncated"),
        ({"a": entry([2**62, 0], 0, 0)}, "impossible shape|too long"),
        ({"a": entry([1] * 17, 0, 4)}, "impossible shape"),
        (b"[" * 10**6, "broken header"),
        (b'{"a":' * 10**5, "broken header"),
        (b'{"__metadata__":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "broken header"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":3}', "broken header"),
    ],
)
def test_a_header_that_lies(folder: Path, header: Any, complaint: str) -> None:
    write(folder, header, b"\0" * 4)
    sentence = refused(folder)
    assert any(word in sentence for word in complaint.split("|")), sentence
    assert sentence.endswith(AGAIN)


def test_a_million_tensors(folder: Path) -> None:
    head = ",".join(f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(10**6))
    write(folder, f"{{{head}}}".encode())
    size = 16 + len(head) + 2 - 8
    assert refused(folder) == (
        f"NEW {folder}: model.safetensors has a header of {size} bytes, and none is longer than 33554432: {AGAIN}"
    )


def test_too_many_tensors_in_many_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.shard.TENSORS", 2)
    write(folder, {name: entry([0], 0, 0) for name in "abc"})
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder, "NEW")
    assert str(caught.value) == f"NEW {folder} holds more than 2 tensors, which no model does: {AGAIN}"


@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_a_long_json_file(folder: Path, name: str) -> None:
    (folder / name).touch()
    os.truncate(folder / name, 10**11)  # sparse
    most = 100_000_000 if name == INDEX else 2**24
    assert refused(folder) == f"NEW {folder}: {name} is longer than {most} bytes: {AGAIN}"


@pytest.mark.parametrize("name", ["config.json", INDEX])
@pytest.mark.parametrize("depth", [900, 10**5])
def test_deeply_nested_json(folder: Path, name: str, depth: int) -> None:
    (folder / name).write_text('{"a":' * depth + "1" + "}" * depth)
    sentence = refused(folder)
    assert sentence.endswith(AGAIN)


@pytest.mark.parametrize(
    "text",
    ['{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', '{"weight_map": {"a": "x"}, "weight_map": {}}'],
)
def test_a_key_twice_in_the_index(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    key = "weight_map" if text.count("weight_map") == 2 else "a"
    assert refused(folder) == (f"NEW {folder}: {INDEX} has the key {key!r} twice: {AGAIN}")


def test_a_shard_whose_name_is_too_long(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    assert "is missing, though" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", INDEX, "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert refused(folder) == f"NEW {folder} holds {name}, which is neither a file nor a folder: remove it."


def test_a_device_is_not_read(folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to("/dev/zero")
    assert "neither a file nor a folder" in refused(folder)


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    import torch

    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (blobs / "2").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    save_file({"a": torch.ones(2)}, blobs / "3")
    for number, name in enumerate(("config.json", INDEX, "model-1.safetensors"), start=1):
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    with Checkpoint.open(snapshot, "NEW") as checkpoint:
        assert checkpoint.read("a").tolist() == [1, 1]


# --- config.json ------------------------------------------------------------------------------------------------------

BELONGS = "give the config.json that belongs to these weights."


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_hidden_layers": 10**9}, "has 1e+09 for num_hidden_layers, which is too many for its tensors"),
        ({"num_labels": 10**9}, "has 1e+09 for num_labels, which is too many for its tensors"),
        ({"hidden_size": 10**12}, "asks for"),
        ({"hidden_size": 10**18}, "Storage size calculation overflowed"),
        ({"hidden_size": "x"}, "expected int, got str"),
        ({"num_attention_heads": 0}, "(integer modulo by zero)"),
        ({"pad_token_id": 10**9}, "(Padding_idx must be within num_embeddings)"),
        ({"hidden_act": "x"}, "('x')"),
        ({"dtype": "load"}, "(list index out of range)"),
        ({"architectures": [5]}, "architectures"),
        ({"architectures": {}}, "config.json has {} for architectures, which has to be a list of class names"),
        ({"architectures": [["LlamaForCausalLM"]]}, "for architectures, which has to be a list of class names"),
        ({"architectures": [""]}, "for architectures, which has to be a list of class names"),
        ({"architectures": "LlamaForCausalLM"}, "for architectures, which has to be a list of class names"),
        ({"architectures": ["AutoConfig"], "model_type": "siglip_text_model"}, "architecture is AutoConfig"),
        ({"architectures": ["pipeline"], "hidden_size": 8}, "asks for"),
        ({"model_type": ["llama"]}, "config.json has ['llama'] for model_type, which has to be a name"),
        ({"model_type": 5}, "config.json has 5 for model_type, which has to be a name"),
        ({"num_hidden_layers": -1}, "Error: "),
        ({"num_hidden_layers": 10**400}, "has 1e+300 for num_hidden_layers, which is too many for its tensors"),
        ({"layer_types": ["full_attention"] * 10**5}, "OLD"),
        ({"text_config": [[]]}, "OLD"),
        ({"dtype": "evil"}, "OLD's config.json is not one that"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        (
            {"model_type": "unheard", "auto_map": {"AutoConfig": "evil.Config"}},
            "OLD brings code of its own for its configuration (evil.py",
        ),
    ],
)
def test_config_that_transformers_stumbles_over(
    changes: dict[str, Any], complaint: str, make_call: Callable[..., Call]
) -> None:
    call = make_call()
    for folder in (call.old, call.new):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        (folder / "evil.py").write_text(f"open({str(call.folder / 'pwned')!r}, 'w')")
    assert_refused_cheaply(call, complaint)
    assert not (call.folder / "pwned").exists()


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_layers_of_a_part(part: str, make_call: Callable[..., Call]) -> None:
    call = make_call("llava")
    path = call.old / "config.json"
    content = json.loads(path.read_text())
    content[part]["num_hidden_layers"] = 10**9
    path.write_text(json.dumps(content))
    assert_refused_cheaply(
        call, f"OLD's config.json has 1e+09 for num_hidden_layers, which is too many for its tensors: {BELONGS}"
    )


def test_a_table_that_is_computed(make_call: Callable[..., Call]) -> None:
    """GPT-Neo's mask: a square of its positions, which no tensor of the checkpoint tells."""
    call = make_call()
    config = transformers.GPTNeoConfig(
        hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global"], 2]], max_position_embeddings=10**6
    )
    for folder in (call.old, call.new):
        config.architectures = ["GPTNeoForCausalLM"]
        (folder / "config.json").write_text(config.to_json_string())
    assert_refused_cheaply(call, "OLD's config.json makes transformers compute tables of 2000000000000 bytes")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_from_the_hub_is_not_fetched(key: str, make_call: Callable[..., Call]) -> None:
    call = make_call()
    for folder in (call.old, call.new):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: "evil/kernel"}))
    call.options = ("--dry-run", "-q")
    assert status(call) == 0


def test_empty_tensors_do_not_make_room_for_modules() -> None:
    """Of 300,000 tensors without bytes as of one, however many modules a configuration asks for."""
    empty = {f"t{i}": (torch.float32, (0, 4)) for i in range(300_000)}
    assert count_tensors(empty) == 0
    assert count_tensors(empty | {"one": (torch.float32, (1,)), "scalar": (torch.float32, ())}) == 2
    done = measured(build_modules, 0)
    assert done.error is not None
    assert "asks for more than 20000 modules and parameters" in done.error[1]
    assert done.peak < 2**28


def test_no_number_of_tensors_makes_room_for_any_number_of_modules() -> None:
    done = measured(build_modules, 300_000)
    assert done.error is not None
    assert f"asks for more than {MOST_MODULES} modules and parameters" in done.error[1]
    assert done.peak < 2**33


def build_modules(tensors: int) -> None:
    with torch.device("meta"), bounded_modules(tensors, "NEW"):
        modules = torch.nn.ModuleList()
        while True:
            modules.append(torch.nn.Identity())
