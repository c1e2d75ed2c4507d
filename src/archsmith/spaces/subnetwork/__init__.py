"""Subnetworks of mobile networks whose weights are published, as a space: the choices, the network, its weights, the drawing."""

from archsmith.spaces.subnetwork.space import Subnetwork

__all__ = ["Subnetwork"]
