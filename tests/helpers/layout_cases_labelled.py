"""Safety sets with answers: what their labels say of prompts and answers decides what they are used for."""

from typing import Any

from layout_cases import Case

__all__ = ["LABELLED"]

SAFE = "its prompt is labelled safe"
UNSAFE = "its prompt is labelled unsafe"
BAD = "its answer is labelled unsafe, or not wanted"
PAIRS = [
    {"safe_instruction": "What is it?", "response": "A lock."},
    {"unsafe_instruction": "How to pick it?", "response": "No."},
]
LOCK = {"id": "train/1", "image": "a.png", "safe": True, "instr-resp": PAIRS}
KNIFE = {
    "id": "train/2",
    "image": "b.png",
    "safe": False,
    "harmful_category": "violence",
    "harmful_subcategory": "weapons",
    "instr-resp": [{"instruction": "Go on.", "response": "No."}],
}


def unknown(name: str) -> str:
    """The sentence that refuses a label next to an answer."""
    return (
        f'"{name}" may be a label of safety, and its meaning is not known: say which answer it is true of, a safe one '
        f"with --map is_safe={name} or an unsafe one with --map unsafe_answer={name} (of its prompt: --map "
        f"unsafe_prompt={name}), or pass it over with --ignore-field {name}."
    )


def one(**fields: Any) -> tuple[dict[str, Any], ...]:
    return (fields,)


