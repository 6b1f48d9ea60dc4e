"""Small text models as exporters write them, and a tokenizer that is trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

WORDS = "yes no the river bank money water loan fish boat interest stream credit deposit flow wave".split()
VOCABULARY, WIDTH, PLACES = 64, 16, 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def train_tokenizer(path: Path, *, framed: bool = True) -> Path:
    """A word tokenizer, saved; ``framed`` puts [CLS] and [SEP] around a text, and [SEP] between two."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([" ".join(WORDS)], trainers.WordLevelTrainer(special_tokens=SPECIAL))
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    return path / "tokenizer.json"


def sample_texts(number: int, seed: int = 0) -> list[str]:
    """Texts of one to twenty words."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=int(random.integers(1, 20)))) for _ in range(number)]


def text_model(kind: str) -> ir.Model:
    """One attention layer over embeddings: ``bert``, ``e5``, ``modernbert``, ``qwen3`` or ``reranker``.

    BERT and E5 read segments, ModernBERT only ids and mask, Qwen3 reads positions and looks back alone; the
    reranker is a Qwen3 with a head tied to its embedding.
    """
    causal, segments = kind in ("qwen3", "reranker"), kind in ("bert", "e5")
    more = {"bert": ", int64[B,S] token_type_ids", "e5": ", int64[B,S] token_type_ids"}.get(kind, "")
    more = ", int64[B,S] position_ids" if causal else more
    second = "token_type_ids" if segments else "position_ids" if causal else "input_ids"
    head = "   turned = Transpose <perm = [1, 0]> (table)\n   logits = MatMul (last_hidden_state, turned)\n"
    output = f"float[B,S,{VOCABULARY}] logits" if kind == "reranker" else f"float[B,S,{WIDTH}] last_hidden_state"
    return ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 18]>
    g (int64[B,S] input_ids, int64[B,S] attention_mask{more}) => ({output})
    <int64[1] heads = {{1}}, int64[2] query = {{1, 2}}, float low = {{-10000}}, float one = {{1}}, int64 zero = {{0}},
     int64 step = {{1}}, int64[1] first = {{0}}, int64[1] second_axis = {{1}}, int64 at = {{1}},
     {_weights(segments)}>
    {{
       tokens = Gather (table, input_ids)
       others = Gather (places, {second})
       hidden = Add (tokens, others)
       marks = Cast <to = 1> (attention_mask)
       column = Unsqueeze (marks, heads)
       unmarked = Sub (one, column)
       padded = Mul (unmarked, low)
       shape = Shape (input_ids)
       length = Gather (shape, at)
       range = Range (zero, length, step)
       rows = Unsqueeze (range, second_axis)
       columns = Unsqueeze (range, first)
       {"later = Greater (columns, rows)" if causal else "later = Less (columns, first)"}
       ahead = Cast <to = 1> (later)
       hides = Mul (ahead, low)
       q = MatMul (hidden, wq)
       k = MatMul (hidden, wk)
       v = MatMul (hidden, wv)
       turned_k = Transpose <perm = [0, 2, 1]> (k)
       raw = MatMul (q, turned_k)
       seen = Add (raw, padded)
       masked = Add (seen, hides)
       weights = Softmax <axis = -1> (masked)
       mixed = MatMul (weights, v)
       summed = Add (hidden, mixed)
       last_hidden_state = LayerNormalization <axis = -1> (summed, gain)
    {head if kind == "reranker" else ""}
    }}""")


def _weights(segments: bool) -> str:
    """The initializers as text; BERT has two kinds of segments."""
    random = np.random.default_rng(1)
    shapes = {"table": (VOCABULARY, WIDTH), "places": (2 if segments else PLACES, WIDTH), "gain": (WIDTH,)}
    shapes |= dict.fromkeys(("wq", "wk", "wv"), (WIDTH, WIDTH))
    texts = []
    for name, shape in shapes.items():
        numbers = ",".join(f"{number:.3f}" for number in random.normal(size=shape).reshape(-1))
        texts.append(f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}")
    return ", ".join(texts)
