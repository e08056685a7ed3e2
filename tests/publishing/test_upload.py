"""``hpa_merge.push`` and its command, against a server on this machine that takes uploads as the Hub does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from cases import CARD, REPORT, TinyCase
from hub_uploads import SIGNATURE, TOKEN, Store, UploadHub
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.repocard import metadata_load
from pushing import ID, published, run
from transformers import AutoModelForCausalLM

import hpa_merge
from hpa_merge import MergeReport
from hpa_merge.errors import ConfigError, InputError
from hpa_merge.inputs.hub import locate
from hpa_merge.publishing.upload import is_stale
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

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


# --- what comes of it ---


def test_what_is_fetched_is_out(hub: UploadHub, made: tuple[TinyCase, Path], out: Path, tmp_path: Path) -> None:
    """Byte for byte but for the places in the report and the name in the card; it verifies and loads."""
    case, before = made[0], content(out)
    report = hpa_merge.push(out, ID)
    assert content(out) == before
    head = hub.repositories[ID].heads["main"]
    assert (report.address, report.commit) == (f"{hub.address}/{ID}/commit/{head}", head)
    assert report.creates == (f"the repository {ID}",)
    assert report.changed == (CARD, REPORT)
    assert (report.deleted, report.left_out, report.unchanged) == ((), (), False)
    assert not hub.repositories[ID].private
    (commit,) = hub.repositories[ID].log
    assert commit["title"] == f"Merged with hpa-merge {hpa_merge.__version__}"

    fetched = Path(snapshot_download(ID))
    found = content(fetched)
    assert found.pop(".gitattributes")
    assert {name: c for name, c in found.items() if name not in (CARD, REPORT)} == {
        name: c for name, c in before.items() if name not in (CARD, REPORT)
    }
    assert found[CARD] == before[CARD].replace(b'"path/to/this/folder"', f'"{ID}"'.encode())
    assert b'"path/to/this/folder"' in before[CARD]
    ours, theirs = (json.loads(files[REPORT]) for files in (before, found))
    assert (theirs["run"]["old"], theirs["run"]["new"]) == ("old", "new")
    assert (theirs["safety"]["file"], theirs["task"]["file"]) == ("safety.jsonl", "task.jsonl")
    for each in (ours, theirs):
        for name in ("run", "safety", "task", "verdict"):  # paths, and commands that have them
            del each[name]
    assert ours == theirs
    assert str(case.old.parent).encode() in before[REPORT]
    assert not any(str(place).encode() in text for place in (case.old.parent, tmp_path) for text in found.values())
    assert not verify(fetched).problems
    assert not verify(fetched, case.old, case.new).problems
    AutoModelForCausalLM.from_pretrained(fetched)
    (source,) = locate({"OLD": ID})
    assert not verify(source.folder, case.old, case.new).problems
    assert metadata_load(fetched / CARD)["tags"] == ["hpa-merge", "merge"]
    assert hub.tokens <= {f"Bearer {TOKEN}", None}
    assert hub.storage_tokens == {None}  # its addresses are signed


def test_the_page_goes_up_without_places(hub: UploadHub, out: Path, drawing: None) -> None:
    """It is drawn anew from the report without them; a figure stays the file that lies in OUT."""
    place = str(Path(hpa_merge.write_report(out).run.old).parent)
    assert place in (out / "hpa_report.html").read_text(encoding="utf-8")
    assert hpa_merge.push(out, ID).changed == (CARD, "hpa_report.html", "hpa_report.json")
    page = published(hub)["hpa_report.html"].decode()
    assert place not in page
    assert "safety.jsonl" in page
    assert published(hub)["hpa_columns.png"] == (out / "hpa_columns.png").read_bytes()
    assert "](hpa_columns.png)" in published(hub)[CARD].decode()


def test_a_page_that_cannot_be_drawn_anew(
    hub: UploadHub, out: Path, drawing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(report: MergeReport) -> None:
        raise ImportError("No module named 'vl_convert'")

    hpa_merge.write_report(out)
    monkeypatch.setattr("hpa_merge.render.folder.draw", fail)
    assert "hpa_report.html contains local paths, and cannot be drawn again without them" in refused(out)
    assert ID not in hub.repositories


def test_a_second_time(hub: UploadHub, out: Path) -> None:
    first = hpa_merge.push(out, ID)
    received = hub.received.copy()
    again = hpa_merge.push(out, ID)
    assert again.unchanged
    assert again.commit == first.commit
    assert hub.received == received
    assert len(hub.repositories[ID].log) == 1


def test_private(hub: UploadHub, out: Path) -> None:
    report = hpa_merge.push(out, ID, private=True, message="The first")
    assert hub.repositories[ID].private
    assert report.creates == (f"the private repository {ID}",)
    assert hub.repositories[ID].log[0]["title"] == "The first"
    hpa_merge.push(out, ID)  # what is private stays so
    assert hub.repositories[ID].private


def test_a_branch(hub: UploadHub, out: Path) -> None:
    hub.repositories[ID] = Store()
    assert hpa_merge.push(out, ID, branch="round/2").creates == ("the branch round/2",)
    assert set(published(hub, "round/2")) == set(content(out))
    assert published(hub) == {}
    assert hpa_merge.push(out, ID, branch="round/2").creates == ()
    hpa_merge.push(out, "lab/other", branch="v1")
    assert set(published(hub, "v1", "lab/other")) == set(content(out))


def test_a_pull_request(hub: UploadHub, out: Path) -> None:
    hub.repositories[ID] = Store()
    report = hpa_merge.push(out, ID, pull_request=True)
    assert report.address == f"{hub.address}/{ID}/discussions/1"
    assert published(hub) == {}
    assert set(published(hub, "refs/pr/1")) == set(content(out))


def test_what_is_stale_goes(hub: UploadHub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A single file of weights would be loaded in the shards' place."""
    stale = ["model.safetensors", "pytorch_model.bin", "gguf/model.Q4.gguf", "chat_template.json", "hpa_old.png"]
    kept = ["LICENSE", "photo.jpg", ".gitattributes", "notes.md", "modeling_tiny.py", "docs/table.json"]
    hub.repositories[ID] = Store(branches={"main": dict.fromkeys([*stale, *kept], b"of the model before")})
    assert run("push", out, ID, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"Would be deleted in {ID}: {', '.join(sorted(stale))}.\n" in printed
    assert printed.endswith("Nothing was done.\n")
    assert f"  config.json ({(out / 'config.json').stat().st_size} bytes)\n" in printed
    assert not hub.repositories[ID].log
    assert not hub.objects
    assert hpa_merge.push(out, ID).deleted == tuple(sorted(stale))
    assert set(hub.repositories[ID].branches["main"]) == {*kept, *content(out)}
    assert len(hub.repositories[ID].log) == 1


@pytest.mark.parametrize("path", ["tokenizer.model", "vocab.txt", "additional_chat_templates/x.jinja", "a/b.bin"])
def test_what_could_be_loaded_is_stale(path: str) -> None:
    assert is_stale(path)
    assert not is_stale(f".hidden/{path}")


def test_what_is_not_outs_stays_here(hub: UploadHub, out: Path) -> None:
    before = set(content(out))
    for name in (".cache/huggingface/x", ".env", "sub/.hidden"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("not for others")
    report = hpa_merge.push(out, ID)
    assert report.left_out == (".cache", ".env", "sub/.hidden")
    assert set(published(hub)) == before


@pytest.mark.parametrize("name", ["optimizer.pt", "modeling_tiny.py", "notes.md", "sub/vocab.txt"])
def test_what_was_added_is_not_published(name: str, hub: UploadHub, out: Path) -> None:
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("of somebody else")
    assert f"was not uploaded: {name} is in OUT and not in the report's manifest." in refused(out)
    assert not hub.repositories


@pytest.mark.parametrize("name", ["config.json", CARD, REPORT, "shard"])
@pytest.mark.parametrize("target", ["file", "environment"])
def test_no_link_is_followed_out(name: str, target: str, hub: UploadHub, out: Path, tmp_path: Path) -> None:
    """Not even to the same bytes."""
    path = out / name if name != "shard" else next(out.glob("*.safetensors"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere" if target == "file" or name == REPORT else "/proc/self/environ")
    refused(out)
    assert not hub.repositories


def test_a_report_that_names_the_weights_alone(hub: UploadHub, out: Path) -> None:
    report = read_report(out)
    weights = {name: digest for name, digest in report.manifest.items() if "safetensors" in name}
    (out / REPORT).write_text(replace(report, manifest=weights).to_json())
    assert "names only the weights, as in earlier versions: check" in refused(out)
    hpa_merge.write_report(out)
    assert read_report(out).manifest == report.manifest
    hpa_merge.push(out, ID)
    assert set(published(hub)) == set(content(out))


def test_what_is_published_verifies(hub: UploadHub, out: Path, drawing: None, tmp_path: Path) -> None:
    """With a page that is drawn anew, whose digest is in the published report."""
    hpa_merge.write_report(out)
    hpa_merge.push(out, ID)
    fetched = Path(snapshot_download(ID, local_dir=tmp_path / "copy"))
    result = verify(fetched)
    assert result.problems == ()
    assert "Hidden, and not checked: .cache, .gitattributes." in result.unchecked
    (source,) = locate({"OLD": ID})  # of what is drawn only the report is fetched
    assert verify(source.folder).problems == ()


def test_a_gitignore_there_leaves_nothing_out(hub: UploadHub, out: Path) -> None:
    hub.repositories[ID] = Store(branches={"main": {".gitignore": b"*.safetensors"}})
    hpa_merge.push(out, ID)
    assert {*content(out), ".gitignore"} == set(published(hub))


# --- refusals ---


def test_what_is_not_as_its_merge_wrote_it(hub: UploadHub, out: Path, made: tuple[TinyCase, Path]) -> None:
    shard = next(out.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-2] ^= 1
    shard.write_bytes(content)
    assert refused(out).startswith(
        f"OUT {out} is not as its merge wrote it, and was not uploaded: {shard.name} is not the file that the merge"
    )
    assert "has no hpa_report.json" in refused(made[0].new)
    assert not hub.repositories
    assert not hub.objects


def test_no_token(hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refused(out) == f"{ID} cannot be uploaded without a token: run 'hf auth login', or set HF_TOKEN."
    assert not hub.asked


def test_offline(hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(out) == (f"{ID} cannot be uploaded: HF_HUB_OFFLINE keeps the Hub out of reach: unset it to publish.")
    assert not hub.asked


def test_a_refused_token(hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in ({}, {ID: Store()}):
        hub.repositories = dict(there)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert refused(out) == (
            f"{ID}: the Hub refuses your token (HTTP 401): log in again with 'hf auth login', or set HF_TOKEN to a "
            "valid one."
        )


@pytest.mark.parametrize("there", [True, False])
def test_no_right_to_write(there: bool, hub: UploadHub, out: Path) -> None:
    if there:
        hub.repositories["others/model"] = Store()
    assert refused(out, "others/model") == (
        "others/model: the Hub does not let your token write there (HTTP 403): use one with write access to others, or "
        "another name."
    )
    assert not hub.objects


def test_a_public_repository_does_not_become_private(hub: UploadHub, out: Path) -> None:
    hub.repositories[ID] = Store()
    assert refused(out, private=True) == (
        f"{ID} is public, and uploading to it would not change that: make it private in its settings on the Hub, "
        "choose another name, or leave out --private."
    )


def test_one_that_is_there_and_not_to_be_seen(hub: UploadHub, out: Path) -> None:
    hub.refuse[f"GET /api/models/{ID}"] = (404, "Repository not found")
    hub.repositories[ID] = Store()
    assert refused(out) == (
        f"{ID}: the Hub has no such repository, or you may not see it: check the name and the token's access."
    )


TOO_MUCH = ": the Hub does not take so much (HTTP {}, said): see the storage limits of lab, or remove what"
REFUSALS = [
    (f"POST /api/models/{ID}/commit", 413, TOO_MUCH.format(413)),
    (f"POST /{ID}.git/info/lfs/objects/batch", 402, TOO_MUCH.format(402)),
    (
        "PUT /storage/",
        507,
        ": the Hub's storage refuses a file (HTTP 507): run the same command again, which sends only",
    ),
    (
        "PUT /storage/",
        403,
        ": the Hub's storage refuses a file (HTTP 403): run the same command again, which sends only",
    ),
    (
        f"POST /api/models/{ID}/preupload",
        500,
        ": the Hub fails (HTTP 500): run the same command again, which sends onl",
    ),
    (f"POST /api/models/{ID}/preupload", 429, ": the Hub says that there were too many requests (HTTP 429): wait some"),
    (
        "POST /api/repos/create",
        400,
        ": the Hub does not take it (HTTP 400, said): check the names of the repository an",
    ),
    ("POST /api/repos/create", 409, ": the Hub says that it exists already, or is being changed, said: run the same"),
]


@pytest.mark.parametrize(("key", "status", "sentence"), REFUSALS)
def test_a_hub_that_refuses(key: str, status: int, sentence: str, hub: UploadHub, out: Path) -> None:
    hub.refuse[key] = (status, "said")
    assert refused(out).startswith(ID + sentence)
    assert ID not in hub.repositories or published(hub) == {}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Access to this resource is disabled.", " has been disabled on the Hub: see {}/lab/repaired."),
        (
            "GatedRepo",
            " is gated, and you may not use it: ask for access at {}/lab/repaired, then log in with 'hf auth login'.",
        ),
    ],
)
def test_a_repository_that_is_closed(said: str, sentence: str, hub: UploadHub, out: Path) -> None:
    hub.refuse[f"GET /api/models/{ID}"] = (403, said)
    assert refused(out) == ID + sentence.format(hub.address)


def test_no_network(hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused(out) == (
        f"{ID}: the Hub at http://127.0.0.1:9 cannot be reached: check the network and run the same command again, "
        "which sends only what has not arrived."
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LocalTokenNotFoundError(), ": you are not logged in: run 'hf auth login', or set HF_TOKEN."),
        (OfflineModeIsEnabled(), ": HF_HUB_OFFLINE keeps the Hub out of reach: unset it to publish."),
        (
            PermissionError(13, "Permission denied"),
            ": OUT cannot be read (Permission denied): check that nothing changes it while it is uploaded, and run the "
            "same command again, which sends only what has not arrived.",
        ),
        (
            KeyError("signed address"),
            ": the upload failed (KeyError): run the same command again, which sends only what has not arrived.",
        ),
    ],
)
def test_whatever_else(
    error: Exception, sentence: str, hub: UploadHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", fail)
    assert refused(out) == ID + sentence


@pytest.mark.parametrize("name", ["repaired", "lab/repaired@main", "lab/a b", "../x", "https://hf.co/lab/x", "lab/x/y"])
def test_names(name: str, hub: UploadHub, out: Path) -> None:
    with pytest.raises(ConfigError, match="is not a name on the Hub: give the repository as org/name"):
        hpa_merge.push(out, name)
    assert not hub.asked


def test_a_name_that_the_hub_does_not_allow(hub: UploadHub, out: Path) -> None:
    assert refused(out, "lab/a--b") == "lab/a--b is no name that the Hub allows: give the repository as org/name."


def test_a_card_that_the_hub_does_not_take(hub: UploadHub, out: Path) -> None:
    (out / CARD).write_bytes(b"---\nlicense: [mit\n---\n")
    assert refused(out) == (
        f"{ID}: the Hub does not take the metadata of README.md (- bad indentation): fix the top of that file and run "
        "the same command again, which sends only what has not arrived."
    )
    (out / CARD).write_bytes("Modèle".encode("latin-1"))
    assert refused(out) == (f"{out / CARD} is not UTF-8 (byte 3), which the Hub does not accept: save it as UTF-8.")
