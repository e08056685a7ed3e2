"""How a model is loaded, and the Hub's name of its task."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import final

from hpa_merge.libraries.transformers_tables import classes_of
from hpa_merge.report.schema import MergeReport

__all__ = ["UNPUBLISHED", "Usage", "is_original_llava", "snippet_of", "usage_of"]

UNPUBLISHED = '"path/to/this/folder"'
"""Replaced by the name on the Hub when the model is published."""


@final
@dataclass(frozen=True)
class Usage:
    """How a model is loaded.

    Attributes:
        loader: transformers' class.
        reader: the class of its tokenizer or processor.
        task: the Hub's name of its task; None if it is not known.
    """

    loader: str
    reader: str
    task: str | None


KINDS = (
    (Usage("AutoModelForImageTextToText", "AutoProcessor", "image-text-to-text"), "IMAGE_TEXT_TO_TEXT"),
    (Usage("AutoModelForSpeechSeq2Seq", "AutoProcessor", "automatic-speech-recognition"), "SPEECH_SEQ_2_SEQ"),
    (Usage("AutoModelForCausalLM", "AutoTokenizer", "text-generation"), "CAUSAL_LM"),
    (Usage("AutoModelForSeq2SeqLM", "AutoTokenizer", "text2text-generation"), "SEQ_TO_SEQ_CAUSAL_LM"),
    (Usage("AutoModelForMultimodalLM", "AutoProcessor", "any-to-any"), "MULTIMODAL_LM"),
)
"""What transformers' tables call each kind, the more specific ones first."""


def usage_of(report: MergeReport) -> Usage:
    """How the merged model is loaded; by its own class if neither transformers nor the model's own code maps it."""
    own = {name for part in report.run.code if part.role == "NEW" for name in part.auto}
    for usage, kind in KINDS:
        if report.architecture in classes_of(f"MODEL_FOR_{kind}_MAPPING_NAMES") or usage.loader in own:
            return usage
    reader = "AutoProcessor" if "AutoProcessor" in own else "AutoTokenizer"
    return Usage("AutoModel" if "AutoModel" in own else report.architecture, reader, None)


def is_original_llava(report: MergeReport) -> bool:
    """Whether the model has LLaVA's own layout, which transformers cannot load."""
    return any("mm_projector" in record.name for record in report.linears)


def snippet_of(report: MergeReport) -> str:
    """Lines of Python that load the model."""
    if is_original_llava(report):
        return (
            "from llava.mm_utils import get_model_name_from_path\n"
            "from llava.model.builder import load_pretrained_model\n\n"
            f"model_id = {UNPUBLISHED}\n"
            "tokenizer, model, image_processor, context_len = load_pretrained_model(\n"
            "    model_id, None, get_model_name_from_path(model_id)\n"
            ")"
        )
    usage, trust = usage_of(report), ", trust_remote_code=True" if report.run.code else ""
    if report.is_adapter:
        return _adapter_snippet(report, usage, trust)
    name = "processor" if usage.reader == "AutoProcessor" else "tokenizer"
    return (
        f"from transformers import {', '.join(sorted((usage.loader, usage.reader)))}\n\n"
        f"model_id = {UNPUBLISHED}\n"
        f'model = {usage.loader}.from_pretrained(model_id, dtype="auto"{trust})\n'
        f"{name} = {usage.reader}.from_pretrained(model_id{trust})"
    )


def _adapter_snippet(report: MergeReport, usage: Usage, trust: str) -> str:
    """Lines of Python that load OLD with the adapter; the tokenizer is the adapter's if it has one."""
    name = "processor" if usage.reader == "AutoProcessor" else "tokenizer"
    own = any(name in PurePosixPath(file).name for file in report.manifest)
    base = json.dumps(report.run.old.partition("@")[0] if report.run.old in report.run.commits else "path/to/OLD")
    return (
        "from peft import PeftModel\n"
        f"from transformers import {', '.join(sorted((usage.loader, usage.reader)))}\n\n"
        f"base_id = {base}\n"
        f"model_id = {UNPUBLISHED}\n"
        f'model = {usage.loader}.from_pretrained(base_id, dtype="auto"{trust})\n'
        "model = PeftModel.from_pretrained(model, model_id)\n"
        f"{name} = {usage.reader}.from_pretrained({'model_id' if own else 'base_id'}{trust})"
    )
