"""The onnx-passes command: ``onnx-passes`` and ``python -m onnx_llm_passes``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Runs the command on the process's arguments and ends the process with its exit code."""
    # Imports and graphs make a million objects that live until the end; looking for garbage among them, again and
    # again, costs a tenth of a run. The process is short, and reference counts free all that is no cycle.
    gc.disable()
    from .cli.late import install

    install()
    from .cli.app import run
    from .cli.ending import leave, prepare

    prepare()
    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
