"""Weights for a network from those of a smaller one (Chen, Goodfellow and Shlens 2016, "Net2Net: Accelerating Learning via
Knowledge Transfer").

Each channel of the child is a copy of a channel of the parent, or new. From that follows every weight:

- Wider: copies repeat the channels in turn. A layer that reads n copies of a channel divides its weights by n, and what it
  reads of new channels has weight zero. Layers that are added to each other give the same groups of channels, so they are
  widened alike. The paper draws the copies at random.
- Deeper: a new layer is the identity, or a residual branch that adds nothing, where its network says so.
- Larger kernels: zeros around.
- A new gate of squeeze-and-excitation starts at one half, and the layer beside it is doubled.

A child that only grows in these ways computes what its parent computes. Otherwise it takes over what fits: of fewer channels
those that the parent's layers read with the largest weights; of smaller kernels the middle; a layer none of whose inputs
is the parent's keeps its weights by position.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from archsmith.core.channels import DescribesChannels, Groups, LayerChannels, NetworkChannels, version_of
from archsmith.nn.inheritance import inherit

_STATISTICS = ("running_mean", "running_var")


class Source(NamedTuple):
    """A channel of the parent."""

    group: str
    number: int


Sources: TypeAlias = list[Source | None]
"""Which channel of the parent each channel of the child is a copy of; None for a new one."""


@dataclass
class Grown:
    """What `grow` gives.

    Args:
        state: the child's weights, those that have not changed included.
        inherited: the modules whose weights come from the parent.
        identities: batch norms that pass on what they read, times this factor; `pass_through` sets them.
    """

    state: dict[str, Tensor]
    inherited: set[str] = field(default_factory=set)
    identities: dict[str, float] = field(default_factory=dict)


def inherit_grown(
    model: nn.Module,
    parent: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    noise: float = 0.0,
    images: Callable[[], Tensor] | None = None,
) -> int:
    """Start `model` from the weights of another network; gives how many parameters have values from there.

    Args:
        model: the child, with weights as they were drawn.
        parent: the other network. Its own weights do not matter, so it may be on the device "meta".
        weights: of the other network.
        noise: see `grow`.
        images: some that the network will be trained on. A batch norm that starts as the identity takes its statistics from
            them, so that it is about the identity in training too. None: in evaluation only.

    If one of them does not describe its channels, or they are of different kinds, layers are copied that have the same name
    and shapes.
    """
    if not isinstance(model, DescribesChannels) or not isinstance(parent, DescribesChannels):
        return inherit(model, weights)
    if type(model) is not type(parent):
        return inherit(model, weights)
    own, theirs = model.channel_groups(), parent.channel_groups()
    described = {layer.module for layer in (*own.layers, *theirs.layers)}
    count = inherit(model, {key: t for key, t in weights.items() if key.rpartition(".")[0] not in described})
    grown = grow(model.state_dict(), own, weights, theirs, noise=noise)
    model.load_state_dict(grown.state)
    norms = {model.get_submodule(name): factor for name, factor in grown.identities.items()}
    for norm, factor in norms.items():
        pass_through(norm, factor)
    if norms and images is not None:
        _settle(model, norms, images())
    return count + sum(p.numel() for name in grown.inherited for p in model.get_submodule(name).parameters())


def pass_through(norm: nn.Module, factor: float = 1.0) -> None:
    """Make a batch norm multiply by a factor, in evaluation, with the statistics that it has."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(factor * (norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(factor * norm.running_mean)


def _settle(model: nn.Module, norms: Mapping[nn.Module, float], images: Tensor) -> None:
    """Give batch norms that are the identity the statistics of what they read of some images."""

    def measure(norm: nn.Module, args: tuple[Tensor]) -> None:
        values = args[0].transpose(0, 1).flatten(1)
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean, norm.running_var = values.mean(1), values.var(1)
        pass_through(norm, norms[norm])

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def grow(
    state: Mapping[str, Tensor],
    own: NetworkChannels,
    weights: Mapping[str, Tensor],
    theirs: NetworkChannels,
    *,
    noise: float = 0.0,
) -> Grown:
    """The weights of a child from those of its parent.

    Args:
        state: the child's weights as they were drawn. They are not changed.
        own: the child's channels.
        weights: the parent's.
        theirs: the parent's channels.
        noise: what is added to the weights of a repeated channel to tell the copies apart, as a part of the standard
            deviation of its layer's weights. 0: copies stay equal as long as they are trained alike.
    """
    grown = Grown(dict(state))
    known = {layer.name: layer for layer in theirs.layers if f"{layer.module}.weight" in weights}
    channels = _Channels(own, theirs, weights)
    started: dict[str, str] = {}  # modules that do not start as they were drawn: how they start
    for layer in own.layers:
        if f"{layer.module}.weight" not in grown.state:
            continue
        source = known.get(layer.name)
        parts = None if source is None else _copied(grown.state, layer, weights, source, channels, noise)
        if parts is not None:
            started[layer.module] = "inherited"
            grown.inherited.add(layer.module)
        elif layer.start != "drawn":
            started[layer.module] = layer.start
            parts = _begun(grown, layer, channels)
        grown.state.update(parts or {})
        channels.find(layer.gives)
    for layer in own.layers:  # gates last: the layer beside one may come after it
        if layer.gates and layer.module not in started and layer.gates in started:
            for key in ("weight", "bias"):
                name, doubled = f"{layer.module}.{key}", f"{layer.gates}.{key}"
                grown.state[name] = torch.zeros_like(grown.state[name])
                if doubled in grown.state:
                    grown.state[doubled] = 2 * grown.state[doubled]
            if layer.gates in grown.identities:
                grown.identities[layer.gates] *= 2
    return grown


