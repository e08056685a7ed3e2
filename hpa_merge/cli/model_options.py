"""What the commands that ask models share: options for test files, answers and the judge, and checks of paths."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem

from hpa_merge.cli.options import config_option
from hpa_merge.config import FOLDER, IGNORED, MAP
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.names import METRICS, check_names
from hpa_merge.files.weight_names import CONFIGS
from hpa_merge.inputs.secrets import read_address, read_key

if TYPE_CHECKING:
    from hpa_merge.evaluation.collecting import Suite
    from hpa_merge.evaluation.guards import Guard
    from hpa_merge.evaluation.running import AnsweringOptions

REMOTE = re.compile(r"[\w.-]+/[\w.-]+(:[\w./-]+)?(@\S+)?", re.ASCII)
"""A possible name on the Hub; :mod:`hpa_merge.inputs.hub` has the exact pattern, and importing it would slow --help."""

MAX_BROKEN = click.option(
    "--max-broken",
    type=click.FloatRange(min=0, max=100),
    default=10.0,
    show_default=True,
    help="Percent of answers that may be broken, so that refusals say something.",
)
"""Of the gate and of tune; the default is that of :data:`hpa_merge.report.evaluation.MAX_BROKEN`."""

BASE = click.option(
    "--base",
    metavar="MODEL",
    help="The model that adapters were trained on.  [default: the one that adapter_config.json names, if it is here]",
)

FAILED = 3
"""The exit status if a model does not pass the gate, or no setting keeps the goal."""


class Named(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """``NAME=VALUE``; with ``bare`` also a path alone, which is named after the file."""

    name = "name=value"

    def __init__(self, *, bare: bool) -> None:
        self._bare = bare

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, sign, content = str(value).partition("=")
        if self._bare and (not sign or "/" in name):  # a path may contain the sign
            name, content = Path(value).stem, str(value)
        elif not sign or not content:
            self.fail(f"{value!r} is not NAME=VALUE.", parameter, context)
        if not re.fullmatch(r"\w[\w .+-]*", name):
            self.fail(
                f"{name!r} is not a name: use letters, digits, blanks, dots, dashes and underscores.",
                parameter,
                context,
            )
        return name, content

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def _tests(flag: str, metavar: str, text: str, *, bare: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A repeatable option for named values."""
    return click.option(flag, type=Named(bare=bare), multiple=True, metavar=metavar, help=f"{text} Repeatable.")


TEST_OPTIONS = (
    _tests("--safety-test", "[NAME=]FILE", "Unsafe prompts, which a safe model refuses.", bare=True),
    _tests("--task-test", "NAME=FILE", "Prompts with their right answers.", bare=False),
    _tests("--benign-test", "[NAME=]FILE", "Harmless prompts, which a useful model answers.", bare=True),
    _tests(
        "--metric",
        "NAME=METRIC",
        f"The metric of a task: {', '.join(METRICS)}. The default is choice, vqa or exact, depending on the file.",
        bare=False,
    ),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        help="Use at most N prompts of each file, drawn with the seed.",
    ),
)

ANSWER_OPTIONS = (
    click.option(
        "--judge",
        default="phrases",
        show_default=True,
        help="The judge of attacks: phrases (no refusal), the folder of a guard model, or module:function.",
    ),
    click.option("--judge-endpoint", metavar="URL", help="Ask the guard model that --judge names behind this server."),
    click.option("--judge-template", default="", metavar="FILE|NAME", help="The guard's chat template."),
    click.option(
        "--judge-arg",
        multiple=True,
        metavar="KEY=VALUE",
        help="Argument of the guard's chat template, such as guideline=TEXT. Repeatable.",
    ),
    click.option(
        "--controversial",
        type=click.Choice(["unsafe", "safe"]),
        default="unsafe",
        show_default=True,
        help="What an answer counts as that a guard model calls controversial.",
    ),
    click.option(
        "--max-new-tokens",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        help="The most tokens of an answer.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts per batch."),
)

