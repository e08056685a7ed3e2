"""What the words ``[SET:]…`` of the options say of each set."""

from pathlib import Path

import pytest

from hpa_merge.errors import ConfigError
from hpa_merge.records import reading_of_sets, reading_options


def test_a_word_is_of_every_set_or_of_the_one_that_it_names() -> None:
    maps = ["answer=reply", "safety:answer=refusal", "task:question=q: text", "safety:prompt=bad=word"]
    found = reading_of_sets(maps, ["note", "benign:label", "a:b"])
    assert dict(found["safety"].names) == {"answer": "refusal", "prompt": "bad=word"}
    assert dict(found["task"].names) == {"answer": "reply", "question": "q: text"}
    assert dict(found["benign"].names) == {"answer": "reply"}
    assert [sorted(found[purpose].ignored) for purpose in ("safety", "benign")] == [
        ["a:b", "note"],
        ["a:b", "label", "note"],
    ]


def test_the_folder_of_a_set_wins(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    given = [tmp_path, f"task:{tmp_path / 'own'}", f"task:{tmp_path / 'own'}"]
    assert reading_options("task", folders=given).media_folder == tmp_path / "own"
    assert reading_options("safety", folders=given).media_folder == tmp_path
    assert reading_options("safety").media_folder is None
    with pytest.raises(ConfigError):
        reading_options("task", folders=[*given, f"task:{tmp_path}"])
