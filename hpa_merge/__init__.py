"""Harmonious Parameter Adaptation: repair an aligned model after a tuning step, without training.

    >>> import hpa_merge
    >>> report = hpa_merge.merge("old/", "new/", "out/", safety_calib="s.jsonl", task_calib="t.jsonl")

The names below are imported when they are first used, so that ``import hpa_merge`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_merge.api import merge, sweep
    from hpa_merge.config import HPAConfig
    from hpa_merge.publishing.upload import push
    from hpa_merge.render.redraw import write_report
    from hpa_merge.report.inspecting import inspect
    from hpa_merge.report.schema import MergeReport
    from hpa_merge.verification import VerifyReport, verify

__version__ = "0.1.0"
__all__ = [
    "HPAConfig",
    "MergeReport",
    "VerifyReport",
    "__version__",
    "inspect",
    "merge",
    "push",
    "sweep",
    "verify",
    "write_report",
]

_HOME = {
    "HPAConfig": "config",
    "MergeReport": "report.schema",
    "VerifyReport": "verification",
    "inspect": "report.inspecting",
    "merge": "api",
    "push": "publishing.upload",
    "sweep": "api",
    "verify": "verification",
    "write_report": "render.redraw",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_merge.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
