"""Writes parameters, figures and reports to an experiment tracker: MLflow or trackio."""

from hpa_merge.tracking.content import Tracked, of_evaluation, of_report, of_reports, of_tuning
from hpa_merge.tracking.tracker import KINDS, Tracker, open_tracker

__all__ = ["KINDS", "Tracked", "Tracker", "of_evaluation", "of_report", "of_reports", "of_tuning", "open_tracker"]
