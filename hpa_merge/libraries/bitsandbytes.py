"""Import bitsandbytes without code from the Hub.

On some processors its import fetches a compiled kernel from the Hub if the package ``kernels`` is installed, and logs a
warning if it is not. The kernel multiplies weights of four bits; what is used here needs no product.
"""

import logging
from contextlib import suppress
from importlib.util import find_spec

from hpa_merge.libraries.hiding import hidden

__all__: list[str] = []


def _import() -> None:
    """Import it; whoever imports it again gets the error if that fails."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with hidden("kernels"), suppress(Exception):
            import bitsandbytes  # noqa: F401
    finally:
        log.setLevel(level)


if find_spec("bitsandbytes") is not None:
    _import()
