"""``hpa-merge OLD NEW``, and ``hpa-merge sweep``, which makes several of it."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import hpa_merge
from hpa_merge.cli.closing import following, last_lines, tell, tell_notes
from hpa_merge.cli.help import Grouped
from hpa_merge.cli.model_options import TRUST
from hpa_merge.cli.options import config_option
from hpa_merge.cli.push import publish
from hpa_merge.cli.ranks import NPROC, hand_over, is_first
from hpa_merge.cli.settings import read_settings
from hpa_merge.cli.terminal import FILE, HELP, QUIET, folders, hub, hushed, libraries, options, progress_bar
from hpa_merge.cli.tracking import TRACK, tracked, tracker_of
from hpa_merge.config import FOLDER, HPAConfig, option_fields, read_yaml
from hpa_merge.errors import ConfigError, OutputError
from hpa_merge.methods import RULES, find_rule, method_of

if TYPE_CHECKING:
    from hpa_merge.engine.request import MergeRequest

NEEDED = ("safety_calib", "task_calib", "output", "p_max", "dry_run", "resume")
"""Options of a merge that everyone needs."""

OPTIONAL = ("vision_tower", "stats", "first")
PATHS = ("safety_calib", "output", *OPTIONAL)
"""Options that are paths; the YAML file may have them next to those of the method."""

SEVERAL = ("task_calib", "image_folder")
"""Options that are paths and may be given more than once; in the YAML file one, or a list."""

LIMITS = ("max_memory", "max_host_memory")
"""Options that are sizes; the YAML file may have them too."""

DATA: dict[str, Any] = {"type": FILE, "metavar": "FILE|ID"}
"""A file of samples, or a data set on the Hub."""

IMAGE_FOLDER = click.option(
    "--image-folder",
    multiple=True,
    metavar=FOLDER,
    help="Where relative paths of images start, instead of each file's own folder. Repeatable.",
)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A number of bytes: ``24GB``, ``500 MiB``, ``1e9``."""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([KMGT]?)(i?)B?", str(value).strip(), re.IGNORECASE)
        try:
            if not found:
                raise ValueError
            number, unit, binary = found.groups()
            return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
        except ValueError:
            self.fail(f"{value!r} is not a size: write it like 24GB, 500MB or 16GiB", parameter, context)


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of :class:`HPAConfig`, in its order."""
    return options(tuple(map(config_option, option_fields())))(command)


def _users(purpose: str) -> str:
    """The rules that use a calibration set."""
    return ", ".join(rule.name for rule in RULES if purpose in rule.sets)


def job_options(output: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that merge, sweep and tune share; ``output`` is the help of ``-o``."""
    group = (
        click.option("--safety-calib", **DATA, help=f"Safety samples.  [{_users('safety')}: required]"),
        click.option(
            "--task-calib",
            **DATA,
            multiple=True,
            help=f"Samples of the new task; repeatable, for earlier tasks.  [{_users('task')}: required]",
        ),
        click.option("-o", "--output", type=FILE, help=f"{output}  [required]"),
        _config_options,
        IMAGE_FOLDER,
        click.option("--vision-tower", type=FILE, help="CLIP folder, for LLaVA's own layout."),
        TRUST,
        click.option("--stats", type=FILE, help="Column statistics: read if they fit, otherwise written."),
        click.option("--stats-hessians", is_flag=True, help="Keep the Hessians next to them: large; --dry-run says."),
        click.option(
            "--first", metavar="FOLDER|ID", help="First aligned model of OLD's history, to measure the drift from it."
        ),
        click.option("--max-memory", type=Size(), help="Most memory to use on the device, such as 20GB."),
        click.option("--max-host-memory", type=Size(), help="Most memory to use on the host next to a GPU."),
        NPROC,
        click.option("--config", "config_file", type=FILE, help="YAML file with these options."),
        click.option("--overwrite", is_flag=True, help="Replace OUT if it exists."),
        click.option("--resume", is_flag=True, help="Resume what an interrupted run left next to OUT."),
        TRACK,
        click.option("--page/--no-page", default=True, help="Draw the report as a page.  [default: page]"),
        click.option("--dry-run", is_flag=True, help="Check everything, show the plan, write nothing."),
    )
    return options(group, QUIET)


def _further() -> Mapping[str, str]:
    """The further commands, and the first sentence of each one's help."""
    from hpa_merge.cli import COMMANDS

    return {name: command.get_short_help_str(limit=100).rstrip(".") for name, command in COMMANDS.items()}


