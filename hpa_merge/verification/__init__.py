"""Checks that a folder is what a merge made: its files, what follows from OLD and NEW, or the merge run again."""

from hpa_merge.verification.findings import VerifyReport
from hpa_merge.verification.verifying import verify

__all__ = ["VerifyReport", "verify"]
