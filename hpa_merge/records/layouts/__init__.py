"""One record of a data set, in any of the layouts that people have, becomes examples.

The table says which layout a record has: the first whose fields it holds. A layout takes the fields that it reads
(:class:`hpa_merge.records.fields.Fields`). What is left and carries nothing for a model is passed over by name; what is
left and is content refuses the record. Media are local files or bytes; a URL is refused and never fetched.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.errors import CalibrationError
from hpa_merge.records.example import Example, Purpose
from hpa_merge.records.fields import Fields, Reading, json_name, quoted
from hpa_merge.records.layouts.answers import ANSWERS
from hpa_merge.records.layouts.conversations import CHATS, are_texts, read_conversation, read_texts
from hpa_merge.records.layouts.plain import read_ids, read_text
from hpa_merge.records.layouts.preferences import holds_conversations, read_judged_pair, read_preference, read_preferred
from hpa_merge.records.layouts.questions import PROMPTS, Question, read_paragraphs
from hpa_merge.records.layouts.safety import (
    read_harmbench,
    read_mm_safetybench,
    read_vlguard,
    read_wildjailbreak,
    read_xstest,
)
from hpa_merge.records.layouts.written import unwritten
from hpa_merge.records.options import ReadingOptions
from hpa_merge.records.refusal import refused

__all__ = ["LAYOUTS", "Layout", "Parsed", "parse_record"]

_ANY_CHAT = "|".join(name for name in CHATS if name != "texts")
SAFE_ANSWERS = ("safe_response", "safe_answer", "safe_completion")
_ANY_PROMPT = "|".join(PROMPTS)


@final
@dataclass(frozen=True)
class Layout:
    """One row of the table.

    Attributes:
        name: what messages call it.
        needs: the fields that tell it from others; ``a|b`` is either of two.
        read: reads a record that has them.
        applies: what must hold of them besides.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Fields], list[Example]]
    applies: Callable[[Fields], bool] = lambda _: True


