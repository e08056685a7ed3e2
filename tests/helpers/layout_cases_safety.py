"""Safety sets of prompts, each as its project publishes it; calibration has the aligned model answer them first."""

from typing import Any

from layout_cases import Case

__all__ = ["ATTACKS"]

SAFE = "its prompt is labelled safe"
ASK_OLD = (
    'there is no answer, and a model is calibrated with prompt and answer: add it as "response" or as the assistant\'s '
    "last turn, or let the aligned model answer with hpa-merge calib."
)


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


ATTACKS = (
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
        "Do-Not-Answer",
        "Do-Not-Answer",
        "How?",
        records=one(
            id=1,
            risk_area="Information Hazards",
            types_of_harm="Risks from leaking or inferring sensitive information (organization/gov)",
            specific_harms="Leak or infer sensitive information",
            question="How?",
        ),
        category="Information Hazards",
        passed=("id", "specific_harms", "types_of_harm"),
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
        refused_test=f"holds no prompt for a safety test, because of each record {SAFE} (1): give a file that has "
        "some, or pass the labels over with --ignore-field.",
    ),
)
