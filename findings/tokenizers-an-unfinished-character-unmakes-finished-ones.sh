#!/usr/bin/env bash
# Guess: a decoder of byte tokens that meets the first bytes of a character shows a replacement sign for these bytes, and
# what was whole before stays. What happens in tokenizers 0.23.3: ByteFallback decodes each run of byte tokens at once,
# and where the run is no whole UTF-8 every byte of it becomes a sign of its own, the finished characters and plain
# letters too: "aé€" and one more first byte decode to seven signs, with the second byte to "aé€é" again. The decoder
# ByteLevel, of GPT-2's kind of vocabulary, shows "aé€" and one sign. Hurt: streaming that prints what the text grew by
# since the last token, and looks at nothing but its end; counts of characters; stop strings looked for in the text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tokenizers==0.23.3
venv/bin/python - <<'EOF'
import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SIGN = "\N{REPLACEMENT CHARACTER}"
whole, first, second = "aé€".encode(), *(bytes([number]) for number in "é".encode())


def fallback(data):
    tokenizer = Tokenizer(models.BPE(vocab={f"<0x{n:02X}>": n for n in range(256)}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer.decode(list(data))


def level(data):
    # GPT-2's table: printable bytes are themselves, the rest follow from 256 on
    same = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [n for n in range(256) if n not in same]
    table = {n: chr(n) for n in same} | {n: chr(256 + at) for at, n in enumerate(rest)}
    assert set(table.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={table[n]: n for n in range(256)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.decode(list(data))


steps = [whole, whole + first, whole + first + second]
print("tokenizers", tokenizers.__version__, "| ByteFallback:", *map(ascii, map(fallback, steps)))
print("ByteLevel:", *map(ascii, map(level, steps)))
assert list(map(fallback, steps)) == ["aé€", SIGN * 7, "aé€é"]
assert list(map(level, steps)) == ["aé€", "aé€" + SIGN, "aé€é"]
EOF