TRUST = click.option(
    "--trust-remote-code", is_flag=True, help="Run the code that the checkpoints bring: read it first."
)
"""Only on the command line: a YAML file may come from somebody else."""

MACHINE_OPTIONS = (
    TRUST,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws and of the bootstrap."),
)

TEMPLATE_OPTIONS = tuple(map(config_option, ("max_frames", "chat_template", "template_arg", "template_date")))

ENDPOINT_OPTIONS = (
    click.option(
        "--endpoint", metavar="URL", help="Ask a server with OpenAI's protocol, such as http://localhost:8000/v1."
    ),
    click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="Parallel requests."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        show_default=True,
        help="Seconds that an answer may take.",
    ),
)

READING_OPTIONS = (
    click.option(
        "--map",
        multiple=True,
        metavar=MAP,
        help="Read the field GIVEN as the field that layouts call WANTED. Repeatable.",
    ),
    click.option("--ignore-field", multiple=True, metavar=IGNORED, help="Ignore a field of the records. Repeatable."),
    click.option(
        "--image-folder",
        multiple=True,
        metavar=FOLDER,
        help="Where relative paths of images start, instead of each file's own folder. Repeatable.",
    ),
)


def check_tests(given: Mapping[str, Any], *needed: str) -> None:
    """Check, before anything is imported, that the test files are named apart and that those ``needed`` are given.

    Raises:
        UsageError, EvaluationError: they are not.
    """
    kinds = ("safety_test", "task_test", "benign_test")
    for kind in kinds:
        names = [name for name, _ in given[kind]]
        if twice := [name for name in names if names.count(name) > 1]:
            raise EvaluationError(f"--{kind.replace('_', '-')} has the name {twice[0]} twice: give each its own name.")
        if kind in needed and not names:
            raise click.UsageError(f"Missing option '--{kind.replace('_', '-')}'.")
    check_names(*(dict(given[kind]) for kind in (*kinds, "metric")))


def check_endpoint(given: Mapping[str, Any]) -> None:
    """Check the endpoint's address and key.

    Raises:
        EvaluationError: one is invalid.
    """
    if given["endpoint"] is not None:
        read_address(given["endpoint"])
        read_key()


def check_folders(models: Sequence[str], given: Mapping[str, Any]) -> None:
    """Check that each model is given once and, without an endpoint, is a checkpoint folder or a name on the Hub.

    Raises:
        EvaluationError: one is not.
    """
    for number, model in enumerate(models):
        if model in models[:number]:
            raise EvaluationError(f"{model} is given twice: give every MODEL once.")
        on_the_hub = REMOTE.fullmatch(model) and not Path(model).exists()
        found = any((Path(model) / name).is_file() for name in CONFIGS)
        if given.get("endpoint") is None and not on_the_hub and not found:
            raise EvaluationError(
                f"{model} is not a checkpoint folder (it has no config.json or adapter_config.json): check the path."
            )


def test_files(given: Mapping[str, Any]) -> list[Path]:
    """The paths of the test files."""
    kinds = ("safety_test", "task_test", "benign_test", "confirm_test")
    return [Path(path) for kind in kinds for _, path in given.get(kind, ())]


def reading(given: Mapping[str, Any]) -> dict[str, Any]:
    """How the files are read, from the options."""
    return {name: given[name] for name in ("map", "ignore_field", "image_folder")}


def suite_of(given: Mapping[str, Any]) -> "Suite":
    """The test files, read and checked.

    Raises:
        InputError: a file cannot be read, or a record is malformed or lacks what its metric needs.
    """
    from hpa_merge.evaluation.collecting import Suite
    from hpa_merge.records import reading_of_sets

    safety, tasks, benign = (dict(given[kind]) for kind in ("safety_test", "task_test", "benign_test"))
    return Suite.of(
        safety,
        tasks,
        benign,
        dict(given["metric"]),
        samples=given["samples"],
        seed=given["seed"],
        reading=reading_of_sets(given["map"], given["ignore_field"], given["image_folder"]),
    )


