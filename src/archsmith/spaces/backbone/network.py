"""A classifier over the features of a module, and what is found out about a module before."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from archsmith.core.errors import UsageError
from archsmith.nn.global_average import GlobalAverage
from archsmith.pretrained import Preparation
from archsmith.spaces.subnetwork.network import Whiten

DROPOUT = 0.2


@dataclass(frozen=True, slots=True)
class Output:
    """What a module gives for pictures.

    Args:
        features: how many numbers are classified.
        maps: whether they are channels of maps, which are averaged.
        channels_last: whether the module computes with the channels of pictures innermost in memory, too.
    """

    features: int
    maps: bool
    channels_last: bool


class Classifier(nn.Module):
    """A body that gives features, and a linear layer that classifies them.

    Args:
        body: from whitened pictures to features [n, features] or maps [n, features, height, width]. It is not copied.
        output: what it gives.
        num_classes: of the classifier.
        preparation: by which pictures are whitened.
        frozen: whether the body is not trained. It then stays in evaluation mode.
    """

    def __init__(
        self, body: nn.Module, output: Output, num_classes: int, preparation: Preparation, *, frozen: bool
    ) -> None:
        super().__init__()
        self.whiten = Whiten(preparation, len(preparation.mean))
        self.body = body
        self.average = GlobalAverage() if output.maps else nn.Identity()
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(output.features, num_classes)
        self.lays_out = not output.channels_last
        self.frozen = frozen
        if frozen:
            body.requires_grad_(False)
        elif not any(parameter.requires_grad for parameter in body.parameters()):
            body.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """In training, a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """[n, 3, size, size] from 0 to 1 -> logits [n, num_classes]."""
        pictures = self.whiten(image)
        if self.lays_out:
            pictures = pictures.contiguous()
        logits: Tensor = self.classifier(self.dropout(self.average(self.body(pictures))))
        return logits


def own_copy(module: nn.Module, name: str) -> nn.Module:
    """A copy on the CPU, in fp32 and in evaluation mode. Raises UsageError for a module that cannot be copied."""
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise UsageError(
            f"the module of the backbone {name!r} cannot be copied: {type(error).__name__}: {error}; give it as it is after "
            "loading, before it has seen anything"
        ) from error
    copied.zero_grad(set_to_none=True)
    return copied.cpu().float().eval()


def output_of(module: nn.Module, size: int, name: str) -> Output:
    """What a module gives for one blank picture. It is run as it is; torch's random state stays.

    Raises UsageError if it takes no such picture, or gives neither features [1, features] nor maps [1, channels, height, width].
    """
    blank = torch.zeros(1, 3, size, size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            given = module(blank)
        except Exception as error:
            raise UsageError(
                f"the module of the backbone {name!r} takes no pictures [n, 3, {size}, {size}]: {type(error).__name__}: {error}; "
                "give the size that it was made for, or wrap it in a module whose forward takes such pictures"
            ) from error
        _check_output(given, name)
        channels_last = _computes_in(torch.channels_last, module, blank)
    return Output(int(given.shape[1]), given.dim() == 4, channels_last)


def _check_output(given: Any, name: str) -> None:
    """Raise UsageError unless a module's output for one picture has features."""
    rule = (
        "a backbone gives features [n, features] or maps [n, channels, height, width]; wrap it in a module whose forward gives "
        "such a tensor"
    )
    if not isinstance(given, Tensor):
        raise UsageError(
            f"the module of the backbone {name!r} gives a {type(given).__name__}, and {rule}, for example "
            "self.model(pictures).pooler_output"
        )
    if given.dim() == 3:
        raise UsageError(
            f"the module of the backbone {name!r} gives tokens {list(given.shape)}, and {rule}, for example the first token, "
            "self.model(pictures)[:, 0], or the mean of all, self.model(pictures).mean(1)"
        )
    if given.dim() not in (2, 4) or given.shape[0] != 1 or not given.numel() or not given.is_floating_point():
        kind = f"a tensor {list(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
        raise UsageError(f"the module of the backbone {name!r} gives {kind} for one picture, and {rule}")


def _computes_in(layout: torch.memory_format, module: nn.Module, picture: Tensor) -> bool:
    """Whether a module computes with weights and pictures in this layout. One that views maps as rows, for example, does not."""
    laid = copy.deepcopy(module).to(memory_format=layout)  # type: ignore[call-overload]
    try:
        laid(picture.contiguous(memory_format=layout))
    except RuntimeError:
        return False
    return True
