"""What every operator demands of the shapes that reach it, and what is left to prove of a graph."""

from .demand import Demand, Demands, Relation
from .sweep import demands_of

__all__ = ["Demand", "Demands", "Relation", "demands_of"]
