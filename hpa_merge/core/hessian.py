"""The curvature of one linear input: gather its tokens, then take the diagonal of the damped inverse.

    H = (2/N) Σ x xᵀ + λ I,    λ = damping · mean(diag((2/N) Σ x xᵀ))        wanted: [H⁻¹]_jj for every column j

``N`` is the number of tokens. There are two exact routes, and the cheaper one is taken. The dual route keeps the tokens
and inverts in their space (Woodbury); it suits few tokens. The primal route accumulates the Gram matrix ``G = Σ x xᵀ``
and takes the diagonal from its Cholesky factor. Neither builds ``H⁻¹``. Both factor ``G + μI = N/2 · H``, or its dual,
with ``μ = damping · mean(diag G)``.
"""

import math
from typing import final

import torch
from torch import Tensor

from hpa_merge.core.diagonal import SingularCurvature, factor_primal, inverse_diagonal_dual, inverse_diagonal_primal
from hpa_merge.core.folding import add_folded, folded, unfolded
from hpa_merge.core.gathered import Hessian, Packed, chunks, triangle_bytes
from hpa_merge.core.inverse import InverseHessian, dual_factor
from hpa_merge.core.magnitudes import exponent_of, largest, peak_of, scaled
from hpa_merge.core.triangular import add_gram, add_gram_apart, add_triangle, column_energy

DUAL_SHARE = 0.8
"""Tokens per column up to which the dual route is the cheaper one.

With ``t = N/c`` tokens per column, the dual route takes ``2t² + t³/3`` times ``c³`` operations: half the products of
the tokens, their factor, one solve. The primal route takes ``t + 2/3``: half the Gram matrix, its factor, the factor's
inverse.
"""

CHUNK = 2048
"""Tokens that are multiplied at once: enough to keep the multiplier busy."""

LEAF = 512
"""Tokens of a leaf that are worth a product of their own."""

LEAF_SHARE = 1 / 8
"""Tokens of a leaf per column that are worth it: in bfloat16, an eighth of the bytes of their Gram matrix."""


