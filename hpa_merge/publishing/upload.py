"""Publishes OUT on the Hub in one commit, after checking it.

Large files are uploaded first (``preupload_lfs_files``) and are invisible until the one commit that names them all
(``create_commit``). The Hub's storage does not get a file twice, so that the same command resumes. This is better than
``upload_large_folder``, which makes many commits, looks complete in between, deletes nothing and writes to the folder.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, final

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import ModelInfo

from hpa_merge import __version__
from hpa_merge.arguments import checked
from hpa_merge.checkpoint.kinds import PROCESSOR, TEMPLATES, TOKENIZER, is_other_weights
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.counting import counted
from hpa_merge.custom_code.finding import find_references
from hpa_merge.errors import PublishError
from hpa_merge.files.inside import TooLong, find_inside, read_inside
from hpa_merge.files.names import CARD, CARD_BYTES, REPORT
from hpa_merge.inputs.hub_errors import AGAIN, is_dropped, publishing
from hpa_merge.progress import Progress, bars_in_notebooks, silent
from hpa_merge.publishing.destination import Destination, check_destination, create
from hpa_merge.render import folder as drawings
from hpa_merge.render.card import UNPUBLISHED, for_the_hub
from hpa_merge.render.figures import EVALUATION
from hpa_merge.render.folder import PAGE, Drawing
from hpa_merge.report.manifest import Listing, names_weights_alone
from hpa_merge.report.redaction import for_others, places_in
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.report.showing import Shown
from hpa_merge.verification import verify

__all__ = ["PushReport", "is_stale", "push"]

TRIES = 3
"""Attempts to commit if the connection breaks; huggingface_hub repeats uploads itself."""

SMALL = 10**7
"""Smaller files are read and checked in memory before they are uploaded; larger ones are identified by their digest."""

WITH_NAMES = (PAGE, EVALUATION)
"""Drawn files that show names of models and files."""

OURS = "hpa_"
"""Prefix of the report's files."""


