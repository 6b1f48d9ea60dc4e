"""The table of sections says what their cases hold, and which of our functions answer."""

from __future__ import annotations

from .cases import Form, Section
from .causal import ask_compile
from .files import (
    ask_alignment,
    ask_bounds,
    ask_chosen_lengths,
    ask_compiled,
    ask_conversion,
    ask_custom_entries,
    ask_custom_io,
    ask_exported,
    ask_given_lengths,
    ask_layer,
    ask_manifest_bytes,
    ask_missing,
    ask_name,
    ask_prefix,
    ask_prefix_check,
    ask_slices,
    ask_unprefixed,
    is_custom_entries,
    is_custom_io,
    is_manifest_bytes,
    is_slices,
)
from .models import ask_encoder, ask_multimodal, ask_phases, ask_pipeline, ask_speech

_NAMED = Form(("flat",), "ir.specialize.naming.to_named, to_flat", ask_conversion, ("module_name", "named", "raises"))
_BYTES = Form((), "ir.manifests.strict.dump_json", ask_manifest_bytes, ("the text", "its content"), is_manifest_bytes)
_YAML = Form((), "ir.manifests.custom_io_yaml.write_custom_io", ask_custom_io, ("the text", "names"), is_custom_io)
_SLICES = Form((), "ir.manifests.partition.tensor_slices", ask_slices, ("devices", "cores", "the template"), is_slices)
_ENTRIES = Form(
    (), "runtime.conformance.io_names.exported_names", ask_custom_entries, ("layers", "precisions"), is_custom_entries
)
ANYWHERE = (_NAMED, _BYTES, _YAML, _SLICES)  # forms that a case of any section may have

SECTIONS: tuple[Section, ...] = (
    Section(
        "1",
        "names of specializations",
        (Form(("spec",), "ir.specialize.naming.infer_name", ask_name, ("index", "module_name", "name", "raises")),),
    ),
    Section("2.1", "flat to named", (_NAMED,)),
    Section("2.2", "flat to named, edge cases", (_NAMED,)),
    Section(
        "3.1",
        "the oldest writer",
        (
            _BYTES,
            Form(
                ("batch_size", "prompt_len", "ctx_len"),
                "ir.specialize.families.phases",
                ask_phases,
                ("full_batch_size", "file"),
            ),
        ),
    ),
    Section("3.2", "bytes of a manifest", (_BYTES,)),
    Section(
        "4",
        "causal language models",
        (Form(("compile",), "ir.specialize.families.causal, settled", ask_compile, ("init", "id", "named", "raises")),),
    ),
    Section("5", "encoders", (Form(("id",), "ir.specialize.families.encoder", ask_encoder, ("named", "raises")),)),
    Section("6", "speech", (Form(("id", "in"), "ir.specialize.families.speech", ask_speech, ("named", "raises")),)),
    Section(
        "7",
        "pictures and text",
        (Form(("id", "in"), "ir.specialize.families.multimodal", ask_multimodal, ("named", "raises")),),
    ),
    Section(
        "8",
        "diffusers",
        (Form(("id",), "ir.specialize.families.picture, video, latents", ask_pipeline, ("out", "raises")),),
    ),
    Section(
        "9.1",
        "context lengths chosen",
        (
            Form(
                ("ctx_len", "prefill_seq_len"),
                "ir.specialize.families.automatic",
                ask_chosen_lengths,
                ("out", "raises"),
            ),
        ),
    ),
    Section(
        "9.2",
        "context lengths given",
        (Form(("args",), "ir.specialize.families.settled", ask_given_lengths, ("out", "raises")),),
    ),
    Section(
        "10",
        "several devices",
        (
            Form(("layers", "partitions"), "ir.manifests.layers.layer_bounds", ask_bounds, ("bounds",)),
            Form(("node",), "ir.manifests.layers.layer_of", ask_layer, ("layer",)),
            _SLICES,
        ),
    ),
    Section(
        "11.1",
        "prefixes of states",
        (
            Form(
                ("apply", "prefix"),
                "runtime.conformance.io_names.prefixed, prefixed_sides",
                ask_prefix,
                ("out", "raises"),
            ),
            Form(("align_inputs", "outputs"), "runtime.conformance.io_names.aligned_inputs", ask_alignment, ("out",)),
            Form(("validate",), "runtime.conformance.io_names.check_prefix", ask_prefix_check, ("ok", "raises")),
            Form(("not_prefixed",), "runtime.conformance.io_names.prefixed", ask_unprefixed),
        ),
    ),
    Section("11.2", "custom I/O", (_YAML, _ENTRIES)),
    Section(
        "12",
        "reading a manifest",
        (
            Form(("specializations",), "ir.manifests.qaic.compiled_sizes", ask_compiled, ("out", "raises")),
            Form(("missing_file",), "ir.manifests.strict.read_text", ask_missing, ("raises",)),
        ),
    ),
    Section("14", "speculative helpers"),
    Section(
        "15",
        "names of inputs and outputs",
        (Form(("variant", "inputs", "outputs"), "runtime.conformance.io_names.exported_names", ask_exported),),
    ),
)
