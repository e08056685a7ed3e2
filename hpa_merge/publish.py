"""OUT on the Hub: checked first, then uploaded, and there in one commit or not at all.

The large files go up one by one (``preupload_lfs_files``), where nobody sees them until the one commit that names them
all (``create_commit``). A file that the Hub's storage has is not sent again, so that the same command goes on after a
break. ``upload_large_folder`` would resume as well, but it makes many commits, between which the repository holds a
part of the model that looks whole, deletes nothing, and keeps its notes in the folder; OUT is never written to here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import final

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import ModelInfo

from hpa_merge import __version__
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.kinds import PROCESSOR, TEMPLATES, TOKENIZER, is_other_weights
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.destination import Destination, check_destination, create
from hpa_merge.errors import PublishError
from hpa_merge.names import REPORT
from hpa_merge.publish_errors import AGAIN, is_dropped, telling
from hpa_merge.report.card import CARD, UNPUBLISHED
from hpa_merge.report.folder import PAGE, files_of
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.report.sharing import for_others
from hpa_merge.verify import verify

__all__ = ["PushReport", "is_stale", "push"]

TRIES = 3
"""Commits that are begun, where the connection breaks off; huggingface_hub repeats the uploads itself."""

OURS = "hpa_"
"""What the names of the report's files begin with."""


@final
@dataclass(frozen=True)
class PushReport:
    """What was published, or what would be.

    Attributes:
        address: of the commit, or of the pull request; empty where nothing was done.
        commit: its hash.
        creates: what is made: the repository, the branch.
        files: bytes of every file of OUT, by its path.
        changed: those that hold paths of this machine, or miss the name on the Hub, and go up without, or with it.
        deleted: files in the repository that belonged to an earlier model.
        left_out: files in OUT that are no part of the model.
        unchanged: the repository held all of it already.
    """

    address: str
    commit: str
    creates: tuple[str, ...]
    files: dict[str, int]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    left_out: tuple[str, ...]
    unchanged: bool = False


