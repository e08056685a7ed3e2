"""What runs in the child process that tries an adapter."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from hpa_merge.custom_code.finding import Code
from hpa_merge.model.adapter import Adapter
from hpa_merge.model.conversion import Header

with suppress(ImportError):  # an extra; imported here once for all children
    import hpa_merge.libraries.peft  # noqa: F401

__all__ = ["AdapterService"]


@final
class AdapterService:
    """The method that :func:`hpa_merge.model.adapter_trial.try_adapter` calls."""

    def build(
        self,
        folder: Path,
        config: Mapping[str, Any],
        own: Header,
        base: Path,
        header: Header,
        tower: Path | None,
        code: Code | None,
    ) -> tuple[None, bytes]:
        """Build the adapter; arguments and errors are those of :class:`Adapter`."""
        Adapter(folder, config, own, base, header, tower, code)
        return None, b""
