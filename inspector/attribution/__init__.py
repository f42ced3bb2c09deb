"""Attribution: the METHODS table, and the two verbs that use it."""

from inspector.attribution.answer import attribute
from inspector.attribution.layers import attribute_layers
from inspector.attribution.methods import Method
from inspector.attribution.table import METHODS
from inspector.attribution.targets import Neuron

__all__ = ["METHODS", "Method", "Neuron", "attribute", "attribute_layers"]
