"""alignment.py, and that what a forward pass reads begins where torch would have put it, wherever it lies in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase, content
from safetensors.torch import save_file
from streaming import layouts, meta_model_of
from torch import Tensor

from hpa_merge import merge
from hpa_merge.calibration import Encoder
from hpa_merge.checkpoint import Checkpoint, Prefetch
from hpa_merge.model import PausedForwards
from hpa_merge.model.aligned_memory import ALIGNMENT, aligned

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8]


def beyond(tensor: Tensor) -> int:
    return tensor.data_ptr() % ALIGNMENT


def moved(tensor: Tensor, by: int) -> Tensor:
    """The same, beginning so many elements behind where torch puts a tensor."""
    found = torch.empty(tensor.numel() + by, dtype=tensor.dtype)[by:].view(tensor.shape)
    return found.copy_(tensor)


def test_what_begins_elsewhere_is_copied_and_nothing_else() -> None:
    own = torch.randn(5, 7)
    assert aligned(own) is own
    for by in (1, 4, 15):
        assert beyond(moved(own, by)) == 4 * by
        found = aligned(moved(own, by))
        assert beyond(found) == 0
        assert torch.equal(found, own)
    turned = moved(own, 1).T
    assert (aligned(turned).stride(), beyond(aligned(turned))) == ((1, 7), 0)
    assert torch.equal(aligned(turned), own.T)
    assert beyond(aligned(moved(own, 0)[2:])) == 0  # part of a fused weight


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_reader_gives_every_tensor_memory_of_its_own(dtype: torch.dtype, tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(6)]
    tensors = {name: torch.arange(3 + 2 * place).to(dtype) for place, name in enumerate(names)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with Checkpoint.open(tmp_path, "OLD") as checkpoint:
        assert any(info.start % ALIGNMENT for info in checkpoint.tensors.values())
        with Prefetch(checkpoint, names, 10**6) as prefetch:
            for name, expected in tensors.items():
                for found in (checkpoint.read(name), prefetch.read(name)):
                    assert beyond(found) == 0
                    assert torch.equal(found, expected)


def test_where_a_processor_puts_a_sample_changes_nothing(
    tiny: Callable[..., TinyCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, start, seen = Encoder.encode, PausedForwards.start, []
    case = tiny("llava")

    def elsewhere(self: Encoder, *arguments: Any) -> dict[str, Tensor]:
        return {name: moved(value, 1) for name, value in encode(self, *arguments).items()}

    def watched(self: PausedForwards, samples: Any, **options: Any) -> None:
        seen.extend(beyond(value) for sample in samples for value in sample.values())
        start(self, samples, **options)

    def run(out: Path) -> dict[str, Any]:
        merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)
        return content(out)

    expected = run(tmp_path / "one")
    monkeypatch.setattr(Encoder, "encode", elsewhere)
    monkeypatch.setattr(PausedForwards, "start", watched)
    assert run(tmp_path / "two") == expected
    assert seen
    assert set(seen) == {0}


def test_weights_are_aligned_wherever_they_are_read_to(tiny: Callable[..., TinyCase]) -> None:
    with meta_model_of(tiny("phi3").new) as (meta, read):
        for unit in meta.units:
            given = meta.load(unit, lambda name: moved(read(name), 1))
            assert all(beyond(tensor) for tensor in given.values())
            layouts_of_unit = dict(layouts(meta.model))
            assert layouts_of_unit
            assert {layout.beyond_alignment for layout in layouts_of_unit.values()} == {0}
            meta.free(unit)
