"""The command line: options in, sentences and tables out. Only this package prints.

Nothing heavy is imported before it is needed: help and wrong options answer without torch.
"""

import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from hpa_merge.cli.calib import calib_command
from hpa_merge.cli.completion import asked_for, completion_command, completions
from hpa_merge.cli.demo import demo_command
from hpa_merge.cli.ending import INTERRUPTED, INTERRUPTION, STOPPED, ending_soon
from hpa_merge.cli.evaluate import eval_command
from hpa_merge.cli.inspect import inspect_command
from hpa_merge.cli.merging import merge_command, sweep_command
from hpa_merge.cli.push import push_command
from hpa_merge.cli.report import report_command
from hpa_merge.cli.score import score_command
from hpa_merge.cli.terminal import allow_any_text, allow_many_files, check_environment, complain
from hpa_merge.cli.tune import tune_command
from hpa_merge.cli.verify import verify_command
from hpa_merge.errors import HPAError
from hpa_merge.inputs.addresses import recorded, secrets_of, without_secrets

__all__ = ["main"]

FAILURE, USAGE = 1, 2
"""Exit statuses beside 0 and that of an interruption."""

COMMANDS = {
    "calib": calib_command,
    "completion": completion_command,
    "demo": demo_command,
    "eval": eval_command,
    "inspect": inspect_command,
    "push": push_command,
    "report": report_command,
    "score": score_command,
    "sweep": sweep_command,
    "tune": tune_command,
    "verify": verify_command,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command that the first word names, else a merge, and exit with its status."""
    if (asked := asked_for()) and (answer := completions(asked, merge_command, COMMANDS)) is not None:
        click.echo(answer)
        return
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = shlex.join(["hpa-merge", *recorded(words)])
    secrets = frozenset().union(*map(secrets_of, words))
    command, name = merge_command, "hpa-merge"
    if words and words[0] in COMMANDS:
        command, name = COMMANDS[words[0]], f"hpa-merge {words.pop(0)}"
    allow_many_files()
    allow_any_text()
    resumable = any(parameter.name == "resume" for parameter in command.params)
    interruption = INTERRUPTION if resumable else STOPPED
    verbose = "-v" in words or "--verbose" in words
    try:
        check_environment()
        with ending_soon(interruption) as came:
            try:
                command.main(words, prog_name=name, standalone_mode=False, obj=typed)
            except (OSError, SystemExit):
                if came.is_set():  # click could not tell a terminal that is gone
                    raise KeyboardInterrupt from None
                raise
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        click.echo(without_secrets(told.getvalue(), secrets), err=True, nl=False)
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        with suppress(OSError):  # the terminal may be gone
            complain(interruption)
        sys.exit(INTERRUPTED)
    except HPAError as error:
        if verbose:
            click.echo(without_secrets(traceback.format_exc(), secrets), err=True, nl=False)
        complain(str(error))
        sys.exit(USAGE)
    except Exception as error:
        if verbose:
            click.echo(without_secrets(traceback.format_exc(), secrets), err=True, nl=False)
        if isinstance(error, OSError) and (given := _given(error, typed)) is not None:
            complain(f"{given} cannot be used ({error.strerror}): check the path.")
            sys.exit(USAGE)
        complain(f"{type(error).__name__}: {error} (a mistake of ours or of a library; -v shows where it happened)")
        sys.exit(FAILURE)


def _given(error: OSError, typed: str) -> str | None:
    """The path that the system refuses, where the user has typed it; shortened, for it may be too long for any."""
    if error.errno is None or not isinstance(error.filename, str | bytes):
        return None
    name = os.fsdecode(error.filename)
    typed_words = [word.rpartition("=")[2] for word in shlex.split(typed)[1:]]
    known = any(word and name.startswith((word, str(Path(word).absolute()))) for word in typed_words)
    return f"{name:.80}{'…' if len(name) > 80 else ''}" if known else None
