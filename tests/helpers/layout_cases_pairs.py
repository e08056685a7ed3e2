"""A prompt and its answer, preferences, plain text and token ids."""

from typing import Any

from layout_cases import Case

__all__ = ["PAIRS", "PLAIN", "PREFERENCES"]

SHORT = "user: Hi? / assistant: No."
HI, NO, YES = (
    {"role": role, "content": text} for role, text in (("user", "Hi?"), ("assistant", "No."), ("assistant", "Yes."))
)


def one(**fields: Any) -> tuple[dict[str, Any], ...]:
    return (fields,)


PAIRS = (
    Case("prompt and response", "many", one(prompt="Hi?", response="No."), SHORT),
    Case("prompt and completion", "TRL, OpenAI's older API", one(prompt="Hi?", completion="No."), SHORT),
    Case("question and answer", "GSM8K", one(question="Hi?", answer="No."), SHORT),
    Case("names in capitals", "CSV files", one(Question="Hi?", Answer="No.", ID="3"), SHORT, passed=("ID",)),
    Case("input and output", "FLAN-like files", one(input="Hi?", output="No."), SHORT),
    Case(
        "user and assistant",
        "one's own files",
        one(system="Be brief.", user="Hi?", assistant="No."),
        f"system: Be brief. / {SHORT}",
    ),
    Case(
        "Alpaca",
        "Stanford Alpaca",
        one(
            instruction="Translate.",
            input="Haus",
            output="House",
            text="### Instruction:\nTranslate.\nHaus\n### Response:\nHouse",
        ),
        "user: Translate.\nHaus / assistant: House",
        passed=("text",),
        note="`input` follows after a line feed; `text`, which holds both once more, is passed over",
    ),
    Case(
        "Alpaca with system and history",
        "LLaMA-Factory",
        one(instruction="Go?", input="", output="No.", system="Be brief.", history=[["Hi?", "Yes?"]]),
        "system: Be brief. / user: Hi? / assistant: Yes? / user: Go? / assistant: No.",
    ),
    Case(
        "query and response",
        "ms-swift",
        one(query="Hi?", response="No.", history=[["A?", "B."]]),
        f"user: A? / assistant: B. / {SHORT}",
    ),
    Case(
        "Dolly",
        "Databricks Dolly",
        one(instruction="Hi?", context="It is late.", response="No.", category="closed_qa"),
        "user: Hi?\nIt is late. / assistant: No.",
        category="closed_qa",
    ),
    Case(
        "Orca",
        "OpenOrca",
        one(id="niv.1", system_prompt="Be brief.", question="Hi?", response="No."),
        f"system: Be brief. / {SHORT}",
        passed=("id",),
    ),
    Case(
        "a hint",
        "one's own files",
        one(question="Hi?", hint="Late.", answer="No."),
        "user: Late.\nHi? / assistant: No.",
    ),
    Case(
        "an answer that is a number",
        "AIME, counting tasks",
        one(question="How many?", answer=4),
        "user: How many? / assistant: 4",
    ),
    Case(
        "TRL's messages in the place of texts",
        "TRL",
        one(prompt=[{"role": "system", "content": "Be brief."}, HI], completion=[NO]),
        f"system: Be brief. / {SHORT}",
    ),
    Case(
        "two answers",
        "merged files",
        one(instruction="Hi?", output="Yes.", response="No."),
        refused='"output" holds content that is not read (the record is read as a prompt and its answer, by '
        '"instruction", "response"): pass it '
        "over with --ignore-field output.",
    ),
    Case(
        "two prompts",
        "MathVista",
        one(question="Hi?", query="Say: Hi?", answer="No."),
        refused='"query" holds content that is not read (the record is read as a prompt and its answer, by '
        '"question", "answer"): pass it over '
        "with --ignore-field query.",
    ),
    Case(
        "names of one's own",
        "one's own files, with --map prompt=ask and --map answer=reply",
        one(ask="Hi?", reply="No."),
        SHORT,
        options={"names": {"prompt": "ask", "answer": "reply"}},
    ),
    Case(
        "a source that is a text",
        "translation files",
        one(instruction="Translate.", source="Das Haus ist rot.", output="The house is red."),
        refused='"source" holds content that is not read (the record is read as a prompt and its answer, by '
        '"instruction", "output"): say what it is with --map, such as --map input=source, or pass it over with '
        "--ignore-field source.",
    ),
    Case(
        "a source that is a text, named",
        "translation files, with --map input=source",
        one(instruction="Translate.", source="Das Haus ist rot.", output="The house is red."),
        "user: Translate.\nDas Haus ist rot. / assistant: The house is red.",
        options={"names": {"input": "source"}},
    ),
    Case(
        "a prompt with a field's place",
        "templates",
        one(instruction="Write about {topic}.", topic="spring", output="It rains."),
        refused='"topic" holds content that is not read (the record is read as a prompt and its answer, by '
        '"instruction", "output"): pass it over with --ignore-field topic.',
    ),
    Case(
        "a rationale of unknown use",
        "chain-of-thought files",
        one(question="Hi?", answer="No.", rationale="It is late."),
        refused='"rationale" holds content that is not read (the record is read as a prompt and its answer, by '
        '"question", "answer"): pass it '
        "over with --ignore-field rationale.",
    ),
    Case(
        "texts within metadata",
        "one's own files",
        one(prompt="Hi?", response="No.", metadata={"source": "web", "system": "Be brief."}),
        refused='"metadata.system" holds content that is not read (the record is read as a prompt and its '
        'answer, by "prompt", "response"): pass it over with --ignore-field metadata.system.',
    ),
    Case(
        "a template within the prompt",
        "rendered files",
        one(prompt="[INST] Hi? [/INST]", completion="No."),
        refused="turn 1 (user) begins with [INST], so a chat template is in it already: give what was said alone, or "
        'prompt and answer as one "text".',
    ),
    Case(
        "no field that is known",
        "one's own files",
        one(Body="x", label=1),
        refused='no known field, found only "Body", "label": give "messages", "conversations", "instruction" with '
        '"response", "instr-resp", "text" or "input_ids", or name your own fields with --map.',
    ),
)

