"""Low-rank adapters are put beside the projections of a graph, or into their weights."""

from .fold import fold
from .match import find_module, kind_of, module_of, unknown_targets
from .paths import LORA_IDS, Beside

__all__ = ["LORA_IDS", "Beside", "find_module", "fold", "kind_of", "module_of", "unknown_targets"]
