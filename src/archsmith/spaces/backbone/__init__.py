"""Any torch module as the body of a classifier, as a space: the choices, the network, and the module behind a record."""

from archsmith.spaces.backbone.given import backbone_of, with_module
from archsmith.spaces.backbone.space import Backbone

__all__ = ["Backbone", "backbone_of", "with_module"]
