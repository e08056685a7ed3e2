"""``hpa-merge demo``: a small LLaVA before and after a tuning step, with calibration files and scores."""

from hpa_merge.libraries import torchvision  # noqa: F401 - before transformers

# isort: split
from hpa_merge.demo.pair import make_demo
from hpa_merge.demo.samples import DemoFiles
from hpa_merge.demo.scores import DemoScores, measure
from hpa_merge.demo.summary import next_steps, scores_table

__all__ = ["DemoFiles", "DemoScores", "make_demo", "measure", "next_steps", "scores_table"]
