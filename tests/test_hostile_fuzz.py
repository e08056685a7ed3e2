"""A short run of benchmarks/fuzz.py: damaged inputs end in a sentence, or are sound after all."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from fuzz import SHARES, fuzz

pytestmark = pytest.mark.gate


@pytest.mark.filterwarnings("ignore")  # libraries warn of what is damaged
def test_damaged_inputs_end_in_a_sentence(tmp_path: Path) -> None:
    counts, findings, _ = fuzz(cases=400, seed=1, seconds=10, folder=tmp_path)
    assert findings == []
    assert sum(row["refused"] for row in counts.values()) > 200
    assert [kind for kind in SHARES if not counts[kind]["refused"]] == []
    assert sum(row["accepted"] for row in counts.values()) > 50
