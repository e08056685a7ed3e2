"""A stream of samples through the units of a model against the ordinary forward pass, bit for bit."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from reference import load_model
from torch import Tensor, nn

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.model import ActivationHooks, MetaModel, PausedForwards

Samples = Sequence[Mapping[str, Tensor]]


class Layout(NamedTuple):
    """What decides, beside its values, in which order products with a tensor are summed: by which route torch takes
    it (strides, and whether it requires a gradient), and where it begins."""

    strides: tuple[int, ...]
    requires_grad: bool
    beyond_alignment: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        return cls(tensor.stride(), tensor.ndim > 1 and tensor.requires_grad, tensor.data_ptr() % 64)


class Streamed(NamedTuple):
    """What became of a stream through all units; the layouts are of every parameter and buffer when it was loaded."""

    logits: dict[int, Tensor]
    loads: Counter[str]
    layouts: dict[str, Layout]


def layouts(model: nn.Module) -> Iterator[tuple[str, Layout]]:
    """Of all that is in memory and more than one number: a placeholder is one."""
    for name, value in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        if value.untyped_storage().nbytes() > value.element_size():
            yield name, Layout.of(value)


@contextmanager
def meta_model_of(
    folder: Path, dtype: torch.dtype | None = None
) -> Iterator[tuple[MetaModel, Callable[[str], Tensor]]]:
    with Checkpoint.open(folder, "OLD") as checkpoint:
        header = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}
        computing = None if dtype is None else dict.fromkeys((torch.bfloat16, torch.float16, torch.float32), dtype)
        meta = MetaModel(folder, header, "OLD", torch.device("cpu"), computing=computing)
        meta.load(None, checkpoint.read)
        yield meta, checkpoint.read


def in_memory(meta: MetaModel) -> list[set[str]]:
    """The names of the parameters and loaded buffers that take more memory than one number, those that share together;
    without those that belong to no unit."""
    owned = tuple(f"{unit.name}." for unit in meta.units)
    shared: dict[int, set[str]] = {}
    for name, value in meta.model.named_parameters(remove_duplicate=False):
        if value.untyped_storage().nbytes() > value.element_size():
            shared.setdefault(value.untyped_storage().data_ptr(), set()).add(name)
    return [names for names in shared.values() if any(name.startswith(owned) for name in names)]


def stream(meta: MetaModel, read: Callable[[str], Tensor], samples: Samples) -> Streamed:
    """Run all samples through, with every linear watched; see after every step that no unit but the present one takes
    memory."""
    logits: dict[int, Tensor] = {}
    loads: Counter[str] = Counter()
    loaded: dict[str, Layout] = {}
    forwards, hooks = PausedForwards(meta.model, meta.units), ActivationHooks(meta.model, meta.observed)
    read_by = {unit: [o for x in meta.linears.values() if unit in x.uses for o in x.observers] for unit in meta.units}
    forwards.start(samples, lambda place, output: logits.__setitem__(place, output.logits))
    assert not in_memory(meta)
    while (unit := forwards.next_unit) is not None:
        loads[unit.name] += 1
        meta.load(unit, read)
        loaded |= layouts(meta.model)
        for names in in_memory(meta):
            assert any(name.startswith(f"{unit.name}.") for name in names), f"{names} with {unit.name}"
        with hooks.watching(read_by[unit]):
            for _ in forwards.run(unit):
                hooks.end_sample()
        meta.free(unit)
        assert not in_memory(meta)
    forwards.close()
    return Streamed(logits, loads, loaded)


def check(
    folder: Path,
    samples: Samples,
    never_visited: frozenset[str] = frozenset(),
    *,
    loops: bool = False,
    dtype: torch.dtype | None = None,
) -> None:
    """The stream's logits are the ordinary forward's, every unit is loaded once unless the model ``loops``, and
    placeholders tell the truth.

    Bit for bit, and on any processor: the same operations see the same numbers in the same layout.

    Args:
        dtype: to run in; None for the checkpoint's own.
    """
    whole = load_model(folder, dtype or "auto")
    with meta_model_of(folder, dtype) as (meta, read):
        placeholders = dict(meta.model.named_parameters(remove_duplicate=False))
        wanted = dict(whole.named_parameters(remove_duplicate=False))
        assert placeholders.keys() == wanted.keys()
        for name, value in wanted.items():
            found = placeholders[name]
            assert (found.shape, found.dtype, found.device) == (value.shape, value.dtype, value.device), name
            assert found.requires_grad == value.requires_grad or value.ndim < 2, name
        streamed = stream(meta, read, samples)
        once = Counter({unit.name for unit in meta.units} - never_visited)
        assert (streamed.loads.keys() == once.keys() and streamed.loads != once) if loops else streamed.loads == once
    for name, layout in layouts(whole):
        assert streamed.layouts.get(name, layout) == layout, name
        assert layout.beyond_alignment == 0, name
    assert sorted(streamed.logits) == list(range(len(samples)))
    for place, sample in enumerate(samples):
        with torch.no_grad():
            assert torch.equal(streamed.logits[place], whole(**sample, use_cache=False).logits), place
