"""The models of OLD and NEW, without their weights."""

import contextlib
import inspect
from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.custom_code.failing import blaming
from hpa_merge.custom_code.running import is_own
from hpa_merge.errors import CheckpointError
from hpa_merge.model import MetaModel

__all__ = ["check_inputs", "meta_model", "meta_models"]


def meta_models(old: Checkpoint, new: Checkpoint, device: torch.device) -> tuple[MetaModel, MetaModel]:
    """The models of both checkpoints, of one class: if one was saved without its head, of the class without it.

    Raises:
        CheckpointError: there is no such class.
    """
    roles = [(old, ()), (new, new.external)]
    metas = [meta_model(checkpoint, device, external) for checkpoint, external in roles]
    classes = [type(meta.model) for meta in metas]
    if classes[0] is not classes[1] and not _are_own(classes):
        for at, (checkpoint, external) in enumerate(roles):
            if type(metas[0].model.config) is type(metas[1].model.config):
                with contextlib.suppress(CheckpointError):
                    metas[at] = meta_model(checkpoint, device, external, classes[1 - at])
                    break
        else:
            whole, text = metas[0].model.config, metas[0].model.config.get_text_config()
            remedy = (
                ", its text model alone: load NEW's weights into OLD's text model, and save that as NEW"
                if text is not whole and type(text) is type(metas[1].model.config)
                else ": give the checkpoints before and after tuning of one model"
            )
            raise CheckpointError(f"OLD is a {classes[0].__name__} and NEW is a {classes[1].__name__}{remedy}.")
    return metas[0], metas[1]


def _are_own(classes: Sequence[type]) -> bool:
    """Whether the classes are one class of code that both checkpoints bring, and that is imported for each of them."""
    return len({each.__qualname__ for each in classes}) == 1 and all(map(is_own, classes))


def meta_model(
    checkpoint: Checkpoint,
    device: torch.device,
    external: Collection[str] = (),
    architecture: type[PreTrainedModel] | None = None,
) -> MetaModel:
    """The model of a checkpoint, without its weights.

    Args:
        external: its tensors that lie in another folder.
        architecture: its class; None for the one that the checkpoint asks for.

    Raises:
        CheckpointError: its config.json and its tensors make none.
    """
    header = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}

    def same(first: str, second: str) -> bool:
        if checkpoint.tensors[first].shape != checkpoint.tensors[second].shape:
            return False
        pieces = zip(checkpoint.pieces(first), checkpoint.pieces(second), strict=False)
        return all(torch.equal(a, b.to(a.dtype)) for a, b in pieces)

    code = checkpoint.code
    with checkpoint.side_folder() as folder, blaming(code, checkpoint.role):
        where = (folder, header, checkpoint.role, device, checkpoint.tower, external)
        return MetaModel(*where, architecture, same, code)


def check_inputs(meta: MetaModel) -> None:
    """Raise CheckpointError if the model cannot take calibration samples, which are texts with or without media."""
    model = meta.model
    name, taken = type(model).__name__, inspect.signature(model.forward).parameters
    if "input_ids" not in taken:
        raise CheckpointError(
            f"{name} takes {next(iter(taken))}, and calibration samples are texts, with or without images: "
            "only models that read text can be merged."
        )
    if model.config.is_encoder_decoder and meta.decoder_start is None:
        raise CheckpointError(
            f"{name} is an encoder-decoder, and neither config.json nor generation_config.json has its "
            "decoder_start_token_id: add it to one of them."
        )
