"""The model card for people: what a network is, how good, on what, at what cost, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.core.finish import Measure, epochs_text
from archsmith.core.temperatures import FittedTemperature

_IMAGES = {
    "pytorch": """\
```python
import archsmith as smith

model = smith.load(".")  # this folder
logits = model.deployed()(images)  # float32 [count, {shape}], pixels from 0 to 1
```

or `archsmith predict FOLDER IMAGE...`. The weights are safetensors, everything else is JSON; nothing in it is run.""",
    "onnx": """\
```python
import onnxruntime
{reading}
session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(["logits"], {{"images": images}})  # float32 [count, {shape}], pixels from 0 to 1
```

Whitening and the like are inside the file. Or `archsmith predict FOLDER IMAGE...`.""",
    "source": """\
`model.py` is plain PyTorch and needs neither archsmith nor this card:

```
python model.py IMAGE...
```

or, from Python, `logits = load()(images)` with float32 images [count, {shape}], pixels from 0 to 1.""",
}

_TENSORS = {
    "pytorch": """\
```python
import archsmith as smith

model = smith.load(".")  # this folder; for your own space: load(".", space=..., build=...)
logits = model.deployed()(inputs)  # float32 [count, {shape}]
```

The weights are safetensors, everything else is JSON; nothing in it is run.""",
    "onnx": """\
```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(["logits"], {{"inputs": inputs}})  # float32 [count, {shape}]
```""",
    "source": """\
`model.py` is plain PyTorch and needs neither archsmith nor this card: `logits = load()(inputs)` with float32 inputs
[count, {shape}].""",
}

_TEXT = {
    "pytorch": """\
```python
import torch

import archsmith as smith

model = smith.load(".")  # this folder
tokens = torch.from_numpy(model.vocabulary.encode("some text"))[:, None]  # int64 [steps, batch]
scores, state = model.network(tokens)  # [steps, batch, {vocabulary}], of what comes next; (h, c) to go on from
```

or `archsmith predict FOLDER FILE...` for the {measure} of texts, and `archsmith predict FOLDER --continue "some text"`.
The weights are safetensors, everything else is JSON; nothing in it is run.""",
    "onnx": """\
The file is one step: tokens and a state in, scores and a state out.

```python
import numpy
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
h = c = numpy.zeros(({layers}, 1, {hidden}), numpy.float32)  # at the beginning; [layers, batch, units]
for token in tokens:
    given = {{"tokens": numpy.array([[token]]), "h": h, "c": c}}  # int64 [1, batch]
    scores, h, c = session.run(["scores", "new_h", "new_c"], given)  # scores [1, batch, {vocabulary}]
```

Tokens are places in the list of `vocabulary.json`. Or `archsmith predict FOLDER FILE...` for the {measure} of texts, and
`archsmith predict FOLDER --continue "some text"`.""",
    "source": """\
`model.py` is plain PyTorch and needs neither archsmith nor this card:

```
python model.py "some text"         # goes on with it
python model.py --score FILE...     # {measure} of each text
```

