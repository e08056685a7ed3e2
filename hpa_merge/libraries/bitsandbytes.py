"""Import bitsandbytes without code from the Hub.

On some processors its import fetches a compiled kernel from the Hub, if the package ``kernels`` is installed, and logs
a warning if not. The kernel multiplies weights of four bits; what is used here needs no product.
"""

import logging
import sys
from importlib.util import find_spec

__all__: list[str] = []


def _import() -> None:
    """Import bitsandbytes if it is installed, while ``kernels`` counts as missing and nothing is logged."""
    log, there = logging.getLogger("bitsandbytes"), sys.modules.get("kernels")
    level = log.level
    sys.modules["kernels"] = None  # type: ignore[assignment]  # an import of it fails
    log.setLevel(logging.CRITICAL)
    try:
        import bitsandbytes  # noqa: F401
    except Exception:  # the caller imports it again and says what is wrong
        pass
    finally:
        log.setLevel(level)
        if there is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = there


if find_spec("bitsandbytes") is not None:
    _import()