REJECTED = ("rejected",)

PREFERENCES = (
    Case("chosen and rejected", "DPO", one(prompt="Hi?", chosen="No.", rejected="Yes."), SHORT, passed=REJECTED),
    Case(
        "chosen and rejected messages",
        "TRL",
        one(prompt=[HI], chosen=[NO], rejected=[YES]),
        SHORT,
        passed=REJECTED,
    ),
    Case("chosen and rejected conversations", "TRL", one(chosen=[HI, NO], rejected=[HI, YES]), SHORT, passed=REJECTED),
    Case(
        "UltraFeedback",
        "UltraFeedback, Zephyr",
        one(prompt="Hi?", prompt_id="a", messages=[HI, NO], chosen=[HI, NO], rejected=[HI, YES], score_chosen=8.0),
        SHORT,
        passed=("chosen", "prompt", "prompt_id", "rejected", "score_chosen"),
    ),
    Case(
        "input and preferred output",
        "OpenAI's preference tuning",
        one(input={"messages": [HI], "tools": []}, preferred_output=[NO], non_preferred_output=[YES]),
        SHORT,
        passed=("non_preferred_output",),
    ),
    Case(
        "a prompt that the completion repeats",
        "TRL",
        one(prompt=[HI], completion=[HI, NO]),
        SHORT,
        note="it is said once",
    ),
    Case(
        "two answers to compare",
        "MT-Bench's judgements",
        one(prompt="Hi?", answer_a="No.", answer_b="Yes.", label=1),
        refused='"answer_a" and "answer_b" may be two choices, or two answers of which one is preferred: say that they '
        "are choices with --map question=prompt, or take one with --map chosen=answer_a --map rejected=answer_b.",
    ),
    Case(
        "conversations in strings",
        "pandas, datasets' to_csv",
        one(chosen=str([HI, NO]), rejected=str([HI, YES])),
        SHORT,
        passed=REJECTED,
        note="as JSON, or as Python prints them; numpy's are refused",
    ),
    Case(
        "a token behind an answer",
        "text cut from a template",
        one(prompt="Hi?", completion="No.</s>"),
        refused="turn 2 (assistant) ends with </s>, which a chat template puts there: give what was said alone, or "
        'prompt and answer as one "text".',
    ),
    Case(
        "HH-RLHF",
        "Anthropic",
        one(
            chosen="\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Go?\n\nAssistant: No.",
            rejected="\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Go?\n\nAssistant: Sure.",
        ),
        "user: Hi? / assistant: Yes? / user: Go? / assistant: No.",
        passed=REJECTED,
    ),
    Case(
        "a prompt that is a transcript",
        "Nectar, one's own files",
        one(prompt="\n\nHuman: Hi?\n\nAssistant: ", response="No."),
        SHORT,
    ),
    Case(
        "a conversation with chosen and rejected",
        "LLaMA-Factory",
        one(
            conversations=[{"from": "human", "value": "Hi?"}],
            chosen={"from": "gpt", "value": "No."},
            rejected={"from": "gpt", "value": "Yes."},
        ),
        SHORT,
        passed=REJECTED,
    ),
    Case(
        "messages with a rejected response",
        "ms-swift",
        one(messages=[HI, NO], rejected_response="Yes."),
        SHORT,
        passed=("rejected_response",),
    ),
    Case(
        "KTO",
        "TRL",
        (
            {"prompt": "Hi?", "completion": "No.", "label": True},
            {"prompt": "Hi?", "completion": "Yes.", "label": False},
        ),
        SHORT,
        dropped={"its answer is labelled unsafe, or not wanted": 1},
    ),
    Case(
        "several answers of which none is marked",
        "UltraFeedback's first form",
        one(instruction="Hi?", completions=[{"model": "m", "response": "No."}, {"model": "n", "response": "Yes."}]),
        refused='"completions.response" holds content that is not read (the record is read as a prompt and its '
        'answer, by "instruction"): pass it over with --ignore-field completions.response.',
    ),
    Case(
        "ranked answers",
        "Nectar",
        one(prompt="Hi?", answers=[{"answer": "No.", "model": "m", "rank": 1.0}]),
        refused='"answers" holds objects with "model", "rank", and which one is the answer is unclear: give one text, '
        "or "
        "an array of texts.",
    ),
)

