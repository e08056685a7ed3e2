"""A transformers model that is never whole in memory: it is loaded, run and freed unit by unit."""

from hpa_merge.libraries import torchvision  # noqa: F401 - before transformers

# isort: split
from hpa_merge.model.adapter import Adapter
from hpa_merge.model.adapter_trial import try_adapter
from hpa_merge.model.conversion import Header
from hpa_merge.model.hooks import ActivationHooks
from hpa_merge.model.kept_dtypes import kept_in_float32
from hpa_merge.model.lockstep import ForwardError, PausedForwards
from hpa_merge.model.meta_model import MetaModel
from hpa_merge.model.original_llava import TOWER, is_original_llava
from hpa_merge.model.products import WatchedWeight
from hpa_merge.model.routing import ChoiceHooks
from hpa_merge.model.units import find_units
from hpa_merge.outline import COMPONENTS, Choices, Component, LinearTensor, Unit

__all__ = [
    "COMPONENTS",
    "TOWER",
    "ActivationHooks",
    "Adapter",
    "ChoiceHooks",
    "Choices",
    "Component",
    "ForwardError",
    "Header",
    "LinearTensor",
    "MetaModel",
    "PausedForwards",
    "Unit",
    "WatchedWeight",
    "find_units",
    "is_original_llava",
    "kept_in_float32",
    "try_adapter",
]
