"""Spaces: what can be chosen. One file each: the questions, the builder, the diagram."""

from __future__ import annotations

from archsmith.spaces.activation import Activation
from archsmith.spaces.augmentation import Augmentation
from archsmith.spaces.backbone import Backbone
from archsmith.spaces.conv_chain import ConvChain
from archsmith.spaces.grown_graph import GrownGraph
from archsmith.spaces.mobile_blocks import MobileBlocks
from archsmith.spaces.nasbench201 import NASBench201
from archsmith.spaces.nasnet_cell import NASNetCell
from archsmith.spaces.one_of import OneOf
from archsmith.spaces.product import GrownProduct, Product
from archsmith.spaces.qnet import QNet
from archsmith.spaces.recurrent_cell import RecurrentCell
from archsmith.spaces.residual_network import ResidualNetwork
from archsmith.spaces.subnetwork import Subnetwork
from archsmith.spaces.training_recipe import TrainingRecipe
from archsmith.spaces.update_rule import UpdateRule

__all__ = [
    "Activation",
    "Augmentation",
    "Backbone",
    "ConvChain",
    "GrownGraph",
    "GrownProduct",
    "MobileBlocks",
    "NASBench201",
    "NASNetCell",
    "OneOf",
    "Product",
    "QNet",
    "RecurrentCell",
    "ResidualNetwork",
    "Subnetwork",
    "TrainingRecipe",
    "UpdateRule",
]
