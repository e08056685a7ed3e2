"""Pass the inputs of a unit's linears to :mod:`hpa_merge.core.hessian` while the samples run through the unit.

Linears that read the same tensor (q/k/v, gate/up) share one curvature. That is observed for each sample, not assumed:
if two linears share an input in one sample and not in the next, each still gets exactly the tokens that it read.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Size, Tensor, nn

from hpa_merge.core import Curvature
from hpa_merge.model.experts import ExpertStack, watched
from hpa_merge.model.routing import Router, observed


@final
@dataclass
class _Seen:
    """A tensor that linears read in the current sample."""

    original: Tensor  # held, so that no other tensor takes its address within the sample
    tokens: Tensor  # [n, c], a copy: models write in place
    readers: list[str] = field(default_factory=list)


@final
class ActivationHooks:
    """Hooks on the linears and the experts of a model; only those that are watched do anything.

    Attributes:
        offload: whether new tokens wait on the host.
    """

    def __init__(
        self,
        model: nn.Module,
        linears: Iterable[str],
        stacks: Iterable[ExpertStack] = (),
        routers: Iterable[Router] = (),
    ) -> None:
        """``linears``: paths of the modules that can be watched; ``stacks``: those of experts."""
        self.offload = False
        self._hooks = [
            model.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: self._observe(path, args[0]))
            for path in linears
        ]
        of_module: dict[str, dict[str, ExpertStack]] = defaultdict(dict)
        for stack in stacks:
            of_module[stack.module][stack.name.rpartition(".")[2]] = stack
        self._experts = [model.get_submodule(path) for path in of_module]
        for module, theirs in zip(self._experts, of_module.values(), strict=True):
            module.forward = self._watching(module, theirs)
        for router in (router for router in routers if router.single):
            module = model.get_submodule(router.module)
            module.forward = self._watching_router(module.forward, router, model.get_parameter(router.weight).shape)
            self._experts.append(module)
        self._watched: frozenset[str] = frozenset()
        self._seen: dict[Hashable, _Seen] = {}
        self._gathered: dict[tuple[str, ...], Curvature] = {}

    def watch(self, names: Iterable[str]) -> None:
        """Watch these linears and no others from now on; drop what was gathered."""
        self._watched = frozenset(names)
        self._seen.clear()
        self._gathered.clear()

    def close(self) -> None:
        """Take the hooks off the model."""
        self.watch(())
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for module in self._experts:
            del module.forward  # the instance's: the class has its own
        self._experts.clear()

    def drop_sample(self) -> None:
        """Drop what the linears read in the sample that has just run through the unit."""
        self._seen.clear()

    def end_sample(self) -> None:
        """Gather what the linears read in the sample that has just run through the unit."""
        for seen in self._seen.values():
            readers = tuple(seen.readers)
            if readers not in self._gathered:
                self._gathered[readers] = Curvature(seen.tokens.shape[1], offload=self.offload)
            self._gathered[readers].add(seen.tokens)
        self._seen.clear()

    def curvatures(self) -> dict[str, Curvature]:
        """The curvature of each watched linear that read anything; linears that always read the same share one."""
        joined: dict[tuple[tuple[str, ...], ...], Curvature] = {}
        result = {}
        for name in sorted(self._watched):
            groups = tuple(readers for readers in self._gathered if name in readers)
            if not groups:
                continue
            if groups not in joined:
                joined[groups] = self._join(groups)
            result[name] = joined[groups]
        return result

    def _join(self, groups: tuple[tuple[str, ...], ...]) -> Curvature:
        first = self._gathered[groups[0]]
        if len(groups) == 1:
            return first
        curvature = Curvature(first.columns, offload=self.offload)
        for readers in groups:
            curvature.absorb(self._gathered[readers])
        return curvature

    def _watching(self, module: nn.Module, stacks: Mapping[str, ExpertStack]) -> Callable[..., Any]:
        """A forward for an experts' module that also observes what each watched expert reads."""
        forward = module.forward

        def watching(*args: Any, **kwargs: Any) -> Any:
            if self._watched.isdisjoint(
                stack.observer(e) for leaf, stack in stacks.items() for e in range(len(module.get_parameter(leaf)))
            ):
                return forward(*args, **kwargs)
            with watched(module, stacks, self._observe):
                return forward(*args, **kwargs)

        return watching

    def _watching_router(self, forward: Callable[..., Any], router: Router, shape: Size) -> Callable[..., Any]:
        """A router's forward that also observes what its matrix reads."""

        def watching(*args: Any, **kwargs: Any) -> Any:
            if router.weight not in self._watched:
                return forward(*args, **kwargs)
            with observed(shape, lambda x: self._observe(router.weight, x)):
                return forward(*args, **kwargs)

        return watching

    def _observe(self, name: str, x: Tensor) -> None:
        if name not in self._watched or x.numel() == 0:
            return
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype, x._version)
        if key not in self._seen:
            self._seen[key] = _Seen(original=x, tokens=x.detach().reshape(-1, x.shape[-1]).clone())
        if name not in self._seen[key].readers:
            self._seen[key].readers.append(name)
