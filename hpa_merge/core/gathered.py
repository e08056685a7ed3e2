"""``H`` of one linear input as it was gathered: its tokens, or their Gram matrix.

    H = scale · (G + μI),    G = xᵀx

Rules that need more than the diagonal of ``H⁻¹`` start from it. :mod:`hessian` makes these objects and copies nothing;
:class:`Recent` holds those that were used last, with the factors that rules have made of them. A statistics file keeps
the tokens, or the lower triangle of ``G`` row by row (:func:`pack_triangle`).
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from hpa_merge.core.triangular import add_gram, column_energy, mirror_

__all__ = ["Hessian", "Packed", "Recent", "chunks", "pack_triangle", "triangle_bytes", "unpack_triangle"]

ROWS = 1024
"""Tokens that are converted at once."""

Made = TypeVar("Made")


@final
@dataclass(frozen=True, eq=False)
class Hessian:
    """``H`` of one linear input of ``c`` columns. Linears that read the same input share one object.

    Attributes:
        tokens: ``x``, ``[n, c]``; None where ``gram`` is kept instead.
        gram: ``G``, ``[c, c]`` float32, of which the lower triangle counts; None where ``tokens`` are kept.
        scale: ``2/N``, with the powers of two that the activations were divided by.
        damp: ``μ``.
    """

    tokens: Tensor | None
    gram: Tensor | None
    scale: float
    damp: float
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, made once: a factor of this Hessian serves every linear that reads the same input."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def forget(self) -> None:
        """Drop what :meth:`once` has made."""
        self._made.clear()

    @property
    def _kept(self) -> Tensor:
        kept = self.tokens if self.tokens is not None else self.gram
        assert kept is not None
        return kept

    @property
    def columns(self) -> int:
        """``c``."""
        return self._kept.shape[1]

    @property
    def device(self) -> torch.device:
        """Of what is kept."""
        return self._kept.device

    def add_to(self, total: Tensor, factor: float) -> None:
        """``total += factor · G`` in the lower triangle; ``total`` is ``[c, c]`` float32 or float64."""
        if self.tokens is not None:
            for piece in self.tokens.split(ROWS):
                add_gram(total, piece.to(total.dtype) * factor**0.5)
        elif self.gram is not None:
            total.add_(self.gram, alpha=factor)

    def multiply(self, rows: Tensor, factor: float) -> Tensor:
        """``rows · factor · G``, ``[r, c]``, in the dtype of ``rows``; the upper triangle of ``gram`` is filled."""
        root = float(factor**0.5)  # on both sides of G, so that no value leaves the dtype's range in between
        if self.tokens is not None:
            x = self.tokens.to(rows.dtype) * root
            return torch.mm(torch.mm(rows, x.T), x)
        assert self.gram is not None
        gram = self.gram
        self.once("mirrored", lambda: mirror_(gram))
        return torch.mm(rows * root, gram.to(rows.dtype)).mul_(root)

    def diagonal(self) -> Tensor:
        """``[H]_jj``: ``[c]`` float64."""
        if self.gram is not None:
            return (self.gram.diagonal().double() + self.damp) * self.scale
        energy = torch.zeros(self.columns, dtype=torch.float64, device=self.device)
        for piece in self._kept.split(ROWS):
            energy += column_energy(piece.double())
        return (energy + self.damp) * self.scale


@final
@dataclass(frozen=True, eq=False)
class Packed:
    """What samples have read, to be sent: a leaf is tokens or the triangle of their Gram matrix, a sum may have both.

    Attributes:
        tokens: how many.
        columns: ``c``.
        lengths: of the batches of tokens that are not in the triangle.
        exponent: ``k``; the triangle is that of ``G / 4^k``.
        peak: the largest magnitude of an activation in the triangle.
        triangle: ``[c(c + 1)/2]`` float32 (:mod:`.folding`); None where there is none.
        rows: these batches, ``[n, c]`` each.
    """

    tokens: int
    columns: int
    lengths: tuple[int, ...]
    exponent: int
    peak: float
    triangle: Tensor | None
    rows: tuple[Tensor, ...]

    @property
    def contents(self) -> tuple[Tensor, ...]:
        """What is sent: the triangle, if there is one, and all rows as one tensor, if there are any."""
        triangle = () if self.triangle is None else (self.triangle,)
        return (*triangle, torch.cat(self.rows)) if self.rows else triangle

    def head(self) -> "Packed":
        """The same without its contents."""
        return replace(self, triangle=None, rows=())

    def whole(self, contents: Sequence[Tensor]) -> "Packed":
        """The same as this :meth:`head`, with its :attr:`contents`."""
        triangle = contents[0] if len(contents) > bool(self.lengths) else None
        return replace(self, triangle=triangle, rows=contents[-1].split(self.lengths) if self.lengths else ())

    def to(self, device: torch.device) -> "Packed":
        """The same, on ``device``."""
        triangle = None if self.triangle is None else self.triangle.to(device)
        return replace(self, triangle=triangle, rows=tuple(each.to(device) for each in self.rows))


KEPT = 3
"""Inputs whose Hessians and factors are kept: linears that share one may have two others between them, as ``k_proj``
and ``q_proj`` have in the order of their names."""

Key = TypeVar("Key", bound=Hashable)


@final
class Recent(Generic[Key]):
    """The Hessians that were used last, by key; the factors of all others are dropped."""

    def __init__(self) -> None:
        self._held: dict[Key, Hessian] = {}  # the last used at the end

    def get(self, key: Key, make: Callable[[], Hessian]) -> Hessian:
        """The Hessian of ``key``, made unless it is held."""
        held = self._held.pop(key, None)
        self._held[key] = make() if held is None else held
        while len(self._held) > KEPT:
            self._held.pop(next(iter(self._held))).forget()
        return self._held[key]


def triangle_bytes(columns: int) -> int:
    """Bytes of the lower triangle of a Gram matrix of ``columns`` columns, in float32."""
    return 2 * columns * (columns + 1)


def pack_triangle(gram: Tensor) -> Tensor:
    """The lower triangle of ``[c, c]``, row by row: ``[c(c + 1)/2]``."""
    return torch.cat([row[: place + 1] for place, row in enumerate(gram)])


def unpack_triangle(packed: Tensor, columns: int) -> Tensor:
    """The inverse of :func:`pack_triangle`: ``[c, c]``, zero above the diagonal."""
    gram = packed.new_zeros(columns, columns)
    begin = 0
    for place in range(columns):
        gram[place, : place + 1] = packed[begin : begin + place + 1]
        begin += place + 1
    return gram


def chunks(rows: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Groups of batches with ``size`` to twice that many tokens together; the last group may have fewer."""
    chunk: list[Tensor] = []
    for piece in (piece for batch in rows for piece in torch.split(batch, size)):
        chunk.append(piece)
        if sum(len(piece) for piece in chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
