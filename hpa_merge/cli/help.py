"""The help of a command with many options: what everyone needs first, then groups, each rule's options under its name.

``-h`` ends after the first group, ``--help`` shows all of them.

A group is a title and the names of its options. A command says which of its options everyone needs; the rules say
which options are their own; what no group names is in the last one, so that no option is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import click

from hpa_merge.methods import DEFAULT, users

__all__ = ["Grouped", "group_of"]

NEEDED, LAST = "What everyone needs", "More"

BRIEF = "hpa_merge.cli.help.brief"
"""The key of a context that shows only what everyone needs."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "The settings that are tried": ("settings", "methods", "keep_all"),
    "The method": ("method",),
    "Which weights are merged, and what OUT is": (
        *("include", "exclude", "vision", "projector", "language", "head", "routers", "embeddings", "uncalibrated"),
        *("output_format", "adapter_rank"),
    ),
    "The tests": ("safety_test", "task_test", "benign_test", "confirm_test", "metric", "samples"),
    "The gate": ("max_asr", "max_dasr", "max_task_drop", "max_over_refusal", "max_broken", "confident", "gated"),
    "The samples": (
        *("safety_samples", "task_samples", "task_share", "max_length", "max_frames", "map", "ignore_field"),
        *("image_folder", "seed", "conversation", "chat_template", "template_arg", "template_date"),
    ),
    "Answers and the judge": (
        *("max_new_tokens", "judge", "judge_endpoint", "judge_template", "judge_arg", "controversial"),
    ),
    "A server that has the model": ("endpoint", "concurrency", "timeout"),
    "Memory and device": ("device", "dtype", "max_memory", "max_host_memory", "nproc", "batch_size"),
}
"""The groups in their order; the options of the other rules come after them, and what is left."""


def group_of(name: str, needed: Sequence[str]) -> tuple[int, str]:
    """The place and the title of an option's group.

    Args:
        needed: the options of the command that everyone needs.
    """
    if name in needed:
        return 0, NEEDED
    method = list(GROUPS).index("The method") + 1
    for place, (title, names) in enumerate(GROUPS.items(), start=1):
        if name in names:
            return (place if place <= method else place + 1), title
    of = users(name)
    if DEFAULT in of:
        return method + 1, f"Method {DEFAULT}"
    if of:
        return len(GROUPS) + 2, f"Method{'s'[: len(of) != 1]} {' and '.join(of)}"
    return len(GROUPS) + 3, LAST


@final
class Grouped(click.Command):
    """A command whose help has its options in groups, and further commands before them."""

    def __init__(
        self, *arguments: Any, needed: Sequence[str], further: Callable[[], Mapping[str, str]] = dict, **options: Any
    ) -> None:
        """``needed``: options that everyone needs, in their order; ``further``: further commands, and what they do."""
        super().__init__(*arguments, **options)
        self._needed = tuple(needed)
        self._further = further
        self.params.append(
            click.Option(
                ["-h", "brief"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=self._show_brief,
                help="Show the beginning of this help and exit.",
            )
        )

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """``--help`` shows all; ``-h``, which usage errors name, what everyone needs."""
        return ["--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the further commands and the groups."""
        if further := self._further():
            with formatter.section("Commands, in OLD's place"):
                formatter.write_dl(list(further.items()))
        groups: dict[tuple[int, str], list[tuple[str, str]]] = {}
        for parameter in sorted(self.get_params(ctx), key=self._rank):
            if isinstance(parameter, click.Option) and (row := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(group_of(str(parameter.name), self._needed), []).append(row)
        brief = ctx.meta.get(BRIEF, False)
        for place, title in sorted(groups, key=lambda group: group[0]):
            if place == 0 or not brief:
                with formatter.section(title):
                    formatter.write_dl([_without_rules(row, title) for row in groups[place, title]])
        if brief:
            formatter.write_paragraph()
            formatter.write_text(f"{ctx.command_path} --help shows all {sum(map(len, groups.values()))} options.")

    def _show_brief(self, ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        """Print the help without the groups that not everyone needs."""
        if value and not ctx.resilient_parsing:
            ctx.meta[BRIEF] = True
            click.echo(self.get_help(ctx), color=ctx.color)
            ctx.exit()

    def _rank(self, parameter: click.Parameter) -> int:
        """The place among what everyone needs; all others keep their order after these."""
        name = str(parameter.name)
        return self._needed.index(name) if name in self._needed else len(self._needed)


def _without_rules(row: tuple[str, str], title: str) -> tuple[str, str]:
    """A row without the names of the rules before its text, which the title has."""
    form, text = row
    named = title.removeprefix("Methods ").removeprefix("Method ").replace(" and ", ", ")
    if named == title or not text.startswith(f"{named}: "):
        return row
    text = text.removeprefix(f"{named}: ")
    return form, text[:1].upper() + text[1:]