def push(
    out: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    pull_request: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PushReport:
    """Publish a folder that :func:`hpa_merge.merge` has made.

    It is verified first, and a folder that is not as its merge wrote it is not uploaded. What goes up is OUT byte for
    byte, but for two things: paths of this machine in the report (see :func:`hpa_merge.report.sharing.for_others`),
    and the model card's example, which gets the name on the Hub. What the repository has of an earlier model is
    deleted in the same commit; see :func:`is_stale`. The token is huggingface_hub's.

    Args:
        out: the folder; it is not written to.
        repo_id: ``org/name``, made where it is missing.
        private: make it private. A repository that is there and public is refused.
        branch: made where it is missing, from the main one.
        pull_request: open one instead of changing the main branch.
        message: the commit's first line.
        dry_run: check everything that can be checked, and change nothing.
        on_progress: called before each file and tensor that is verified.

    Raises:
        ConfigError: the name or the options are wrong.
        CheckpointError: ``out`` is no whole checkpoint, or has no report.
        PublishError: it is not as its merge wrote it, or changed meanwhile; the Hub refuses, or cannot be reached.
    """
    where = Destination(repo_id, private, branch, pull_request)
    there = check_destination(where)
    folder = Path(out)
    with Checkpoint.open(folder, "OUT") as checkpoint:
        report = read_report(folder)
        made = sorted(name for name in MADE if (folder / name).is_file())
        names = [*checkpoint.shards, *filter(None, [checkpoint.index]), *made]
        found = checkpoint.side_files()
    paths = {path.as_posix(): folder / path for path in (*map(Path, names), *found.copied)}
    states = _states(paths)
    if problems := verify(out, on_progress=on_progress).problems:
        raise PublishError(f"OUT {out} is not as its merge wrote it, and was not uploaded: {problems[0]}")
    contents: dict[str, Path | bytes] = {**paths, **_rewritten(folder, report, paths, repo_id)}
    plan = PushReport(
        address="",
        commit="",
        creates=there.creates,
        files={name: len(c) if isinstance(c, bytes) else states[name][0] for name, c in sorted(contents.items())},
        changed=tuple(sorted(name for name, content in contents.items() if isinstance(content, bytes))),
        deleted=_stale(there.info, contents),
        left_out=tuple(path.as_posix() for path in found.left_out),
    )
    if dry_run:
        return plan
    with telling(repo_id):
        create(where, there)

    def check_unchanged(additions: Mapping[str, CommitOperationAdd]) -> None:
        sent = {name: additions[name].upload_info.sha256.hex() for name in report.manifest}
        if _states(paths) != states or sent != report.manifest:
            raise PublishError(f"OUT {out} was changed while it was uploaded, and nothing was published: {AGAIN}.")

    return _send(where, contents, plan, message or f"Merged with hpa-merge {__version__}", check_unchanged)


def is_stale(path: str) -> bool:
    """Whether a file that the repository has and OUT has not could be taken for a part of the model.

    That is weights in any format, what is read with them (configuration, tokenizer, processor, templates), and the
    figures of an earlier report. Hidden files, licences, pictures, code and further texts stay.
    """
    file = PurePosixPath(path)
    if any(part.startswith(".") for part in file.parts):
        return False
    configuration = len(file.parts) == 1 and file.suffix == ".json"
    read = configuration or any(pattern.fullmatch(path) for pattern in (TOKENIZER, TEMPLATES, PROCESSOR))
    return read or is_other_weights(file) or file.name.startswith(OURS)


def _stale(info: ModelInfo | None, contents: Mapping[str, object]) -> tuple[str, ...]:
    there = [entry.rfilename for entry in (info.siblings or [])] if info is not None else []
    return tuple(sorted(name for name in there if name not in contents and is_stale(name)))


def _states(paths: Mapping[str, Path]) -> dict[str, tuple[int, int, int]]:
    """What tells of each file that it has not been written to.

    Raises:
        PublishError: one is gone.
    """
    try:
        found = {name: path.stat() for name, path in paths.items()}
    except OSError as error:
        raise PublishError(f"{error.filename} cannot be read ({error.strerror}): {AGAIN}.") from error
    return {name: (status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found.items()}


def _rewritten(folder: Path, report: MergeReport, paths: Mapping[str, Path], repo: str) -> dict[str, bytes]:
    """The files that do not go up as they are.

    Raises:
        PublishError: the model card is not UTF-8.
    """
    changed: dict[str, bytes] = {}
    shared = for_others(report)
    if shared != report:
        _, files = files_of(shared, page=PAGE in paths)
        if PAGE in paths and PAGE not in files:
            raise PublishError(
                f"{folder / PAGE} names places of this machine, and cannot be drawn without them: "
                "pip install altair vl-convert-python, or delete the file."
            )
        changed |= {name: content for name, content in files.items() if name in (REPORT, PAGE) and name in paths}
    if CARD in paths:
        content = (folder / CARD).read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise PublishError(
                f"{folder / CARD} is not UTF-8 (byte {error.start}), which the Hub does not take: save it as UTF-8."
            ) from error
        named = content.replace(f"model_id = {UNPUBLISHED}".encode(), f'model_id = "{repo}"'.encode())
        changed |= {CARD: named} if named != content else {}
    return changed


def _send(
    where: Destination,
    contents: Mapping[str, Path | bytes],
    plan: PushReport,
    message: str,
    check_unchanged: Callable[[Mapping[str, CommitOperationAdd]], None],
) -> PushReport:
    """Upload and commit.

    Where the connection breaks off, nobody knows whether the commit was made: then the repository is looked at again,
    and what it has is left out, so that there is one commit at most. A pull request would be opened twice, and is not
    tried again.

    Raises:
        PublishError: see :func:`push`.
    """
    api = HfApi()
    with telling(where.repo):
        for left in reversed(range(1 if where.pull_request else TRIES)):
            try:
                info = api.model_info(where.repo, revision=where.branch)
                deleted = _stale(info, contents)
                additions = {name: CommitOperationAdd(name, content) for name, content in contents.items()}
                api.preupload_lfs_files(
                    where.repo,
                    list(additions.values()),
                    revision=where.branch,
                    create_pr=where.pull_request,
                    free_memory=False,
                    gitignore_content="",  # else a .gitignore there would leave files out, and say nothing
                )
                check_unchanged(additions)
                made = api.create_commit(
                    where.repo,
                    [*additions.values(), *(CommitOperationDelete(name) for name in deleted)],
                    commit_message=message,
                    revision=where.branch,
                    create_pr=where.pull_request,
                    parent_commit=info.sha,
                )
                break
            except Exception as error:
                if not left or not is_dropped(error):
                    raise
    address = made.pr_url if where.pull_request and made.pr_url else made.commit_url
    unchanged = made.oid == info.sha
    return replace(plan, address=str(address), commit=made.oid, deleted=deleted, unchanged=unchanged)
