"""Harmonious Parameter Adaptation: repair an aligned model after a tuning step, without training.

    >>> import hpa_merge
    >>> report = hpa_merge.merge("old/", "new/", "out/", safety_calib="s.jsonl", task_calib="t.jsonl")

The names below are imported when they are first used, so that ``import hpa_merge`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_merge.api import calibrate, evaluate, merge, sweep, tune
    from hpa_merge.calibration.process import session
    from hpa_merge.config import HPAConfig
    from hpa_merge.errors import (
        CalibrationError,
        ChangedError,
        CheckpointError,
        ConfigError,
        EvaluationError,
        HPAError,
        InputError,
        NumericalError,
        OutputError,
        PublishError,
        RankError,
        ResourceError,
        StatisticsError,
    )
    from hpa_merge.evaluation.guards import Guard
    from hpa_merge.evaluation.metrics import ContinualMetrics, continual_metrics
    from hpa_merge.evaluation.safety_set import SafetySet
    from hpa_merge.evaluation.tuning import Tuning
    from hpa_merge.progress import silent
    from hpa_merge.publishing.upload import PushReport, push
    from hpa_merge.render.redraw import write_report
    from hpa_merge.report.evaluation import Evaluation, read_evaluation
    from hpa_merge.report.inspecting import Inspection, inspect
    from hpa_merge.report.records import (
        CalibrationRecord,
        ComponentRecord,
        DriftRecord,
        LinearRecord,
        RoundRecord,
        RunRecord,
    )
    from hpa_merge.report.schema import MergeReport, read_report
    from hpa_merge.verification import VerifyReport, verify

__version__ = "0.1.0"

_HOME = {
    "CalibrationError": "errors",
    "CalibrationRecord": "report.records",
    "ChangedError": "errors",
    "CheckpointError": "errors",
    "ComponentRecord": "report.records",
    "ConfigError": "errors",
    "ContinualMetrics": "evaluation.metrics",
    "DriftRecord": "report.records",
    "Evaluation": "report.evaluation",
    "EvaluationError": "errors",
    "Guard": "evaluation.guards",
    "HPAConfig": "config",
    "HPAError": "errors",
    "InputError": "errors",
    "Inspection": "report.inspecting",
    "LinearRecord": "report.records",
    "MergeReport": "report.schema",
    "NumericalError": "errors",
    "OutputError": "errors",
    "PublishError": "errors",
    "RankError": "errors",
    "PushReport": "publishing.upload",
    "ResourceError": "errors",
    "RoundRecord": "report.records",
    "RunRecord": "report.records",
    "SafetySet": "evaluation.safety_set",
    "StatisticsError": "errors",
    "Tuning": "evaluation.tuning",
    "VerifyReport": "verification",
    "calibrate": "api",
    "continual_metrics": "evaluation.metrics",
    "evaluate": "api",
    "inspect": "report.inspecting",
    "merge": "api",
    "push": "publishing.upload",
    "read_evaluation": "report.evaluation",
    "read_report": "report.schema",
    "session": "calibration.process",
    "silent": "progress",
    "sweep": "api",
    "tune": "api",
    "verify": "verification",
    "write_report": "render.redraw",
}
"""Where each public name is defined."""

__all__ = [
    "CalibrationError",
    "CalibrationRecord",
    "ChangedError",
    "CheckpointError",
    "ComponentRecord",
    "ConfigError",
    "ContinualMetrics",
    "DriftRecord",
    "Evaluation",
    "EvaluationError",
    "Guard",
    "HPAConfig",
    "HPAError",
    "InputError",
    "Inspection",
    "LinearRecord",
    "MergeReport",
    "NumericalError",
    "OutputError",
    "PublishError",
    "PushReport",
    "RankError",
    "ResourceError",
    "RoundRecord",
    "RunRecord",
    "SafetySet",
    "StatisticsError",
    "Tuning",
    "VerifyReport",
    "__version__",
    "calibrate",
    "continual_metrics",
    "evaluate",
    "inspect",
    "merge",
    "push",
    "read_evaluation",
    "read_report",
    "session",
    "silent",
    "sweep",
    "tune",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_merge.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
