"""What every command needs: shared options, a progress bar, error messages, silent libraries, enough open files."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import reduce
from pathlib import Path
from urllib.parse import urlsplit

import click
from click.shell_completion import CompletionItem

from hpa_merge.errors import ConfigError
from hpa_merge.inputs.secrets import without_secrets
from hpa_merge.printable import printable
from hpa_merge.progress import Bar, Lines, Progress, disabled, silent

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

FILE = click.Path(path_type=Path)

QUIET = (
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages."),
)

VERBOSITY = "TRANSFORMERS_VERBOSITY"
"""What transformers reads when it is imported."""

Options = Sequence[Callable[[Callable[..., None]], Callable[..., None]]]


def options(*groups: Options) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Several groups of options as one decorator, in their order."""
    every = [option for group in groups for option in group]
    return lambda command: reduce(lambda made, option: option(made), reversed(every), command)


@contextmanager
def progress_bar(quiet: bool, what: str = "merging") -> Iterator[Progress]:
    """A bar with a clock and the time left on a terminal; elsewhere a line every few seconds."""
    if quiet or disabled():
        yield silent
        return
    display = Bar(what) if on_terminal() else Lines(what, lambda line: click.echo(line, err=True))
    try:
        yield display
    finally:
        display.close()


def open_streams() -> None:
    """Open standard input, output and error where whoever started this process has closed them.

    Otherwise the first files that are opened would take their numbers, and get what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def on_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be erased."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def say(line: str) -> None:
    """Print a line to standard output, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stdout)


@contextmanager
def noticed(text: str) -> Iterator[None]:
    """Show ``text`` on the terminal during the block; a thread would not survive the fork of a child process."""
    if not on_terminal():
        yield
        return
    click.echo(text, nl=False, err=True)
    try:
        yield
    finally:
        click.echo(f"\r{' ' * len(text)}\r", nl=False, err=True)


ENCODER = "hpa_merge.calibration.service:EncoderService"
"""The service that encodes samples in a child process; a name, so that it is not imported here."""


@contextmanager
def libraries(verbose: bool, downloads: bool = False, encoding: bool = False) -> Iterator[None]:
    """Import the heavy libraries that run models, without their own messages unless ``verbose``.

    Args:
        downloads: show on a terminal that they are imported, and huggingface_hub's progress bars.
        encoding: prepare the child processes that encode samples.
    """
    import logging

    from hpa_merge.isolation import kept

    with ExitStack() as stack:
        stack.enter_context(hushed(verbose))
        with noticed("loading torch and transformers") if downloads else nullcontext():
            if encoding:
                stack.enter_context(kept(ENCODER, beginning=True, silent=not verbose))
            import transformers
        if not verbose:
            logs = transformers.utils.logging
            stack.callback(logs.set_verbosity, logs.get_verbosity())
            logs.set_verbosity(logging.CRITICAL)
            logs.disable_progress_bar()
        stack.enter_context(hub(verbose, downloads))
        yield


@contextmanager
def hushed(verbose: bool) -> Iterator[None]:
    """Hide the warnings of libraries unless ``verbose``, also of transformers if it is imported later."""
    import warnings

    before = os.environ.get(VERBOSITY)
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            os.environ.setdefault(VERBOSITY, "critical")
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(VERBOSITY, None)


@contextmanager
def hub(verbose: bool, downloads: bool = False) -> Iterator[None]:
    """Import huggingface_hub, without its own messages unless ``verbose``; with its bars if there are ``downloads``."""
    import logging

    import huggingface_hub.utils
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if downloads and sys.stderr.isatty() else disable_progress_bars)()
    if verbose:
        yield
        return
    logs = huggingface_hub.utils.logging
    before = logs.get_verbosity()
    logs.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logs.set_verbosity(before)


def complain(sentence: str, kind: str = "Error") -> None:
    """Print one line to standard error, with control characters escaped and secrets hidden."""
    click.echo(f"{kind}: {printable(without_secrets(sentence))}", err=True)


def allow_many_files() -> None:
    """Raise the limit of open files as far as the system allows: every shard of OLD, NEW and each OUT stays open."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def allow_any_text() -> None:
    """Escape what the terminal's encoding cannot show instead of failing."""
    with suppress(AttributeError, ValueError, OSError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def check_environment() -> None:
    """Check the environment variables that fail inside a library's import.

    Raises:
        ConfigError: HF_ENDPOINT is not an address.
    """
    given = os.environ.get("HF_ENDPOINT", "")
    try:
        address = urlsplit(given)
        usable = not given or (address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            "HF_ENDPOINT in the environment is not an address: unset it, or give one as https://huggingface.co."
        )


def folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion for a folder; names on the Hub are not known."""
    return [CompletionItem(incomplete, type="dir")]
