"""Which chat template writes a checkpoint's conversations, as transformers decides it, and with which arguments.

A processor's template comes before its tokenizer's, whether or not the samples at hand have media. One that the user
gives comes before both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, final

from transformers.utils import chat_template_utils

from hpa_merge.errors import ConfigError

__all__ = ["Template", "TemplateOptions", "find_template"]

TOOLS = "tool_use"
"""The name of a tokenizer's template that transformers takes where there are tools."""

GIVEN = {
    "add_generation_prompt",
    "dict",
    "messages",
    "namespace",
    "raise_exception",
    "strftime_now",
    "tools",
}
"""What a template reads besides arguments, special tokens and functions."""


@final
@dataclass(frozen=True)
class TemplateOptions:
    """What the user says of the chat template.

    Attributes:
        text: a template that takes the place of the checkpoint's.
        name: one of the checkpoint's templates, where ``text`` is empty; empty: the one that transformers takes.
        arguments: values that the template reads, by name.
        defaults: values of arguments that are not given, for a template that reads them.
        date: what the template is told where it asks for the time: midnight of this day, ``YYYY-MM-DD``.
    """

    text: str = ""
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    date: str = "2024-07-26"
    defaults: Mapping[str, Any] = field(default_factory=dict)


@final
class Template:
    """A chat template as a function: messages in, text out."""

    def __init__(
        self, apply: Callable[..., str], named: str | Mapping[str, str], options: TemplateOptions, described: str
    ) -> None:
        """Use :func:`find_template`.

        Args:
            apply: ``apply_chat_template`` of what has it.
            named: its template, or several by their names.
            described: which one it is.
        """
        self.described = described
        self._apply = apply
        self._named = named
        self._options = options
        self._reads: dict[str, set[str]] = {}

    def __call__(
        self, messages: list[dict[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (), reply: bool = False
    ) -> str:
        """The conversation as one text; with ``reply`` it ends where the assistant's next turn begins.

        Raises:
            ConfigError: the template does not read an argument that the user gives.
            Exception: whatever the template raises.
        """
        text = self._text(tools)
        if text not in self._reads:
            self._check_arguments(text)
            self._reads[text] = variables(text)
        defaults = {name: value for name, value in self._options.defaults.items() if name in self._reads[text]}
        listed = [dict(tool) for tool in tools] or None
        with _clock(self._options.date):
            return self._apply(
                messages,
                chat_template=text,
                tools=listed,
                tokenize=False,
                add_generation_prompt=reply,
                **(defaults | dict(self._options.arguments)),
            )

    def _text(self, tools: Sequence[object]) -> str:
        """The template for a conversation with these tools, chosen as transformers does.

        Raises:
            ValueError: there are several, and none for this.
        """
        if isinstance(self._named, str):
            return self._named
        chosen = TOOLS if tools and TOOLS in self._named else "default"
        if chosen not in self._named:
            raise ValueError(
                f"it has several chat templates, {', '.join(self._named)}: choose one with --chat-template"
            )
        return self._named[chosen]

    def _check_arguments(self, text: str) -> None:
        reads = variables(text)
        for name in self._options.arguments:
            if name not in reads:
                raise ConfigError(
                    f"template_arg gives {name}, and the checkpoint's chat template does not read it: "
                    f"it reads {', '.join(sorted(reads)) or 'no argument'}."
                )


def find_template(
    tokenizer: Any, processor: Any, kept: str | Mapping[str, str] | None, options: TemplateOptions
) -> Template | None:
    """The template that writes conversations; None where there is none.

    Args:
        kept: a processor's template, where the processor itself is not there to give it.

    Raises:
        ConfigError: there is no template of the name that the user gives.
    """
    owner = processor if getattr(processor, "chat_template", None) else tokenizer
    named = kept or getattr(owner, "chat_template", None) or None
    described = "the processor's chat template" if kept or owner is processor else "the tokenizer's chat template"
    if options.text:
        named, described = options.text, "the chat template that was given"
    elif options.name:
        known: dict[str, str] = {}
        for each in (getattr(tokenizer, "chat_template", None), named):
            known |= {"default": each} if isinstance(each, str) else dict(each or {})
        if options.name not in known:
            raise ConfigError(
                f"chat_template is {options.name!r}, which is no file, and the checkpoint has "
                f"{'no chat template' if not known else 'the templates ' + ', '.join(sorted(known))}: "
                "give the path of a file, or one of the checkpoint's names."
            )
        named, described = known[options.name], f"the chat template {options.name}"
    return None if named is None else Template(owner.apply_chat_template, named, options, described)


def variables(text: str) -> set[str]:
    """What a template reads that an argument can give: neither what transformers gives it nor what it sets itself.

    Raises:
        jinja2.TemplateError: it is no template.
    """
    return set(chat_template_utils._get_template_variables(text)) - GIVEN


_module: Any = chat_template_utils


@contextmanager
def _clock(date: str) -> Iterator[None]:
    """Let ``strftime_now`` of a template tell midnight of this day; a template has no other clock."""

    class Pinned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Pinned":
            return moment

    moment, module = Pinned.fromisoformat(date), _module
    clock, module.datetime = module.datetime, Pinned
    try:
        yield
    finally:
        module.datetime = clock
