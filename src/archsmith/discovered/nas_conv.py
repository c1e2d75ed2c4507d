"""The convolutional networks of Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning"."""

from __future__ import annotations

from archsmith.core.child import Task
from archsmith.core.genotype import Answer, Genotype
from archsmith.core.space import identity
from archsmith.discovered.network import Discovered
from archsmith.spaces.conv_chain import ConvChain

# Figure 7, read from its vector paths: filter height, filter width, filters, the layers read (counted from 1).
_V1 = (
    (3, 3, 36, ()),
    (3, 3, 48, (1,)),
    (3, 3, 36, (1, 2)),
    (5, 5, 36, (1, 2, 3)),
    (3, 7, 48, (3, 4)),
    (7, 7, 48, (2, 3, 4, 5)),
    (7, 7, 48, (2, 3, 4, 5, 6)),
    (7, 3, 36, (1, 6, 7)),
    (7, 1, 36, (1, 5, 6, 8)),
    (7, 7, 36, (1, 3, 4, 5, 6, 7, 8, 9)),
    (5, 7, 36, (1, 2, 5, 6, 7, 8, 9, 10)),
    (7, 7, 48, (1, 2, 3, 4, 6, 11)),
    (7, 5, 48, (1, 3, 6, 7, 8, 9, 10, 11, 12)),
    (7, 5, 48, (3, 7, 12, 13)),
    (7, 5, 48, (2, 7, 11, 12, 13, 14)),
)


def nas_conv_v1() -> Discovered:
    """The 15-layer network without stride or pooling: 4,201,630 parameters, published at 5.50 % error on CIFAR-10."""
    answers: dict[str, Answer] = {}
    for i, (height, width, filters, inputs) in enumerate(_V1):
        answers[f"{i}.filter_height"] = height
        answers[f"{i}.filter_width"] = width
        answers[f"{i}.filters"] = filters
        answers[f"{i}.inputs"] = [j - 1 for j in inputs]
    space = ConvChain.v1()
    return Discovered(
        name="nas_conv_v1",
        summary="NAS v1, 15 layers, no stride or pooling (Zoph and Le 2017, figure 7)",
        space=space,
        genotype=Genotype(identity(space), answers),
        task=Task((3, 32, 32), 10),
    )
