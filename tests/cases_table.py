"""What every known small input of ONNX_PASSES_CASES must come to: commands, exit codes and words, case by case.

A row is a command, the code it ends with and words that it must print. In it, ``;`` is a blank of a pipeline, ``CASE``
the case's folder, ``@NAME`` a model of ONNX_PASSES_MODELS; commands of one case run in one folder, one after another.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One command of a case, how it ends, and what it says."""

    command: str
    code: int
    words: str = ""


RUN = "run {} CASE/model.onnx -o {}"
STRIP = RUN.format("single-shot", "shot")
CLONE = RUN.format("speculative{k=0,2;prefill=8;ctx=32}", "spec")
SHOT_EQUAL = (Row(STRIP, 0, "next: onnx-passes verify"), Row("verify CASE/model.onnx shot", 0, "equal bit for bit"))
SPEC_EQUAL = (Row(CLONE, 0, "3 specializations are sound"), Row("verify CASE/model.onnx spec", 0, "\nequal"))
TEXTS = "calibrate @optimum-llama --tokens texts.jsonl"
DEMO = "onnx-passes-demo/append/original/model.onnx"
A8 = "quantize{file=e.json;activations=a8;weights=w8;kv=8}"


def _refused(single: str, speculative: str, code: int = 1) -> tuple[Row, ...]:
    return (Row(STRIP, code, single), Row(CLONE, code, speculative))


def _both(single: tuple[Row, ...] | str, speculative: tuple[Row, ...] | str) -> tuple[Row, ...]:
    first = (Row(STRIP, 1, single),) if isinstance(single, str) else single
    return (*first, *((Row(CLONE, 1, speculative),) if isinstance(speculative, str) else speculative))


