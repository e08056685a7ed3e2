"""A model that brings code: push names it, and runs none of it."""

from pathlib import Path

import pytest
from hub_uploads import UploadHub
from own_code import FILES, make_decoder_pair, mark
from pushing import ID, published

import hpa_merge

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")  # huggingface_hub, of httpx


def test_code_is_named_and_published(hub: UploadHub, tmp_path: Path) -> None:
    old, new = make_decoder_pair(tmp_path)
    for folder in (old, new):
        mark(folder, tmp_path / "marks")
    (tmp_path / "ids.jsonl").write_text('{"input_ids": [1, 20, 30, 40]}\n')
    samples = {"safety_calib": tmp_path / "ids.jsonl", "task_calib": tmp_path / "ids.jsonl"}
    hpa_merge.merge(old, new, tmp_path / "out", **samples, page=False, trust_remote_code=True)
    (tmp_path / "marks").unlink()
    notes: list[str] = []
    hpa_merge.push(tmp_path / "out", ID, on_note=notes.append)
    (note,) = (each for each in notes if each.startswith("OUT"))
    assert note == (
        "OUT brings code, which runs when it is loaded with trust_remote_code=True: configuration_tinydec.py, "
        "modeling_tinydec.py."
    )
    assert set(FILES) <= published(hub).keys()
    assert not (tmp_path / "marks").exists()
