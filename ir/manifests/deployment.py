"""How each target takes a decoder of many sizes: in how many graphs, with which states, by which flags."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Form(enum.Enum):
    """How the roles and lengths of one decoder leave the tool."""

    AUTO = "auto"  # as the target takes them
    SPECIALIZATIONS = "specializations"  # one graph of symbols, one named binding each: one compiler call, one binary
    GRAPHS = "graphs"  # one graph each


@dataclass(frozen=True)
class Deployment:
    """What a target wants of a decoder.

    Attributes:
        form: What ``auto`` is.
        retained: Whether states are paired by name, ``X`` with ``X_RetainedState``, and stay on the device.
        grows: Whether the two ends of a cache may differ in size.
        covers: Whether a prefill must have as many tokens as the longest decode.
        flags: Program of the toolchain -> the flags that it has, beside those that a manifest writes.
    """

    form: Form = Form.GRAPHS
    retained: bool = False
    grows: bool = True
    covers: bool = False
    flags: Mapping[str, frozenset[str]] = field(default_factory=dict[str, "frozenset[str]"])


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split())


# as far as its exporter, its documents and vllm-qaic name them; one that is missing here is only warned of
_QAIC_COMPILE = _flags(
    "-aic-hw -aic-hw-version -aic-num-cores -aic-num-of-cores -aic-num-of-instances -aic-enable-depth-first -aic- "
    "depth-first-mem -aic-preproc -aic-pmu-recipe -aic-perf-warnings -aic-perf-metrics -allow-mxint8-mdp-io "
    "-always-expand-onnx-functions -batchsize -buffer-dealloc-delay -cluster-sizes -combine-inputs -combine-outputs "
    "-compile-only -compile-threads -convert-to-fp16 -convert-to-quantize -crc-stride -ddr-stats -direct-api -do- "
    "ddr-to-multicast -do-host-preproc -dump-custom-IO-config-template -enable-channelwise -enable-debug -enable- "
    "profiling -enable-rowwise -execute-nodes-in-fp16 -external-quantization -import-graph -io-encrypt -keep- "
    "original-precision-for-nodes -load-profile -max-out-channel-split -mdp-dump-partition-config -mdp-load- "
    "partition-config -mos -multicast-weights -mxfp6-matmul -mxint8-kv-cache -node-precision-info -num-iterations "
    "-ols -onnx-define-symbol -operators-supported -overlap-split-factor -port-id -profiling-threads -quantization- "
    "calibration -quantization-precision -quantization-precision-bias -quantization-schema -quantization-schema- "
    "activations -quantization-schema-constants -register-custom-op -retained-state -size-split-granularity -split- "
    "size -stats-batchsize -stats-level -sub-functions -time-passes -user-tiled -vtcm-working-set-limit-ratio"
)
_QNN_CONVERTER = _flags(
    "--act_bitwidth --act_quantizer_calibration --act_quantizer_schema --algorithms --bias_bitwidth --define_symbol "
    "--dry_run --dump_inferred_model --float_bias_bitwidth --float_bitwidth --float_fallback --ignore_encodings "
    "--input_dim --input_dtype --input_encoding --input_layout --input_list --keep_int64_inputs --no_simplification "
    "--onnx_batch --op_package_config --op_package_lib --out_node --output_path --overwrite_model_prefix "
    "--param_quantizer_calibration --param_quantizer_schema --preserve_io --preserve_io_datatype "
    "--quantization_overrides --use_per_channel_quantization --use_per_row_quantization --weights_bitwidth"
)
_QNN_GENERATOR = _flags(
    "--backend --backend_binary --binary_file --data_format_config --dlc_path --enable_intermediate_outputs "
    "--input_output_tensor_mem_type --log_level --model --model_prefix --op_packages --output_dir "
    "--platform_options --profiling_level --profiling_option --set_output_tensors"
)
_TRTEXEC = _flags(
    "--best --bf16 --builderOptimizationLevel --calib --dumpLayerInfo --exportLayerInfo --fp16 --fp8 "
    "--hardwareCompatibilityLevel --inputIOFormats --int4 --int8 --layerPrecisions --maxAuxStreams --memPoolSize "
    "--noTF32 --outputIOFormats --precisionConstraints --profilingVerbosity --refit --skipInference --sparsity "
    "--stripWeights --stronglyTyped --tacticSources --timingCacheFile --useCudaGraph --verbose --versionCompatible "
    "--weightStreamingBudget"
)

_QAIC = Deployment(Form.SPECIALIZATIONS, retained=True, grows=False, covers=True, flags={"qaic-compile": _QAIC_COMPILE})
_ELSEWHERE = Deployment()
DEPLOYMENTS: Mapping[str, Deployment] = {
    "qaic": _QAIC,
    "qaic-flat": _QAIC,
    "qnn": Deployment(flags={"qnn-onnx-converter": _QNN_CONVERTER, "qnn-context-binary-generator": _QNN_GENERATOR}),
    "tensorrt": Deployment(flags={"trtexec": _TRTEXEC}),
    "ort": _ELSEWHERE,
    "openvino": _ELSEWHERE,
    "coreml": _ELSEWHERE,
}
"""Target -> what it wants of a decoder."""


def form_for(asked: Form, target: str | None, *, each: bool) -> Form:
    """The form that ``asked`` is for a target; ``each``: whether something is wanted that only a graph each can be."""
    if asked is not Form.AUTO:
        return asked
    return Form.GRAPHS if each else deployment_of(target).form


def deployment_of(target: str | None) -> Deployment:
    """The row of a target; of one that is not known, and of none, graphs as they come."""
    return DEPLOYMENTS.get(target or "", _ELSEWHERE)
