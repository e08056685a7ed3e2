"""Uploads that break off, are resumed, or find that something has changed meanwhile."""

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_uploads import SIGNATURE, TOKEN, Store, UploadHub, oid
from pushing import ID, published

import hpa_merge
from hpa_merge.errors import InputError

pytestmark = [
    pytest.mark.gate,
    pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning"),  # huggingface_hub, of httpx
]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(out: Path, name: str = ID, **options: Any) -> str:
    with pytest.raises(InputError) as raised:
        hpa_merge.push(out, name, **options)
    text = str(raised.value)
    assert SIGNATURE not in text
    assert TOKEN not in text
    return text


# --- interruptions ---


@pytest.mark.parametrize("part", [None, 100_000])
def test_dropped_connections(part: int | None, hub: UploadHub, out: Path) -> None:
    """Where they come back soon nobody hears of it: in a large file, a part of one, a question, the commit."""
    hub.part = part
    hub.drops["PUT /storage/"] = 3
    hub.drops[f"POST /api/models/{ID}/preupload"] = 1
    hub.drops[f"POST /api/models/{ID}/commit"] = 1
    hpa_merge.push(out, ID)
    assert not any(hub.drops.values())
    assert set(published(hub)) == set(content(out))
    assert len(hub.repositories[ID].log) == 1
    if part is not None:
        assert any(count > 3 for asked, count in hub.asked.items() if asked.startswith("PUT /storage/"))


def test_broken_off_in_a_large_file_and_gone_on(hub: UploadHub, out: Path) -> None:
    """Nothing is there before the second run, which sends only what has not arrived."""
    shards = sorted(out.glob("*.safetensors"))
    last = oid(shards[-1].read_bytes())
    hub.drops[f"PUT /storage/{last}"] = 1000
    assert refused(out) == (
        f"{ID}: the connection to the Hub at {hub.address} broke: check the network and run the same command "
        "again, which sends only what has not arrived."
    )
    assert published(hub) == {}
    assert last not in hub.objects
    arrived = set(hub.objects)
    assert arrived
    hub.drops.clear()
    hub.received.clear()
    hpa_merge.push(out, ID)
    assert set(hub.received) == {oid(shard.read_bytes()) for shard in shards} - arrived
    assert all(hub.received[name] == len(hub.objects[name]) for name in hub.received)
    assert {name: c for name, c in published(hub).items() if name.endswith(".safetensors")} == {
        shard.name: shard.read_bytes() for shard in shards
    }


def test_broken_off_in_the_commit_and_gone_on(hub: UploadHub, out: Path) -> None:
    hub.drops[f"POST /api/models/{ID}/commit"] = 1000
    assert "broke: check the network" in refused(out)
    assert published(hub) == {}
    hub.drops.clear()
    hub.received.clear()
    hpa_merge.push(out, ID)
    assert not hub.received
    assert set(published(hub)) == set(content(out))


def test_a_commit_whose_answer_is_lost(hub: UploadHub, out: Path) -> None:
    """It is found again, and not made twice."""
    hub.lose[f"POST /api/models/{ID}/commit"] = 1
    report = hpa_merge.push(out, ID)
    assert len(hub.repositories[ID].log) == 1
    assert report.commit == hub.repositories[ID].heads["main"]


def test_a_pull_request_is_not_opened_twice(hub: UploadHub, out: Path) -> None:
    hub.repositories[ID] = Store()
    hub.lose[f"POST /api/models/{ID}/commit"] = 1
    assert "broke: check the network" in refused(out, pull_request=True)
    assert len(hub.repositories[ID].log) == 1


def test_changed_by_somebody_else_meanwhile(hub: UploadHub, out: Path) -> None:
    def change() -> None:
        hub.repositories[ID].heads["main"] = "f" * 40

    hub.before_commit = change
    assert refused(out) == (
        f"{ID}: the Hub says that somebody else changed it meanwhile: look at it, and run the same command again, "
        "which sends only what has not arrived."
    )


@pytest.mark.parametrize("name", ["config.json", "shard"])
def test_out_is_changed_meanwhile(name: str, hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = out / name if name != "shard" else next(out.glob("*.safetensors"))
    before = huggingface_hub.HfApi.preupload_lfs_files

    def upload(*arguments: Any, **options: Any) -> None:
        if name == "shard":
            stat = path.stat()
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        before(*arguments, **options)
        if name != "shard":
            path.write_text("{}")

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", upload)
    monkeypatch.setattr("hpa_merge.publishing.upload.SMALL", 0)  # each file is uploaded from its place
    assert refused(out).startswith(f"OUT {out} was changed while it was uploaded, and nothing was published: ")
    assert published(hub) == {}


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors"])
def test_what_goes_up_is_what_was_verified(
    name: str, hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file is read once: what is written into it later does not go up, whether or not that is noticed."""
    before, prepared = content(out), huggingface_hub.HfApi.preupload_lfs_files

    def upload(*arguments: Any, **options: Any) -> None:
        stat = (out / name).stat()
        (out / name).write_bytes(bytes(stat.st_size))
        os.utime(out / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        prepared(*arguments, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", upload)
    hpa_merge.push(out, ID)
    assert published(hub)[name] == before[name]
