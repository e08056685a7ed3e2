"""A failed assertion of a helper shows what it compared, as that of a test does: import this before any helper."""

from pathlib import Path

import pytest

HERE = Path(__file__)
pytest.register_assert_rewrite(*(path.stem for path in HERE.parent.glob("*.py") if path != HERE))
