"""Ranks that were started for different merges are refused; the same content may lie in other places."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from cases import TinyCase, content
from ranks import on_ranks
from safetensors.torch import load_file, save_file

from hpa_merge import merge
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.version import version_of
from hpa_merge.engine import beginnings, same_run
from hpa_merge.engine.same_run import check_same
from hpa_merge.errors import ConfigError
from hpa_merge.ranks import Group


def test_what_differs_is_named(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        runs = {"content of NEW": "1a2b", "threads": 4}
        check_same(Group.current(), runs)
        check_same(Group.current(), runs | ({"threads": 1} if rank == 2 else {}))

    sentence = (
        "process 3 of 3 has threads 1, and process 1 has 4: start all with the same files, options, versions and "
        "number of threads (OMP_NUM_THREADS)."
    )
    for found in on_ranks(3, work, tmp_path):
        assert (type(found), str(found)) == (ConfigError, sentence)


def test_one_rank_agrees_with_itself() -> None:
    check_same(Group.alone(), {"threads": 4})


def test_what_encodes_counts_as_far_as_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "LIBRARIES", ("tokenizers", "no-such-package"))
    assert beginnings.encoding_versions() == {"tokenizers": tokenizers.__version__}


def later(folder: Path) -> Path:
    """The folder, whose files have another time of change."""
    for path in folder.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    return folder


def in_cache(folder: Path, cache: Path) -> Path:
    """A copy of a model, as the Hub's cache has it."""
    snapshot, blobs = cache / "models--org--tiny" / "snapshots" / "0a1b", cache / "models--org--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        name = sha256(path.read_bytes()).hexdigest() if path.suffix == ".safetensors" else path.name
        shutil.copyfile(path, blobs / name)
        (snapshot / path.name).symlink_to(Path("../../blobs", name))
    return snapshot


def change_weights(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("*.safetensors"))))
    tensors = load_file(path)
    next(iter(tensors.values())).add_(1.0)
    save_file(tensors, path, {"format": "pt"})


def change_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}))


def test_what_identifies_files(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    """In two caches of the Hub it is the same, unless somebody has saved over one; elsewhere times count."""

    def version(folder: Path) -> str:
        with Checkpoint.open(folder, "NEW") as checkpoint:
            return version_of(checkpoint, checkpoint.shards)

    new = tiny("llama", "float32").new
    first, second = in_cache(new, tmp_path / "a"), in_cache(new, tmp_path / "b")
    assert version(first) == version(later(second))
    change_weights(second)
    assert version(first) != version(second)
    copies = [Path(shutil.copytree(new, tmp_path / name)) for name in "cd"]
    assert version(copies[0]) == version(new) != version(later(copies[1]))


@pytest.mark.gate
def test_machines_with_files_of_their_own(
    tiny: Callable[..., TinyCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies with other times, also next to statistics; then what differs in each of them."""
    case = tiny("llama", "bfloat16")
    own = tmp_path / "own"
    own.mkdir()
    copied = {name: Path(shutil.copytree(getattr(case, name), own / name)) for name in ("old", "new")}
    copied |= {name: Path(shutil.copyfile(getattr(case, name), own / name)) for name in ("safety", "task")}
    for folder in (own, copied["old"], copied["new"]):
        later(folder)

    def call(rank: int, out: Path) -> None:
        files = copied if rank else case._asdict()
        given: dict[str, Any] = {"safety_calib": files["safety"], "task_calib": files["task"], "page": False}
        merge(files["old"], files["new"], out, stats=tmp_path / "stats", **given)

    for out in (tmp_path / "a", tmp_path / "b"):  # the second one with the statistics of the first
        assert on_ranks(2, lambda rank, out=out: call(rank, out), tmp_path) == [None, None]  # type: ignore[misc]
    call(0, tmp_path / "c")
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")
    others = beginnings.encoding_versions() | {"pillow": "1.0"}
    harms = {
        "tokenizer and configuration of OLD": lambda: change_tokenizer(copied["old"]),
        "content of NEW": lambda: change_weights(copied["new"]),
        "version of pillow": lambda: monkeypatch.setattr(same_run, "encoding_versions", lambda: others),
        "task samples": lambda: copied["task"].write_text(copied["task"].read_text().partition("\n")[2]),
    }

    def refused(rank: int) -> list[str]:
        found = []
        for harm in harms.values():
            Group.current().barrier()
            if rank:
                kept = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
                harm()
            with pytest.raises(ConfigError) as raised:
                call(rank, tmp_path / "d")
            found.append(str(raised.value))
            monkeypatch.undo()
            if rank:
                for path, before in kept.items():
                    path.write_bytes(before)
        return found

    ends = on_ranks(2, refused, tmp_path)
    for found in ends:
        assert isinstance(found, list), ends
        for sentence, name in zip(found, harms, strict=True):
            assert sentence.startswith(f"process 2 of 2 has {name} ")
    assert not (tmp_path / "d").exists()
