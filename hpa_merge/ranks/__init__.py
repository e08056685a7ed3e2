"""The processes that share one run, and what they exchange."""

from hpa_merge.ranks.group import Group, Parcel

__all__ = ["Group", "Parcel"]
