"""The channels of a network layer by layer, for networks that implement `archsmith.core.channels.DescribesChannels`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from archsmith.core.channels import Groups, LayerChannels, NetworkChannels, Start, version_of
from archsmith.nn.squeeze_excite import SqueezeExcite


class ChannelTrace:
    """Collects the layers of a network in the order in which they compute."""

    def __init__(self) -> None:
        self._layers: list[LayerChannels] = []
        self._sizes: dict[str, int] = {}
        self._states: dict[str, Groups] = {}
        self._versions: dict[str, tuple[str, str]] = {}

    def group(self, name: str, size: int) -> Groups:
        """A new group of channels."""
        self._sizes[name] = size
        return (name,)

    def size(self, groups: Groups) -> int:
        """The number of channels of some groups together."""
        return sum(self._sizes[group] for group in groups)

    def state(self, name: str, groups: Groups) -> Groups:
        """Give channels another name."""
        self._states[name] = groups
        return groups

    def version(self, made_by: str, groups: Groups) -> Groups:
        """The groups that something makes of others channel by channel, such as pooling."""
        for group in groups:
            self._versions[version_of(group, made_by)] = group, made_by
            self.group(version_of(group, made_by), self._sizes[group])
        return tuple(version_of(group, made_by) for group in groups)

    def path(
        self,
        modules: nn.Module | Iterable[tuple[str, nn.Module]],
        name: str,
        reads: Groups,
        gives: Groups | None = None,
        *,
        module: str = "",
        start: Start = "drawn",
    ) -> Groups:
        """Convolutions, batch norms and squeeze-and-excitation in a row.

        Args:
            modules: a module, or pairs of name and module; what has no weights is left out.
            name: the layers are called `name` and a number counted from the end.
            reads: what the first layer reads.
            gives: what the last convolution gives. None: a group called `name`.
            module: the name of the module, if `modules` is one.
            start: of a residual branch ("zero") the last layer starts at zero; of a path of one convolution ("identity")
                all layers.

        Returns the channels that come out, which are those that go in where nothing mixes channels.
        """
        parts = modules.named_modules(prefix=module) if isinstance(modules, nn.Module) else modules
        layers = [(key, part) for key, part in parts if isinstance(part, nn.Conv2d | nn.BatchNorm2d | SqueezeExcite)]
        mixing = [part for _, part in layers if isinstance(part, nn.Conv2d) and part.groups == 1]
        left = {kind: sum(isinstance(part, kind) for _, part in layers) for kind in (nn.Conv2d, nn.BatchNorm2d)}
        weighted = [key for key, part in layers if not isinstance(part, SqueezeExcite)]
        current = reads
        for at, (key, part) in enumerate(layers):
            if isinstance(part, SqueezeExcite):
                follows = at + 1 < len(layers)
                self._squeeze(key, part, f"{name} gate", current, layers[at + 1 if follows else at - 1][0])
                continue
            begin: Start = start if start == "identity" or (start == "zero" and key == weighted[-1]) else "drawn"
            if isinstance(part, nn.BatchNorm2d):
                self.norm(key, f"{name} norm {left[nn.BatchNorm2d]}", current, begin)
                left[nn.BatchNorm2d] -= 1
                continue
            own = f"{name} conv {left[nn.Conv2d]}"
            left[nn.Conv2d] -= 1
            after = current
            if part.groups == 1:
                last = part is mixing[-1]
                after = gives if last and gives is not None else self.group(name if last else own, part.out_channels)
            self._layers.append(LayerChannels(key, own, current, after, part.groups > 1, begin))
            current = after
        return current

    def norm(self, module: str, name: str, groups: Groups, start: Start = "drawn") -> Groups:
        """A batch norm."""
        self._layers.append(LayerChannels(module, name, groups, groups, True, start))
        return groups

    def linear(self, module: str, name: str, reads: Groups, layer: nn.Linear) -> Groups:
        """A linear layer."""
        gives = self.group(name, layer.out_features)
        self._layers.append(LayerChannels(module, name, reads, gives))
        return gives

    def _squeeze(self, module: str, gate: SqueezeExcite, name: str, groups: Groups, doubled: str) -> None:
        inner = self.linear(f"{module}.reduce", f"{name} inner", groups, gate.reduce)
        self._layers.append(LayerChannels(f"{module}.expand", name, inner, groups, gates=doubled))

    def channels(self) -> NetworkChannels:
        """All that was collected."""
        return NetworkChannels(tuple(self._layers), self._sizes, self._states, self._versions)
