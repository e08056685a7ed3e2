"""Writes parameters, figures and reports to an experiment tracker: MLflow or trackio."""