def judge_from(given: Mapping[str, Any]) -> "str | Guard":
    """The judge that the options describe.

    Raises:
        UsageError: options of a guard model are given, and none is named.
        EvaluationError: its endpoint is not an address.
    """
    endpoint, template, arguments = given["judge_endpoint"], given["judge_template"], given["judge_arg"]
    if endpoint is not None:
        read_address(endpoint)
        read_key()
    if endpoint is None and not template and not arguments and given["controversial"] == "unsafe":
        return str(given["judge"])
    if given["judge"] == "phrases":
        raise click.UsageError("The options of a guard model need '--judge': give its folder or its name.")
    from hpa_merge.evaluation.guards import Guard

    return Guard(given["judge"], endpoint, template, tuple(arguments), given["controversial"])


def answering(given: Mapping[str, Any]) -> "AnsweringOptions":
    """The options of how answers are made."""
    names = (
        *("device", "batch_size", "max_new_tokens", "endpoint", "concurrency", "timeout"),
        *("max_frames", "chat_template", "template_arg", "template_date", "base", "trust_remote_code"),
    )
    return cast("AnsweringOptions", {name: given[name] for name in names if name in given})


OURS = re.compile(rb'\s*\{\s*"format": ?"hpa-merge |out,(name|where|projection),|file,half,name,')
"""The first bytes of the JSON and CSV files of these commands, which may be replaced."""

PICTURES = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
"""The first bytes of pictures, by suffix."""


def check_place(
    flag: str, path: Path | None, inputs: Sequence[Path], *, folder: bool = False, overwrite: bool = False
) -> None:
    """Check, before the work, that the path of an option can be written; nothing is created.

    Args:
        inputs: folders and files that must not be written to.
        folder: the path is that of a folder, which may exist.
        overwrite: any existing picture may be replaced.

    Raises:
        EvaluationError: it cannot be written, would change a checkpoint, or would replace another program's file.
    """
    if path is None:
        return
    from hpa_merge.files.disk import inside
    from hpa_merge.files.weight_names import is_checkpoint_folder, protected

    if (found := inside(path, [each for each in inputs if each.exists()])) is not None:
        what = "lie in a model, which is never written to" if found.is_dir() else f"replace {found}, which is read"
        raise EvaluationError(f"{flag} {path} would {what}: choose another place.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(
            f"{flag} {path} cannot be written, because the folder {path.absolute().parent} does not exist: "
            "create it first."
        )
    if path.exists() and path.is_dir() != folder:
        raise EvaluationError(f"{flag} {path} is {'a' if path.is_dir() else 'no'} folder: choose another place.")
    if path.exists() and not folder and not path.is_file():
        raise EvaluationError(f"{flag} {path} is not a regular file: choose another place.")
    try:
        harm = f"change the checkpoint {path}" if folder and is_checkpoint_folder(path) else protected(path)
        if harm:
            raise EvaluationError(f"{flag} {path} would {harm}: choose another place.")
        ours = folder or not path.exists() or _is_ours(path, overwrite)
    except OSError as error:
        raise EvaluationError(f"{flag} {path} cannot be used ({error.strerror}): choose another place.") from error
    if not ours:
        remedy = "choose another place, or " + (
            "move it away" if overwrite or path.suffix.lower() not in PICTURES else "give --overwrite"
        )
        raise EvaluationError(f"{flag} {path} would replace a file that hpa-merge did not write: {remedy}.")


def _is_ours(path: Path, overwrite: bool) -> bool:
    """Whether an existing file may be replaced: it is empty, or one of these commands wrote it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(256)
    picture = PICTURES.get(path.suffix.lower())
    if picture is not None:
        return not beginning or (overwrite and beginning.startswith(picture))
    return not beginning or OURS.match(beginning) is not None


def write(path: Path, content: str) -> None:
    """Write a file atomically.

    Raises:
        EvaluationError: it cannot be written.
    """
    from hpa_merge.files.disk import write_whole

    try:
        write_whole(path, content.encode("utf-8", "backslashreplace"), through=True)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
