"""Code from the Hub: at the commit of its repository, and without the Hub from the cache."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub_pairs import served_hub  # noqa: F401 - a fixture
from hub_server import Hub, Repository
from huggingface_hub import constants
from own_code import AUTO, FILES, make_decoder_pair

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.code import check_code, code_notes, code_records
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.hub import locate
from hpa_merge.inputs.own_code import Trust

OLD = "lab/coded"


@pytest.fixture
def coded(hub: Hub, tmp_path: Path) -> Path:
    """NEW, whose configuration names the code in OLD's repository, as trainers have written it."""
    old, new = make_decoder_pair(tmp_path / "coded")
    later = shutil.copytree(old, tmp_path / "coded" / "later")
    for path in later.glob("*.py"):
        path.write_text(f"{path.read_text()}\nLATER = 1\n")
    hub.repositories[OLD] = Repository({"main": later, "v1": old})
    for name in FILES:
        (new / name).unlink()
    config = json.loads((new / "config.json").read_text())
    config["auto_map"] = {auto: f"{OLD}--{name}" for auto, name in AUTO.items()}
    (new / "config.json").write_text(json.dumps(config))
    return new


def opened(new: Path, revision: str) -> tuple[Checkpoint, Checkpoint]:
    sources = locate({"OLD": f"{OLD}@{revision}", "NEW": str(new)})
    trust = Trust(True, sources)
    checkpoints = [Checkpoint.open(each.folder, role) for each, role in zip(sources, ("OLD", "NEW"), strict=True)]
    return trust.with_code(checkpoints[0]), trust.with_code(checkpoints[1])


def test_code_in_another_repository(coded: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """NEW's code is OLD's, at OLD's commit, although the repository has a newer one; twice the same, offline too."""
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        old, new = opened(coded, "v1")
        check_code(old, new)
        first, second = code_records([old, new])
        commit = hub.repositories[OLD].commits["v1"]
        assert (first.role, first.repository, first.commit) == ("OLD", "", commit)
        assert (second.role, second.repository, second.commit) == ("NEW", OLD, commit)
        assert first.digest == second.digest
        assert first.files == second.files == tuple(sorted(FILES))
        assert meta_model(new, torch.device("cpu")).units[0].name == "words"
        (note,) = code_notes(old, new)
        assert note.startswith(f"NEW's code lies in {OLD} on the Hub, and so does OUT's: this merge ran the commit ")
        assert commit in note
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    alone = Trust(True).code_of(coded, "NEW")
    assert alone is not None
    assert alone.parts[OLD].commit == hub.repositories[OLD].commits["main"]
    assert new.code is not None
    assert alone.digest != new.code.digest


def test_code_that_cannot_be_fetched(coded: Path, hub: Hub) -> None:
    """It is missed where it is needed, and nowhere else."""
    path = coded / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"auto_map": config["auto_map"] | {"AutoModel": "lab/nowhere--a.B"}}))
    meta_model(opened(coded, "v1")[1], torch.device("cpu"))
    path.write_text(json.dumps(config | {"auto_map": {"AutoConfig": "lab/nowhere--a.B"}}))
    with pytest.raises(CheckpointError, match=r"NEW's code in lab/nowhere .* on the Hub"):
        meta_model(opened(coded, "v1")[1], torch.device("cpu"))


def test_nothing_is_fetched_without_the_option(coded: Path, hub: Hub) -> None:
    hub.asked.clear()
    assert Trust(False).code_of(coded, "NEW") is None
    assert not hub.asked
    with pytest.raises(CheckpointError, match=rf"configuration_tinydec\.py of {OLD}, modeling_tinydec\.py of {OLD}"):
        meta_model(Checkpoint.open(coded, "NEW"), torch.device("cpu"))
