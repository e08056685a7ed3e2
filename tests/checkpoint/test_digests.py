"""checkpoint/digests.py: the digests of shards that are written in any order, each byte hashed once."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from checkpoint_folders import everything, new_folder, old_folder  # noqa: F401 - fixtures

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter
from hpa_merge.checkpoint.direct import ShardFile
from hpa_merge.checkpoint.files import digest_at

HOW = ("write", "copy", "write_pieces")


@pytest.fixture(name="back")
def bytes_read_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of shards were read back, range by range."""
    found: list[int] = []

    def pieces(file: ShardFile, start: int, stop: int) -> Any:
        found.append(stop - start)
        return real(file, start, stop)

    real = ShardFile.pieces
    monkeypatch.setattr(ShardFile, "pieces", pieces)
    return found


def put(writer: CheckpointWriter, source: Checkpoint, name: str, how: str) -> None:
    if how == "write":
        writer.write(name, source.read(name))
    elif how == "copy":
        writer.copy(name)
    else:
        writer.write_pieces(name, source.pieces(name, 5))


def shards_of(files: dict[str, bytes]) -> dict[str, str]:
    """Of each shard; the index, which :meth:`CheckpointWriter.carry` knows, is not written yet."""
    return {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name.endswith(".safetensors")
    }


def test_any_order_and_any_way(new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: list[int]) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.files.BUFFER", 7)
    draw = random.Random(0)
    with Checkpoint.open(new, "NEW") as source:
        for number in range(8):
            back.clear()
            writer = CheckpointWriter(source, tmp_path / str(number), inputs=[new])
            for name in draw.sample([*source.tensors], len(source.tensors)):
                put(writer, source, name, draw.choice(HOW))
            manifest = writer.manifest()
            assert sum(back) <= sum(info.nbytes for info in source.tensors.values()), number
            writer.publish({})
            files = everything(tmp_path / str(number))
            assert manifest == shards_of(files)


@pytest.mark.parametrize("backwards", [False, True])
def test_what_waits_is_read_back_and_nothing_else(
    backwards: bool, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: list[int]
) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.writer.digest_at", None)  # no shard is read as a whole
    with Checkpoint.open(new, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[new])
        for name in sorted(source.tensors, key=lambda name: source.tensors[name].start, reverse=backwards):
            put(writer, source, name, "write")
        first = {shard: min(i.start for i in source.tensors.values() if i.shard == shard) for shard in source.shards}
        waited = sum(i.nbytes for i in source.tensors.values() if i.nbytes and i.start > first[i.shard])
        assert sum(back) == (waited if backwards else 0)
        assert writer.manifest() == shards_of(everything(writer.partial))
        writer.abort()


def test_after_an_interruption(new: Path, tmp_path: Path, back: list[int]) -> None:
    """What the first run has written is read back only when a digest needs it."""
    with Checkpoint.open(new, "NEW") as source:
        names = [*source.tensors]
        random.Random(1).shuffle(names)
        half = len(names) // 2
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[new])
        for name in names[:half]:
            put(writer, source, name, "write")
        writer.commit({})
        writer.abort(keep=True)
        back.clear()
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[new], resume=True)
        assert (len(writer.resumed), writer.damaged, back) == (1, 0, [])
        for name in writer.remaining():
            put(writer, source, name, "write")
        assert writer.manifest() == shards_of(everything(writer.partial))
        writer.abort()


def test_a_shard_with_a_tensor_missing_is_read_as_it_is(old: Path, tmp_path: Path) -> None:
    with Checkpoint.open(old, "NEW") as source:
        writer = CheckpointWriter(source, tmp_path / "out", inputs=[old])
        writer.copy("0.mask")
        assert writer.manifest() == shards_of(everything(writer.partial))
        writer.abort()


@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_ranges_by_pieces(buffer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpa_merge.checkpoint.files.BUFFER", buffer)
    content = random.Random(0).randbytes(50)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        assert digest_at(file.fileno()) == hashlib.sha256(content).hexdigest()
        assert digest_at(file.fileno(), 3, 40) == hashlib.sha256(content[3:40]).hexdigest()
        with pytest.raises(OSError, match="has become shorter"):
            digest_at(file.fileno(), 40, 51)
