"""Attribution: the METHODS table, and the verbs that use it."""

from inspector.attribution.answer import attribute, attribute_targets
from inspector.attribution.layers import attribute_layers
from inspector.attribution.methods import Method
from inspector.attribution.table import METHODS
from inspector.attribution.targets import Neuron

__all__ = ["METHODS", "Method", "Neuron", "attribute", "attribute_layers", "attribute_targets"]