@final
class Curvature:
    """``H`` of one linear input of ``c`` columns, gathered from any number of token batches.

    It holds the tokens while the dual route is the cheaper one. After that it holds the lower triangle of a ``[c, c]``
    float32 Gram matrix and at most ``CHUNK`` tokens that are not in it yet. Both are on the device of the tokens. With
    ``offload`` it holds all tokens on the host until it is asked, for devices with little memory.
    """

    def __init__(
        self, columns: int, *, offload: bool = False, keep: float | None = None, set_tokens: float = math.inf
    ) -> None:
        """Begin without tokens.

        Args:
            keep: for a leaf, the most tokens that it gives as they are: :func:`kept_by_leaf`.
            set_tokens: for a sum of leaves, the tokens of the whole set.
        """
        self.columns = columns
        self.offload = offload
        self.set_tokens = set_tokens
        self._keep = keep
        self._device = torch.device("cpu")  # of the tokens
        self.tokens = 0
        self._rows: list[Tensor] = []  # [n, c] each: the tokens that are not in the Gram matrix
        self._ends: list[int] = []  # with offload: how many of them came with each leaf and those before it
        self._gram: Tensor | None = None  # Σ x xᵀ / 4^k, [c, c] float32
        self._exponent = 0  # k
        self._gram_peak = 0.0  # of the tokens in it
        self._buffer: Tensor | None = None  # memory that chunks are converted in, one after the other
        self._spare: Tensor | None = None  # memory for the Gram matrix

    def add(self, x: Tensor) -> None:
        """Take in tokens ``x`` of shape ``[n, c]``, any floating dtype. ``x`` is kept: do not write to it afterwards.

        Raises:
            ValueError: ``x`` is not ``[n, c]``.
        """
        if x.ndim != 2 or x.shape[1] != self.columns:
            raise ValueError(f"expected tokens of shape [n, {self.columns}], found {list(x.shape)}")
        self.tokens += x.shape[0]
        self._device = x.device
        self._rows.append(x.cpu() if self.offload else x)
        self._fold_if_many()

    def absorb(self, other: "Curvature") -> None:
        """Take in everything that ``other`` has gathered; ``other`` is left unchanged.

        Raises:
            ValueError: ``other`` has another number of columns.
        """
        if other.columns != self.columns:
            raise ValueError(f"expected a curvature of {self.columns} columns, found one of {other.columns}")
        self.tokens += other.tokens
        self._device = other._device
        self._rows.extend(other._rows)
        if other._gram is not None:
            gram = self._gram_for(other._gram_peak, other._gram.device)
            gram += other._gram * 4.0 ** (other._exponent - self._exponent)
        self._fold_if_many()

    def take(self, leaf: "Curvature") -> None:
        """Take over everything that ``leaf`` has gathered, which begins anew and may use the same memory.

        A leaf of many tokens gives their Gram matrix, so that its sum does not depend on what was gathered before. Of a
        sum of leaves, which comes before all others, the tokens that are not in the Gram matrix wait here too.
        """
        self.tokens += leaf.tokens
        self._device = leaf._device
        if leaf._gram is not None:
            if leaf._keep is not None:
                leaf._fold()
            self._take_gram(leaf)
            self._rows += leaf._rows
        elif leaf._gives_gram:
            self._add_apart(leaf._rows)
        else:
            self._rows += leaf._rows
        if self.offload:
            self._ends.append(len(self._rows))
        leaf.tokens, leaf._rows, leaf._exponent, leaf._gram_peak = 0, [], 0, 0.0
        self._fold_if_many()

    def take_packed(self, leaf: Packed) -> None:
        """As :meth:`take` of the leaf, or the sum, that was packed: the same bits, in less memory."""
        if leaf.triangle is None or self._gram is None or self.offload:
            self.take(Curvature.unpacked(leaf))
            return
        self.tokens += leaf.tokens
        gram = self._gram_for(leaf.peak, leaf.triangle.device)
        add_folded(gram, leaf.triangle, 4.0 ** (leaf.exponent - self._exponent))
        self._rows += leaf.rows
        self._fold_if_many()

    def packed(self) -> Packed:
        """What was gathered, to be sent; this curvature begins anew. Tokens that waited on the host return there."""
        if self.offload:
            loaded, self._rows, self.tokens = self._loaded(), [], 0
            return loaded.packed().to(torch.device("cpu"))
        if self._keep is not None and self._gram is not None:  # a leaf
            self._fold()
        elif self._gives_gram:
            self._add_apart(self._rows)
            self._rows = []
        triangle, lengths = None, tuple(map(len, self._rows))
        if self._gram is not None:
            triangle, self._spare = folded(self._gram), self._gram
        packed = Packed(
            self.tokens, self.columns, lengths, self._exponent, self._gram_peak, triangle, tuple(self._rows)
        )
        self.tokens, self._rows, self._gram, self._exponent, self._gram_peak = 0, [], None, 0, 0.0
        return packed

    @classmethod
    def unpacked(cls, packed: Packed) -> "Curvature":
        """The leaf, or the sum, that :meth:`packed` packed."""
        made = cls(packed.columns)
        made.tokens, made._exponent, made._gram_peak = packed.tokens, packed.exponent, packed.peak
        made._rows = list(packed.rows)
        if packed.triangle is not None:
            made._gram = unfolded(packed.triangle, packed.columns)
        made._device = (made._rows[0] if made._gram is None else made._gram).device
        return made

    @property
    def peak(self) -> float:
        """The largest magnitude of any activation: 0 if nothing activates the layer, not finite if one is not."""
        return largest([self._gram_peak, peak_of(*self._rows)])

    def inverse_diagonal(self, damping: float) -> Tensor:
        """``[H⁻¹]_jj`` of every column: ``[c]``, float64, on the device of the tokens.

        Raises:
            SingularCurvature: ``H`` does not factor in float64 either.
        """
        peak = self._checked_peak()
        if self.offload:
            return self._loaded().inverse_diagonal(damping)
        if self._gram is None:
            exponent = exponent_of(peak)
            x = scaled(torch.cat(self._rows).float(), exponent)
            return inverse_diagonal_dual(x, damping) / 4.0**exponent
        self._fold()
        self._buffer = None
        return inverse_diagonal_primal(self._gram, self.tokens, damping) / 4.0**self._exponent

    def inverse(self, damping: float) -> InverseHessian:
        """All of ``H⁻¹``, on the device of the tokens; its diagonal is that of :meth:`inverse_diagonal`.

        The dual form is float64, because its difference ``a − …`` cancels where the damping is small.

        Raises:
            SingularCurvature: ``H`` does not factor in float64 either.
        """
        peak = self._checked_peak()
        if self.offload:
            return self._loaded().inverse(damping)
        if self._gram is None:
            exponent = exponent_of(peak)
            tokens = torch.cat(self._rows)
            diagonal = inverse_diagonal_dual(scaled(tokens.float(), exponent), damping) / 4.0**exponent
            x = scaled(tokens.double(), exponent)
            factored = dual_factor(x, damping)
            if factored is None:
                raise SingularCurvature("the Gram matrix of the tokens is not positive definite")
            return InverseHessian(diagonal, factored[0], self.tokens / 2 / 4.0**exponent, x, factored[1])
        self._fold()
        self._buffer = None
        factor, diagonal = factor_primal(self._gram, self.tokens, damping)
        scale = 4.0**self._exponent
        return InverseHessian(diagonal / scale, factor, self.tokens / 2 / scale, None, 0.0)

    def hessian(self, damping: float) -> Hessian:
        """``H`` as it was gathered, on the device of the tokens: the tokens if they take fewer bytes, else ``G``.

        Raises:
            SingularCurvature: no token activates any column, or an activation is not finite.
        """
        peak = self._checked_peak()
        if self.offload:
            return self._loaded().hessian(damping)
        if self._gram is None and self._small():
            exponent = exponent_of(peak)
            self._rows = [torch.cat(self._rows)]  # which the Hessian shares
            tokens = scaled(self._rows[0], exponent)
            energy = sum(float(column_energy(piece.float()).sum()) for piece in tokens.split(CHUNK))
            return Hessian(tokens, None, 2 / self.tokens * 4.0**exponent, damping * energy / self.columns)
        folded = self
        if self._gram is None:  # this curvature keeps its tokens for the dual route
            folded = Curvature(self.columns)
            folded.absorb(self)
        folded._fold()
        folded._buffer = None
        gram = folded._gram
        assert gram is not None
        damp = damping * float(gram.diagonal().double().sum()) / self.columns
        return Hessian(None, gram, 2 / self.tokens * 4.0**folded._exponent, damp)

    def _small(self) -> bool:
        """Whether the tokens take fewer bytes than the triangle of their Gram matrix."""
        return sum(rows.nbytes for rows in self._rows) <= triangle_bytes(self.columns)

    def _checked_peak(self) -> float:
        """The peak; raises SingularCurvature if it is zero or not finite."""
        peak = self.peak
        if not 0.0 < peak < math.inf:
            raise SingularCurvature("no token activates any column" if peak == 0.0 else "an activation is not finite")
        return peak

    def _loaded(self) -> "Curvature":
        """The same curvature with its tokens on their device."""
        gathered, leaf = Curvature(self.columns, keep=self._keep), None
        for place, rows in enumerate(self._rows):
            if self._ends and place < self._ends[-1]:
                leaf = leaf or leaf_of(self.columns, rows, set_tokens=self.set_tokens)
                leaf.add(rows.to(self._device))
            else:
                gathered.add(rows.to(self._device))
            if leaf is not None and place + 1 in self._ends:
                gathered.take(leaf)
        return gathered

    @property
    def _gives_gram(self) -> bool:
        """Whether a leaf gives a Gram matrix, if it has not begun one: of less than two chunks."""
        return self._keep is not None and not self.offload and self._waiting > self._keep

    @property
    def _waiting(self) -> int:
        """Tokens that are not in the Gram matrix."""
        return sum(map(len, self._rows))

    def _take_gram(self, leaf: "Curvature") -> None:
        """Add the Gram matrix of ``leaf``, or make it this one's."""
        assert leaf._gram is not None
        if self._gram is None:
            self._gram, self._exponent, self._gram_peak = leaf._gram, leaf._exponent, leaf._gram_peak
        else:
            gram = self._gram_for(leaf._gram_peak, leaf._gram.device)
            add_triangle(gram, leaf._gram, 4.0 ** (leaf._exponent - self._exponent))
            leaf._spare = leaf._gram
        leaf._gram = None

    def _add_apart(self, rows: list[Tensor]) -> None:
        """Add the Gram matrix of one chunk: the same bits as :meth:`_take_gram` of a leaf that has multiplied it."""
        x = self._together(rows)
        peak = peak_of(x)
        exponent = exponent_of(peak)
        gram = self._gram_for(peak, x.device)
        add_gram_apart(gram, _divided(x, exponent), 4.0 ** (exponent - self._exponent))

    def _fold_if_many(self) -> None:
        if self._gram is not None:
            many = self._waiting >= CHUNK
        else:
            many = self._waiting > (DUAL_SHARE * self.columns if self._keep is None else max(self._keep, CHUNK))
        if many and not self.offload:
            self._fold()

    def _fold(self) -> None:
        """Add the kept tokens to ``Σ x xᵀ``, a chunk at a time."""
        rows, self._rows = self._rows, []
        for chunk in chunks(rows, CHUNK):
            x = self._together(chunk)
            gram = self._gram_for(peak_of(x), x.device)
            add_gram(gram, _divided(x, self._exponent))

    def _together(self, chunk: list[Tensor]) -> Tensor:
        """A chunk as one tensor, valid until the next: in its dtype if that multiplies exactly, else in float32."""
        if all(piece.is_cuda and piece.dtype == chunk[0].dtype != torch.float64 for piece in chunk):
            return torch.cat(chunk)
        count = sum(len(piece) for piece in chunk)
        if self._buffer is None or len(self._buffer) < count:
            self._buffer = torch.empty(count, self.columns, device=chunk[0].device)
        return torch.cat(chunk, out=self._buffer[:count])

    def _gram_for(self, peak: float, device: torch.device) -> Tensor:
        """The Gram matrix, scaled so that tokens of ``peak`` can go into it."""
        self._gram_peak = largest([self._gram_peak, peak])
        exponent = exponent_of(self._gram_peak)
        if self._gram is None:
            spare, self._spare = self._spare, None
            self._gram = torch.zeros(self.columns, self.columns, device=device) if spare is None else spare.zero_()
        elif exponent != self._exponent:
            self._gram *= 4.0 ** (self._exponent - exponent)
        self._exponent = exponent
        return self._gram


