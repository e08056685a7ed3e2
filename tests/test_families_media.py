"""Families whose samples hold videos and sounds, end to end: the towers see them, and the merge is the textbook's."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from family_checks import QUIET, check_family

from hpa_merge import merge
from hpa_merge.errors import CalibrationError

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


def test_images_and_videos_in_one_sample(tmp_path: Path) -> None:
    """The tower would be run again after it was merged; in samples of their own both are taken."""
    family = next(family for family in MEDIA_FAMILIES if family.name == "Qwen2.5-VL (video)")
    pair = make_pair(replace(family, media=("video", "image")), tmp_path)
    with pytest.raises(CalibrationError) as caught:
        merge(pair.old, pair.new, tmp_path / "out", safety_calib=pair.safety, task_calib=pair.task)
    assert str(caught.value) == (
        f"{pair.safety}:1 has images and videos, for which the model runs the same layers twice: give the images and "
        "the videos in samples of their own."
    )
    images, both = (make_pair(replace(family, media=(kind,)), tmp_path / kind) for kind in ("image", "video"))
    mixed = tmp_path / "mixed.jsonl"
    lines = [
        line.replace('"task-', f'"{kind}/task-')
        for kind in ("image", "video")
        for line in (tmp_path / kind / "task.jsonl").read_text().splitlines()
    ]
    mixed.write_text("\n".join(lines))
    report = merge(images.old, images.new, tmp_path / "out", safety_calib=both.safety, task_calib=mixed)
    assert report.task is not None
    assert (report.task.images, report.task.videos) == (2, 2)
