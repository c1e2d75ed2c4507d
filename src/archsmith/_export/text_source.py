"""Format source for language models: one plain PyTorch file with the found cell written out, and its weights."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from archsmith._export.card import told
from archsmith._export.cell_source import IMPORTS, cell_source
from archsmith._export.export_folder import fresh_folder
from archsmith._export.model import write_documents, write_weights
from archsmith._export.source import FILE, one_line, run_source
from archsmith._export.text_model import TextModel
from archsmith._export.vocabulary import END, UNKNOWN, WORD
from archsmith.core.errors import UsageError

TOLERANCE = 1e-4  # of the largest score: what two ways of summing floats may differ by

_TEMPLATE = '''\
"""{title}

{about}

    python model.py "some text"         go on with a text
    python model.py --score FILE...     the {measure} of each text

Needs torch and safetensors. FoundRNN and FoundCell stand in for torch.nn.LSTM and torch.nn.LSTMCell anywhere.
"""

import argparse
import json
{imports}
WEIGHTS = Path(__file__).with_name("model.safetensors")
SYMBOLS = json.loads(Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8"))
NUMBERS = {{symbol: number for number, symbol in enumerate(SYMBOLS)}}
END = NUMBERS.get({end}, 0)  # the line end, from which a text's first {unit} is predicted
UNKNOWN = NUMBERS.get("{unknown}")


{model}

def load(path=WEIGHTS, device="cpu") -> LanguageModel:
    """The trained model, in evaluation mode."""
    model = LanguageModel()
    model.load_state_dict(load_file(path))
    return model.to(device).eval()


{encode}

@torch.inference_mode()
def bits(model: LanguageModel, tokens: list[int], steps: int = 512) -> float:
    """The mean of -log2 p over all tokens of a text, each predicted from all before it."""
    read, total, state = torch.tensor([END, *tokens]), 0.0, None
    for start in range(0, len(tokens), steps):
        piece = read[start : start + steps + 1]
        scores, state = model(piece[:-1, None], state)
        total += F.cross_entropy(scores[:, 0].double(), piece[1:], reduction="sum").item()
    return total / len(tokens) / math.log(2)


@torch.inference_mode()
def go_on(model: LanguageModel, text: str, length: int, temperature: float, seed: int) -> str:
    """What the model writes behind a text. A temperature of 0 takes the likeliest {unit} each time."""
    draws = torch.Generator().manual_seed(seed)
    scores, state = model(torch.tensor([END, *encode(text)])[:, None])
    written = []
    for _ in range(length):
        last = scores[-1, 0].double()
        if UNKNOWN is not None:
            last[UNKNOWN] = -math.inf
        if temperature > 0:
            sharper = (last - last.max()) / temperature
            chosen = int(torch.multinomial(sharper.softmax(0), 1, generator=draws))
        else:
            chosen = int(last.argmax())
        written.append(chosen)
        scores, state = model(torch.tensor([[chosen]]), state)
    return decode(written)


def main() -> None:
    """Go on with a text, or tell the {measure} of texts."""
    parser = argparse.ArgumentParser(description="Go on with a text, or tell the {measure} of text files.")
    parser.add_argument("text", nargs="?", help="a text to go on with")
    parser.add_argument("--score", nargs="+", metavar="FILE", help="text files, prepared as the training text was")
    parser.add_argument("--length", type=int, default=100, help="how many {unit}s to write (default: 100)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1 more sober, 0 the likeliest each time")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack characters of texts and names
    if (given.text is None) == (given.score is None):
        parser.error("give a text to go on with, or --score FILE...")
    if given.length < 1 or not 0 <= given.temperature < math.inf:
        parser.error("--length must be at least 1 and --temperature at least 0")
    model, unread = load(), 0
    if given.text is not None:
        try:
            written = go_on(model, given.text, given.length, given.temperature, given.seed)
            print(joined(given.text, written))
        except ValueError as error:
            sys.exit(str(error))
    for path in given.score or []:
        try:
            tokens = encode(read_text(path))
            if not tokens:
                raise ValueError("the text is empty")
        except (OSError, ValueError) as error:
            print(f"{{path}}: cannot be read: {{error}}", file=sys.stderr)
            unread += 1
            continue
        mean, unknown = bits(model, tokens), tokens.count(UNKNOWN)
        print(f"{{path}}: {told_value} over {{len(tokens):,}} {unit}s, {{unknown:,}} of them unknown")
    if unread:
        sys.exit(1)


if __name__ == "__main__":
    main()
'''

_MODEL = '''\
{cell}

class LanguageModel(nn.Module):
    """{parameters:,} parameters: embedded {unit}s, {layers} of the found cell, a score for each of the {vocabulary:,} {unit}s."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding({vocabulary}, {embedding})
        self.rnn = FoundRNN({embedding}, {hidden}{num_layers}{bias})
        {softmax_init}

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The scores of what comes next, before the softmax, [steps, batch, {vocabulary}], and the state to go on from.

        Args:
            tokens: numbers of {unit}s, int64 [steps, batch].
            state: (h, c), [{depth}, batch, {hidden}] each; zeros if not given.
        """
        outputs, state = self.rnn(self.embedding(tokens), state)
        return {softmax}, state
'''

_WORDS = '''\
def encode(text: str) -> list[int]:
    """The numbers of a text's words, which stand between white space; a line end is a word too."""
    words = text.replace("\\n", " {end} ").split()
    if UNKNOWN is None and (strange := [word for word in words if word not in NUMBERS]):
        raise ValueError(f"the model does not know the word {{strange[0]!r}}")
    return [NUMBERS.get(word, UNKNOWN) for word in words]


