"""An OUT that is an adapter, published: it lies on the Hub as peft would have put it there."""

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
from adapters import load, lora, make_adapter
from cases import CARD, REPORT, TinyCase
from hub_uploads import UploadHub
from huggingface_hub import snapshot_download
from huggingface_hub.repocard import metadata_load
from pushing import ID, published

import hpa_merge
from hpa_merge import HPAConfig
from hpa_merge.verification import verify

pytestmark = [
    pytest.mark.gate,
    pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning"),  # huggingface_hub, of httpx
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]


def test_an_adapter(hub: UploadHub, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    old, out = tiny("gpt2").old, tmp_path / "out"
    new = make_adapter(old, "gpt2", lora(), tmp_path / "adapter")
    config = HPAConfig(method="random", orthogonal=False, output_format="adapter")
    hpa_merge.merge(old, new, out, config=config, page=False)
    report = hpa_merge.push(out, ID)
    files = {"adapter_config.json", "adapter_model.safetensors", CARD, REPORT}
    assert published(hub).keys() == report.files.keys() == files
    assert report.notes == (f"adapter_config.json contains the local path {old}, and is published unchanged.",)
    fetched = Path(snapshot_download(ID))
    assert metadata_load(fetched / CARD)["library_name"] == "peft"
    assert f'base_id = "path/to/OLD"\nmodel_id = "{ID}"' in (fetched / CARD).read_text(encoding="utf-8")
    assert verify(fetched).problems == ()
    peft.PeftModel.from_pretrained(load(old, "gpt2"), fetched)
