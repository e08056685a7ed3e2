"""An adapter that was trained on a quantised base (QLoRA) is merged into that base, dequantised."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import lora, make_adapter
from quantised import dequantise, quantise

from hpa_merge.inputs.opening import open_checkpoint, open_new

pytest.importorskip("bitsandbytes")

pytestmark = [pytest.mark.gate, pytest.mark.filterwarnings("ignore::UserWarning:peft")]


@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_qlora(dtype: str, tiny: Any, tmp_path: Path) -> None:
    base = tiny("llama").old
    adapter = make_adapter(base, "llama", lora(), tmp_path / "adapter")
    made, held = quantise(base, tmp_path / "made", "nf4"), dequantise(base, tmp_path / "held", "nf4")
    with (
        open_checkpoint(made, "OLD", dtype) as old,
        open_checkpoint(held, "OLD", dtype) as plain,
        open_new(adapter, old, dtype) as found,
        open_new(adapter, plain, dtype) as expected,
    ):
        assert found.overlay is not None
        assert expected.overlay is not None
        assert found.overlay.keys == expected.overlay.keys
        assert found.dtype == ("float32" if dtype == "auto" else dtype)
        for name in expected.tensors:
            assert torch.equal(found.read(name), expected.read(name)), name
        changed = next(iter(found.overlay.keys))
        assert not torch.equal(found.read(changed), found.raw(changed))