def _divided(x: Tensor, exponent: int) -> Tensor:
    """``x / 2^k``, which may overwrite ``x``."""
    return x.float().mul_(2.0**-exponent) if exponent else x


def kept_by_leaf(columns: int, itemsize: int, set_tokens: float) -> float:
    """The most tokens that a leaf gives as they are; of more it gives the Gram matrix.

    These the ranks multiply at the same time, but tokens only one after the other, when the sum of those before has
    come. So a leaf of a set that takes the primal route multiplies as soon as that pays; and any leaf does where its
    Gram matrix takes fewer bytes and the primal route is the cheaper one for it alone. Nothing else decides.

    Args:
        set_tokens: the tokens of the whole set.
    """
    smaller = triangle_bytes(columns) // (columns * itemsize)
    kept = max(DUAL_SHARE * columns, smaller)
    return min(kept, max(LEAF_SHARE * columns, LEAF)) if set_tokens > DUAL_SHARE * columns else kept


def leaf_of(columns: int, x: Tensor, *, offload: bool = False, set_tokens: float = math.inf) -> Curvature:
    """A curvature for the samples of one leaf, which read tokens like ``x``; see :func:`kept_by_leaf`."""
    return Curvature(columns, offload=offload, keep=kept_by_leaf(columns, x.itemsize, set_tokens))