@final
@dataclass(frozen=True, repr=False)
class PushReport(Shown):
    """What was published, or after a dry run what would be.

    Attributes:
        address: of the commit or pull request; empty after a dry run.
        commit: its hash.
        creates: what is created: the repository, the branch.
        files: bytes of every published file, by path.
        changed: files that are published without local paths, or with the name on the Hub.
        deleted: files of an earlier model in the repository.
        left_out: hidden files and folders of OUT, which are not published.
        notes: files that are published unchanged and contain local paths, a sentence each.
        unchanged: the repository had all of it already.
    """

    address: str
    commit: str
    creates: tuple[str, ...]
    files: dict[str, int]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unchanged: bool = False

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        rows = {"address": self.address, "changed": ", ".join(self.changed), "deleted": ", ".join(self.deleted)}
        title = counted(len(self.files), "file") + ("" if self.address else ", nothing published")
        return title, [row for row in rows.items() if row[1]]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each file."""
        return [{"file": name, "bytes": count} for name, count in self.files.items()]


@bars_in_notebooks(on_progress="verifying")
@checked
def push(
    out: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    pull_request: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    on_progress: Progress = silent,
    on_note: Callable[[str], None] = lambda sentence: None,
) -> PushReport:
    """Publish a folder that :func:`hpa_merge.merge` has made.

    The folder is verified first. The files of the manifest, the model card and the report are uploaded byte for byte,
    with two exceptions: local paths are removed from the report and its drawings (see
    :func:`hpa_merge.report.redaction.for_others`), and the model card's example gets the name on the Hub. The same
    commit deletes files of an earlier model; see :func:`is_stale`. The token is huggingface_hub's.

    Args:
        out: the folder; it is not written to.
        repo_id: ``org/name``; created if it does not exist.
        private: create it as a private repository; an existing public one is refused.
        branch: created from the main one if it does not exist.
        pull_request: open a pull request instead of changing the main branch.
        message: first line of the commit message.
        dry_run: check everything, and change nothing.
        on_progress: called before each file and tensor that is verified.
        on_note: called with each note before anything is uploaded.

    Raises:
        ConfigError: the name or the options are invalid.
        CheckpointError: ``out`` is not a complete checkpoint, or has no report.
        PublishError: ``out`` is not as its merge wrote it, or changed meanwhile; the Hub refuses or cannot be reached;
            the report is of an earlier version, whose manifest names only the weights.
    """
    where = Destination(repo_id, private, branch, pull_request)
    there = check_destination(where)
    folder = Path(out)
    report = read_report(folder)
    with _reading():
        found = Listing.of(folder)
    paths = _places(folder, [name for name in (*report.manifest, CARD, REPORT) if name in found.files])
    states = _states(paths)
    card = _card(folder) if CARD in paths else None
    if problems := verify(out, on_progress=on_progress).problems:
        more = f" (and {len(problems) - 1} more: see hpa-merge verify)" if len(problems) > 1 else ""
        raise PublishError(f"OUT {out} is not as its merge wrote it, and was not uploaded: {problems[0]}{more}")
    if names_weights_alone(report):
        raise PublishError(
            f"the manifest of OUT {out} names only the weights, as in earlier versions: check the other files, and run "
            "'hpa-merge report OUT', which adds them."
        )
    changed = _rewritten(folder, report, paths, card, repo_id)
    manifest = _manifest_of(changed.get(REPORT), report)
    contents = {name: changed.get(name) or _content(path, name, manifest) for name, path in paths.items()}
    plan = PushReport(
        address="",
        commit="",
        creates=there.creates,
        files={name: len(c) if isinstance(c, bytes) else states[name][0] for name, c in sorted(contents.items())},
        changed=tuple(sorted(changed)),
        deleted=_stale(there.info, contents),
        left_out=found.hidden,
        notes=tuple(_notes(folder, contents)),
    )
    for note in plan.notes:
        on_note(note)
    if dry_run:
        return plan
    with publishing(repo_id):
        create(where, there)

    def check_unchanged(additions: Mapping[str, CommitOperationAdd]) -> None:
        sent = {name: addition.upload_info.sha256.hex() for name, addition in additions.items()}
        expected = {name: digest for name, digest in manifest.items() if name in sent}
        if _states(paths) != states or sent | expected != sent:
            raise PublishError(f"OUT {out} was changed while it was uploaded, and nothing was published: {AGAIN}.")

    return _send(where, contents, plan, message or f"Merged with hpa-merge {__version__}", check_unchanged)


def is_stale(path: str) -> bool:
    """Whether a file of the repository that OUT does not have may be mistaken for a part of the model.

    These are weights in any format, configuration, tokenizer, processor and templates, and files of an earlier report.
    Hidden files, licences, pictures, code and other texts stay.
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


@contextmanager
def _reading() -> Iterator[None]:
    """Turn an error in reading OUT into a sentence.

    Raises:
        PublishError: a file cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise PublishError(f"{error.filename} cannot be read ({error.strerror}): {AGAIN}.") from error


def _states(paths: Mapping[str, Path]) -> dict[str, tuple[int, int, int]]:
    """Size, time and inode of each file, which change when it is written to."""
    with _reading():
        found = {name: path.stat() for name, path in paths.items()}
    return {name: (status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found.items()}


def _places(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The resolved path of each file.

    Raises:
        PublishError: one is not inside the folder.
    """
    places = {}
    for name in names:
        try:
            places[name] = find_inside(folder, name)
        except OSError as error:
            raise PublishError(
                f"OUT {folder}: {name} cannot be published ({error.strerror or error}): merge again, or fetch the "
                "folder again."
            ) from error
    return places


def _content(path: Path, name: str, manifest: Mapping[str, str]) -> Path | bytes:
    """A file as it is uploaded: its bytes, checked again; the path of a large one.

    Raises:
        PublishError: the bytes are not those that were verified.
    """
    with _reading():
        if path.stat().st_size > SMALL:
            return path
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.get(name, hashlib.sha256(content).hexdigest()):
        raise PublishError(f"{name} was changed while it was uploaded, and nothing was published: {AGAIN}.")
    return content


