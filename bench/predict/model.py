"""A six-layer encoder of width 384 over 30,000 words, a tokenizer, and texts of 5 to 200 tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...ir.program.program import Program
from ...passes.manager import PassManager
from ...passes.pipeline import parse_pipeline

LAYERS, WIDTH, HEADS, WORDS, LONGEST = 6, 384, 12, 30_000, 512


def tokenizer_file(folder: Path) -> Path:
    """One token a word, saved as tokenizer.json."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1} | {f"w{at}": at for at in range(2, WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_folder(folder: Path, texts: int) -> None:
    """A model folder as sentence-transformers writes it, ``texts.txt``, and the pooled program in ``pooled``."""
    tokenizer_file(folder)
    ir.save(encoder_model(), folder / "model.onnx")
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
    config |= {"num_attention_heads": HEADS, "vocab_size": WORDS, "max_position_embeddings": LONGEST}
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    names = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {
            "idx": at,
            "name": str(at),
            "path": f"{at}_{name}" if at else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for at, name in enumerate(names)
    ]
    files = {
        "config.json": config, "special_tokens_map.json": special, "modules.json": modules,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST, **special},
        "sentence_bert_config.json": {"max_seq_length": LONGEST},
        "1_Pooling/config.json": {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts_of(texts)), encoding="utf-8")
    PassManager(parse_pipeline("pool")).run(program := Program.load(folder / "model.onnx"))
    program.save(folder / "pooled", weights="copy")


def texts_of(number: int) -> list[str]:
    """Lengths evenly from 5 to 200 tokens."""
    random = np.random.default_rng(0)
    return [" ".join(f"w{w}" for w in random.integers(2, WORDS, random.integers(5, 201))) for _ in range(number)]


def encoder_model() -> ir.Model:
    """BERT's shape, without segments: attention over what the mask lets through, then a wide layer, six times."""
    shapes = {"table": (WORDS, WIDTH)}
    lines = ["h0 = Gather (table, input_ids)"]
    for at in range(LAYERS):
        lines += _layer(at)
        shapes |= {f"w{kind}{at}": (WIDTH, WIDTH) for kind in "qkvo"}
        shapes |= {
            f"up{at}": (WIDTH, 4 * WIDTH),
            f"down{at}": (4 * WIDTH, WIDTH),
            f"a{at}": (WIDTH,),
            f"b{at}": (WIDTH,),
        }
    body = "\n".join(lines)
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (int64[B,S] input_ids, int64[B,S] attention_mask, {declared}) => (float[B,S,{WIDTH}] last_hidden_state)
    <int64[2] inner = {{1, 2}}, float one = {{1}}, float low = {{-10000}}, float root = {{{(WIDTH / HEADS) ** -0.5}}},
     int64[4] split = {{0, 0, {HEADS}, {WIDTH // HEADS}}}, int64[3] joined = {{0, 0, {WIDTH}}}>
    {{
    marks = Cast <to = 1> (attention_mask)
    wide = Unsqueeze (marks, inner)
    hidden_ones = Sub (one, wide)
    bias = Mul (hidden_ones, low)
    {body}
    last_hidden_state = Identity (h{LAYERS})
    }}""")
    random = np.random.default_rng(1)
    for name, shape in shapes.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        array = np.ones(shape) if len(shape) == 1 else random.normal(size=shape) * shape[0] ** -0.5
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def _layer(at: int) -> list[str]:
    lines: list[str] = []
    for kind in "qkv":
        perm = "[0, 2, 3, 1]" if kind == "k" else "[0, 2, 1, 3]"
        lines += [f"{kind}m{at} = MatMul (h{at}, w{kind}{at})", f"{kind}s{at} = Reshape ({kind}m{at}, split)"]
        lines += [f"{kind}{at} = Transpose <perm = {perm}> ({kind}s{at})"]
    return [
        *lines,
        f"qr{at} = Mul (q{at}, root)",
        f"s{at} = MatMul (qr{at}, k{at})",
        f"m{at} = Add (s{at}, bias)",
        f"p{at} = Softmax <axis = -1> (m{at})",
        f"c{at} = MatMul (p{at}, v{at})",
        f"t{at} = Transpose <perm = [0, 2, 1, 3]> (c{at})",
        f"j{at} = Reshape (t{at}, joined)",
        f"o{at} = MatMul (j{at}, wo{at})",
        f"r{at} = Add (h{at}, o{at})",
        f"n{at} = LayerNormalization <axis = -1> (r{at}, a{at})",
        f"u{at} = MatMul (n{at}, up{at})",
        f"g{at} = Gelu (u{at})",
        f"d{at} = MatMul (g{at}, down{at})",
        f"e{at} = Add (n{at}, d{at})",
        f"h{at + 1} = LayerNormalization <axis = -1> (e{at}, b{at})",
    ]
