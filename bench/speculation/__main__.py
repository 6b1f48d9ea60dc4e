"""``python -m bench.speculation``."""

from .run import main

main()
