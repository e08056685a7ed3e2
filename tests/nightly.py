"""The matrix in full: every family in float32, bfloat16 and float16, with longer samples.

Some ten minutes on one core; ``python tests/nightly.py [NAME …]``; exits 1 where anything fails.
"""

import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "helpers"), str(Path(__file__).parent.parent)]

import conftest  # noqa: E402, F401  # no network
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from families import FAMILIES  # noqa: E402
from family_checks import check_family  # noqa: E402
from family_pairs import Family, make_pair  # noqa: E402


def run(family: Family, dtype: torch.dtype, words: int) -> str:
    """What became of one run: nothing, or the last line of its error."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        try:
            check_family(make_pair(family, Path(folder), dtype=dtype, words=words), Path(folder) / "out", patch)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"[:200]
    return ""


def main() -> int:
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    failed = 0
    for family in FAMILIES:
        if sys.argv[1:] and family.name not in sys.argv[1:]:
            continue
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            began = time.monotonic()
            problem = run(family, dtype, words=4)
            failed += bool(problem)
            took = time.monotonic() - began
            print(f"{family.name:28} {str(dtype)[6:]:9} {took:5.1f} s  {problem or 'ok'}", flush=True)  # noqa: T201
    print(f"{failed} failed")  # noqa: T201
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
