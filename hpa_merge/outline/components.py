"""The components of a model: which part of it a tensor belongs to."""

from typing import Literal, get_args

__all__ = ["COMPONENTS", "Component"]

Component = Literal["vision", "projector", "language", "head", "embeddings"]

COMPONENTS: tuple[Component, ...] = get_args(Component)
