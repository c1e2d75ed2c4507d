"""The model card for people: what a network is, how good, on what, at what cost, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_USE = {
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


def readme(card: Mapping[str, Any]) -> str:
    """`README.md` from the content of `model.json`."""
    task, about = card["task"], card["card"]
    shape = ", ".join(str(n) for n in task["input_shape"])
    lines = [
        f"# {card['name']}",
        "",
        f"An image classifier found by neural architecture search with archsmith: {card['parameters']:,} parameters, "
        f"images of {' x '.join(str(n) for n in task['input_shape'])} (channels, height, width), "
        f"{task['num_classes']} classes.",
        "",
        "## Use",
        "",
        _USE[card["kind"]].format(shape=shape),
        "",
        "Classes, by logit: " + ", ".join(card["class_names"]) + ".",
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


def told(card: Mapping[str, Any]) -> list[str]:
    """The measurements of a card as sentences, each with what it was measured on."""
    metrics = card.get("metrics", {})
    lines = []
    if (test := metrics.get("test")) is not None:
        lines.append(f"Test accuracy of these weights: {100 * test['accuracy']:.2f} % of {test['count']:,} images.")
        if test["n"] > 1:
            lines.append(
                f"Over {test['n']} seeds: {100 * test['mean']:.2f} % ± {100 * test['deviation']:.2f} "
                f"(mean and sample standard deviation)."
            )
        lines.append(f"These weights are of {metrics['chosen']}. The test set was looked at {_times(test['looks'])}.")
    if (validation := metrics.get("validation")) is not None:
        lines.append(f"Validation accuracy: {100 * validation:.2f} %, on images that helped to choose the network.")
    if test is None:
        lines.append("These weights were not tested: `archsmith finish` trains to convergence and tests once.")
    if claim := metrics.get("claim"):
        lines.append(claim)
    return lines


def _origin(card: Mapping[str, Any]) -> list[str]:
    """Data, training, cost, versions and command, a line each, as far as they are known."""
    lines = [f"Found: {card['origin']}."] if "origin" in card else []
    if "train" in (data := card.get("data", {})):
        lines.append(
            f"Data: {data['name']}; {data['train']:,} images to train on, {data['validation']:,} to validate with, "
            f"{data['test']:,} to test with (test split: {data['test_split']})."
        )
    if "epochs" in (training := card.get("training", {})).get("evaluator", {}):
        whole = ", the validation images included" if training["all_data"] else ""
        lines.append(f"Trained for {training['evaluator']['epochs']:,} epochs{whole}.")
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
