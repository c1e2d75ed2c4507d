"""Residual networks in stages: the choices, the module, the drawing."""

from archsmith.spaces.residual_network.space import ResidualNetwork

__all__ = ["ResidualNetwork"]
