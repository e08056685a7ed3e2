"""``hpa-merge inspect`` as a test runs it."""

import pytest

from hpa_merge.cli import main


def command(*words: object) -> int | str | None:
    try:
        main(["inspect", *map(str, words)])
    except SystemExit as end:
        return end.code
    return 0


def csv_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert command(*words, "--csv") == 0
    return capsys.readouterr().out
