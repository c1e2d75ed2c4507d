"""Trains an image classifier the way the paper trains a child (Zoph and Le 2017, section 4.1).

"Whitening all the images, upsampling each image then choosing a random crop, and random horizontal flips of this
cropped image", Nesterov momentum, "the settings of the DenseNet paper", 50 epochs; the reward is the maximum
validation accuracy of the last five epochs, cubed. This file holds the settings; `image_training` has the loop.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core import loaded
from archsmith.core.checks import plain_fields
from archsmith.core.child import Child, Task
from archsmith.core.config import added_later
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Genotype
from archsmith.core.shown import shown
from archsmith.core.space import Space
from archsmith.core.trial import Result
from archsmith.rewards import cubed_accuracy
from archsmith.training.arrays import Arrays
from archsmith.training.latency import Latency
from archsmith.training.settings import distinct, located, number, whole

if TYPE_CHECKING:
    import torch

    from archsmith.data.images import ImageData, ImageSplits

SCHEDULES = ("step", "cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16")
OPTIMIZERS = ("sgd", "adam", "rmsprop")


@dataclass(frozen=True)
class ImageClassification:
    """An evaluator: trains a child on images and returns its validation accuracy, epoch by epoch.

    The defaults are the paper's scale; `ImageClassification.desk()` has settings for minutes on two cores. Everything
    random comes from the context's seed: the same seed and threads give the same result to the bit in fp32 on a CPU,
    and the process's own random state is left as it was.

    Batch norms whose running averages would remember more than a thirtieth of the training, as those of the released
    ImageNet networks do in a short one, forget faster while it lasts; the metric "batch_norm_decay" then tells how fast.

    Args:
        data: "digits", "mnist", "fashion-mnist", "cifar10" or "cifar100", or a path: a folder (or .tar.gz, .zip) with
            one folder of pictures a class, a CSV that names pictures and their labels, an .npz, a folder of IDX files,
            CIFAR's binary archive. Or arrays:
            `(images, labels)`, `((x_train, y_train), (x_test, y_test))`, or a mapping with these names and x_val and y_val:
            of numpy or torch, the channels last or first, bytes or floating point from 0 to 1; or lists of pictures.
        epochs: passes over the training images.
        batch_size: images a step; an epoch is divided into batches of about equal size, none larger.
        learning_rate: the peak; a child that decides its own overrides it.
        learning_rates: tried for one epoch each, the one with the best validation accuracy is kept, and the training begins
            anew; a child that decides its own rate is not asked. The epochs are counted. Empty: `learning_rate`.
        optimizer: "sgd", "adam" (betas 0.9 and 0.999) or "rmsprop" (MnasNet's: decay 0.9, epsilon 0.001); a child that
            brings its own overrides it.
        momentum: of stochastic gradient descent and of rmsprop.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of all parameters, as DenseNet has it.
        schedule: "step" (falls at each of `decay_at`), "cosine" (to zero) or "constant".
        decay_at: when the learning rate falls, as fractions of the epochs.
        decay_factor: what it is multiplied by each time.
        warmup: epochs over which the learning rate rises to its peak.
        whiten: whether each image is standardised to mean 0 and deviation 1; otherwise pixels are 0 to 1.
        upsample: images are enlarged by this factor and cropped back at random; validation takes the middle.
        pad: zeros around an image before the crop, as a part of its sides: shifts without enlarging; 0.125 is the
            usual 4 pixels of 32.
        flip: whether images are mirrored at random. None: where a mirrored image shows the same thing, which is
            for colour pictures and Fashion-MNIST, and not for grey ones, which may be of characters.
        label_smoothing: how much of the target is spread over all classes.
        clip: the largest norm of the gradients of all parameters together (NASNet: 5, for ImageNet 10); None: no limit.
        size: pixels a side that images are resized to. None: as they are; pictures of a folder 32.
        channels: 1 (grey) or 3 (colour) that images are converted to. None: as they are.
        validation: the part of the training images that is set aside, stratified by class.
        split_seed: chooses the validation images, and those of `max_train`.
        max_train: how many images to learn from and validate with, chosen stratified before the split; None: all.
        batch_norm_epsilon: of every batch norm of the child.
        precision: "fp32", "bf16" (mixed, weights stay fp32) or "auto": bf16 where the processor computes in it.
        channels_last: whether images lie in memory with the channels innermost, which suits convolutions on most
            processors; results differ from the other layout by rounding only.
        keep_weights: whether `evaluate` keeps the trained weights as an artifact of the trial. Children that inherit
            weights need it: those of `GrownGraph` in evolution.
        latency: measures how long each child takes for an input, before it is trained, with threads of its own; the
            metric "latency", in milliseconds. Unlike all else it does not repeat to the bit. None: not measured.
        labels: a CSV with the file names and the labels of the pictures of a folder or archive, and with their splits where
            it has such a column. None: the names of the folders are the labels; without folders of classes, they are read
            from a CSV among the files that names pictures.
        label_pattern: a regular expression for the file names of pictures, whose group `label` is the label, such as
            r"(?P<label>[a-z]+)[._]"; with a slash in it, for their paths below the folder.
    """

    data: str | os.PathLike[str] | Arrays | Sequence[Any] | Mapping[str, Any] = "digits"
    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: str = "step"
    decay_at: tuple[float, ...] = (0.5, 0.75)
    decay_factor: float = 0.1
    warmup: float = 0.0
    whiten: bool = True
    upsample: float = 1.25
    pad: float = 0.0
    flip: bool | None = None
    label_smoothing: float = 0.0
    clip: float | None = None
    learning_rates: tuple[float, ...] = ()
    size: int | None = None
    channels: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    max_train: int | None = None
    batch_norm_epsilon: float = 1e-5
    precision: str = "auto"
    channels_last: bool = True
    keep_weights: bool = False
    latency: Latency | None = None
    labels: str | os.PathLike[str] | None = added_later(None)
    label_pattern: str | None = added_later(None)

    default_reward = staticmethod(cubed_accuracy)
    nonrepeating: ClassVar[tuple[str, ...]] = ("latency", "latency_low", "latency_high")

    @property
    def reported_metrics(self) -> tuple[str, ...]:
        """The metrics of every result: the latency where it is measured."""
        always = ("accuracy", "final_accuracy", "loss", "parameters", "multiply_adds", "train_loss", "train_seconds")
        return always if self.latency is None else (*always, *self.nonrepeating)

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "data", _located(self.data))
        object.__setattr__(self, "labels", _labels_of(self.labels, self.label_pattern, self.data))
        object.__setattr__(self, "decay_at", tuple(self.decay_at))
        for name, least in (("epochs", 1), ("batch_size", 2), ("split_seed", 0)):
            whole(name, getattr(self, name), least)
        for name, least in (("size", 4), ("max_train", 4)):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), least)
        number("learning_rate", self.learning_rate, 0, math.inf, "above 0", open_below=True)
        distinct("learning_rates", self.learning_rates)
        for rate in self.learning_rates:
            number("each of learning_rates", rate, 0, math.inf, "above 0", open_below=True)
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        number("momentum", self.momentum, 0, 1, "at least 0 and below 1")
        number("decay_factor", self.decay_factor, 0, 1, "above 0 and below 1", open_below=True)
        number("weight_decay", self.weight_decay, 0, math.inf, "at least 0")
        number("warmup", self.warmup, 0, self.epochs, "at least 0 and below the epochs")
        number("upsample", self.upsample, 1, 4 + 1e-9, "from 1 to 4")
        number("pad", self.pad, 0, 0.5, "at least 0 and below 0.5")
        number("label_smoothing", self.label_smoothing, 0, 1, "at least 0 and below 1")
        if self.clip is not None:
            number("clip", self.clip, 0, math.inf, "above 0, or None", open_below=True)
        number("validation", self.validation, 0, 1, "above 0 and below 1", open_below=True)
        number("batch_norm_epsilon", self.batch_norm_epsilon, 0, math.inf, "above 0", open_below=True)
        if self.flip not in (None, True, False) or (isinstance(self.flip, int) and not isinstance(self.flip, bool)):
            raise UsageError(f"flip must be True, False or None (decided by the data), got {self.flip!r}")
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1, 3 or None, got {self.channels!r}")
        if self.nesterov and self.momentum == 0:
            raise UsageError("nesterov=True needs a momentum above 0; with momentum=0 give nesterov=False")
        if self.schedule not in SCHEDULES:
            raise UnknownName("learning-rate schedule", str(self.schedule), SCHEDULES)
        if self.optimizer not in OPTIMIZERS:
            raise UnknownName("optimizer", str(self.optimizer), OPTIMIZERS, "(a child may bring any other)")
        if self.latency is not None and not isinstance(self.latency, Latency):
            raise UsageError(f"latency must be a Latency(...) or None, got {shown(self.latency)}")
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", str(self.precision), PRECISIONS)
        ascending = all(a < b for a, b in zip((0.0, *self.decay_at), (*self.decay_at, 1.0), strict=True))
        if not ascending:
            raise UsageError(
                f"decay_at must be fractions of the epochs, ascending between 0 and 1, got {self.decay_at}"
            )

    @classmethod
    def desk(cls, data: Any = "digits", epochs: int = 20, max_train: int | None = None) -> ImageClassification:
        """Settings for short trainings of small children on two cores; change others with `dataclasses.replace`."""
        return cls(data, epochs, upsample=1.0, pad=0.125, max_train=max_train)

    # --- the data -----------------------------------------------------------------------------------------------------

    def splits(self) -> ImageSplits:
        """The data with its splits, read once per process. Raises DataError and UnknownName as `data.load` does."""
        given: ImageSplits | None = loaded.given(self._data_key)
        if given is not None:
            return given
        whole = self._whole()
        return _split(whole, self.validation, self.split_seed, self.max_train)

    def _whole(self) -> ImageData:
        from archsmith.data.images import converted, load

        if isinstance(self.data, Arrays):
            return converted(self.data.read(), self.size, self.channels)
        given: ImageData | None = loaded.given(self._whole_key)
        if given is not None:
            return given
        labels = None if self.labels is None else str(self.labels)
        return load(str(self.data), self.size, self.channels, labels=labels, label_pattern=self.label_pattern)

    def loaded(self) -> dict[Hashable, Any]:
        """The data, for other processes, which may have no access to the files; see `archsmith.core.loaded`."""
        whole = self.data.read() if isinstance(self.data, Arrays) else self._whole()
        return {self._data_key: self.splits(), self._whole_key: whole}

    @property
    def _whole_key(self) -> Hashable:
        """What the data depend on, before they are split."""
        if isinstance(self.data, Arrays):
            return self.data.key
        return ("all images", self.data, self.labels, self.label_pattern, self.size, self.channels)

    @property
    def _data_key(self) -> Hashable:
        """What `splits` depends on."""
        return ("images", self._whole_key, self.size, self.channels, self.validation, self.split_seed, self.max_train)

    def fingerprint(self) -> str:
        """Identifies the content of the data and its splits, wherever the files lie."""
        return self.splits().fingerprint

    def data_contents(self) -> Mapping[str, str]:
        """A short digest of each file or array, by name."""
        return self.splits().data.contents

    def describe_data(self) -> dict[str, Any]:
        """Plain JSON of what the data are, for the record: counts, classes, digests, files that could not be read."""
        return self.splits().describe()

    def data_record(self) -> dict[str, Any]:
        """The facts that an export needs: the shape of the pictures, and the classes."""
        images = self.splits().data
        return {"shape": list(images.images.shape[1:]), "classes": list(images.class_names)}

    def recorded_data(self, record: Mapping[str, Any]) -> dict[Hashable, ImageSplits]:
        """Empty data with the recorded shape and classes."""
        import numpy as np

        from archsmith.data.images import ImageData, ImageSplits

        if not {"shape", "classes"} <= record.keys():
            return {}
        height, width, depth = record["shape"]
        shape = (0, self.size or height, self.size or width, self.channels or depth)
        none, images = np.empty(0, np.int64), np.empty(shape, np.uint8)
        whole = ImageData(str(self.data), images, none, None, None, tuple(record["classes"]), "")
        return {self._data_key: ImageSplits(whole, none, none, images, none, official_test=False, split_digest="")}

    def task(self) -> Task:
        """What children are built for."""
        splits = self.splits()
        height, width, depth = splits.data.images.shape[1:]
        return Task((depth, height, width), len(splits.data.class_names))

    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.splits().train) / self.batch_size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of a child's outputs."""
        return self.splits().data.class_names

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Plain JSON of what stands between a picture and a trained child, in order; `nn.augment.preprocess` does it.

        A picture's shorter side is scaled to the input's size and the middle kept (`read_picture`); its bytes are
        multiplied by `scale`; standardised each on its own if `whiten`; enlarged bilinearly by `upsample`; the middle
        of height by width is taken.
        """
        depth, height, width = self.task().input_shape
        return {
            "height": height,
            "width": width,
            "channels": depth,
            "scale": 1 / 255,
            "whiten": self.whiten,
            "upsample": self.upsample,
            "crop": "centre",
        }

    # --- training -----------------------------------------------------------------------------------------------------

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Build the genotype's child from the context's seed, train it, and return its validation accuracy.

        Raises IllegalGenotype, Diverged when a loss becomes NaN or infinite, and LimitExceeded.
        """
        from archsmith.training import image_training

        return image_training.evaluate(self, space, genotype, context)

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        """Train `child.model` in place; it is left in evaluation mode, on the context's device.

        With `all_data` the validation images are learned from as well, and the curve has no validation accuracy.
        Raises Diverged and LimitExceeded.
        """
        from archsmith.training import image_training

        return image_training.train(self, child, context, all_data=all_data)

    def test(self, model: torch.nn.Module, device: str = "cpu") -> dict[str, float]:
        """Accuracy, loss and count on the test split, in fp32. To be looked at once, when all choices are made.

        A model whose loss is not finite there has neither: both are NaN.
        """
        from archsmith.training import image_training

        return image_training.test(self, model, device)


@functools.lru_cache(maxsize=4)
def _split(whole: Any, validation: float, seed: int, max_train: int | None) -> ImageSplits:
    from archsmith.data import images as data

    return data.split(whole, validation, seed, max_train)


def _located(data: object) -> str | Arrays:
    """The data as a name, an absolute path, or `Arrays`. Raises UsageError for anything else."""
    if isinstance(data, Arrays):
        return data
    if isinstance(data, str | os.PathLike):
        return located(os.fspath(data), _is_name)
    from archsmith.training.array_input import arrays_of

    return arrays_of(data)


def _is_name(name: str) -> bool:
    from archsmith.data.images import is_name

    return is_name(name)


def _labels_of(labels: object, pattern: object, data: object) -> str | None:
    """The path of the CSV: relative if it is inside the data, so that both can be moved together, else absolute.

    Raises UsageError for anything but a path, and for an invalid pattern.
    """
    for name, value in (("labels", labels), ("label_pattern", pattern)):
        if value is not None and isinstance(data, Arrays):
            raise UsageError(
                f"{name} is for folders and archives of pictures, and data is arrays, which have their labels"
            )
    if labels is not None and pattern is not None:
        raise UsageError("give either labels, a CSV, or label_pattern, for the names of files")
    if pattern is not None:
        from archsmith.data.label_pattern import checked_pattern

        if not isinstance(pattern, str):
            raise UsageError(f"label_pattern must be a regular expression, got {shown(pattern)}")
        checked_pattern(pattern)
    if labels is None:
        return None
    if not isinstance(labels, str | os.PathLike) or not os.fspath(labels):
        raise UsageError(f"labels must be the path of a CSV, got {shown(labels)}")
    path, root = os.path.expanduser(os.fspath(labels)), str(data)
    if not os.path.isfile(path):
        return path
    below = os.path.relpath(os.path.abspath(path), root)
    return os.path.abspath(path) if below.startswith(os.pardir) or not os.path.isdir(root) else below
