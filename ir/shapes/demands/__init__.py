"""Every operator demands something of the shapes that reach it; what is left to prove of a graph is listed."""

from .demand import Demand, Demands, Relation
from .sweep import demands_of

__all__ = ["Demand", "Demands", "Relation", "demands_of"]