@click.command(cls=Grouped, needed=NEEDED, further=_further, context_settings=HELP)
@click.argument("old", shell_complete=folders)
@click.argument("new", shell_complete=folders)
@job_options("OUT: a new folder.")
@click.option("--push-to-hub", metavar="ID", help="Publish OUT as org/name on the Hub when it is complete.")
@click.option("--private", is_flag=True, help="Make that repository private.")
@click.version_option(hpa_merge.__version__, "--version", prog_name="hpa-merge")
@click.pass_context
def merge_command(context: click.Context, /, old: str, new: str, quiet: bool, verbose: bool, **given: Any) -> None:
    """Repair an aligned model after a tuning step.

    OLD is the checkpoint before tuning, NEW the one after it or a PEFT adapter on OLD: folders, or names on the Hub
    (org/name[:folder][@revision]). In OUT, the input columns that safety needs most are OLD's again. Nothing is
    trained, and no whole model is ever in memory.
    """
    paths, values = read_options(context, given)
    rule = find_rule(method_of(values))
    require(context, paths, [*(f"{purpose}_calib" for purpose in (rule.sets if rule else ())), "output"])
    out = paths.pop("output")
    outs = {out: HPAConfig.from_mapping(values, source=str(given["config_file"]))}
    if given["private"] and given["push_to_hub"] is None:
        raise click.UsageError("--private is for --push-to-hub ID.")
    hand_over(given["nproc"], outs[out].device)
    request = request_of(context, (old, new), outs, paths, given)
    refuse_early(request)
    tracker = tracker_of(given["track"])
    if given["push_to_hub"] is not None:  # before the work
        from hpa_merge.publishing.destination import Destination, check_destination

        check_destination(Destination(given["push_to_hub"], given["private"]))
    with models_for(request, verbose, quiet):
        from rich.console import Console

        from hpa_merge.cli.tables.merging import merge_summary, plan_summary
        from hpa_merge.cli.tables.verdict import verdict_text
        from hpa_merge.engine.preview import preview
        from hpa_merge.engine.run import merge_all
        from hpa_merge.render.folder import PAGE, render
        from hpa_merge.tracking.content import of_report

        console = Console(quiet=quiet)
        if given["dry_run"]:
            with progress_bar(quiet, "planning") as on_progress:
                plan = preview(request, on_progress)[out]
            console.print(plan_summary(plan))
            return
        with progress_bar(quiet) as on_progress:
            report = merge_all(request, render, on_progress)[out]
        tell_notes(report.warnings, quiet)
        console.print(merge_summary(report, str(out)))
        tell(console, verdict_text(report.verdict))
        tracked(tracker, lambda: of_report(report, page=given["page"]), quiet)
        page = PAGE if (out / PAGE).is_file() else ""
        tell(console, last_lines(report, out, page=page, publish=given["push_to_hub"] is None))
        if given["push_to_hub"] is not None and is_first():
            publish(out, given["push_to_hub"], private=given["private"], quiet=quiet)


