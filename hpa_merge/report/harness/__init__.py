"""Reads what other evaluation harnesses wrote: lm-evaluation-harness, lmms-eval, inspect-ai."""

from hpa_merge.report.harness.files import Given, given_of
from hpa_merge.report.harness.reading import Results, read_results
from hpa_merge.report.harness.safety import with_safety

__all__ = ["Given", "Results", "given_of", "read_results", "with_safety"]
