"""Format source: one plain PyTorch file that runs without archsmith, and its weights."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from archsmith._export.card import told
from archsmith._export.export_folder import fresh_folder
from archsmith._export.image_model import ImageModel
from archsmith._export.model import write_documents, write_weights
from archsmith._export.network_source import SourceRefused, network_source
from archsmith._export.picture_source import TYPES, decoding_source, reads_pictures
from archsmith._export.source import FILE, one_line, run_source
from archsmith.core.errors import UsageError

_TEMPLATE = '''\
"""{title}

{about}

    python model.py IMAGE...

Needs torch and safetensors, and Pillow and numpy to read image files.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

{types}
WEIGHTS = Path(__file__).with_name("model.safetensors")
CHANNELS, HEIGHT, WIDTH = {shape}
CLASSES = (
{classes}
)


{network}

def load(path=WEIGHTS, device="cpu") -> Network:
    """The network with its weights, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(path))
    return network.to(device).eval()


def read_image(path) -> torch.Tensor:
    """A picture of any size and mode as pixels [1, CHANNELS, HEIGHT, WIDTH] from 0 to 1, as in training.

    The EXIF orientation is applied, the centre is cropped, and transparent parts become white.
    """
    pixels = torch.from_numpy(decode_picture(Path(path).read_bytes(), WIDTH, HEIGHT, CHANNELS))
    return pixels.permute(2, 0, 1)[None].float() / 255.0


{decoding}


def main() -> None:
    """Name the three likeliest classes of each image file."""
    if len(sys.argv) < 2:
        sys.exit("usage: python model.py IMAGE...")
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack characters of names
    network = load()
    unread = 0
    for path in sys.argv[1:]:
        try:
            pixels = read_image(path)
        except (OSError, PictureError) as error:
            print(f"{{path}}: cannot be read: {{error}}", file=sys.stderr)
            unread += 1
            continue
        with torch.inference_mode():
            probabilities = network(pixels).softmax(1)[0]
        best = probabilities.topk(min(3, len(CLASSES)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        print(f"{{path}}: " + ", ".join(f"{{CLASSES[k]}} {{100 * p:.1f}} %" for p, k in pairs))
    if unread:
        sys.exit(1)


if __name__ == "__main__":
    main()
'''


def write_image_source(model: ImageModel, path: Path) -> Path:
    """Write the folder and run the file: its outputs must equal the module's, to the bit.

    Raises UsageError when the network cannot be followed, or the file does not repeat it.
    """
    if not reads_pictures(model):
        raise UsageError(f"format source is for grey or colour images, and this takes {model.task.input_shape}")
    deployed = model.deployed()
    docstring = (
        f"{model.parameters:,} parameters.\n\nPixels [n, {', '.join(map(str, model.task.input_shape))}] from 0 to 1 -> "
        f"logits [n, {model.task.num_classes}]."
    )
    network, state = network_source(deployed, docstring, root="network")
    text = _TEMPLATE.format(
        title="\n".join(
            textwrap.wrap(one_line(f"{model.name}: an image classifier found by neural architecture search."), 110)
        ),
        about="\n".join(_about(model)),
        shape=tuple(model.task.input_shape),
        classes=_listed(model.class_names),
        network=network,
        types=TYPES,
        decoding=decoding_source(),
    )
    with fresh_folder(path) as folder:
        (folder / FILE).write_text(text, encoding="utf-8")
        write_documents(model, folder, model.to_json("source") | {"weights": write_weights(state, folder)})
        again = run_source(folder).load()
        with torch.inference_mode():
            for images in model.inputs():
                if not torch.equal(again(images), deployed(images)):
                    raise SourceRefused(
                        f"the written file does not repeat {type(model.network).__name__} to the bit; this is a fault of "
                        "archsmith's, please report it with the architecture"
                    )
    return path


def _about(model: ImageModel) -> list[str]:
    card = model.card
    lines = [f"Written by archsmith {card.get('versions', {}).get('archsmith', '')}".strip() + "."]
    data = card.get("data", {})
    if "name" in data and "train" in data:
        lines.append(f"Data: {data['name']}, {data['train']:,} images to train on. The full card is in model.json.")
    lines += told(card)
    return [part for line in lines for part in textwrap.wrap(one_line(line), 118)]


def _listed(names: Sequence[str]) -> str:
    """The names as Python strings with commas, as many on a line as fit."""
    lines = [""]
    for name in names:
        literal = (json.dumps(name, ensure_ascii=False) if name.isprintable() else repr(name)) + ","
        if lines[-1] and len(lines[-1]) + 1 + len(literal) > 112:
            lines.append("")
        lines[-1] = f"{lines[-1]} {literal}".lstrip()
    return "\n".join(f"    {line}" for line in lines)