@click.command(
    cls=Grouped, needed=NEEDED, short_help="Try several settings: many OUTs from one read.", context_settings=HELP
)
@click.argument("old", shell_complete=folders)
@click.argument("new", shell_complete=folders)
@click.argument("settings", type=FILE)
@job_options("The folder for the OUTs.")
@click.pass_context
def sweep_command(
    context: click.Context, /, old: str, new: str, settings: Path, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Try several settings: many OUTs from one read of OLD and NEW.

    SETTINGS is a YAML list with the options of one OUT in each entry, such as "- {p-max: 10, selection: safety}"; the
    options of this command hold for all entries. An OUT is named by its entry's "name", or by its options. Each OUT is
    the same as that of a merge with its options. With --resume, complete OUTs are left unchanged.
    """
    paths, values = read_options(context, given)
    require(context, paths, ["output"])
    folder = paths.pop("output")
    base = HPAConfig.from_mapping(values, source=str(given["config_file"]))  # otherwise every entry would fail
    outs = {folder / name: config for name, config in read_settings(settings, values).items()}
    require(context, paths, [f"{purpose}_calib" for config in outs.values() for purpose in config.sets])
    hand_over(given["nproc"], base.device)
    request = request_of(context, (old, new), outs, paths, given, skip_complete=given["resume"], settings=settings)
    refuse_early(request, made=folder)
    tracker = tracker_of(given["track"])
    with models_for(request, verbose, quiet):
        from rich.console import Console

        from hpa_merge.cli.tables.merging import sweep_plan_summary, sweep_summary
        from hpa_merge.engine.preview import preview
        from hpa_merge.engine.run import merge_all
        from hpa_merge.render.folder import render
        from hpa_merge.report.commands import comparing
        from hpa_merge.tracking.content import of_reports

        console = Console(quiet=quiet)
        with outs_folder(folder, [Path(old), Path(new)]):
            if given["dry_run"]:
                with progress_bar(quiet, "planning") as on_progress:
                    plans = preview(request, on_progress)
                console.print(sweep_plan_summary({out.name: plan for out, plan in plans.items()}))
                return
            with progress_bar(quiet) as on_progress:
                reports = merge_all(request, render, on_progress)
        tell_notes((sentence for report in reports.values() for sentence in report.warnings), quiet)
        named = {out.name: report for out, report in reports.items()}
        console.print(sweep_summary(named, str(folder)))
        tracked(tracker, lambda: of_reports(named, str(folder), page=given["page"]), quiet)
        for step in comparing([*reports.values()]):
            tell(console, following(step))


def refuse_early(request: "MergeRequest", made: Path | None = None) -> None:
    """As :func:`hpa_merge.engine.early.refuse_early`, which is imported when it is needed."""
    from hpa_merge.engine.early import refuse_early

    refuse_early(request, made)


@contextmanager
def models_for(request: "MergeRequest", verbose: bool, quiet: bool) -> Iterator[None]:
    """The libraries that a merge needs; with known statistics, neither transformers nor the encoding of samples."""
    from hpa_merge.engine.early import needs_no_model

    with ExitStack() as stack:
        if needs_no_model(request):
            stack.enter_context(hushed(verbose))
            stack.enter_context(hub(verbose, downloads=not quiet))
        else:
            stack.enter_context(libraries(verbose, downloads=not quiet, encoding=True))
        yield


def request_of(
    context: click.Context,
    inputs: tuple[str, str],
    outs: Mapping[Path, HPAConfig],
    paths: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    skip_complete: bool = False,
    settings: Path | None = None,
) -> "MergeRequest":
    """What the command line asks for.

    Args:
        inputs: OLD and NEW.
        paths, given: as :func:`read_options` leaves them.
        skip_complete: leave complete OUTs unchanged.
        settings: the file that ``outs`` come from, if any.
    """
    from hpa_merge.engine.request import MergeRequest

    flags = ("stats_hessians", "overwrite", "resume", "page", "trust_remote_code")
    others = {name: given[name] for name in (*LIMITS, *flags)}
    reads = tuple(filter(None, [settings, given["config_file"]]))
    return MergeRequest.of(
        *inputs, outs, skip_complete=skip_complete, command=context.obj or "", reads=reads, **paths, **others
    )


def read_options(context: click.Context, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths, and the options of the method, from the command line and the YAML file; the command line wins.

    Memory limits that only the file has are put into ``given``.

    Raises:
        ConfigError: the file cannot be read, or a path in it is not text.
    """
    file = given["config_file"]
    values = read_yaml(file) if file else {}
    paths: dict[str, Any] = {name: given[name] for name in PATHS}
    for key in [key for key in values if str(key).replace("-", "_") in paths]:
        name, value = str(key).replace("-", "_"), values.pop(key)
        if not isinstance(value, str):
            raise ConfigError(f"{file} has {value!r} for {key}: it has to be a path.")
        paths[name] = paths[name] or (value if name == "first" else Path(value))  # first may be a name on the Hub
    for name in SEVERAL:
        paths[name] = given[name]
    for key in [key for key in values if str(key).replace("-", "_") in SEVERAL]:
        name, value = str(key).replace("-", "_"), values.pop(key)
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(item, str) for item in listed):
            raise ConfigError(f"{file} has {value!r} for {key}: it has to be a path, or a list of paths.")
        paths[name] = paths[name] or tuple(listed if name == "image_folder" else map(Path, listed))
    for key in [key for key in values if str(key).replace("-", "_") in LIMITS]:
        name, value = str(key).replace("-", "_"), values.pop(key)
        if given[name] is None:
            try:
                given[name] = Size().convert(value, None, None)
            except click.BadParameter as error:
                raise ConfigError(f"{file}: {key}: {error.message}.") from error
    typed = {name for name in option_fields() if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    return paths, values | {name: given[name] for name in typed}


def require(context: click.Context, paths: Mapping[str, Any], names: Collection[str]) -> None:
    """Check that these paths are given.

    Raises:
        MissingParameter: one is not.
    """
    for parameter in context.command.params:
        if parameter.name in names and not paths[str(parameter.name)]:
            raise click.MissingParameter(ctx=context, param=parameter)


@contextmanager
def outs_folder(folder: Path, inputs: list[Path]) -> Iterator[None]:
    """Create the folder of the OUTs if it is missing, and remove it again if it stays empty; rank 0 does, of several.

    Raises:
        OutputError: it cannot be created, or is inside an input.
        HPAError: another rank has failed; the error is its own.
    """
    from hpa_merge.files.disk import inside
    from hpa_merge.ranks import Group

    if (found := inside(folder, inputs)) is not None:
        raise OutputError(
            f"{folder} would lie in the input {found}, and inputs are never written to: choose a folder outside of it."
        )
    group = Group.current()
    ours = group.is_first and not folder.exists()
    if not group.is_first:
        group.barrier()  # or rank 0 would find what another rank has made
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be made ({error.strerror or error}): choose another place, or create it."
        ) from error
    if group.is_first:
        group.barrier()
    try:
        yield
    finally:
        if ours:
            with suppress(OSError):
                folder.rmdir()  # fails unless it is empty
