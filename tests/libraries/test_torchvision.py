"""torchvision is imported whether or not its compiled part fits torch."""

import sys
from importlib.util import find_spec

import pytest
import torch

from hpa_merge.libraries import torchvision


@pytest.mark.skipif(find_spec("torchvision") is None, reason="it is not installed")
def test_its_functions_in_python_are_there_and_torch_is_as_it_was() -> None:
    assert torchvision
    assert torch.library.register_fake.__module__ == "torch.library"
    assert torch.library.register_fake.__name__ == "register_fake"
    resize = sys.modules["torchvision"].transforms.v2.functional.resize
    assert resize(torch.zeros(3, 8, 8), [4, 6]).shape == (3, 4, 6)
