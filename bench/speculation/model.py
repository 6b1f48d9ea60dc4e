"""The decoder whose runs are timed: random, seeded, larger than the caches, through the real pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.decoder import Decoder
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.suggest.costs import measure

from .decoder import static_decoder

SIZES = Tiny(layers=6, hidden=768, heads=12, kv_heads=4, head=64, ffn=2048, vocab=32_000)  # 62 M matmul weights
QUICK = Tiny(layers=2, hidden=256, heads=8, kv_heads=4, head=32, ffn=512, vocab=4_000)
CTX = 512
PIPELINE = "check-speculation-safe,keep-last-logits{symbol=num_logits_to_keep},clone-decode{k=%s ctx=%d batch=%d}"


def costs(work: Path, batch: int, ks: range, sizes: Tiny) -> dict[int, float]:
    """Seconds of a run for each K with ``batch`` rows, by graphs that the pipeline made."""
    source = work / f"decoder-{sizes.hidden}"
    if not (source / "program.json").is_file():
        Program(graphs={"model": static_decoder(sizes, CTX)}).save(source, fill_shapes=False)
    program = Program.load(source)
    PassManager(parse_pipeline(PIPELINE % (",".join(map(str, ks)), CTX, batch))).run(program)
    out = work / f"clones-{sizes.hidden}-{batch}"
    program.save(out, force=True)
    decoder = Decoder(Program.load(out))
    try:
        return measure(decoder)
    finally:
        decoder.close()
        shutil.rmtree(out)