CASES: dict[str, tuple[Row, ...]] = {
    "far-dynamic-quantization-called-sound": _both(SHOT_EQUAL, "takes one scale from all tokens of a run"),
    "far-generate-a16-runs-as-8bit": (
        *SHOT_EQUAL,
        Row(
            RUN.format(
                "quantize{file=CASE/enc.json;activations=a16;weights=w8;kv=16},clone-decode{k=0;prefill=16;ctx=64}", "q"
            ),
            0,
        ),
        Row("generate q --prompt-ids CASE/prompts.json --max-new 4 --json", 0, '"optimization": "none"'),
    ),
    "far-infinite-scale-is-loaded": (
        Row(RUN.format("load-encodings{file=CASE/quantized.onnx}", "q"), 2, "tensor 'bias' has no valid encoding"),
    ),
    "far-sliding-cache-sliced-twice": (
        *_both(SHOT_EQUAL, "is a ring of 7 rows for a window of 8: rejected"),
        Row(RUN.format("strip-states{kinds=key,value}", "kv"), 0, "states 4, inputs 4, outputs 4"),
    ),
    "far-weight-pairs-of-onnxruntime": (
        Row(RUN.format("load-encodings{file=CASE/quantized-symmetric.onnx}", "s"), 0, "1 weights have scales below 0"),
        Row(RUN.format("load-encodings{file=CASE/quantized-asymmetric.onnx}", "a"), 0, "1 weight pairs are matched"),
    ),
    "fuzz-cache-row-outside-attention": _refused("takes rows of 'past_key.0' together outside", "takes rows of"),
    "fuzz-cache-sum-after-rejection": _refused("takes rows of 'past_key.0' together outside", "takes rows of"),
    "fuzz-concat-without-axis": _refused("lacks an attribute", "lacks an attribute", 2),
    "fuzz-context-length-in-math": _refused("length of a cache is used as a number", "makes a number of the length"),
    "fuzz-counter-of-runs": _both(SHOT_EQUAL, "past_count counts runs"),
    "fuzz-fused-prefill-tail": (
        *SHOT_EQUAL,
        *SPEC_EQUAL,
        Row("generate spec --prompt-ids ids.json --max-new 6 --proposer none", 0, "31 46 46 46 46 46"),
        Row(
            "generate CASE/model.onnx --ctx 32 --prompt-ids ids.json --max-new 6 --proposer none",
            0,
            "31 46 46 46 46 46",
        ),
    ),
    "fuzz-half-cache-single-shot-invalid": (*SHOT_EQUAL, *SPEC_EQUAL),
    "fuzz-manifest-blank-name": (
        Row("check CASE/model.onnx CASE/specializations.json", 1, "entry 0: name is no name; found ' '"),
    ),
    "fuzz-mask-looks-ahead": _refused("sees row 1, which is not written yet", "sees row 1, which is not written"),
    "fuzz-mask-range-starts-at-one": _refused("in an order that is not understood", "proof by running"),
    "fuzz-new-rows-before-past": _both(SHOT_EQUAL, "stand before the old ones"),
    "fuzz-no-causal-mask": _both(SHOT_EQUAL, "sees row 3, which is not written yet"),
    "fuzz-positions-not-injective": _refused("positions that are computed", "are written to rows [0, 0, 1, 2]"),
    "fuzz-present-length-in-math": _both(SHOT_EQUAL, "makes a number of the length"),
    "fuzz-present-mean-append": _both(SHOT_EQUAL, "takes rows of 'past_key"),
    "fuzz-read-index-flipped": _refused("are read as [0, 0, 0, 3]", "are read as [0, 0, 0, 3]"),
    "fuzz-scatter-cache-behind-a-beam-gather": (
        Row(STRIP, 0, "inputs gone: past_key.0, past_value.0"),
        Row("verify CASE/model.onnx shot", 0, "equal bit for bit"),
        *SPEC_EQUAL,
    ),
    "fuzz-squeeze-of-a-scalar": _refused("axes lie outside", "axes lie outside", 2),
    "fuzz-transpose-perm-out-of-range": _refused("perm is no order", "perm is no order", 2),
    "genai-single-shot-gqa-absent-past": (
        Row("run lower{target=openvino},single-shot @genai-llama-fp32-cpu -o g", 0, "GroupQueryAttention 2"),
        Row("verify @genai-llama-fp32-cpu g", 0, "\nequal"),
    ),
    "hyphen-in-dimension-names": (
        *SHOT_EQUAL,
        *SPEC_EQUAL,
        Row("inspect CASE/model.onnx --bind past-len=4", 0, "past-len + seq-len"),
    ),
    "ir-inline-qeff-clone-int32max": (
        Row("run speculative{k=0,4;prefill=16;ctx=64;fold=true},ir-inline @qeff-llama -o i", 0, "are sound"),
        Row("verify @qeff-llama i", 0, "\nequal but for"),
    ),
    "numeric-dim-param-stays-symbolic": (
        Row("run speculative{k=0;prefill=16;ctx=64;fold=true} @hf-dynmulti-qwen3/decode.onnx -o n", 0, "are sound"),
        Row("verify @hf-dynmulti-qwen3/decode.onnx n", 0, "\nequal"),
    ),
    "quantize-then-convert-states-refused": (
        Row(f"{TEXTS} -o e.json", 0),
        Row(f"run {A8},convert-states @optimum-llama -o q", 1, "convert-states,quantize{file=FILE"),
        Row(f"run convert-states,{A8} @optimum-llama -o q", 0, "next: onnx-passes compare"),
    ),
    "reports-asr-stacked-cache": _refused("dimension 2 of state 'cache_last_channel'", "how many tokens there are"),
    "reports-beam-reorder": (Row(STRIP, 0, "inputs gone: beam_idx"), SHOT_EQUAL[1], *SPEC_EQUAL),
    "reports-chunk-att-cache": (
        Row(STRIP, 1, "dimension 2 of state 'att_cache' follows from no remaining input"),
        Row(RUN.format("strip-states{kinds=key,value,cross},simplify", "kv"), 1, "the options select no state"),
    ),
    "reports-foreign-encodings": (
        Row(
            RUN.format("quantize{file=CASE/foreign.encodings;activations=a16;weights=w8;kv=8}", "q"),
            1,
            "137 of 146 encodings of foreign.encodings name no tensor of this graph",
        ),
    ),
    "reports-lstm-state-in-branches": (
        Row(STRIP, 0, "inputs gone: state"),
        SHOT_EQUAL[1],
        Row(RUN.format("select-branch{input=sr;value=true}", "b"), 2, "select-input{input=sr value=VALUE}"),
        Row(RUN.format("select-input{input=sr;value=16000},single-shot", "s"), 0, "assumes fixed: sr: 16000"),
    ),
    "reports-optional-inputs-adapters": (
        Row("inspect CASE/model.onnx", 0, "optional input"),
        Row(CLONE, 1, "Give bind=lora_r:SIZE"),
        Row(RUN.format("speculative{k=0,2;prefill=8;ctx=32;bind=lora_r:2}", "two"), 1, "wanted 0, as its default has"),
        Row(RUN.format("speculative{k=0,2;prefill=8;ctx=32;bind=lora_r:0}", "none"), 0, "are sound"),
        Row("verify CASE/model.onnx none", 0, "\nequal but for"),
        *SHOT_EQUAL,
    ),
    "reports-rnn-state-one-tensor": (
        Row("inspect CASE/model.onnx", 0, "out_state"),
        Row(STRIP, 1, "nothing tells what state 'state' holds before the first run"),
    ),
    "reports-seq2seq-no-mask-static": (
        *_both(SHOT_EQUAL, "no room for one row a sequence"),
        Row(
            RUN.format("clone-decode{ctx=32;k=0;bind=encoder_sequence_length:5}", "d"),
            0,
            "a decode is right only where its past is full",
        ),
        Row("verify CASE/model.onnx d", 0, "not exercised: model: the past was full in every run"),
    ),
    "reports-streaming-window-fixed": (
        *SHOT_EQUAL,
        Row(RUN.format("specialize{family=raw;symbols=N:1,T:16;tag=chunk},bind{spec=chunk}", "c"), 0),
        Row("verify CASE/model.onnx c", 0, "x [1, 16, 8]"),
    ),
    "reports-verify-never-ran-decode": (
        Row(RUN.format("clone-decode{k=0;prefill=16;ctx=16}", "d"), 0),
        Row("verify CASE/model.onnx d", 0, "decode K=0, 1 runs, the original token by token      equal"),
    ),
    "rotary-op-padding-minus-one": (*SHOT_EQUAL, *SPEC_EQUAL),
    "tensorscatter-circular-not-seen": _both(SHOT_EQUAL, "is a ring of as many rows as its window"),
    "tensorscatter-mask-input-verify-different": (*SHOT_EQUAL, *SPEC_EQUAL),
    "tensorscatter-no-write-indices": _both(SHOT_EQUAL, "rewritten in place in a way that is not understood"),
    "tensorscatter-nonpad-refused": (*SHOT_EQUAL, *SPEC_EQUAL),
    "users-a8-asked-16-given": (
        Row(f"{TEXTS} -o e.json --format aimet-1.0.0", 0),
        Row(f"run {A8} @optimum-llama -o q", 0, "which count: a8 30, a16 121"),
    ),
    "users-ccl-silently-changed": (
        Row("run specialize{prefill=32;ctx=128;ccl=64,128} @qeff-llama -o c", 1, "has no axis for comp_ctx_lengths"),
    ),
    "users-compare-next-step-fails": (
        Row("demo", 0, "onnx-passes-demo/texts.jsonl"),
        Row(f"calibrate {DEMO} --tokens onnx-passes-demo/texts.jsonl -o e.json", 0),
        Row(
            "run quantize{file=e.json;activations=a16;weights=w8;kv=8},clone-decode{k=0,4;prefill=32;ctx=128} "
            f"{DEMO} -o q",
            0,
            f"next: onnx-passes compare {DEMO} q",
        ),
        Row(f"compare {DEMO} q --tokens onnx-passes-demo/texts.jsonl", 0, "optimization none"),
        Row(f"verify {DEMO} q", 1, "`onnx-passes compare` measures"),
    ),
    "users-generate-against-compare": (
        Row("generate @optimum-llama --ctx 32 --prompt-ids ids.json --max-new 2 --json", 0, '"optimization": "none"'),
        Row("compare @optimum-llama @optimum-llama --tokens texts.jsonl --ort-optimization all", 0, "optimization all"),
    ),
    "users-generate-k-not-in-manifest": (
        Row(
            "run specialize{prefill=32;ctx=128;k=0,2,4},custom-io{kv=mxint8},emit-manifest{target=qaic} "
            "@qeff-llama-tlm -o m",
            0,
        ),
        Row("generate m --prompt-ids prompts.json --max-new 16", 0, "K 0: 18, 2: 2, 4: 3"),
    ),
    "users-insert-qdq-keep-unknown": (
        Row(f"{TEXTS} -o e.json", 0),
        Row("run quantize{file=e.json;weights=w4;keep=MatMul_lm} @optimum-llama -o q", 2, "unknown node or operator"),
        Row("run clone-decode{ctx=128;bind=nosuch:3} @optimum-llama -o q", 2, "unknown symbol 'nosuch'"),
        Row("run specialize{prefill=128;symbols=nosuch:4} @optimum-llama -o q", 2, "unknown symbol 'nosuch'"),
    ),
    "users-json-empty-on-failure": (
        Row("list nosuch --json", 2, '"schema": 1'),
        Row("run nosuch m.onnx -o z --json", 2, '"exit_code": 2'),
    ),
    "users-mse-is-minmax": (
        Row(f"{TEXTS} --method minmax -o e.json", 0),
        Row(f"{TEXTS} --method mse -o mse.json", 0),
        Row(f"run {A8} @optimum-llama -o minmax", 0, "activations 151"),
        Row(f"run {A8.replace('e.json', 'mse.json')} @optimum-llama -o mse", 0, "activations 151"),
        Row("compare minmax mse --tokens texts.jsonl", 0, "Mean |diff|: 0.0"),
    ),
    "users-qaic-names-not-retained": (
        Row("run speculative{k=0,2,4;prefill=32;ctx=128} @optimum-llama -o s", 0, "graphs 1, specializations 4"),
        Row(
            "run keep-last-logits{symbol=n},specialize{prefill=32;ctx=128;k=0,2},emit-manifest{target=qaic} "
            "@optimum-llama -o g",
            1,
            "Put convert-states{names=retained} before the pass that chooses sizes",
        ),
    ),
    "users-reranker-batch-message": (
        Row("run reranker{batch=4;prefill=512} @qeff-qwen3vl-kv -o r", 1, "counts on one; found batch_size=4"),
    ),
    "users-reranker-preset-nokv-export": (
        Row("run reranker @qeff-qwen3vl-kv -o r", 0, "Prefill: batch_size=1"),
        Row("run embedder{kind=last} @optimum-qwen3emb-feat -o e", 0, "nothing to strip"),
    ),
    "users-specialize-embedding-prefill-ignored": (
        Row(
            "run single-shot,specialize{family=embedding;prefill=128} @optimum-qwen3emb-feat -o e",
            2,
            "family 'embedding' does not read option 'prefill'",
        ),
    ),
}

# What no command of a moment shows: the test that holds it.
HELD_BY = {
    "aimet-encodings-two-way": "test_bias_sums.py",
    "fold-clone-leaves-unused-input": "test_drop_unused_inputs.py",
    "fuzz-dimension-multiplied-out": "test_hostile_sizes.py::test_products_of_sums_are_bounded",
    "fuzz-kill-in-a-shared-folder": "test_kills.py::test_a_folder_of_the_source_is_whole_at_every_step",
    "fuzz-memory-at-shape-inference": "test_hostile_sizes.py::test_a_described_tensor_is_not_built",
    "fuzz-writes-outside": "test_kills.py::test_nothing_is_written_outside_the_folders_named",
    "users-calibrate-bar-at-100": "test_as_asked.py::test_calibration_tells_progress_from_0_on",
    "users-verify-program-with-itself": "test_verdicts.py::test_a_program_without_a_file_is_not_compared_with_itself",
    "users-tests-hang-in-background": "test_cli_errors.py::test_a_signal_in_the_middle_of_writing",
}
