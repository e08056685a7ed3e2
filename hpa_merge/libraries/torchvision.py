"""Import torchvision, even if its compiled part was built for another torch.

PyPI's torchvision fits PyPI's torch, which has CUDA. Next to a CPU build of torch its import fails, and then so does
that of transformers' models and processors, which import torchvision if it is installed. They only use its functions in
Python, so that its missing operators do not matter: a call of one raises torch's own error.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

__all__: list[str] = []


def _import() -> None:
    """Import torchvision if it is installed."""
    try:
        import torchvision
    except RuntimeError:  # operator torchvision::nms does not exist
        import torch

        register = torch.library.register_fake

        def register_what_is_there(name: str, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
            def decorate(function: Any) -> Any:
                try:
                    return register(name, *arguments, **options)(function)
                except RuntimeError:
                    return function

            return decorate

        torch.library.register_fake = register_what_is_there  # type: ignore[assignment]
        try:
            import torchvision  # noqa: F401
        finally:
            torch.library.register_fake = register


if find_spec("torchvision") is not None:
    _import()
