"""What is fetched by a name on the Hub, and the command; the server runs on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import CARD, REPORT, TinyCase, content
from hub_pairs import NEW, OLD, reach, run, served_hub  # noqa: F401 - a fixture
from hub_server import Hub, Repository
from huggingface_hub.repocard import metadata_load
from reference import load_tensors
from safetensors.torch import save_file

from hpa_merge import HPAConfig, merge
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.cli import main
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.hub import locate
from hpa_merge.inputs.names import is_remote

Tiny = Callable[..., TinyCase]


# --- what comes of it ---


def test_as_from_the_folders(hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    report = run(case, tmp_path / "out")
    served = tmp_path / "served"
    merge(served / "old", served / "new", tmp_path / "local", safety_calib=case.safety, task_calib=case.task)
    found, expected = content(tmp_path / "out"), content(tmp_path / "local")
    for each in (found, expected):
        each[REPORT].pop("left_out"), each[REPORT].pop("warnings")  # the others were never fetched
    assert metadata_load(tmp_path / "out" / CARD)["base_model"] == [OLD, NEW]
    assert found.pop(CARD) != expected.pop(CARD)
    assert found == expected
    assert "templates/chat.jinja" in found
    assert (report.run.old, report.run.new) == (OLD, NEW)
    assert report.run.commits == {name: hub.repositories[name].commits["main"] for name in (OLD, NEW)}
    assert report.left_out == ()
    unwanted = {"pytorch_model.bin", "model.onnx_data", "params.json", ".gitattributes", "x.gguf", "hpa_report.html"}
    assert not hub.fetched() & unwanted
    assert not {path.name for path in (tmp_path / "cache").rglob("*")} & unwanted
    assert hub.tokens == {None}


def test_rounds_from_the_hub(hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    """An OUT that was published comes back as OLD with its report; the first model is fetched to be compared with."""
    case = tiny("llama")
    run(case, tmp_path / "out1")
    published = tmp_path / "served" / "out1"
    shutil.copytree(tmp_path / "out1", published)
    hub.repositories["lab/repaired"] = Repository({"main": published})
    report = run(case, tmp_path / "out2", old="lab/repaired", first=OLD)
    (before,) = report.history
    assert (before.old, before.new) == (OLD, NEW)
    assert before.commits == {name: hub.repositories[name].commits["main"] for name in (OLD, NEW)}
    commits = {name: hub.repositories[name].commits["main"] for name in (OLD, NEW, "lab/repaired")}
    assert report.run.commits == commits
    assert report.drift is not None
    assert report.drift.from_first is not None
    with pytest.raises(CheckpointError, match=f"^FIRST .* is not the model that this history began with: .* {OLD} as"):
        run(case, tmp_path / "out3", old="lab/repaired", first=f"{NEW}@v1.0")


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "commit"])
def test_revisions(revision: str, hub: Hub) -> None:
    repository = hub.repositories[NEW]
    if revision == "commit":
        revision = repository.commits["v1.0"]
    commit, folder = repository.folder(revision)
    (source,) = locate({"NEW": f"{NEW}@{revision}"})
    assert (source.name, source.commit, source.folder.name) == (f"{NEW}@{revision}", commit, commit)
    there = source.folder / "generation_config.json"
    assert there.read_bytes() == (folder / "generation_config.json").read_bytes()
    assert source.note == ""


def test_the_dry_run_says_the_commit(
    hub: Hub, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny("llama")
    plan = preview(MergeRequest(OLD, NEW, {tmp_path / "out": HPAConfig()}, case.safety, (case.task,)))[tmp_path / "out"]
    commits = {name: hub.repositories[name].commits["main"] for name in (OLD, NEW)}
    assert plan.commits == commits
    monkeypatch.setenv("COLUMNS", "200")
    words = [f"{OLD}@main", NEW, "--safety-calib", case.safety, "--task-calib", case.task, "-o", tmp_path / "out"]
    main([*map(str, words), "--dry-run"])
    printed = capsys.readouterr().out
    assert f"{OLD}@main, commit {commits[OLD]}" in printed
    assert f"{NEW}, commit {commits[NEW]}" in printed
    assert not (tmp_path / "out").exists()


def test_a_folder_of_that_name_wins(hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny("llama").old, "lab/aligned")
    assert not is_remote(OLD)
    assert is_remote(f"{OLD}@main")
    assert not is_remote(Path(NEW))
    for other in ("./lab/x", "/lab/x", "lab", "lab/x/y", "lab/x@", "lab//x", "~/x", "lab/x@a@b", "lab/x ", "../x"):
        assert not is_remote(other), other
    (source,) = locate({"OLD": OLD})
    assert (source.name, source.folder, source.guarded, source.commit) == (OLD, Path(OLD), Path(OLD), None)
    assert not hub.asked


def test_only_the_shards_of_the_index(hub: Hub, tmp_path: Path) -> None:
    for name in ("consolidated.safetensors", "model-fp32.safetensors"):
        shutil.copyfile(next((tmp_path / "served" / "new").glob("*.safetensors")), tmp_path / "served" / "new" / name)
    (source,) = locate({"NEW": NEW})
    with Checkpoint.open(source.folder, "NEW") as checkpoint:
        assert {path.name for path in source.folder.glob("*.safetensors")} == set(checkpoint.shards)


def test_a_single_file_wins_over_the_index(hub: Hub, tmp_path: Path) -> None:
    served = tmp_path / "served" / "new"
    save_file(load_tensors(served), served / "model.safetensors")
    (source,) = locate({"NEW": NEW})
    assert [path.name for path in source.folder.glob("*.safetensors*")] == ["model.safetensors"]
    with Checkpoint.open(source.folder, "NEW") as checkpoint:
        assert checkpoint.tensors.keys() == load_tensors(served).keys()


def test_an_adapter(hub: Hub, tmp_path: Path) -> None:
    """Its files are fetched, of the repository or of a folder of it; what they are is for others to read."""
    top = tmp_path / "served" / "adapter"
    (top / "polite").mkdir(parents=True)
    for folder in (top, top / "polite"):
        for name in ("adapter_config.json", "README.md", "optimizer.pt"):
            (folder / name).write_text("{}")
        (folder / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
        save_file(load_tensors(next((tmp_path / "served").glob("old"))), folder / "adapter_model.safetensors")
    hub.repositories["lab/adapter"] = Repository({"main": top, "v2": top})
    wanted = {"README.md", "adapter_config.json", "adapter_model.safetensors", "config.json"}
    for name in ("lab/adapter:polite", "lab/adapter:polite@v2", "lab/adapter"):
        (source,) = locate({"NEW": name})
        assert {path.name for path in source.folder.iterdir() if path.is_file()} == wanted
        commit = hub.repositories["lab/adapter"].commits["v2" if name.endswith("v2") else "main"]
        assert source.commit == commit
        assert source.guarded.name == "models--lab--adapter"
        assert source.folder == source.guarded / "snapshots" / commit / ("polite" if ":" in name else "")
    with pytest.raises(CheckpointError, match=r"has no config\.json on the Hub"):
        locate({"NEW": "lab/adapter:nothing"})
    assert not any(map(is_remote, ("lab/adapter:", "lab/adapter:.git", "lab/adapter:../x", "lab/adapter:/x")))


def test_adapters_on_the_hub_that_are_refused_before_a_download(hub: Hub, tmp_path: Path) -> None:
    top = tmp_path / "served" / "adapters"
    for name, extra in (("brief", "vit.safetensors"), ("polite", "non_lora_trainables.bin")):
        (top / name).mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors", extra):
            (top / name / file).write_text("{}")
    hub.repositories["lab/adapters"] = Repository({"main": top})
    for name, reason in (
        ("lab/adapters", "holds adapters in the folders brief, polite: give one of these, as in lab/adapters:brief"),
        ("lab/adapters:brief", "holds vit.safetensors next to its adapter, and .* with ms-swift"),
        ("lab/adapters:polite", "holds non_lora_trainables.bin next to its adapter, and .* merge_lora_weights.py"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            locate({"NEW": name})
    assert hub.fetched() == {"adapter_config.json"}


@pytest.mark.gate
@pytest.mark.parametrize("name", ["lab/nothing", NEW])
def test_the_command(name: str, hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    """By itself, with HF_ENDPOINT; one sentence where it fails, nothing with -q."""
    case = tiny("llama")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    words = [OLD, name, "--safety-calib", case.safety, "--task-calib", case.task, "-o", tmp_path / "out", "-q"]
    command = [sys.executable, "-m", "hpa_merge", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    if name == NEW:
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "out" / REPORT).is_file()
    else:
        assert done.returncode == 2
        assert done.stderr.startswith(f"Error: NEW {name} is no folder here, and no model on the Hub that you may see")
        assert done.stderr.count("\n") == 1