or, from Python, `scores, state = load()(tokens)` with int64 tokens [steps, batch]. `FoundRNN` in it stands in for
`torch.nn.LSTM` anywhere, and `FoundCell` for `torch.nn.LSTMCell`.""",
}


def readme(card: Mapping[str, Any]) -> str:
    """`README.md` from the content of `model.json`."""
    about = card["card"]
    what, use, named = _WORDS[card["takes"]](card)
    lines = [
        f"# {card['name']}",
        "",
        what,
        "",
        "## Use",
        "",
        use,
        "",
        named,
        "",
        "## How good",
        "",
        *[f"- {line}" for line in told(about)],
        "",
        "## Where it comes from",
        "",
        *[f"- {line}" for line in _origin(about)],
        "",
        "The genotype, the architecture, the data's digests and every setting of the training are in `model.json`.",
    ]
    return "\n".join(lines) + "\n"


def _of_images(card: Mapping[str, Any]) -> tuple[str, str, str]:
    task = card["task"]
    what = (
        f"An image classifier found by neural architecture search with archsmith: {card['parameters']:,} parameters, "
        f"images of {' x '.join(str(n) for n in task['input_shape'])} (channels, height, width), "
        f"{task['num_classes']} classes."
    )
    shape = ", ".join(str(n) for n in task["input_shape"])
    names = card["class_names"]
    if len(names) > 10 and names == [str(k) for k in range(len(names))]:
        names = [f"0 to {len(names) - 1}"]
    reading = ""
    if len(task["input_shape"]) == 3 and task["input_shape"][0] in (1, 3):  # read_image.py is there
        reading = '\nfrom read_image import read_image  # needs Pillow and numpy\n\nimages = read_image("picture.jpg")'
    return what, _IMAGES[card["kind"]].format(shape=shape, reading=reading), f"Classes, by logit: {', '.join(names)}."


def _of_tensors(card: Mapping[str, Any]) -> tuple[str, str, str]:
    what, _, named = _of_images({**card, "kind": "onnx"})
    shape = ", ".join(str(n) for n in card["task"]["input_shape"])
    what = (
        f"A classifier found by neural architecture search with archsmith: {card['parameters']:,} parameters, inputs of shape "
        f"[{shape}], {card['task']['num_classes']} classes."
    )
    return what, _TENSORS[card["kind"]].format(shape=shape), named


def _of_text(card: Mapping[str, Any]) -> tuple[str, str, str]:
    task, level = card["task"], card["vocabulary"]["level"]
    unit, measure = ("word", "perplexity") if level == "word" else ("character", "bits per character")
    layers = f"{task['layers']} layers" if task["layers"] > 1 else "one layer"
    tied = ", the softmax tied to them" if task["tied"] else ""
    what = (
        f"A language model whose recurrent cell was found by neural architecture search with archsmith: "
        f"{card['parameters']:,} parameters, {layers} of {task['hidden']:,} units, {task['vocabulary']:,} different "
        f"{unit}s embedded in {task['embedding']:,} numbers{tied}."
    )
    read = (
        'Words stand between white space, and "<eos>" at each line\'s end; what is not among them is "<unk>". A text has '
        "to be prepared as the training text was (lower case or not, punctuation apart or not)."
        if level == "word"
        else "Every character is a symbol, the line end too."
    )
    use = _TEXT[card["kind"]].format(**task, measure=measure)
    return what, use, f"The {unit}s are in `vocabulary.json`, by number. {read}"


_WORDS = {"images": _of_images, "tensors": _of_tensors, "text": _of_text}


def told(card: Mapping[str, Any]) -> list[str]:
    """The measurements of a card as sentences, each with what it was measured on."""
    metrics = card.get("metrics", {})
    measure = Measure.from_json(metrics.get("measure"))  # accuracy, where a card was written before there were others
    label = measure.label
    lines = []
    if (test := metrics.get("test")) is not None:
        over = "of" if measure.percent else "over"
        value = measure.text(test[measure.name])
        on = f" {over} {test['count']:,} {measure.items}" if test["count"] else ""
        lines.append(f"Test {label} of these weights: {value}{on}.")
        if test["n"] > 1:
            spread = measure.text(test["mean"], test["deviation"])
            lines.append(f"Over {test['n']} seeds: {spread} (mean and sample standard deviation).")
        lines.append(f"These weights are of {metrics['chosen']}. The test set was looked at {_times(test['looks'])}.")
    if (validation := metrics.get("validation")) is not None:
        helped = f"on {measure.items} that helped to choose the network"
        lines.append(f"Validation {label} of these weights: {measure.text(validation)}, {helped}.")
    if (searched := metrics.get("searched")) is not None:
        lines.append(f"The search judged it by {measure.text(searched)}, the highest {label} of its last epochs.")
    if (fitted := FittedTemperature.from_json(card.get("calibration"))) is not None:
        lines.append(str(fitted))
    if (small := card.get("quantized")) is not None:
        right, fast = small["validation"], small["milliseconds"]
        lines.append(
            f"In {small['bits']} bits, calibrated on {small['calibrated_on']:,} training images: validation accuracy "
            f"{100 * right['after']:.2f} % on {right['count']:,} images, {100 * right['before']:.2f} % before; {fast['after']:.2f} ms "
            f"for an image, {fast['before']:.2f} before (ONNX Runtime, one thread)."
        )
    if (drawn := card.get("untrained")) is not None:
        lines.append(f"Nothing was trained: these weights were drawn at random from seed {drawn['seed']}.")
    elif test is None:
        lines.append("These weights were not tested: `archsmith finish` trains for longer and tests once.")
    if claim := metrics.get("claim"):
        lines.append(claim)
    return lines


def _origin(card: Mapping[str, Any]) -> list[str]:
    """Data, training, cost, versions and command, a line each, as far as they are known."""
    lines = [f"Found: {card['origin']}."] if "origin" in card else []
    items = "images"
    if "train" in (data := card.get("data", {})):
        items = {"word": "words", "char": "characters"}.get(data.get("level"), items)
        uses = (("train", f"{items} to train on"), ("validation", "to validate with"), ("test", "to test with"))
        counts = ", ".join(f"{data[part]:,} {use}" for part, use in uses if isinstance(data.get(part), int))
        split = f" (test split: {data['test_split']})" if "test_split" in data else ""
        lines.append(f"Data: {data.get('name', 'unnamed')}; {counts}{split}.")
    if "epochs" in (training := card.get("training", {})).get("evaluator", {}):
        whole = f", the validation {items} included" if training["all_data"] else ""
        lines.append(f"Trained for {epochs_text(training['evaluator']['epochs'], training)}{whole}.")
    for what, cost in card.get("cost", {}).items():
        trials = f"{cost['trials']:,} trials, " if "trials" in cost else ""
        lines.append(f"Cost of the {what}: {trials}{cost['epochs']:,.0f} epochs, {cost['seconds'] / 60:,.1f} minutes.")
    if "versions" in card:
        lines.append("Versions: " + ", ".join(f"{k} {v}" for k, v in card["versions"].items()) + ".")
    if "command" in card:
        lines.append(f"Searched with: `{card['command']}`, seed {card.get('seed')}.")
    return lines


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
