"""``hpa-merge push``: OUT on the Hub."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpa_merge.cli.terminal import HELP, complain, libraries, progress_bar
from hpa_merge.errors import HPAError, PublishError

if TYPE_CHECKING:
    from hpa_merge.publishing.upload import PushReport


@click.command(context_settings=HELP)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("repo", metavar="ID")
@click.option("--private", is_flag=True, help="Make the repository private, where it is made.")
@click.option("--branch", metavar="NAME", help="Publish there; made where it is missing.  [default: the main branch]")
@click.option("--pull-request", is_flag=True, help="Open a pull request instead of changing the main branch.")
@click.option("--message", metavar="TEXT", help="First line of the commit.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be done, change nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def push_command(
    out: Path,
    repo: str,
    private: bool,
    branch: str | None,
    pull_request: bool,
    message: str | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Publish OUT, a folder that a merge has made, as ID (org/name) on the Hugging Face Hub.

    OUT is verified first. All of it appears in one commit or nothing does; after a break the same command goes on, and
    sends only what has not arrived. What ID holds of an earlier model is deleted in the same commit: --dry-run lists
    it. Log in with "hf auth login", or set HF_TOKEN.
    """
    with libraries(verbose, downloads=not quiet):
        from hpa_merge.publishing.upload import push

        with progress_bar(quiet, "verifying") as on_progress:
            report = push(
                out,
                repo,
                private=private,
                branch=branch,
                pull_request=pull_request,
                message=message,
                dry_run=dry_run,
                on_progress=on_progress,
                on_note=_ignore if quiet else _tell,
            )
    if not quiet:
        for line in told(report, out, repo):
            click.echo(line)


def publish(out: Path, repo: str, *, private: bool, quiet: bool) -> None:
    """Publish the OUT of the merge that has just ended; OUT stays whatever happens.

    Raises:
        HPAError: it could not be published; says how to go on.
    """
    from hpa_merge.publishing.upload import push

    words = ["hpa-merge", "push", str(out), repo, *(["--private"] if private else [])]
    remedy = f"OUT {out} is complete; publish it with: {shlex.join(words)}"
    try:
        with progress_bar(quiet, "verifying") as on_progress:
            note = _ignore if quiet else _tell
            report = push(out, repo, private=private, on_progress=on_progress, on_note=note)
    except HPAError as error:
        raise PublishError(f"{error} {remedy}") from error
    except BaseException:
        complain(remedy, "Note")
        raise
    if not quiet:
        for line in told(report, out, repo):
            click.echo(line)


def _tell(note: str) -> None:
    complain(note, "Note")


def _ignore(note: str) -> None:
    """What ``--quiet`` does with it."""


def told(report: "PushReport", out: Path, repo: str) -> list[str]:
    """What was done, or with no address what would be, a line each."""
    done = bool(report.address)
    lines = [f"Made {name}." if done else f"{name[:1].upper()}{name[1:]} would be made." for name in report.creates]
    total = sum(report.files.values())
    size = f"{total / 1e9:.1f} GB" if total >= 1e8 else f"{total / 1e6:.1f} MB"
    if not done:
        lines += [f"  {name} ({count} bytes)" for name, count in report.files.items()]
    if report.changed and not report.unchanged:
        lines.append(f"With its name on the Hub and without local paths: {', '.join(report.changed)}.")
    if report.left_out:
        lines.append(f"No part of the model, and left here: {', '.join(report.left_out)}.")
    if report.deleted:
        lines.append(f"{'Deleted' if done else 'Would be deleted'} in {repo}: {', '.join(report.deleted)}.")
    if report.unchanged:
        lines.append(f"{repo} holds all of {out} already: {report.address}")
    elif done:
        lines.append(f"{out} is published, {len(report.files)} files, {size}: {report.address}")
    else:
        lines.append(f"{out} is sound: {len(report.files)} files, {size}, would go to {repo}. Nothing was done.")
    return lines
