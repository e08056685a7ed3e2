"""The command line: options in, sentences and tables out. Only this file prints.

Nothing heavy is imported before it is needed: help and wrong options answer without torch.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
from click.core import ParameterSource

import hpa_merge
from hpa_merge.config import HPAConfig, option_fields, read_yaml
from hpa_merge.errors import ConfigError, HPAError

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses beside 0."""

INTERRUPTION = "interrupted: the same command with --resume goes on."

GRACE = 1.0
"""Seconds that an interrupted run may take to end by itself; whatever moment it is ended at, it can be resumed."""

ENDING = (signal.SIGINT, signal.SIGTERM)

EPILOG = """\b
Further commands, in OLD's place:
  demo    make a small LLaVA pair in a folder, tune it, and merge it
  verify  check that a merged folder is whole and right
"""

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: run the command that the first word names, else a merge, and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, name = merge_command, "hpa-merge"
    if words and words[0] in COMMANDS:
        command, name = COMMANDS[words[0]], f"hpa-merge {words.pop(0)}"
    verbose = "-v" in words or "--verbose" in words
    try:
        with _ending_soon():
            command.main(words, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        _complain(INTERRUPTION)
        sys.exit(INTERRUPTED)
    except HPAError as error:
        if verbose:
            traceback.print_exc()
        _complain(str(error))
        sys.exit(USAGE)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        _complain(f"{type(error).__name__}: {error} (a mistake of ours or of a library; -v shows where it happened)")
        sys.exit(FAILURE)


@contextmanager
def _ending_soon() -> Iterator[None]:
    """SIGINT and SIGTERM end the block by ``KeyboardInterrupt`` or, where that takes long, the process.

    Python sees a signal only between two of its own steps. So a thread is told of it too, and ends the process where a
    library computes on; whatever moment that is, the run can be resumed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    over = threading.Event()

    def watch() -> None:
        while (number := os.read(told, 1)) and number[0] not in ENDING:
            pass
        if number and not over.wait(GRACE):
            _complain(INTERRUPTION)
            os._exit(INTERRUPTED)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    waker = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(tell)
        watcher.join()
        os.close(told)


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of :class:`HPAConfig`, in its order, with its default and its help."""
    hints = get_type_hints(HPAConfig)
    for name, (default, text) in reversed(option_fields().items()):
        flag = f"--{name.replace('_', '-')}"
        settings: dict[str, Any] = {"default": default, "help": text, "show_default": True}
        if isinstance(default, bool):
            flag = f"{flag}/--no-{name.replace('_', '-')}"
        elif isinstance(default, tuple):
            settings |= {"multiple": True, "metavar": "REGEX", "show_default": False}
        elif get_args(hints[name]):
            settings["type"] = click.Choice(get_args(hints[name]))
        else:
            settings["type"] = type(default)
        command = click.option(flag, name, **settings)(command)
    return command


@click.command(context_settings=HELP, epilog=EPILOG)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--safety-calib", type=click.Path(path_type=Path), help="Safety samples, JSON Lines.  [required]")
@click.option("--task-calib", type=click.Path(path_type=Path), help="Samples of the new task, JSON Lines.  [required]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="OUT: a new folder.  [required]")
@_config_options
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="These options as YAML.")
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run left beside OUT.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
@click.version_option(hpa_merge.__version__, "--version", prog_name="hpa-merge")
@click.pass_context
def merge_command(
    context: click.Context,
    old: Path,
    new: Path,
    safety_calib: Path | None,
    task_calib: Path | None,
    output: Path | None,
    config_file: Path | None,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Repair an aligned model after a tuning step.

    OLD is the checkpoint before tuning and NEW the one after it. From both, a few safety samples and some samples of
    the new task, hpa-merge works out which input columns of every linear weight go back to their old values, and
    writes the result to OUT. It trains nothing and never holds a whole model in memory.
    """
    given = {name for name in options if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    values = read_yaml(config_file) if config_file else {}
    paths: dict[str, Any] = {"safety_calib": safety_calib, "task_calib": task_calib, "output": output}
    for key in [key for key in values if str(key).replace("-", "_") in paths]:
        name, value = str(key).replace("-", "_"), values.pop(key)
        if not isinstance(value, str):
            raise ConfigError(f"{config_file} has {value!r} for {key}: it has to be a path.")
        paths[name] = paths[name] or Path(value)
    for parameter in context.command.params:
        if parameter.name in paths and paths[parameter.name] is None:
            raise click.MissingParameter(param=parameter)
    config = HPAConfig.from_mapping(values | {name: options[name] for name in given}, source=str(config_file))
    job: dict[str, Any] = {name: paths[name] for name in ("safety_calib", "task_calib")}
    job |= {"config": config, "overwrite": overwrite, "resume": resume}
    with _libraries(verbose):
        from rich.console import Console

        from hpa_merge.pipeline import merge
        from hpa_merge.prepare import preview
        from hpa_merge.report.summary import merge_summary, plan_summary

        console = Console(quiet=quiet)
        if dry_run:
            with _progress_bar(quiet, "reading") as on_progress:
                plan = preview(old, new, paths["output"], on_progress=on_progress, **job)
            console.print(plan_summary(plan))
            return
        with _progress_bar(quiet) as on_progress:
            report = merge(old, new, paths["output"], on_progress=on_progress, **job)
        console.print(merge_summary(report, str(paths["output"])))
        if not quiet:
            for sentence in report.warnings:
                _complain(sentence, "Note")


@click.command(context_settings=HELP)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawings and of the training.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def demo_command(folder: Path, seed: int, quiet: bool, verbose: bool) -> None:
    """Make a small LLaVA pair in FOLDER, tune it, merge it, and show what became of it.

    Everything is real and small: a model is trained on drawn images and aligned to refuse, then tuned on a new task,
    which costs it some of what it had; the merge follows. Under a minute on two cores, without a network.
    """
    with _libraries(verbose):
        from rich.console import Console

        from hpa_merge.demo import make_demo, measure, next_steps, scores_table
        from hpa_merge.pipeline import merge
        from hpa_merge.report.summary import merge_summary

        console = Console(quiet=quiet, highlight=False)
        files = make_demo(folder, seed=seed, on_stage=lambda text: console.print(f"{text} …"))
        out = folder / "out"
        console.print("Merging OLD and NEW into OUT …")
        with _progress_bar(quiet) as on_progress:
            report = merge(
                files.old, files.new, out, safety_calib=files.safety, task_calib=files.task, on_progress=on_progress
            )
        console.print(merge_summary(report, str(out)))
        scores = {
            "OLD, aligned": measure(files.old, files),
            "NEW, tuned": measure(files.new, files),
            "OUT, merged": measure(out, files),
        }
        console.print(scores_table(scores))
        console.print(next_steps(files, out), soft_wrap=True)


@click.command(context_settings=HELP)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--old", type=click.Path(path_type=Path), help="OLD of the merge; with --new, every value is checked.")
@click.option("--new", type=click.Path(path_type=Path), help="NEW of the merge.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but what is wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def verify_command(out: Path, old: Path | None, new: Path | None, quiet: bool, verbose: bool) -> None:
    """Check that OUT is whole and as its merge wrote it.

    The index and the headers have to agree, every weight file has to have the SHA-256 of the report, and no value may
    be NaN or infinite. With --old and --new also: what was not adapted is NEW's byte for byte, the columns put back
    are OLD's bit for bit, and every other value is what the formula gives. Exit status 2 if anything is wrong.
    """
    with _libraries(verbose):
        from hpa_merge.verify import verify

        with _progress_bar(quiet, "verifying") as on_progress:
            report = verify(out, old, new, on_progress=on_progress)
        for problem in report.problems:
            _complain(problem)
        if report.problems:
            sys.exit(USAGE)
        if not quiet:
            click.echo(
                f"{out} is as its merge wrote it: " + ", ".join(f"{n} {kind}" for kind, n in report.checked.items())
            )


COMMANDS = {"demo": demo_command, "verify": verify_command}


@contextmanager
def _progress_bar(quiet: bool, what: str = "merging") -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the steps with the time left, on a terminal only."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {elapsed} gone, {remaining} left{postfix}"
    with tqdm(disable=True if quiet else None, bar_format=form, desc=what, leave=False) as bar:

        def on_progress(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        yield on_progress


@contextmanager
def _libraries(verbose: bool) -> Iterator[None]:
    """Import the heavy libraries, with their own messages off unless they are wanted."""
    import logging
    import warnings

    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
        import transformers

        if not verbose:
            transformers.utils.logging.set_verbosity(logging.CRITICAL)
            transformers.utils.logging.disable_progress_bar()
        yield


def _complain(sentence: str, kind: str = "Error") -> None:
    """One line on the terminal; names in a file may hold what would move its cursor, which is shown escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in sentence)
    click.echo(f"{kind}: {shown}", err=True)