def _manifest_of(published: bytes | None, report: MergeReport) -> dict[str, str]:
    """The manifest of the published report."""
    return report.manifest if published is None else dict(json.loads(published)["manifest"])


def _card(folder: Path) -> bytes:
    """The model card; the Hub accepts only UTF-8.

    Raises:
        PublishError: it cannot be read, is too long, or is not UTF-8.
    """
    try:
        card = read_inside(folder, CARD, CARD_BYTES)
        card.decode()
    except TooLong as error:
        raise PublishError(error.sentence(str(folder / CARD))) from error
    except OSError as error:
        raise PublishError(f"{folder / CARD} cannot be read ({error.strerror or error}): {AGAIN}.") from error
    except UnicodeDecodeError as error:
        raise PublishError(
            f"{folder / CARD} is not UTF-8 (byte {error.start}), which the Hub does not accept: save it as UTF-8."
        ) from error
    return card


def _rewritten(
    folder: Path, report: MergeReport, paths: Mapping[str, Path], card: bytes | None, repo: str
) -> dict[str, bytes]:
    """The files that are changed before publishing; the report has the digests of the others.

    Args:
        card: the model card; None without one.

    Raises:
        PublishError: the page cannot be drawn.
    """
    shared, text = for_others(report), (card or b"").decode()
    changed: dict[str, bytes] = {}
    if shared != report:
        drawing = _drawn_again(shared, folder, paths)
        changed = {name: drawing.files[name] for name in WITH_NAMES if name in paths and name in drawing.files}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in changed.items()}
        if drawing.libraries != shared.run.drawn_with:  # other versions drew some of the pictures
            shared = replace(shared, run=replace(shared.run, drawn_with={}))
        changed[REPORT] = replace(shared, manifest={**shared.manifest, **digests}).to_json().encode()
        text = for_the_hub(report, text, {n: w for n, w in drawing.pictures.items() if n in paths})
    named = text.replace(f"model_id = {UNPUBLISHED}", f'model_id = "{repo}"').encode()
    if card is not None and named != card:
        changed[CARD] = named
    return changed


def _notes(folder: Path, contents: Mapping[str, Path | bytes]) -> Iterator[str]:
    """A sentence for each file of NEW's with local paths, which is published byte for byte, and for code."""
    if named := find_references(folder):
        files = ", ".join(
            sorted({f"{each.path} of {each.repository}" if each.repository else each.path for each in named})
        )
        yield f"OUT brings code, which runs when it is loaded with trust_remote_code=True: {files}."
    for name, content in sorted(contents.items()):
        if name in MADE or isinstance(content, Path) or is_other_weights(PurePosixPath(name)):
            continue
        if found := places_in(content):
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield f"{name} contains the local path {found[0]}{more}, and is published unchanged."


def _drawn_again(report: MergeReport, folder: Path, paths: Mapping[str, Path]) -> Drawing:
    """The page and the pictures of a report, if OUT has some.

    Raises:
        PublishError: they cannot be drawn.
    """
    if not any(name in paths for name in MADE if name != REPORT):
        return Drawing({}, {})
    try:
        drawing = drawings.draw(report)
    except Exception as error:  # the old page, with its paths, must not be published
        raise PublishError(_undrawn(folder)) from error
    if PAGE in paths and PAGE not in drawing.files:
        raise PublishError(_undrawn(folder))
    return drawing


def _undrawn(folder: Path) -> str:
    return (
        f"{folder / PAGE} contains local paths, and cannot be drawn again without them: "
        "pip install vl-convert-python, or delete the file."
    )


def _send(
    where: Destination,
    contents: Mapping[str, Path | bytes],
    plan: PushReport,
    message: str,
    check_unchanged: Callable[[Mapping[str, CommitOperationAdd]], None],
) -> PushReport:
    """Upload and commit.

    If the connection breaks, the commit may have been made. The repository is then read again, and files that it has
    are left out, so that there is at most one commit. A pull request is not tried again: it could be opened twice.

    Raises:
        PublishError: see :func:`push`.
    """
    api = HfApi()
    with publishing(where.repo):
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
                    gitignore_content="",  # otherwise a .gitignore there would leave files out silently
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