def decode(tokens: list[int]) -> str:
    """The text of some numbers."""
    lines = [[]]
    for token in tokens:
        if SYMBOLS[token] == "{end}":
            lines.append([])
        else:
            lines[-1].append(SYMBOLS[token])
    return "\\n".join(" ".join(line) for line in lines)


def joined(text: str, written: str) -> str:
    """A text and what was written behind it."""
    spaced = text and not text[-1].isspace() and not written.startswith("\\n")
    return f"{{text}} {{written}}" if spaced else text + written


def read_text(path: str) -> str:
    """A text file in UTF-8; its last line ends too."""
    text = Path(path).read_text(encoding="utf-8-sig")
    return text if text.endswith("\\n") or not text else text + "\\n"
'''

_CHARACTERS = '''\
def encode(text: str) -> list[int]:
    """The numbers of a text's characters."""
{spaces}    if UNKNOWN is None and (strange := [character for character in text if character not in NUMBERS]):
        raise ValueError(f"the model does not know the character {{strange[0]!r}}")
    return [NUMBERS.get(character, UNKNOWN) for character in text]


def decode(tokens: list[int]) -> str:
    """The text of some numbers."""
    return "".join(SYMBOLS[token] for token in tokens){back}


def joined(text: str, written: str) -> str:
    """A text and what was written behind it."""
    return text + written


def read_text(path: str) -> str:
    """A text file in UTF-8."""
    return {read}
'''


def write_text_source(model: TextModel, path: Path) -> Path:
    """Write the folder and run the file: its scores must equal the module's but for rounding.

    Raises UsageError when they do not.
    """
    with fresh_folder(path) as folder:
        text, state = text_source(model)
        (folder / FILE).write_text(text, encoding="utf-8")
        card = model.to_json("source") | {"weights": write_weights(state, folder)}
        write_documents(model, folder, card)
        worst = model.differs(run_source(folder).load())
        if not worst <= TOLERANCE:
            raise UsageError(
                f"the written file does not repeat the model: its scores differ by {worst:.1e} of the largest, and "
                f"rounding explains {TOLERANCE:.0e}; this is a fault of archsmith's, please report it with the architecture"
            )
    return path


def plain_model(model: TextModel) -> nn.Module:
    """The trained model as the plain PyTorch of its file, in evaluation mode."""
    text, state = model_source(model)
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(f"{IMPORTS}\n\n{text}", FILE, "exec"), scope)
    plain: nn.Module = scope["LanguageModel"]()
    plain.load_state_dict(state)
    return plain.eval()


def model_source(model: TextModel) -> tuple[str, dict[str, Tensor]]:
    """The found cell and the class `LanguageModel` on top of it; the tensors that its `load_state_dict` takes."""
    network = model.network
    state = dict(network.state_dict())
    if network.tied:  # a module of its own would want a weight of its own
        state["softmax_bias"] = state.pop("softmax.bias")
        init = f"self.softmax_bias = nn.Parameter(torch.zeros({network.vocabulary}))  # its weight is the embedding's"
    else:
        init = f"self.softmax = nn.Linear({network.hidden}, {network.vocabulary})"
    text = _MODEL.format(
        unit=model.vocabulary.unit,
        cell=cell_source(network.graph),
        parameters=model.parameters,
        layers=f"{network.layers} layers" if network.layers > 1 else "one layer",
        depth=network.layers,
        vocabulary=network.vocabulary,
        embedding=network.embedding.embedding_dim,
        hidden=network.hidden,
        num_layers=f", num_layers={network.layers}" if network.layers > 1 else "",
        bias=", bias=True" if network.rnn.bias else "",
        softmax_init=init,
        softmax="F.linear(outputs, self.embedding.weight, self.softmax_bias)"
        if network.tied
        else "self.softmax(outputs)",
    )
    return text, state


def text_source(model: TextModel) -> tuple[str, dict[str, Tensor]]:
    """The text of `model.py`, and the tensors that its model's `load_state_dict` takes."""
    words = model.vocabulary.level == WORD
    text, state = model_source(model)
    return _TEMPLATE.format(
        title="\n".join(textwrap.wrap(one_line(f"{model.name}: a language model found by archsmith."), 110)),
        about="\n".join(_about(model)),
        measure="perplexity" if words else "bits per character",
        imports=_IMPORTS,
        end=f'"{END}"' if words else '"\\n"',
        unit=model.vocabulary.unit,
        unknown=UNKNOWN,
        model=text,
        encode=_encode(model),
        told_value="a perplexity of {2**mean:.2f}" if words else "{mean:.3f} bits per character",
    ), state


_IMPORTS = (
    IMPORTS.replace("import math\n", "import math\nimport sys\n")
    .replace("from functools import partial\n", "from functools import partial\nfrom pathlib import Path\n")
    .replace("import torch\n", "import torch\nfrom safetensors.torch import load_file\n", 1)
)


def _encode(model: TextModel) -> str:
    vocabulary = model.vocabulary
    if vocabulary.level == WORD:
        return _WORDS.format(end=END)
    whole = 'Path(path).read_text(encoding="utf-8-sig")'
    if not vocabulary.underscores:
        return _CHARACTERS.format(spaces="", back="", read=whole)
    return _CHARACTERS.format(
        spaces='    text = text.replace(" ", "_")\n',
        back='.replace("_", " ")',
        read=f'"\\n".join(line.strip() for line in {whole}.split("\\n"))',
    )


def _about(model: TextModel) -> list[str]:
    version = model.card.get("versions", {}).get("archsmith", "")
    lines = [f"Written by archsmith {version}".strip() + "; the full card is in model.json."]
    lines += told(model.card)
    return [part for line in lines for part in textwrap.wrap(one_line(line), 118)]
