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
        refused='"toxicity" may be a label of safety, and its meaning is not known: say which answer it is true '
        "of, a safe one with --map is_safe=toxicity or an unsafe one with --map unsafe_answer=toxicity, "
        "or pass it over with --ignore-field toxicity.",
    ),
)