def _without(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: not fields.filled(*names)


LAYOUTS = (
    Layout("token ids", ("input_ids",), read_ids),
    Layout(
        "OpenAI's preferences",
        ("input", "preferred_output"),
        read_preferred,
        lambda fields: isinstance(fields.peek("input"), Mapping),
    ),
    Layout("VLGuard", ("instr_resp",), read_vlguard),
    Layout("PKU-SafeRLHF", ("response_0", "response_1"), read_judged_pair),
    Layout("SafeRLHF-V", ("response_1", "response_2"), read_judged_pair),
    Layout("WildJailbreak", ("vanilla|adversarial", "data_type"), read_wildjailbreak),
    Layout("HarmBench", ("behavior", "behavior_id"), read_harmbench),
    Layout(
        "JailbreakBench",
        ("goal", "target", "behavior"),
        Question(("goal",), (), ("target", "behavior")),  # its benign file has the same fields
    ),
    Layout("AdvBench", ("goal", "target"), Question(("goal",), (), ("target",), safe_prompt=False)),
    Layout("StrongREJECT", ("forbidden_prompt",), Question(("forbidden_prompt",), safe_prompt=False)),
    Layout(
        "JailBreakV-28K",
        ("jailbreak_query",),
        Question(
            ("jailbreak_query",),
            aside=("redteam_query", "policy", "format", "from", "transfer_from_llm"),
            safe_prompt=False,
        ),
    ),
    Layout(
        "FigStep",
        ("question", "instruction", "category_id", "task_id"),
        Question(("question",), aside=("instruction",), safe_prompt=False),
    ),
    Layout("MM-SafetyBench", ("changed_question|rephrased_question|rephrased_question_sd",), read_mm_safetybench),
    Layout("XSTest", ("prompt", "type", "focus"), read_xstest, _without("completion", "response")),
    Layout(
        "Do-Not-Answer",
        ("question", "types_of_harm"),
        Question(aside=("specific_harms",), safe_prompt=False),
    ),
    Layout(
        "a safe and an unsafe answer",
        (_ANY_PROMPT, "safe_response|safe_answer|safe_completion", "unsafe_response|unsafe_answer|unsafe_completion"),
        Question(answers=SAFE_ANSWERS, aside=tuple(f"un{name}" for name in SAFE_ANSWERS)),
        lambda fields: not fields.filled(*ANSWERS),
    ),
    Layout("PIQA", ("goal", "sol1", "sol2"), Question(("goal",), base=0)),
    Layout("HellaSwag", ("ctx", "endings"), Question(("ctx",), aside=("ctx_a", "ctx_b", "activity_label"), base=0)),
    Layout("WinoGrande", ("sentence", "option1", "option2"), Question(("sentence",), base=1)),
    Layout("SocialIQA", ("context", "question", "answer_a", "answer_b"), Question(base=1)),
    Layout("CosmosQA", ("context", "question", "answer0", "answer1"), Question(base=0)),
    Layout(
        "MMLU",
        ("question", "subject", "choices", "answer"),
        Question(base=0),
        lambda fields: fields.known() == {"question", "subject", "choices", "answer"},
    ),
    Layout(
        "TruthfulQA",
        ("question", "best_answer", "correct_answers"),
        Question(answers=("best_answer",), aside=("correct_answers", "incorrect_answers")),
    ),
    Layout("BoolQ", ("question", "passage", "answer"), Question(aside=("title",), yes_no=True)),
    Layout("SQuAD", ("question", "context", "answers|title"), Question(aside=("title",))),
    Layout(
        "ScienceQA",
        ("question", "choices", "lecture|solution"),
        Question(aside=("lecture", "solution", "task"), base=0),
    ),
    Layout(
        "A-OKVQA",
        ("question", "choices", "correct_choice_idx"),
        Question(aside=("direct_answers", "rationales"), base=0),
    ),
    Layout("SQuAD's articles", ("paragraphs",), read_paragraphs),
    Layout("CommonsenseQA", ("question", "choices", "question_concept"), Question(aside=("question_concept",))),
    Layout(
        "SciQ",
        ("question", "correct_answer", "distractor1"),
        Question(answers=("correct_answer",), aside=("distractor1", "distractor2", "distractor3")),
    ),
    Layout("MATH", ("problem", "solution"), Question(("problem",), ("solution",), short="answer")),
    Layout("OpenBookQA", ("question_stem", "choices"), Question(("question_stem",), context=(), aside=("fact1",))),
    Layout(
        "GQA",
        ("question", "answer", "full_answer"),
        Question(aside=("full_answer", "semantic", "semantic_str", "annotations", "entailed", "equivalent")),
    ),
    Layout(
        "TextVQA",
        ("question", "answers", "ocr_tokens|ocr_info|image_classes"),
        Question(aside=("ocr_tokens", "ocr_info", "image_classes")),
    ),
    Layout("ChartQA", ("query", "label"), Question(("query",), ("label",))),
    Layout("LLaVA's questions", ("question_id", "text"), Question(("text",), ("label", "answer"))),
    Layout(
        "two conversations",
        ("chosen",),
        read_preference,
        lambda fields: holds_conversations(fields) and not fields.filled(*CHATS),
    ),
    Layout("a conversation", (_ANY_CHAT,), read_conversation),
    Layout("UltraChat", ("data",), read_texts, are_texts),
    Layout("the Cauldron", ("images", "texts"), read_conversation),
    Layout("a prompt and its answer", (_ANY_PROMPT,), Question()),
    Layout("an input and its output", ("input",), Question(("input",))),
    Layout("plain text", ("text",), read_text),
)
"""Where several apply, the first does."""

_NUMBERED = re.compile(r"[A-Za-z]{0,3}\d[\d_]*")
"""The numbers of records in an object that holds them: ``7``, ``v1_7``."""

_HINT = 'give "messages", "conversations", "instruction" with "response", "instr-resp", "text" or "input_ids"'


@final
@dataclass(frozen=True)
class Parsed:
    """What a record becomes.

    Attributes:
        examples: one, or one for each pair of a record that holds several.
        passed_over: its fields that carry nothing for a model, or are known not to be fed.
    """

    examples: tuple[Example, ...]
    passed_over: frozenset[str]


def parse_record(
    record: object,
    source: str,
    folder: Path,
    options: ReadingOptions | None = None,
    purpose: Purpose = "task",
) -> Parsed:
    """The examples of one record; of an object of numbered records, as MM-SafetyBench and MM-Vet write it, of all.

    Args:
        record: the value as ``json`` gives it; of a table, its row.
        source: ``file:line``, for the examples and for messages.
        folder: where relative paths of media start, where the options name no other.

    Raises:
        CalibrationError: the record has no known layout, a wrong type, an empty text, a medium that is not there, or
            a field with content that its layout does not read.
    """
    if not isinstance(record, Mapping):
        raise CalibrationError(f"{source}: a JSON object is expected, found {json_name(record)}: {_HINT}.")
    if record and all(_NUMBERED.fullmatch(str(name)) and isinstance(each, Mapping) for name, each in record.items()):
        parts = [parse_record(each, f"{source}#{n}", folder, options, purpose) for n, each in record.items()]
        return Parsed(
            tuple(example for part in parts for example in part.examples),
            frozenset().union(*(part.passed_over for part in parts)),
        )
    reading = Reading(source, folder, options or ReadingOptions(), purpose)
    fields = Fields(unwritten(record, source, reading.options), reading)
    layout = _layout(fields)
    if layout is None:
        if (said := fields.filled("caption", *ANSWERS)) is not None:
            named = f" and name {fields.named(said)} with --map answer={said}" if said not in ANSWERS else ""
            raise fields.error(f'{fields.named(said)} has no prompt that it answers: add "prompt"{named}.')
        found = f"only {quoted(fields.names())}" if fields.names() else "no field that is not null"
        remedy = f"{_HINT}, or name your own fields with --map" if fields.names() else _HINT
        raise fields.error(f"no known field, found {found}: {remedy}.")
    examples = layout.read(fields)
    reading.answered = any(each.references or each.answer or each.text or each.input_ids for each in examples)
    if left := reading.left():
        raise refused(fields, layout.name, left, prompted=any(example.turns for example in examples))
    return Parsed(tuple(examples), frozenset(reading.passed_over))


def _layout(fields: Fields) -> Layout | None:
    """The first layout whose fields are filled, or else the first whose fields are there."""
    filled = {name for name in fields.known() if fields.filled(name)}
    for names in (filled, fields.known()):
        for layout in LAYOUTS:
            if all(names.intersection(need.split("|")) for need in layout.needs) and layout.applies(fields):
                return layout
    return None
