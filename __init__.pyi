"""The public names for type checkers and editors; `pytest --update-golden` and `make docs` write it."""

from .api.check import (
    CheckReport,
    check,
)
from .api.decode import (
    generate,
    predict,
    suggest_k,
)
from .api.diff import (
    Difference,
    diff,
)
from .api.facts import GraphFacts
from .api.inspect import (
    Inspection,
    inspect,
)
from .api.measure import (
    calibrate,
    compare,
    sensitivity,
    suggest_bits,
    verify,
)
from .api.run import (
    classifier,
    embedder,
    prefill_decode,
    quantize,
    reranker,
    run,
    single_shot,
    speculative,
)
from .ir.core.errors import (
    InputError,
    NotEqualError,
    OnnxPassesError,
    OutputError,
    PassRefused,
    ProgramInvalid,
    UnknownNameError,
    UsageError,
    WriteError,
)
from .ir.core.specialization import (
    Manifest,
    Specialization,
)
from .ir.core.verifier import check_structure
from .ir.interface.roles import (
    Role,
    find_roles,
)
from .ir.program.program import Program
from .ir.serialization.interop import (
    from_surgeon,
    to_surgeon,
)
from .ir.states import find_states
from .ir.states.base import (
    Layout,
    Pairing,
    State,
)
from .passes.argmax_tail import ArgmaxTail
from .passes.base import (
    GraphResult,
    Pass,
    Report,
)
from .passes.bind import Bind
from .passes.check import Check
from .passes.check_speculation_safe import CheckSpeculationSafe
from .passes.clamp_positions import ClampPositions
from .passes.clone_decode import CloneDecode
from .passes.convert_states import ConvertStates
from .passes.custom_io import CustomIO
from .passes.drop_unused_inputs import DropUnusedInputs
from .passes.emit_manifest import EmitManifest
from .passes.extract_layer import ExtractLayer
from .passes.fix_opset import FixOpset
from .passes.insert_qdq import InsertQdq
from .passes.instruments import (
    Dump,
    Instrument,
    PrintAfter,
    StopAfter,
    Timing,
    VerifyEach,
)
from .passes.keep_last_logits import KeepLastLogits
from .passes.kv_io import KvIo
from .passes.load_encodings import LoadEncodings
from .passes.lora import Lora
from .passes.lower import Lower
from .passes.manager import PassManager
from .passes.narrow_int import NarrowInt
from .passes.package import (
    Package,
    Packaging,
)
from .passes.partition import Partition
from .passes.pipeline import (
    parse_pipeline,
    print_pipeline,
)
from .passes.pool import Pool
from .passes.registry import get_pass
from .passes.rename_io import RenameIO
from .passes.sample_tail import SampleTail
from .passes.select_branch import SelectBranch
from .passes.select_input import SelectInput
from .passes.select_vocab import SelectVocab
from .passes.simplify import Simplify
from .passes.specialize import Specialize
from .passes.split import Split
from .passes.strip_states import (
    Positions,
    StripStates,
)
from .passes.surgeon import Surgeon
from .passes.tap_hidden import TapHidden
from .passes.tie_states import TieStates
from .passes.to_float16 import ToFloat16
from .passes.transfer_encodings import TransferEncodings

__all__ = [
    "ArgmaxTail",
    "Bind",
    "Check",
    "CheckReport",
    "CheckSpeculationSafe",
    "ClampPositions",
    "CloneDecode",
    "ConvertStates",
    "CustomIO",
    "Difference",
    "DropUnusedInputs",
    "Dump",
    "EmitManifest",
    "ExtractLayer",
    "FixOpset",
    "GraphFacts",
    "GraphResult",
    "InputError",
    "InsertQdq",
    "Inspection",
    "Instrument",
    "KeepLastLogits",
    "KvIo",
    "Layout",
    "LoadEncodings",
    "Lora",
    "Lower",
    "Manifest",
    "NarrowInt",
    "NotEqualError",
    "OnnxPassesError",
    "OutputError",
    "Package",
    "Packaging",
    "Pairing",
    "Partition",
    "Pass",
    "PassManager",
    "PassRefused",
    "Pool",
    "Positions",
    "PrintAfter",
    "Program",
    "ProgramInvalid",
    "RenameIO",
    "Report",
    "Role",
    "SampleTail",
    "SelectBranch",
    "SelectInput",
    "SelectVocab",
    "Simplify",
    "Specialization",
    "Specialize",
    "Split",
    "State",
    "StopAfter",
    "StripStates",
    "Surgeon",
    "TapHidden",
    "TieStates",
    "Timing",
    "ToFloat16",
    "TransferEncodings",
    "UnknownNameError",
    "UsageError",
    "VerifyEach",
    "WriteError",
    "calibrate",
    "check",
    "check_structure",
    "classifier",
    "compare",
    "diff",
    "embedder",
    "find_roles",
    "find_states",
    "from_surgeon",
    "generate",
    "get_pass",
    "inspect",
    "parse_pipeline",
    "predict",
    "prefill_decode",
    "print_pipeline",
    "quantize",
    "reranker",
    "run",
    "sensitivity",
    "single_shot",
    "speculative",
    "suggest_bits",
    "suggest_k",
    "to_surgeon",
    "verify",
]
