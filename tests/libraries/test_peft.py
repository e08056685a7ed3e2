"""An adapter that is merged here does not import bitsandbytes, even if it is installed."""

import subprocess
import sys

import pytest

pytest.importorskip("bitsandbytes")

PROGRAM = """
import sys
import hpa_merge.libraries.peft
import peft, torch

model = torch.nn.Sequential(torch.nn.Linear(2, 2))
peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"]))
assert "bitsandbytes" not in sys.modules
"""


@pytest.mark.gate
def test_no_bitsandbytes() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
