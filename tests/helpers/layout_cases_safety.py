"""Safety sets: what their labels say of prompts and answers decides what they are used for."""

from typing import Any

from layout_cases import Case

__all__ = ["SAFETY"]

SAFE = "its prompt is labelled safe"
UNSAFE = "its prompt is labelled unsafe"
BAD = "its answer is labelled unsafe, or not wanted"
ASK_OLD = (
    'there is no answer, and a model is calibrated with prompt and answer: add it as "response" or as the assistant\'s '
    "last turn, or let the aligned model answer with hpa-merge calib."
)
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


def prompts(name: str, origin: str, prompt: str, note: str = "", **more: Any) -> Case:
    """A set of prompts without answers, which calibration refuses."""
    return Case(
        name,
        origin,
        more.pop("records"),
        prompt=f"user: {prompt}",
        refused=ASK_OLD,
        refused_test="",
        purpose="safety",
        note=note,
        **more,
    )


SAFETY = (
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
        refused_test=f"holds no prompt for a safety test, because of 1 {SAFE}: write one JSON object a line.",
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
    prompts(
        "AdvBench",
        "AdvBench's CSV",
        "How?",
        "`target` is what an attack wants to hear, and never an answer",
        records=one(goal="How?", target="Sure, here is how"),
        passed=("target",),
    ),
    prompts(
        "JailbreakBench",
        "JailbreakBench's CSV",
        "How?",
        records=one(Index=0, Goal="How?", Target="Sure, here is how", Behavior="Theft", Category="Theft", Source="Own"),
        category="Theft",
        passed=("Behavior", "Index", "Source", "Target"),
    ),
    prompts(
        "HarmBench",
        "HarmBench's CSV",
        "A lock is shut.\n\n---\n\nHow?",
        "the context stands before the behavior, as HarmBench's code has it",
        records=one(
            Behavior="How?",
            FunctionalCategory="contextual",
            SemanticCategory="illegal",
            Tags="context",
            ContextString="A lock is shut.",
            BehaviorID="lock_1",
        ),
        category="illegal",
        passed=("BehaviorID", "FunctionalCategory", "Tags"),
    ),
    prompts(
        "HarmBench with images",
        "HarmBench's multimodal CSV",
        "[image a.png] | How?",
        records=one(
            Behavior="How?",
            FunctionalCategory="multimodal",
            SemanticCategory="illegal",
            ImageFileName="a.png",
            ImageDescription="A lock on a door.",
            RedactedImageDescription="A thing on a door.",
            BehaviorID="lock_2",
        ),
        category="illegal",
        passed=("BehaviorID", "FunctionalCategory", "ImageDescription", "RedactedImageDescription"),
    ),
    prompts(
        "StrongREJECT",
        "StrongREJECT's CSV",
        "How?",
        records=one(category="theft", source="own", forbidden_prompt="How?"),
        category="theft",
        passed=("source",),
    ),
    prompts(
        "FigStep",
        "FigStep's CSV",
        "How?",
        "`instruction` is what the picture writes",
        records=one(
            dataset="SafeBench",
            category_id=1,
            task_id=2,
            category_name="theft",
            question="How?",
            instruction="Steps to pick a lock. 1. 2. 3.",
        ),
        category="theft",
        passed=("category_id", "dataset", "instruction", "task_id"),
    ),
    prompts(
        "FigStep with its pictures",
        "one's own files",
        "[image a.png] | The picture shows a list. Fill it.",
        records=one(image="a.png", prompt="The picture shows a list. Fill it."),
    ),
    Case(
        "MM-SafetyBench",
        "MM-SafetyBench",
        one(
            **{
                "Question": "How?",
                "Changed Question": "How so?",
                "Key Phrase": "lock",
                "Phrase Type": "object",
                "Rephrased Question": "How with the thing in the picture?",
                "Rephrased Question(SD)": "How with what is seen?",
            }
        ),
        purpose="safety",
        refused="the wording depends on the picture that goes with it: choose one with --map prompt='Changed "
        "Question', "
        "--map prompt='Rephrased Question' (with the picture of typography) or --map prompt='Rephrased Question(SD)', "
        "and "
        'name the picture in "image".',
    ),
    prompts(
        "MM-SafetyBench with a wording",
        "MM-SafetyBench, with --map prompt='Rephrased Question'",
        "[image a.png] | How with the thing in the picture?",
        records=one(
            **{
                "image": "a.png",
                "Question": "How?",
                "Changed Question": "How so?",
                "Key Phrase": "lock",
                "Phrase Type": "object",
                "Rephrased Question": "How with the thing in the picture?",
                "Rephrased Question(SD)": "How with what is seen?",
            }
        ),
        passed=("Changed Question", "Key Phrase", "Phrase Type", "Question", "Rephrased Question(SD)"),
        options={"names": {"prompt": "Rephrased Question"}},
    ),
    prompts(
        "MM-SafetyBench on the Hub",
        "MM-SafetyBench's Parquet files",
        "[image a.png] | How?",
        records=one(id="0", question="How?", image="a.png"),
        passed=("id",),
    ),
    prompts(
        "JailBreakV-28K",
        "JailBreakV-28K's CSV",
        "[image a.png] | In a play, how?",
        records=one(
            id=0,
            jailbreak_query="In a play, how?",
            redteam_query="How?",
            format="Template",
            policy="Theft",
            image_path="a.png",
            selected_mini=True,
        ),
        passed=("format", "id", "policy", "redteam_query", "selected_mini"),
    ),
    prompts(
        "XSTest, unsafe",
        "XSTest's CSV",
        "How to kill a man?",
        records=one(id=2, prompt="How to kill a man?", type="contrast_homonyms", label="unsafe", focus="kill", note=""),
        passed=("focus", "id"),
    ),
    Case(
        "XSTest, safe",
        "XSTest's CSV, as benign test",
        one(id=1, prompt="How to kill a process?", type="homonyms", label="safe", focus="kill", note=""),
        purpose="benign",
        prompt="user: How to kill a process?",
        passed=("focus", "id"),
        refused=ASK_OLD.replace(", or let the aligned model answer with hpa-merge calib", ""),
        refused_test="",
    ),
    prompts(
        "prompts with a label",
        "guard models' test sets",
        "How?",
        records=one(prompt="How?", label="harmful"),
    ),
    Case(
        "prompts with the other label",
        "guard models' test sets",
        one(prompt="How to bake?", label="benign"),
        purpose="safety",
        prompt="",
        refused=f"holds no sample for the safety set, because of each record {SAFE} (1): give a file that has some, or "
        "pass the labels over with --ignore-field.",
        refused_test=f"holds no prompt for a safety test, because of 1 {SAFE}: write one JSON object a line.",
    ),
)
