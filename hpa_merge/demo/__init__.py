"""``hpa-merge demo``: a small LLaVA before and after a tuning step, with calibration files and test files."""

from hpa_merge.libraries import torchvision  # noqa: F401 - before transformers

# isort: split
from hpa_merge.demo.pair import make_demo
from hpa_merge.demo.runtime import alone
from hpa_merge.demo.samples import DemoFiles
from hpa_merge.demo.summary import next_steps

__all__ = ["DemoFiles", "alone", "make_demo", "next_steps"]
