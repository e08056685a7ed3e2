"""An answer as a model writes it: its thoughts, and the final answer after them.

Models that think first write their thoughts between two marks, which are special tokens of some tokenizers. Chat
templates may write the first mark themselves; then only the second stands in the answer. A model that runs out of
tokens while it thinks has no final answer.

What stands in quotes or in a code span is no mark, but a word of the text.
"""

import re
from dataclasses import dataclass
from typing import Final, final

__all__ = ["MARKS", "Answer", "mark_at_end", "read_answer"]

THOUGHTS: Final = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, ERNIE, SmolLM, Phi, Granite
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<unused94>thought", "<unused95>"),  # MedGemma
)
"""The marks around thoughts, whatever their case."""

ANSWERS: Final = (
    ("<answer>", "</answer>"),  # GLM-4.1V, Hunyuan, models trained as R1-Zero was
    ("<response>", "</response>"),  # ERNIE
    ("<CONCLUSION>", "</CONCLUSION>"),  # LLaVA-CoT
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM-4.5V
)
"""The marks around a final answer; the second may be missing."""

CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
"""gpt-oss writes each part of an answer as ``<|channel|>NAME<|message|>TEXT``; that for the user is ``final``."""

ROLE_CHARACTERS: Final = 120
"""Of the header between two parts at most."""

MARKS: Final = frozenset(mark.removesuffix("thought") for pair in (*THOUGHTS, *ANSWERS) for mark in pair) | {
    CHANNEL,
    MESSAGE,
}
"""The marks that may be special tokens, which have to be in a text that :func:`read_answer` reads."""


@final
@dataclass(frozen=True)
class Answer:
    """An answer, read.

    Attributes:
        final: what the user is told, without thoughts; empty where the thoughts do not end.
        thoughts: what stands before it; empty where the model does not think.
        finished: whether the thoughts end.
    """

    final: str
    thoughts: str = ""
    finished: bool = True


_CLOSING = {opening.lower(): closing.lower() for opening, closing in THOUGHTS}
_MARK = re.compile("|".join(re.escape(mark) for pair in THOUGHTS for mark in pair), re.IGNORECASE)
_QUOTES = frozenset("`'\"“”‘’«»")
_ROLE = re.compile(r"assistant(?: to=\S{1,100})?$")
_WITHOUT_MARKS = re.compile(r"analysis(?=[A-Z])")
_PROCESS = re.compile(r"(?:here is|here's) my thought process:", re.IGNORECASE)  # Granite 3.2
_RESPONSE = re.compile(r"(?:here is|here's) my response:", re.IGNORECASE)


def read_answer(text: str) -> Answer:
    """The thoughts and the final answer of what a model wrote."""
    text = text.strip()
    if CHANNEL in text and MESSAGE in text:
        return _of_channels(text)
    if _WITHOUT_MARKS.match(text):  # gpt-oss behind a server that leaves out special tokens
        thoughts, mark, final = text.removeprefix("analysis").partition("assistantfinal")
        return Answer(final.strip(), thoughts.strip(), finished=bool(mark))
    if (process := _PROCESS.match(text)) is not None:
        response = _RESPONSE.search(text)
        if response is None:
            return Answer("", text[process.end() :].strip(), finished=False)
        return Answer(text[response.end() :].strip(), text[process.end() : response.start()].strip())
    return _of_marks(text)


def mark_at_end(prompt: str) -> str:
    """The mark that opens thoughts at the end of a prompt, where the chat template writes it; else nothing."""
    end = prompt.rstrip().lower()
    return next((opening for opening, _ in THOUGHTS if end.endswith(opening.lower())), "")


def _of_marks(text: str) -> Answer:
    """By the marks around thoughts.

    A closing mark without an opening one ends thoughts that begin with the text. An opening mark without a closing one
    is thinking that does not end if it begins a line, and otherwise a word of the text.
    """
    thoughts: list[str] = []
    final: list[str] = []
    at, expected = 0, ""  # where the rest begins, and the mark that ends the thoughts it begins with
    opened_line = False
    for mark in _MARK.finditer(text):
        if text[mark.start() - 1 : mark.start()] in _QUOTES and text[mark.end() : mark.end() + 1] in _QUOTES:
            continue
        found = mark[0].lower()
        if not expected and found in _CLOSING:
            final.append(text[at : mark.start()])
            opened_line = not text[at : mark.start()].rsplit("\n", 1)[-1].strip()
            at, expected = mark.end(), _CLOSING[found]
        elif expected and found == expected:
            thoughts.append(text[at : mark.start()])
            at, expected = mark.end(), ""
        elif not expected:  # a closing mark alone
            thoughts += [*final, text[at : mark.start()]]
            final, at = [], mark.end()
    if expected and opened_line:
        return Answer("", _joined([*thoughts, *final, text[at:]]), finished=False)
    if expected:  # a word of the text
        at -= len(next(opening for opening, closing in _CLOSING.items() if closing == expected))
    final.append(text[at:])
    said = "".join(final).strip()
    return Answer(_unwrapped(said), _joined(thoughts))


def _of_channels(text: str) -> Answer:
    """By the channels of gpt-oss. The text before the first belongs to the first."""
    thoughts, final, finished = [], [], False
    before, *parts = text.split(CHANNEL)
    for part in parts:
        header, _, said = part.partition(MESSAGE)
        if header.split()[:1] == ["final"]:
            final.append(_without_role(said))
            finished = True
        else:
            thoughts.append(_without_role(said))
    return Answer("".join(final).strip(), _joined([_without_role(before), *thoughts]), finished)


def _without_role(text: str) -> str:
    """A part without the marks after it, and without the role of the part that follows."""
    text = text.rstrip()
    if (role := _ROLE.search(text[-ROLE_CHARACTERS:])) is not None:
        text = text[: len(text) - len(role[0])].rstrip()
    for mark in ("<|start|>", "<|end|>", "<|return|>", "<|call|>"):
        text = text.removesuffix(mark).rstrip()
    return text


def _unwrapped(text: str) -> str:
    """A final answer without the marks around it."""
    for opening, closing in ANSWERS:
        if re.match(re.escape(opening), text, re.IGNORECASE):
            said, *after = re.split(re.escape(closing), text[len(opening) :], maxsplit=1, flags=re.IGNORECASE)
            if not "".join(after).strip():
                return said.strip()
    return text


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())
