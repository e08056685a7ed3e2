"""The one reading of OUT's weights: digests as hashlib's, and each value that is not finite, wherever it lies."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.verification import weights

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def opened(folder: Path, shards: dict[str, dict[str, torch.Tensor]]) -> Checkpoint:
    infos = {}
    for shard, tensors in shards.items():
        save_file(tensors, folder / shard)
        infos |= {info.name: info for info in weights_of(folder, shard)}
    return Checkpoint(folder, "OUT", {}, infos, tuple(sorted(shards)), None)


def weights_of(folder: Path, shard: str) -> list:  # type: ignore[type-arg]
    from hpa_merge.checkpoint.shard import read_layout

    return list(read_layout(folder, "OUT", shard))


@pytest.mark.parametrize("block", [8, 24, 2**19])
def test_digests_and_values(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BLOCK", block)
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    expected = set()
    for number, dtype in enumerate(FLOATS):
        most = torch.finfo(dtype).max
        for place, value in enumerate((math.nan, math.inf, -math.inf, -math.nan, most, -most, -0.0)):
            tensor = torch.ones(13, dtype=dtype)
            tensor[(0, 12, 5)[place % 3]] = value
            name = f"{dtype}.{place}"
            shards["ab"[number % 2] + ".safetensors"][name] = tensor
            expected |= {name} if not bool(torch.isfinite(tensor).all()) else set()
    shards["a.safetensors"] |= {"ids": torch.full((3,), -1), "empty": torch.ones(0), "mask": torch.ones(3).bool()}
    found = list(weights.read_files(opened(tmp_path, shards)))
    assert [read.name for read in found] == sorted(shards)
    assert set().union(*(read.not_finite for read in found)) == expected
    assert len(expected) == 4 * len(FLOATS)
    for read in found:
        assert read.digest == hashlib.sha256((tmp_path / read.name).read_bytes()).hexdigest()


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    out = opened(tmp_path, {"a.safetensors": {"w": torch.ones(100)}})
    content = (tmp_path / "a.safetensors").read_bytes()[:-50]
    (tmp_path / "a.safetensors").write_bytes(content)
    (read,) = weights.read_files(out)
    assert read.digest == hashlib.sha256(content).hexdigest()
