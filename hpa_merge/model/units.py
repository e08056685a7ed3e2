"""What is loaded together, in which order, at which depth: from the module tree, for any architecture.

A *stack* is a list of transformer blocks. Every block is a unit. Outside the stacks, every largest module without a
stack is a unit (an embedding, a projector, a final norm, a head). A parameter of a module above them (LLaVA-NeXT's
``image_newline``, say) belongs to no unit and stays resident, and so does a fixed table of positions.
"""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hpa_merge.outline import Unit, inside


def find_units(model: PreTrainedModel) -> tuple[Unit, ...]:
    """The units of ``model`` in the order in which they are merged.

    That is the order of registration, with one exception: everything that feeds the text stack (vision towers,
    projectors, encoders) comes before it, wherever the class registers it. So samples with and without images meet
    before the text stack, and no sample reaches a block that the others have left.
    """
    stacks = find_stacks(model)
    text = text_stack(model, stacks)
    decoder = path_of(model, model.get_decoder())
    found: list[tuple[str, str, int | None]] = []  # name, stack, index in the stack
    _collect(model, "", stacks, found, set())
    end = max((place for place, (_, stack, _) in enumerate(found) if stack == text), default=-1)
    base = path_of(model, model.base_model)
    head = model.get_output_embeddings()

    def rank(place: int) -> int:
        """0 for what feeds the text stack, 1 for the decoder that holds it, 2 for a head on top of it."""
        name = found[place][0]
        if not text or inside(name, decoder):
            return 1
        return 2 if place > end and (not inside(name, base) or model.get_submodule(name) is head) else 0

    order = sorted(range(len(found)), key=lambda place: (rank(place), place))
    return tuple(
        Unit(
            index=index,
            name=found[place][0],
            stack=found[place][1],
            block=found[place][2],
            blocks=len(stacks[found[place][1] or text]) if stacks else 0,
            text=bool(text) and found[place][1] == text,
        )
        for index, place in enumerate(order)
    )


def find_stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """Outermost lists of blocks by path.

    transformers marks blocks with ``GradientCheckpointingLayer``: a list with a marked block is a stack, whatever its
    other blocks are. In a sub-model without such a mark, every list of composite modules is a stack.
    """
    stacks: dict[str, nn.ModuleList] = {}

    def walk(module: nn.Module, path: str, marked: bool) -> None:
        if isinstance(module, PreTrainedModel):
            marked = any(isinstance(m, GradientCheckpointingLayer) for m in module.modules())
        if isinstance(module, nn.ModuleList) and len(module) and _is_stack(module, marked):
            stacks[path] = module
            return
        for name, child in module.named_children():
            walk(child, _join(path, name), marked)

    walk(model, "", False)
    return stacks


def _is_stack(modules: nn.ModuleList, marked: bool) -> bool:
    if any(isinstance(m, GradientCheckpointingLayer) for m in modules):
        return True
    return not marked and all(any(m.children()) for m in modules)


def path_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    """Path of a module of ``model``; empty for the model itself."""
    return next((name for name, module in model.named_modules() if module is wanted), "")


def text_stack(model: PreTrainedModel, stacks: dict[str, nn.ModuleList]) -> str:
    """Path of the text stack: the longest in the decoder, the last one of equal length; empty without a stack."""
    decoder = path_of(model, model.get_decoder())
    candidates = [path for path in stacks if inside(path, decoder)] or list(stacks)
    candidates = [path for path in candidates if is_of_the_text(model, path)] or candidates
    return max(reversed(candidates), key=lambda path: len(stacks[path]), default="")


def is_of_the_text(model: PreTrainedModel, stack: str) -> bool:
    """Whether the nearest configuration above a stack has the class of a configuration of the text."""
    return isinstance(_nearest_config(model, stack), text_configs(model))


def text_configs(model: PreTrainedModel) -> tuple[type, ...]:
    """Classes of the configurations of the text: what transformers calls it, and the model that looks up the tokens.

    The two differ in an encoder with images (T5Gemma 2) or if transformers names the whole (PI0).
    """
    named = model.config.get_text_config()
    try:
        looked_up = path_of(model, model.get_input_embeddings())
    except NotImplementedError:  # a few models do not say
        looked_up = ""
    nearest = _nearest_config(model, looked_up)
    if nearest is model.config or not isinstance(nearest, PretrainedConfig):
        return (type(named),)
    return (type(nearest),) if named is model.config else (type(named), type(nearest))


def _nearest_config(model: PreTrainedModel, path: str) -> object:
    """The configuration of the innermost module above ``path`` that has one."""
    configs = (getattr(model.get_submodule(above), "config", None) for above in reversed(["", *paths_above(path)]))
    return next((config for config in configs if isinstance(config, PretrainedConfig)), None)


def paths_above(path: str) -> list[str]:
    """Paths of the modules that hold another, without the model itself, from the outermost."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _collect(
    module: nn.Module,
    path: str,
    stacks: dict[str, nn.ModuleList],
    found: list[tuple[str, str, int | None]],
    seen: set[int],
) -> None:
    """Append ``(name, stack, index)`` of every unit below ``module``, in order of registration, each module once."""
    if id(module) in seen or not module.state_dict(keep_vars=True) or _is_fixed_table(module):
        return
    seen.add(id(module))
    if path in stacks:
        first = {id(block): place for place, block in reversed([*enumerate(stacks[path])])}
        found.extend((_join(path, str(place)), path, place) for place in sorted(first.values()))
        return
    holds_a_stack = any(inside(stack, path) for stack in stacks)
    if holds_a_stack or isinstance(module, nn.ModuleList | nn.ModuleDict):  # these two have no forward to pause at
        for name, child in module.named_children():
            _collect(child, _join(path, name), stacks, found, seen)
    else:
        found.append((path, "", None))


def _is_fixed_table(module: nn.Module) -> bool:
    """Whether it is a table of positions that is computed and never trained, as in encoders of Whisper's kind.

    These read its weight and do not call it, so that nothing would pause there: it stays resident.
    """
    return isinstance(module, nn.Embedding) and not module.weight.requires_grad


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
