"""Which component of a model a parameter belongs to, from the module tree and transformers' own accessors.

The *text* is transformers' decoder, with the encoder of an encoder-decoder. A *tower* is a model with its own blocks
that feeds the text: for images, video or sound, or a Q-Former or perceiver. The *projector* is everything between the
two that is not a block.
"""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from torch import nn
from transformers import PreTrainedModel

from hpa_merge.model.units import (
    find_stacks,
    find_units,
    is_of_the_text,
    path_of,
    paths_above,
    text_configs,
    text_stack,
)
from hpa_merge.outline import Component, inside

__all__ = ["find_components"]

MEDIA = re.compile("pixel|image|video|vision|audio|speech|codec|feature|protein|patches|input_values")
"""In the names of the inputs or of the configurations of a model with towers."""


def find_components(model: PreTrainedModel) -> dict[str, Component]:
    """The component of every parameter and loaded buffer of ``model``, by name; tied to an embedding, it is that."""
    stacks = find_stacks(model)
    text = text_stack(model, stacks)
    towers = _find_towers(model, stacks, text)
    language = _find_language(model, text, towers)
    places: tuple[tuple[Component, set[str]], ...] = (  # the first match counts
        ("embeddings", _find_embeddings(model, language, (*stacks, *towers))),
        ("head", _find_heads(model, text, towers)),
        ("projector", _find_mergers(model, stacks, towers)),
        ("vision", towers),
        ("projector", {path for t in towers for path in paths_above(t) if not _holds(path, {text, *language})}),
        ("projector", _find_patches(model)),
        ("language", language),
    )

    def component(name: str) -> Component:
        return next((part for part, paths in places if _lies_in(name, paths)), "projector")

    tensors = model.state_dict(keep_vars=True)
    found = {name: component(name) for name in tensors}
    tied = {id(tensors[name]) for name, part in found.items() if part == "embeddings"}
    return {name: "embeddings" if id(tensors[name]) in tied else part for name, part in found.items()}


def _find_towers(model: PreTrainedModel, stacks: Mapping[str, nn.ModuleList], text: str) -> set[str]:
    """Paths of the models that feed the text: for each stack outside the text, the largest model that holds it."""
    if not _reads_media(model):
        return set()  # models of other configurations that read text, as in BLT
    decoder = path_of(model, model.get_decoder())
    ours = {stack for stack in stacks if stack == text or is_of_the_text(model, stack)}
    towers = set()
    for stack in stacks.keys() - ours:
        above = [path for path in paths_above(stack) if not any(inside(other, path) for other in ours)]
        models = [path for path in above if hasattr(model.get_submodule(path), "config")]
        if models or (above and not inside(stack, decoder)):  # else it is a further list of blocks in the text model
            towers.add((models or above)[0])
    return towers


def _reads_media(model: PreTrainedModel) -> bool:
    """Whether a model reads more than text: its inputs or configurations say so, or it turns images into patches."""
    names = [*inspect.signature(model.forward).parameters, *type(model.config).sub_configs]
    patches = any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in model.modules())
    return patches or any(MEDIA.search(name) for name in names)


def _find_language(model: PreTrainedModel, text: str, towers: Collection[str]) -> set[str]:
    """Paths of the modules that carry the text: the decoder, and every model of its kind, such as its encoder."""
    config = model.config.get_text_config()
    if not towers and config is model.config:
        return {""}
    decoder = path_of(model, model.get_decoder())
    found = {
        name
        for name, module in model.named_modules()
        if isinstance(module, PreTrainedModel)
        and isinstance(module.config, text_configs(model))
        and not any(inside(tower, name) for tower in towers)
    }
    return found if any(inside(name, decoder) for name in found) else {*found, decoder or text}


def _find_embeddings(model: PreTrainedModel, language: Iterable[str], others: Iterable[str]) -> set[str]:
    """Paths of the text's embeddings, including positions; embeddings in a block or a tower do not count."""
    found = {
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Embedding)
        and _lies_in(name, language)
        and not _lies_in(name, others)
        and not name.endswith("bias")  # of attention, one for each distance
    }
    with suppress(NotImplementedError):  # a few models do not say
        found.add(path_of(model, model.get_input_embeddings()))
    return found - {""}  # one that is not in the tree


def _find_heads(model: PreTrainedModel, text: str, towers: Collection[str]) -> set[str]:
    """Paths of the output embeddings, or of their unit, and of the modules after the base model."""
    head = model.get_output_embeddings()
    found = set()
    if head is not None and (path := path_of(model, head)):
        found.add(next((unit.name for unit in find_units(model) if inside(path, unit.name)), path))
    base = path_of(model, model.base_model)
    children = [name for name, _ in model.named_children()]
    if base and text:
        behind = children[children.index(text.partition(".")[0]) + 1 :]
        found |= {name for name in behind if not (_lies_in(base, [name]) or _lies_in(name, [base, *towers]))}
    return {name for name in found if not _feeds(model, name)}


def _feeds(model: PreTrainedModel, name: str) -> bool:
    """Whether a module brings something else to the width of the blocks (PI0: states, actions), by its matrices."""
    widths = {getattr(module.config, "hidden_size", None) for module in model.modules() if hasattr(module, "config")}
    matrices = [module.weight for module in model.get_submodule(name).modules() if isinstance(module, nn.Linear)]
    return len(matrices) > 1 and matrices[0].shape[1] not in widths and matrices[-1].shape[0] in widths


def _find_patches(model: PreTrainedModel) -> set[str]:
    """Paths of units outside the stacks that turn the patches of images into tokens, without a tower (UDOP)."""
    return {
        unit.name
        for unit in find_units(model)
        if unit.block is None
        and any(isinstance(part, nn.Conv2d | nn.Conv3d) for part in model.get_submodule(unit.name).modules())
    }


def _find_mergers(model: PreTrainedModel, stacks: Iterable[str], towers: Iterable[str]) -> set[str]:
    """Paths of projectors that are registered in a tower (Qwen's merger): their output is as wide as the text.

    Only towers that are written for this model have one; a tower that is a model in its own right (CLIP, SigLIP) ends
    in its own width. If both widths are equal, the projector is what follows the last block.
    """
    width = getattr(model.config.get_text_config(), "hidden_size", None)
    found = set()
    for tower in towers:
        module = model.get_submodule(tower)
        if type(module).__module__ != type(model).__module__:
            continue
        names = [f"{tower}.{name}" for name, _ in module.named_children()]
        blocks = [place for place, name in enumerate(names) if any(inside(stack, name) for stack in stacks)]
        own = getattr(getattr(module, "config", None), "hidden_size", width)
        for name in names[max(blocks) + 1 :] if own == width else names:
            matrices = [value for value in model.get_submodule(name).parameters() if value.ndim > 1]
            if matrices and matrices[-1].shape[0] == width and not any(inside(stack, name) for stack in stacks):
                found.add(name)
    return found


def _holds(path: str, others: Iterable[str]) -> bool:
    return any(inside(other, path) for other in others)


def _lies_in(name: str, paths: Iterable[str]) -> bool:
    return any(inside(name, path) for path in paths)
