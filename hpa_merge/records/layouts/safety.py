"""Safety sets: prompts that a model should refuse, some with answers, each as its project publishes it."""

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields
from hpa_merge.records.labels import meaning
from hpa_merge.records.layouts.building import build, take_category
from hpa_merge.records.media import take_media
from hpa_merge.records.places import Draft

__all__ = ["read_harmbench", "read_mm_safetybench", "read_vlguard", "read_wildjailbreak", "read_xstest"]

PAIR_FIELDS = ("instruction", "safe_instruction", "unsafe_instruction")

_WORDINGS = ("question", "changed_question", "rephrased_question", "rephrased_question_sd")


def read_vlguard(fields: Fields) -> list[Example]:
    """VLGuard: an image and pairs of instruction and response; only ``safe_instruction`` is one to answer.

    Raises:
        CalibrationError: a pair lacks something.
    """
    media, category = take_media(fields), take_category(fields)
    fields.pass_over("safe", "harmful_subcategory")
    examples = []
    for number, item in enumerate(fields.items("instr_resp"), start=1):
        source = f"{fields.reading.source}#{number}"
        pair = fields.within(item, f"pair {number}") if isinstance(item, dict) else None
        name = pair.filled(*PAIR_FIELDS) if pair is not None else None
        if pair is None or name is None or not pair.filled("response"):
            shown = ", ".join(f'"{each}"' for each in PAIR_FIELDS)
            raise fields.error(f'pair {number} has to hold "response" and one of {shown}: add what is missing.')
        drafts = [Draft("user", [pair.text(name)]), Draft("assistant", [pair.text("response")])]
        safe = name == "safe_instruction"
        examples.append(build(pair, drafts, media=media, source=source, category=category, safe_prompt=safe))
    return examples


def read_wildjailbreak(fields: Fields) -> list[Example]:
    """WildJailbreak: the vanilla or the adversarial prompt, as ``data_type`` says, with its completion.

    Raises:
        CalibrationError: ``data_type`` is unknown, or its prompt is empty.
    """
    kind = str(fields.take("data_type")).strip().casefold()
    style, _, harm = kind.partition("_")
    if style not in ("vanilla", "adversarial") or harm not in ("harmful", "benign"):
        raise fields.error(f'"data_type" is {kind!r:.40}: give vanilla_harmful, adversarial_benign or the like.')
    drafts = [Draft("user", [fields.text(style)])]
    fields.pass_over("vanilla", "adversarial", "label", "tactics")
    if fields.filled("completion"):
        drafts.append(Draft("assistant", [fields.text("completion")]))
    return [build(fields, drafts, safe_prompt=harm == "benign")]


def read_harmbench(fields: Fields) -> list[Example]:
    """HarmBench: a behavior, with its context, or its image."""
    text = fields.text("behavior")
    if fields.filled("context_string"):
        text = f"{fields.text('context_string')}\n\n---\n\n{text}"  # as HarmBench's own code joins them
    fields.pass_over("image_description", "redacted_image_description", "tags")
    return [build(fields, [Draft("user", [text])], safe_prompt=False)]


def read_mm_safetybench(fields: Fields) -> list[Example]:
    """MM-SafetyBench's questions, whose wording depends on the picture that is shown with it.

    Raises:
        CalibrationError: ``--map`` does not say which wording is asked.
    """
    if not fields.filled("prompt"):
        raise fields.error(
            "the wording depends on the picture that goes with it: choose one with --map "
            "prompt='Changed Question', --map prompt='Rephrased Question' (with the picture of typography) or --map "
            "prompt='Rephrased Question(SD)', and name the picture in \"image\"."
        )
    fields.pass_over(*_WORDINGS, "key_phrase", "phrase_type")
    return [build(fields, [Draft("user", [fields.text("prompt")])], safe_prompt=False)]


def read_xstest(fields: Fields) -> list[Example]:
    """XSTest: safe prompts that sound unsafe, and their unsafe contrasts, which a label or the type tells apart."""
    text = fields.text("prompt")
    kind = str(fields.take("type"))
    label = fields.take("label")
    safe = not kind.startswith("contrast") if label is None else meaning(fields, "label", label)
    fields.pass_over("focus", "note")
    return [build(fields, [Draft("user", [text])], safe_prompt=safe)]
