"""``hpa-merge push``: OUT on the Hub."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpa_merge.cli.early import refuse_out
from hpa_merge.cli.terminal import FILE, HELP, QUIET, complain, hub, hushed, options, progress_bar
from hpa_merge.counting import counted
from hpa_merge.errors import HPAError, PublishError

if TYPE_CHECKING:
    from hpa_merge.publishing.upload import PushReport


@click.command(short_help="Publish a merged folder on the Hub.", context_settings=HELP)
@click.argument("out", type=FILE)
@click.argument("repo", metavar="ID")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
@click.option("--branch", metavar="NAME", help="Branch to publish to; created if missing.  [default: the main branch]")
@click.option("--pull-request", is_flag=True, help="Open a pull request instead of changing the main branch.")
@click.option("--message", metavar="TEXT", help="First line of the commit message.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be done, change nothing.")
@options(QUIET)
def push_command(out: Path, repo: str, quiet: bool, verbose: bool, **given: Any) -> None:
    """Publish OUT, a folder that a merge has made, as ID (org/name) on the Hugging Face Hub.

    OUT is verified first. All of it appears in one commit or nothing does. If the connection breaks, run the same
    command again: it sends only what has not arrived. The same commit deletes what ID holds of an earlier model, and
    --dry-run lists it. Log in with "hf auth login", or set HF_TOKEN.
    """
    from hpa_merge.publishing.destination import Destination, check_login

    where = Destination(repo, given["private"], given["branch"], given["pull_request"])
    refuse_out(out)
    check_login(where)
    with hushed(verbose), hub(verbose, downloads=not quiet):
        _push(out, repo, quiet, given)


def publish(out: Path, repo: str, *, private: bool, quiet: bool) -> None:
    """Publish the OUT of the merge that has just ended; OUT stays whatever happens.

    Raises:
        HPAError: it could not be published; the message has the command that publishes it.
    """
    words = ["hpa-merge", "push", str(out), repo, *(["--private"] if private else [])]
    remedy = f"OUT {out} is complete; publish it with: {shlex.join(words)}"
    try:
        _push(out, repo, quiet, {"private": private})
    except HPAError as error:
        raise PublishError(f"{error} {remedy}") from error
    except BaseException:
        complain(remedy, "Note")
        raise


def _push(out: Path, repo: str, quiet: bool, given: dict[str, Any]) -> None:
    """Publish, and print what was done."""
    from hpa_merge.publishing.upload import push

    def on_note(note: str) -> None:
        if not quiet:
            complain(note, "Note")

    with progress_bar(quiet, "verifying") as on_progress:
        report = push(out, repo, **given, on_progress=on_progress, on_note=on_note)
    for line in _lines(report, out, repo) if not quiet else ():
        click.echo(line)


def _lines(report: "PushReport", out: Path, repo: str) -> list[str]:
    """What was done, or after a dry run what would be."""
    done = bool(report.address)
    lines = [f"Made {name}." if done else f"{name[:1].upper()}{name[1:]} would be made." for name in report.creates]
    total = sum(report.files.values())
    size = f"{total / 1e9:.1f} GB" if total >= 1e8 else f"{total / 1e6:.1f} MB"
    if not done:
        lines += [f"  {name} ({counted(count, 'byte')})" for name, count in report.files.items()]
    if report.changed and not report.unchanged:
        lines.append(f"With its name on the Hub and without local paths: {', '.join(report.changed)}.")
    if report.left_out:
        lines.append(f"Not part of the model, and not uploaded: {', '.join(report.left_out)}.")
    if report.deleted:
        lines.append(f"{'Deleted' if done else 'Would be deleted'} in {repo}: {', '.join(report.deleted)}.")
    if report.unchanged:
        lines.append(f"{repo} holds all of {out} already: {report.address}")
    elif done:
        lines.append(f"{out} is published, {counted(len(report.files), 'file')}, {size}: {report.address}")
    else:
        lines.append(
            f"{out} is sound: {counted(len(report.files), 'file')}, {size}, would go to {repo}. Nothing was done."
        )
    return lines
