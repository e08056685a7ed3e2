"""What runs in the child process in which an adapter is tried."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from hpa_merge.model.adapter import Adapter
from hpa_merge.model.conversion import Header

with suppress(ImportError):  # it is an extra; here it is imported once for all children
    import peft  # noqa: F401

__all__ = ["AdapterService"]


@final
class AdapterService:
    """The method that :func:`hpa_merge.model.adapter_trial.try_adapter` calls."""

    def build(
        self, folder: Path, config: Mapping[str, Any], own: Header, base: Path, header: Header
    ) -> tuple[None, bytes]:
        """Build the adapter, as :class:`Adapter` does, whose arguments these are; raises as it does."""
        Adapter(folder, config, own, base, header)
        return None, b""
