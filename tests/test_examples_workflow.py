"""The workflow of examples/ci_workflow: its steps, run as they stand, on the pair of the demo."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_uploads import UploadHub, serve, variables
from pages import ROOT

from hpa_merge.demo import DemoFiles

WORKFLOW = ROOT / "examples" / "ci_workflow" / "merge-eval-gate.yml"

SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
"""As GitHub runs ``shell: bash``."""


@pytest.fixture
def workflow() -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    hub = UploadHub()
    stop = serve(hub)
    yield hub
    stop()


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()
    return job["steps"]


def test_it_is_a_workflow(workflow: dict[Any, Any]) -> None:
    assert set(workflow[True]) == {"workflow_dispatch"}  # YAML's "on"
    assert workflow["jobs"]["merge"]["defaults"]["run"]["shell"] == "bash"
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step), step
        assert "uses" in step or step["name"]
    known = {"inputs", "env", "secrets"}
    for place in re.findall(r"\$\{\{ *([a-z]+)[.(]", WORKFLOW.read_text(encoding="utf-8")):
        assert place in known | {"always"}, place


def run(chosen: list[dict[str, Any]], folder: Path, environment: dict[str, str]) -> dict[str, tuple[int, str]]:
    """The exit status of each step and what it said, up to the first that fails."""
    found: dict[str, tuple[int, str]] = {}
    for step in chosen:
        script = folder / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        done = subprocess.run(
            [*SHELL, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        found[step["name"]] = (done.returncode, done.stdout + done.stderr)
        if done.returncode:
            break
    return found


@pytest.mark.gate
@pytest.mark.usefixtures("program")
def test_its_steps_merge_and_the_gate_decides(
    workflow: dict[Any, Any], demo: DemoFiles, hub: UploadHub, tmp_path: Path
) -> None:
    shutil.copytree(demo.folder, tmp_path / "demo")
    files = {
        "OLD": "demo/old",
        "NEW": "demo/new",
        "OUT": "merged",
        "SAFETY_PROMPTS": "demo/safety.jsonl",
        "TASK_CALIB": "demo/task.jsonl",
        "SAFETY_TEST": "demo/heldout-refusals.jsonl",
        "TASK_TEST": "demo/heldout-new-task.jsonl",
        "BENIGN_TEST": "demo/heldout-old-task.jsonl",
    }
    assert set(files) == set(workflow["env"])
    environment = os.environ | files | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    ours = {
        step["name"]: step
        for step in steps(workflow)
        if "run" in step and "if" not in step and step["name"] != "Install"
    }
    done = run(list(ours.values()), tmp_path, environment)
    assert [status for status, _ in done.values()] == [0] * 6, done
    assert "attack success on safety" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / "evaluation.json").exists()
    assert "model-index:" in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")

    (publish,) = (step for step in steps(workflow) if step.get("name") == "Publish")
    there = variables(hub, tmp_path / "cache") | {"PUBLISH": "lab/repaired"}
    assert set(publish["env"]) <= set(there)
    status, said = run([publish], tmp_path, environment | there)["Publish"]
    assert status == 0, said
    assert set(hub.repositories["lab/repaired"].branches["main"]) >= {"README.md", "config.json", "hpa_report.html"}

    shutil.rmtree(tmp_path / "merged")  # where nothing is restored, OUT does not pass
    merge, gate = ours["Merge"], ours["Evaluate, with the gate"]
    merge["run"] = merge["run"].rstrip() + " --p-max 0 --p-min 0\n"
    status, said = run([merge, gate], tmp_path, environment)[gate["name"]]
    assert status == 3
    assert "--max-dasr is 5" in said