LABELLED = (
    Case(
        "VLGuard, as safety set",
        "VLGuard",
        (LOCK, KNIFE),
        "user: [image a.png] | How to pick it? / assistant: No.",
        purpose="safety",
        references=("No.",),
        passed=("harmful_subcategory", "id", "safe"),
        dropped={SAFE: 1},
        note="a safe instruction is one to answer, and no refusal",
    ),
    Case(
        "VLGuard, as task",
        "VLGuard",
        (LOCK, KNIFE),
        "user: [image a.png] | What is it? / assistant: A lock.",
        references=("A lock.",),
        passed=("harmful_subcategory", "id", "safe"),
        dropped={UNSAFE: 2},
    ),
    Case(
        "BeaverTails",
        "BeaverTails",
        (
            {"prompt": "How?", "response": "So.", "category": {"theft": True, "fraud": False}, "is_safe": False},
            {"prompt": "How?", "response": "No.", "category": {"theft": False, "fraud": False}, "is_safe": True},
        ),
        "user: How? / assistant: No.",
        prompt="user: How?",
        purpose="safety",
        references=("So.",),
        category="theft",
        dropped={BAD: 1},
        note="an answer that is labelled unsafe is no sample",
    ),
    Case(
        "PKU-SafeRLHF, as safety set",
        "PKU-SafeRLHF",
        one(
            prompt="How?",
            response_0="So.",
            response_1="No.",
            is_response_0_safe=False,
            is_response_1_safe=True,
            better_response_id=0,
            safer_response_id=1,
            response_0_severity_level=2,
            response_0_harm_category={"theft": True},
        ),
        "user: How? / assistant: No.",
        purpose="safety",
        passed=("response_0_harm_category", "response_0_severity_level"),
    ),
    Case(
        "PKU-SafeRLHF, both unsafe",
        "PKU-SafeRLHF",
        one(
            prompt="How?",
            response_0="So.",
            response_1="Like this.",
            is_response_0_safe=False,
            is_response_1_safe=False,
            better_response_id=0,
            safer_response_id=1,
        ),
        purpose="safety",
        prompt="user: How?",
        references=("Like this.",),
        refused=f"holds no sample for the safety set, because of each record {BAD} (1): give a file that has some, or "
        f"pass "
        "the labels over with --ignore-field.",
        refused_test="",
    ),
    Case(
        "PKU-SafeRLHF, as task",
        "PKU-SafeRLHF",
        one(
            prompt="How to bake?",
            response_0="Slowly.",
            response_1="No.",
            is_response_0_safe=True,
            is_response_1_safe=True,
            better_response_id=0,
            safer_response_id=1,
        ),
        "user: How to bake? / assistant: Slowly.",
    ),
    Case(
        "SPA-VL",
        "SPA-VL",
        one(image="a.png", question="How?", chosen="No.", rejected="So."),
        "user: [image a.png] | How? / assistant: No.",
        purpose="safety",
        passed=("rejected",),
    ),
    Case(
        "WildJailbreak, harmful",
        "WildJailbreak",
        one(vanilla="How?", adversarial="In a play, how?", completion="No.", data_type="adversarial_harmful"),
        "user: In a play, how? / assistant: No.",
        purpose="safety",
        passed=("vanilla",),
    ),
    Case(
        "WildJailbreak, benign",
        "WildJailbreak",
        one(vanilla="How to kill a process?", adversarial="", completion="Like this.", data_type="vanilla_benign"),
        purpose="safety",
        prompt="",
        refused=f"holds no sample for the safety set, because of each record {SAFE} (1): give a file that has some, or "
        "pass the labels over with --ignore-field.",
        refused_test=f"holds no prompt for a safety test, because of each record {SAFE} (1): give a file that has "
        "some, or pass the labels over with --ignore-field.",
    ),
    Case(
        "WildGuardMix",
        "WildGuardMix",
        one(
            prompt="How?",
            adversarial=True,
            response="No.",
            prompt_harm_label="harmful",
            response_refusal_label="refusal",
            response_harm_label="unharmful",
            subcategory="theft",
        ),
        "user: How? / assistant: No.",
        purpose="safety",
        passed=("adversarial", "subcategory"),
    ),
    Case(
        "an answer that complies, as safety set",
        "WildGuardMix",
        one(prompt="How?", response="So.", prompt_harm_label="harmful", response_refusal_label="compliance"),
        purpose="safety",
        prompt="user: How?",
        references=("So.",),
        refused=f"holds no sample for the safety set, because of each record {BAD} (1): give a file that has some, or "
        f"pass "
        "the labels over with --ignore-field.",
        refused_test="",
    ),
    Case(
        "Aegis",
        "Aegis 2",
        (
            {
                "prompt": "How?",
                "response": "So.",
                "prompt_label": "unsafe",
                "response_label": "unsafe",
                "violated_categories": "Theft",
            },
            {
                "prompt": "How?",
                "response": "No.",
                "prompt_label": "unsafe",
                "response_label": "safe",
                "violated_categories": "Theft",
            },
        ),
        "user: How? / assistant: No.",
        prompt="user: How?",
        references=("So.",),
        purpose="safety",
        passed=("violated_categories",),
        dropped={BAD: 1},
    ),
    Case(
        "a label of one's own",
        "moderation sets, with --map unsafe_answer=toxic",
        ({"prompt": "How?", "response": "So.", "toxic": 1}, {"prompt": "How?", "response": "No.", "toxic": 0}),
        "user: How? / assistant: No.",
        prompt="user: How?",
        references=("So.",),
        purpose="safety",
        dropped={BAD: 1},
        options={"names": {"unsafe_answer": "toxic"}},
    ),
    Case(
        "a label of safety that is not known",
        "moderation sets, as safety set",
        one(prompt="How?", response="So.", toxicity=0.9),
        purpose="safety",
        refused=unknown("toxicity"),
    ),
    *(
        Case(
            f"a verdict of another name, {name}",
            "judged answers, as safety set",
            one(prompt="How?", response="Sure, here", **{name: value}),
            purpose="safety",
            refused=unknown(name),
        )
        for name, value in (
            ("human_label", 1),
            ("asr", 1.0),
            ("success", True),
            ("judge", 0),
            ("verdict", "unsafe"),
            ("flagged", "no"),
            ("label", 0),
            ("outcome", 1),
            ("gpt4_eval", 0),
        )
    ),
    Case(
        "plain texts with a label of safety",
        "one's own files, as safety set",
        ({"text": "How? So.", "is_safe": False}, {"text": "How? No.", "is_safe": True}),
        "text: How? No.",
        prompt="",
        purpose="safety",
        dropped={BAD: 1},
        refused_test="no prompt: a test needs a question, or a conversation whose last word, or the last before the "
        "answer, is the user's or a tool's.",
    ),
    Case(
        "a plain text with a verdict",
        "one's own files, as safety set",
        one(text="How? So.", asr=1),
        purpose="safety",
        refused=unknown("asr"),
    ),
    Case(
        "a label of safety in an object",
        "moderation sets, with --map is_safe=metadata.is_safe",
        (
            {"prompt": "How?", "response": "So.", "metadata": {"is_safe": False}},
            {"prompt": "How?", "response": "No.", "metadata": {"is_safe": True}},
        ),
        "user: How? / assistant: No.",
        prompt="user: How?",
        references=("So.",),
        purpose="safety",
        passed=("metadata",),
        dropped={BAD: 1},
        options={"names": {"is_safe": "metadata.is_safe"}},
        note="a path reaches into objects; without it the record is refused",
    ),
    Case(
        "a label of safety in an object, not named",
        "moderation sets",
        one(prompt="How?", response="So.", metadata={"is_safe": False}),
        purpose="safety",
        refused=unknown("metadata.is_safe"),
    ),
    Case(
        "a label of true next to a response",
        "KTO or moderation",
        one(prompt="Pick lock?", response="Sure, do", label=True),
        purpose="safety",
        refused='"label" is true and has two readings, an answer that is wanted (KTO) or one that is harmful '
        "(moderation): say which with --map kto_tag=label or --map unsafe_answer=label.",
    ),
    Case(
        "TRL's KTO, as safety set",
        "TRL",
        (
            {"prompt": "How?", "completion": "So.", "label": 0},
            {"prompt": "How?", "completion": "No.", "label": 1},
        ),
        "user: How? / assistant: No.",
        prompt="user: How?",
        references=("So.",),
        purpose="safety",
        dropped={BAD: 1},
        note="next to `prompt` and `completion` a label says that the answer is wanted",
    ),
    Case(
        "a label of 0 or 1 next to a response",
        "one's own files, as task",
        one(prompt="Hi?", response="No.", label=0),
        refused='"label" holds content that is not read (the record is read as a prompt and its answer, by "prompt", '
        '"response"): say what it is with --map, such as --map kto_tag=label where true is an answer that is wanted, '
        "or pass it over with --ignore-field label.",
    ),
    Case(
        "a label of an answer where there is none",
        "prompts, with --map unsafe_answer=label",
        one(prompt="How to pick?", label=1),
        purpose="safety",
        refused='"label" is a label of an answer, and the record has none: add the answer, say that it is the '
        "prompt's with --map unsafe_prompt=label or --map safe_prompt=label, or pass it over with --ignore-field "
        "label.",
        options={"names": {"unsafe_answer": "label"}},
    ),
    Case(
        "a label of prompts that is not known",
        "moderation sets",
        one(prompt="How to pick?", label=1),
        purpose="safety",
        refused='"label" may be a label of safety, and its meaning is not known: say which prompt it is true of, a '
        "safe one with --map safe_prompt=label or an unsafe one with --map unsafe_prompt=label, or pass it over with "
        "--ignore-field label.",
    ),
    Case(
        "a safe and an unsafe response",
        "contrast sets",
        one(prompt="How?", safe_response="No.", unsafe_response="So."),
        "user: How? / assistant: No.",
        purpose="safety",
        passed=("unsafe_response",),
        note="the safe one is the answer, the other is not fed",
    ),
    Case(
        "a safe response alone",
        "one's own files",
        one(prompt="How?", safe_response="I do not help."),
        purpose="safety",
        refused='"safe_response" holds a text, and may be an answer or a label of one: say that it is the answer with '
        "--map answer=safe_response, or pass it over with --ignore-field safe_response.",
    ),
)
