"""Bugs of single transformers releases, fixed on the loaded model; the library is unchanged."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

__all__ = ["repair"]


def repair(model: PreTrainedModel) -> None:
    """Fix a model whose own forward fails.

    Llama 4 in 5.24.0: ``Llama4ForConditionalGeneration.forward`` raises an AttributeError for every input, after the
    head, because it reads ``image_outputs`` from the output of its text model, which has no such field.
    """
    if type(model).__name__ == "Llama4ForConditionalGeneration":
        model.get_submodule("language_model").register_forward_hook(_add_image_outputs)


def _add_image_outputs(module: nn.Module, args: Any, output: Any) -> None:
    if isinstance(output, ModelOutput) and not hasattr(output, "image_outputs"):
        output.image_outputs = None