class _Channels:
    """For each group of the child, which channels of the parent its channels are copies of."""

    def __init__(self, own: NetworkChannels, theirs: NetworkChannels, weights: Mapping[str, Tensor]) -> None:
        self._own, self._theirs = own, theirs
        self._weights = weights
        self._found: dict[str, Sources] = {}

    def of(self, groups: Groups) -> Sources:
        """Of several groups, concatenated."""
        return [source for group in groups for source in self.find((group,))]

    def find(self, groups: Groups) -> Sources:
        """The same; a group that the parent lacks, and that no identity has filled, is new."""
        for group in groups:
            if group not in self._found and group in self._own.versions:
                base, made_by = self._own.versions[group]
                made = [s and Source(version_of(s.group, made_by), s.number) for s in self.find((base,))]
                self._found[group] = [s if s and s.group in self._theirs.sizes else None for s in made]
            elif group not in self._found:
                size, there = self._own.sizes[group], self._parents(group)
                if not there:
                    self._found[group] = [None] * size
                elif size >= len(there):
                    self._found[group] = [there[k % len(there)] for k in range(size)]
                else:
                    read = self._read(there)
                    largest = sorted(range(len(there)), key=lambda k: -read[there[k]])[:size]
                    self._found[group] = [there[k] for k in sorted(largest)]
        return [source for group in groups for source in self._found[group]]

    def pass_on(self, groups: Groups, sources: Sources) -> None:
        """Say what an identity gives."""
        for group in groups:
            size = self._own.sizes[group]
            self._found[group], sources = sources[:size], sources[size:]

    def knows(self, groups: Groups) -> bool:
        """Whether all of them are found, or are the parent's."""
        return all(group in self._found or self._parents(group) for group in groups)

    def parents(self, groups: Groups) -> list[Source]:
        """The channels of groups of the parent."""
        return [Source(group, k) for group in groups for k in range(self._theirs.sizes[group])]

    def _parents(self, group: str) -> list[Source]:
        """The parent's channels of that name."""
        groups = (group,) if group in self._theirs.sizes else self._theirs.states.get(group, ())
        return self.parents(groups)

    def _read(self, sources: Iterable[Source]) -> Counter[Source]:
        """How much the parent's layers read of some channels: the sums of absolute weights."""
        wanted, total = set(sources), Counter[Source]()
        for layer in self._theirs.layers:
            weight = self._weights.get(f"{layer.module}.weight")
            if weight is None or layer.channelwise:
                continue
            amounts = weight.float().abs().transpose(0, 1).flatten(1).sum(1).tolist()
            for source, amount in zip(self.parents(layer.reads), amounts, strict=False):
                if source in wanted:
                    total[source] += amount
        return total