PLAIN = (
    Case(
        "plain text",
        "pretraining and rendered files",
        one(text=" as it is \n"),
        "text:  as it is \n",
        prompt="",
        refused_test="no prompt: a test needs a question, or a conversation whose last word, or the last before the "
        "answer, is the user's or a tool's.",
    ),
    Case(
        "plain text with what it is about",
        "C4, FineWeb",
        one(text="Once.", url="https://x.org/a b", timestamp="2019-04-25T12:57:54Z", token_count=3),
        "text: Once.",
        passed=("timestamp", "token_count", "url"),
        prompt="",
        refused_test="no prompt: a test needs a question, or a conversation whose last word, or the last before the "
        "answer, is the user's or a tool's.",
    ),
    Case(
        "token ids",
        "tokenised data sets",
        one(input_ids=[1, 0, 5], attention_mask=[1, 1, 1], labels=[-100, 0, 5]),
        "ids: [1, 0, 5]",
        passed=("attention_mask", "labels"),
        prompt="",
        refused_test="no prompt: a test needs a question, or a conversation whose last word, or the last before the "
        "answer, is the user's or a tool's.",
    ),
    Case(
        "token ids and their text",
        "tokenised data sets",
        one(input_ids=[1, 0, 5], text="Once."),
        refused='"text" holds content that is not read (the record is read as token ids, by "input_ids"): pass '
        "it over with --ignore-field text.",
    ),
    Case(
        "a text and its class",
        "IMDB, SST-2",
        one(text="A great film.", label=1),
        refused='"label" holds content that is not read (the record is read as plain text, by "text"): say what it is '
        "with --map prompt=text and --map answer=label, or pass it over with --ignore-field label.",
    ),
)
