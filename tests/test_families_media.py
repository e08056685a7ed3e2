"""Families whose samples hold videos and sounds, end to end: the towers see them, and the merge is the textbook's."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from family_checks import QUIET, check_family

if find_spec("torchvision") is None:
    pytest.skip("video processors need torchvision", allow_module_level=True)

from families_media import MEDIA_FAMILIES
from family_pairs import Family, make_pair

pytestmark = [
    pytest.mark.gate,
    *(pytest.mark.filterwarnings(warning) for warning in QUIET),
]


@pytest.mark.parametrize("family", MEDIA_FAMILIES, ids=lambda family: family.id)
def test_family(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check_family(make_pair(family, tmp_path), tmp_path / "out", monkeypatch)
    for record, samples in ((report.safety, 3), (report.task, 4)):
        assert record is not None
        with_media = (samples + 1) // 2
        assert record.videos == with_media * ("video" in family.media)
        assert record.audios == with_media * ("audio" in family.media)
        assert (record.frames > 0) == ("video" in family.media)
        assert (record.seconds > 0) == ("audio" in family.media)
    seen = {record.stack for record in report.linears if record.outcome == "adapted"}
    assert seen >= set(family.stacks)


def test_images_and_videos_in_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower runs twice, and is merged from both."""
    family = next(family for family in MEDIA_FAMILIES if family.name == "Qwen2.5-VL (video)")
    pair = make_pair(replace(family, media=("video", "image"), loops=True), tmp_path)
    report = check_family(pair, tmp_path / "out", monkeypatch)
    assert report.task is not None
    assert (report.task.images, report.task.videos) == (2, 2)