def _copied(
    state: Mapping[str, Tensor],
    layer: LayerChannels,
    weights: Mapping[str, Tensor],
    source: LayerChannels,
    channels: _Channels,
    noise: float,
) -> dict[str, Tensor] | None:
    """The weights of a layer that the parent has; None where they are of another kind."""
    name, theirs = f"{layer.module}.weight", weights[f"{source.module}.weight"].float()
    drawn = state[name]
    if drawn.dim() != theirs.dim() or layer.channelwise != source.channelwise:
        return None
    gives, given = channels.of(layer.gives), channels.parents(source.gives)
    reads, read = channels.of(layer.reads), channels.parents(source.reads)
    if len(gives) != drawn.shape[0] or len(given) != theirs.shape[0]:
        return None
    at = {channel: k for k, channel in enumerate(given)}
    rows = [at.get(channel, -1) if channel is not None else -1 for channel in gives]
    if all(row < 0 for row in rows):
        return None
    if drawn.dim() == 4:
        theirs = _fitted(theirs, drawn.shape[2:])
    if not layer.channelwise:
        if len(reads) != drawn.shape[1] or len(read) != theirs.shape[1]:
            return None
        theirs = _columns(theirs, reads, read)
    copies = _copies(rows)
    spread = noise * float(theirs.std()) if noise and theirs.dim() > 1 and theirs.numel() > 1 else 0.0
    parts: dict[str, Tensor] = {}
    for key in ("weight", "bias", *_STATISTICS):
        own, there = f"{layer.module}.{key}", weights.get(f"{source.module}.{key}")
        if own not in state or there is None:
            continue
        values = theirs if key == "weight" else there.float()
        taken = values[torch.tensor([max(row, 0) for row in rows])]
        if key == "weight" and spread and copies:
            taken[copies] += spread * torch.randn_like(taken[copies])
        new = torch.tensor([row < 0 for row in rows])
        taken[new] = state[own].float()[new]
        parts[own] = taken.to(state[own].dtype)
    counted = f"{layer.module}.num_batches_tracked"
    if counted in state and f"{source.module}.num_batches_tracked" in weights:
        parts[counted] = weights[f"{source.module}.num_batches_tracked"].clone()
    return parts


def _columns(weight: Tensor, reads: Sources, read: Sequence[Source]) -> Tensor:
    """A weight [out, in, ...] for the channels that the child reads."""
    where: defaultdict[Source, list[int]] = defaultdict(list)
    for k, channel in enumerate(read):
        where[channel].append(k)
    copies = Counter(reads)
    if not any(channel in where for channel in copies):  # other inputs altogether
        return weight[:, torch.arange(len(reads)) % weight.shape[1]] / math.ceil(len(reads) / weight.shape[1])
    columns = weight.new_zeros(weight.shape[0], len(reads), *weight.shape[2:])
    for k, copied in enumerate(reads):
        if copied is not None and (there := where.get(copied)):
            columns[:, k] = weight[:, there].sum(1) / copies[copied]
    return columns


def _copies(rows: Sequence[int]) -> list[int]:
    """The positions of all but the first of equal rows."""
    seen = set[int]()
    return [k for k, row in enumerate(rows) if row >= 0 and (row in seen or seen.add(row))]  # type: ignore[func-returns-value]


def _fitted(weight: Tensor, kernel: Sequence[int]) -> Tensor:
    """A kernel of another size with the same centre: zeros around it, or the outer weights cut off."""
    for axis, size in ((2, kernel[0]), (3, kernel[1])):
        before = (size - 1) // 2 - (weight.shape[axis] - 1) // 2
        after = size - weight.shape[axis] - before
        pads = [0, 0, before, after] if axis == 2 else [before, after, 0, 0]
        weight = nn.functional.pad(weight, pads)
    return weight


def _begun(grown: Grown, layer: LayerChannels, channels: _Channels) -> dict[str, Tensor]:
    """The weights of a new layer that starts as the identity or at zero."""
    name = f"{layer.module}.weight"
    weight = grown.state[name]
    if layer.start == "zero":
        return {key: torch.zeros_like(grown.state[key]) for key in (name, f"{layer.module}.bias") if key in grown.state}
    if weight.dim() == 1:
        grown.identities[layer.module] = 1.0
        return {}
    reads = channels.of(layer.reads)
    if weight.dim() != 4 or len(reads) != weight.shape[1] or all(source is None for source in reads):
        return {}
    return {name: _identity(weight, layer, reads, channels)}


def _identity(weight: Tensor, layer: LayerChannels, reads: Sources, channels: _Channels) -> Tensor:
    """A convolution that passes channels on: to those that are their copies already, or the latest ones first."""
    middle = [(size - 1) // 2 for size in weight.shape[2:]]
    identity = torch.zeros_like(weight)
    first = {source: k for k, source in reversed(list(enumerate(reads))) if source is not None}  # the latest come first
    if channels.knows(layer.gives):
        passed = [None if of is None else first.get(of) for of in channels.of(layer.gives)]
    else:
        order = sorted(list(first.values())[: weight.shape[0]])
        passed = [order[k % len(order)] for k in range(weight.shape[0])]
        channels.pass_on(layer.gives, [reads[k] for k in passed if k is not None])
    for row, column in enumerate(passed):
        if column is not None:
            identity[row, column, middle[0], middle[1]] = 1
    return identity
