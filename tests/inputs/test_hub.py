"""OLD and NEW by their names on the Hub, against a server on this machine that speaks as the Hub does."""

import json
import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from cases import TinyCase, content
from changed_checkpoints import same
from hub_pairs import NEW, OLD, reach, run, served_hub  # noqa: F401 - a fixture
from hub_server import SIGNATURE, Hub
from huggingface_hub import constants
from huggingface_hub.utils import httpx
from reference import load_tensors

import hpa_merge.inputs.hub
from hpa_merge import HPAConfig, merge
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import CheckpointError, InputError, OutputError, StatisticsError
from hpa_merge.inputs.hub import locate
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below with the time of its last change, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- the cache ---


def test_the_cache_is_read_and_never_written_to(hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    case, cache = tiny("llama"), tmp_path / "cache"
    locate({"OLD": OLD, "NEW": NEW})
    before, asked = everything(cache), hub.asked.copy()
    report = run(case, tmp_path / "out", stats=tmp_path / "stats")
    assert everything(cache) == before
    assert not {path for path in hub.asked - asked if path.endswith(".safetensors")}
    again = run(case, tmp_path / "again", stats=tmp_path / "stats")
    assert again.run.statistics["safety"] == again.run.statistics["task"] == "read"
    assert again.linears == report.linears
    snapshot = locate({"OLD": OLD})[0].folder
    assert any(path.is_symlink() for path in snapshot.iterdir())
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert not verify(tmp_path / "out", *(source.folder for source in locate({"OLD": OLD, "NEW": NEW}))).problems


@pytest.mark.parametrize("place", ["", "blobs/out", "snapshots/out", "../models--lab--aligned"])
def test_out_and_statistics_in_the_cache(place: str, hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    case, folder = tiny("llama"), locate({"OLD": OLD})[0].guarded
    before = everything(tmp_path / "cache")
    with pytest.raises(OutputError, match=r"overlaps the input|holds other things than a checkpoint"):
        run(case, folder / place, overwrite=True)
    with pytest.raises(StatisticsError, match="inputs are never written to"):
        run(case, tmp_path / "out", stats=folder / place / "stats")
    assert before.items() <= everything(tmp_path / "cache").items()


def test_offline(hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny("llama")
    run(case, tmp_path / "out", new=f"{NEW}@v1.0")
    hub.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()
        report = run(case, tmp_path / "offline", new=f"{NEW}@v1.0")
        commit = hub.repositories[NEW].commits["v1.0"]
        assert report.run.commits[f"{NEW}@v1.0"] == commit
        assert run(case, tmp_path / "by-commit", new=f"{NEW}@{commit}").linears == report.linears
        assert report.warnings == []
        with pytest.raises(CheckpointError) as raised:
            run(case, tmp_path / "none", new=f"{NEW}@main")
    assert not hub.asked
    assert str(raised.value) == (
        f"NEW {NEW}@main is no folder here and not in the cache, and HF_HUB_OFFLINE keeps the Hub out of reach: check "
        "the name, or run it once with access to the Hub."
    )
    assert content(tmp_path / "offline") == content(tmp_path / "out")


def test_offline_with_a_part_of_it(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = locate({"NEW": NEW})
    shard = sorted(source.folder.glob("*.safetensors"))[1]
    tree = next((tmp_path / "cache").rglob("trees/*.json"))
    shard.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(CheckpointError) as raised:
        locate({"NEW": NEW})
    assert str(raised.value) == (
        f"NEW {NEW}: {shard.name} is not in the cache, and HF_HUB_OFFLINE keeps the Hub out of reach: run it once with "
        "access to the Hub."
    )
    tree.unlink()  # as other programs leave the cache
    with pytest.raises(CheckpointError, match=f"^NEW {NEW}: {shard.name} is not in the cache, and HF_HUB_OFFLINE"):
        locate({"NEW": NEW})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    locate({"NEW": NEW})
    assert shard.exists()


def test_offline_with_what_another_program_fetched(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ["config.json", *(path.name for path in (tmp_path / "served" / "new").glob("*.safetensors*"))]:
        huggingface_hub.hf_hub_download(NEW, file)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    (source,) = locate({"NEW": NEW})
    assert source.note == (
        f"NEW {NEW} came from the cache as it is: the Hub could not be reached to list its other files."
    )


def test_a_note_on_an_input_says_nothing_of_the_statistics(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, stats = tiny("llama"), tmp_path / "stats"
    for path in case.new.iterdir():
        huggingface_hub.hf_hub_download(NEW, path.name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    assert locate({"NEW": NEW})[0].note
    request = MergeRequest(case.old, NEW, {tmp_path / "out": HPAConfig()}, case.safety, (case.task,), stats=stats)
    (plan,) = preview(request).values()
    assert plan.statistics == (f"Both halves have to be computed, and {stats} is written.",)


def test_no_network(hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locate({"OLD": OLD})
    reach(monkeypatch, "http://127.0.0.1:9")
    locate({"OLD": OLD})
    with pytest.raises(CheckpointError) as raised:
        locate({"NEW": NEW})
    assert str(raised.value) == (
        f"NEW {NEW} is no folder here and not in the cache, and the Hub at http://127.0.0.1:9 cannot be reached: check "
        "the name, or run it once with access to the Hub."
    )


# --- what goes wrong ---


def test_dropped_connections(hub: Hub) -> None:
    """What has arrived is not fetched again, and every byte is right."""
    hub.drops = 4
    (source,) = locate({"NEW": NEW})
    assert hub.drops == 0
    for path in source.folder.glob("*.safetensors"):
        assert path.read_bytes() == (hub.repositories[NEW].branches["main"] / path.name).read_bytes()


def test_a_connection_that_never_lasts(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.drops = 10**6
    monkeypatch.setattr(httpx.Response, "iter_bytes", lambda *_, **__: (_ for _ in ()).throw(httpx.ReadError("gone")))
    with pytest.raises(CheckpointError) as raised:
        locate({"NEW": NEW})
    assert str(raised.value) == (
        f"NEW {NEW}: the Hub at {hub.address} cannot be reached: check the network and run the same command again; "
        "what has arrived is kept."
    )
    assert SIGNATURE not in str(raised.value)


def gate(hub: Hub) -> None:
    hub.repositories[NEW].gated = True


def hide(hub: Hub) -> None:
    hub.repositories[NEW].private = True


def failing(status: int) -> Callable[[Hub], None]:
    return lambda hub: setattr(hub, "status", status)


def without_config(hub: Hub) -> None:
    (hub.repositories[NEW].branches["main"] / "config.json").unlink()


def pickles_only(hub: Hub) -> None:
    for path in hub.repositories[NEW].branches["main"].glob("*.safetensors*"):
        path.unlink()


def without_index(hub: Hub) -> None:
    next(hub.repositories[NEW].branches["main"].glob("*.index.json")).unlink()


def quantised(hub: Hub) -> None:
    path = hub.repositories[NEW].branches["main"] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "hqq"}}))


WRONG: dict[str, tuple[str, Callable[[Hub], None], str]] = {
    "gated": (
        NEW,
        gate,
        "NEW {name} is gated, and you may not read it: ask for access at {address}/lab/tuned, then "
        "log in with 'hf auth login'.",
    ),
    "private": (
        NEW,
        hide,
        "NEW {name} is no folder here, and no model on the Hub that you may see: check the name, or, if it is private, "
        "log in with 'hf auth login'.",
    ),
    "not there": (
        "lab/nothing",
        lambda hub: None,
        "NEW {name} is no folder here, and no model on the Hub that you may see: check the name, or, if it is private, "
        "log in with 'hf auth login'.",
    ),
    "no revision": (
        f"{NEW}@v9",
        lambda hub: None,
        "NEW {name}: the Hub has no revision v9 of it: give a branch, a tag or a commit of {address}/lab/tuned.",
    ),
    "no commit": (
        f"{NEW}@{'0' * 40}",
        lambda hub: None,
        "NEW {name}: the Hub has no revision " + "0" * 40 + " of it: give a branch, a tag or a commit of "
        "{address}/lab/tuned.",
    ),
    "no name": (
        "lab/a--b",
        lambda hub: None,
        "NEW {name} is no folder here, and no name that the Hub allows: give a folder, or a model as org/name.",
    ),
    "forbidden": (
        NEW,
        failing(403),
        "NEW {name}: the Hub does not let you read it (HTTP 403): log in with 'hf auth login', with a token that may.",
    ),
    "no config": (
        NEW,
        without_config,
        "NEW {name} has no config.json on the Hub: give a model in the format of transformers.",
    ),
    "pickles": (
        NEW,
        pickles_only,
        "NEW {name} has no model.safetensors and no model.safetensors.index.json, only pytorch_model.bin, and pickles "
        "are not read: convert it, with from_pretrained and then save_pretrained of transformers.",
    ),
    "no index": (
        NEW,
        without_index,
        "NEW {name} has no model.safetensors and no model.safetensors.index.json, only "
        "model-00001-of-{shards:05}.safetensors and 2 more, shards without model.safetensors.index.json, which says "
        "which belong together: fetch the index too, or save the model again with from_pretrained and then "
        "save_pretrained of transformers.",
    ),
}


@pytest.mark.parametrize(("name", "spoil", "sentence"), WRONG.values(), ids=WRONG)
def test_refused_before_any_weight(
    name: str, spoil: Callable[[Hub], None], sentence: str, hub: Hub, tiny: Tiny, tmp_path: Path
) -> None:
    shards = len(list(hub.repositories[NEW].branches["main"].glob("*.safetensors")))
    spoil(hub)
    with pytest.raises(CheckpointError) as raised:
        run(tiny("llama"), tmp_path / "out", old=str(tiny("llama").old), new=name)
    assert str(raised.value) == sentence.format(name=name, address=hub.address, shards=shards)
    assert not {file for file in hub.fetched() if file.endswith(".safetensors")}
    assert not (tmp_path / "out").exists()


def test_a_hub_that_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the cache, or all of it is."""
    hub.status = 500
    with pytest.raises(
        CheckpointError, match=rf"^NEW {NEW}: the Hub fails \(HTTP 500\): try again later; what has arr"
    ):
        locate({"NEW": NEW})
    hub.status = None
    (before,) = locate({"NEW": NEW})
    hub.status = 503
    assert locate({"NEW": NEW}) == (before,)


def test_quantised_and_refused_before_any_weight(hub: Hub) -> None:
    quantised(hub)
    with pytest.raises(CheckpointError, match=r"is quantised \(quantization_config in config\.json, method hqq\)"):
        locate({"OLD": OLD, "NEW": NEW})
    assert not {file for file in hub.fetched() if file.endswith(".safetensors")}  # of OLD neither


def test_a_shard_that_is_not_there(hub: Hub) -> None:
    shard = sorted(hub.repositories[NEW].branches["main"].glob("*.safetensors"))[2]
    shard.unlink()
    with pytest.raises(
        CheckpointError, match=f"^NEW {NEW} has no {shard.name}, though its model.safetensors.index.json"
    ):
        locate({"NEW": NEW})
    assert not {file for file in hub.fetched() if file.endswith(".safetensors")}


def test_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(hpa_merge.inputs.hub, "disk_usage", lambda path: usage(1000))
    with pytest.raises(CheckpointError) as raised:
        locate({"OLD": OLD, "NEW": NEW})
    assert str(raised.value) == (
        f"OLD {OLD} and NEW {NEW}: 0.0 GB have to be fetched, and only 0.0 GB are free in the cache "
        f"{tmp_path / 'cache'}: free some space, or set HF_HOME to a folder on another disk."
    )
    assert not {file for file in hub.fetched() if file.endswith(".safetensors")}


@pytest.mark.parametrize(
    ("number", "said"), [(28, "the disk of the cache"), (13, "cannot be used (Permission denied)")]
)
def test_a_disk_that_refuses(number: int, said: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(hpa_merge.inputs.hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError) as raised:
        locate({"NEW": NEW})
    assert said in str(raised.value)
    assert "set HF_HOME to" in str(raised.value)


def test_other_mistakes_are_told_before_the_download(hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    (tmp_path / "there").mkdir()
    for options in ({"out": tmp_path / "there"}, {"safety": tmp_path / "nowhere"}, {"task": tmp_path / "nowhere"}):
        given = {"out": tmp_path / "out", "safety": case.safety, "task": case.task, **options}
        with pytest.raises(InputError):
            merge(OLD, NEW, given["out"], safety_calib=given["safety"], task_calib=given["task"])
    assert not hub.asked


def test_a_token_goes_to_the_hub_and_nowhere_else(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    hide(hub)
    report = run(tiny("llama"), tmp_path / "out")
    assert "Bearer hf_secretsecret" in hub.tokens
    assert "hf_secretsecret" not in report.to_json() + "".join(capsys.readouterr())
    assert same(
        load_tensors(tmp_path / "out")["model.norm.weight"], load_tensors(tiny("llama").new)["model.norm.weight"]
    )
