"""Trains an image classifier the way the paper trains a child (Zoph and Le 2017, section 4.1).

"Whitening all the images, upsampling each image then choosing a random crop, and random horizontal flips of this
cropped image", Nesterov momentum, "the settings of the DenseNet paper", 50 epochs; the reward is the maximum
validation accuracy of the last five epochs, cubed. This file holds the settings; `image_training` has the loop.
"""

from __future__ import annotations

import dataclasses
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
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Result
from archsmith.rewards import cubed_accuracy
from archsmith.training.arrays import Arrays
from archsmith.training.image_settings import DECIDABLE, LEAST_SIDE, check_settings, check_sides
from archsmith.training.image_sources import located_images, located_labels
from archsmith.training.latency import Latency
from archsmith.training.settings import distinct

if TYPE_CHECKING:
    import torch

    from archsmith.data.images import Bytes, ImageData, ImageSplits
    from archsmith.metrics.predictions import Predictions


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
        epochs: passes over the training images. 0: the classifier alone is fitted, as `probe` says; the curve then has one row.
        batch_size: images a step; an epoch is divided into batches of about equal size, none larger.
        learning_rate: the peak; a child that decides its own overrides it.
        learning_rates: tried for one epoch each, the one with the best validation accuracy is kept, and the training begins
            anew; a child that decides its own rate is not asked. The epochs are counted. Empty: `learning_rate`.
        optimizer: "sgd", "adam" (betas 0.9 and 0.999), "adamw" (the same with decoupled weight decay), "rmsprop" (MnasNet's: decay
            0.9, epsilon 0.001), or "muon" (orthogonal steps for filters, SGD for the rest; see `nn.muon`); a child that brings
            its own overrides it.
        momentum: of stochastic gradient descent, of rmsprop, and of the filters that Muon learns (0.6 is good).
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of all parameters, as DenseNet has it; see `decay_norms`.
        schedule: of the learning rate: "step" (falls at each of `decay_at`), "cosine" (to zero), "linear" (to zero), "trapezoid"
            (constant, then linear to zero from `decay_from` on) or "constant".
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
        size: pixels a side that images are resized to: the network's input in validation, test, export and `predict`. None: as
            they are; pictures of a folder 32.
        channels: 1 (grey) or 3 (colour) that images are converted to. None: as they are.
        validation: the part of the training images that is set aside, stratified by class.
        split_seed: chooses the validation images, and those of `max_train`.
        max_train: how many images to learn from and validate with, chosen stratified before the split; None: all.
        batch_norm_epsilon: of every batch norm of the child. None: each keeps its own.
        precision: "fp32", "bf16" (mixed, weights stay fp32) or "auto": bf16 where the processor computes in it.
        channels_last: whether images lie in memory with the channels innermost, which suits convolutions on most
            processors; results differ from the other layout by rounding only.
        keep_weights: whether `evaluate` keeps the trained weights as an artifact of the trial. Children that inherit
            weights need it: those of `GrownGraph` in evolution, and all with `inherit_weights`.
        inherit_weights: whether every child starts from the weights of the trial that it was made from, made wider and deeper
            without changing what the network computes (Net2Net; `archsmith.nn.net2net`). It needs a searcher whose
            proposals have parents (`RegularizedEvolution`, `LargeScaleEvolution`, `BayesianOptimization`) and
            `keep_weights`. A child's result is then that of all trainings in its line, not comparable with that of a network
            trained from the beginning.
        latency: measures how long each child takes for an input, before it is trained, with threads of its own; the
            metric "latency", in milliseconds. Unlike all else it does not repeat to the bit. None: not measured.
        labels: a CSV with the file names and the labels of the pictures of a folder or archive, and with their splits where
            it has such a column. None: the names of the folders are the labels; without folders of classes, they are read
            from a CSV among the files that names pictures.
        label_pattern: a regular expression for the file names of pictures, whose group `label` is the label, such as
            r"(?P<label>[a-z]+)[._]"; with a slash in it, for their paths below the folder.
        source_size: pixels a side at which the training pictures are held in memory, from which crops are cut and resized;
            at least `size`. Validation resizes them to `size`; test pictures are read at `size`, as `predict` reads them.
            None: `size`.
        crop: how a training picture is placed: "shift" (moved at random, within what `upsample` and `pad` add), "affine" (turned,
            scaled and moved a little), "resized" (a random part of it, resized; Szegedy et al. 2015) or "none" (the whole picture).
            `upsample` and `pad` are used by "shift" only. A child that brings an augmentation is not given crops, flips, colours
            and policies of the settings.
        crop_area: the smallest part of a picture's area that a resized crop has; the largest is the whole picture.
        colour: how much brightness, contrast and saturation change at random: each by a factor from 1 - colour to 1 + colour.
            Grey pictures have no saturation. 0.3 is usual.
        policy: what else is done to training pictures, before they are cropped: "trivial" (TrivialAugment, Müller and Hutter
            2021), or AutoAugment's for "cifar10", "svhn" or "imagenet" (Cubuk et al. 2019), also by the names under which
            they were discovered, such as "autoaugment_cifar10". None: nothing.
        mix: "mixup" (Zhang et al. 2018, alpha 0.2) or "cutmix" (Yun et al. 2019, alpha 1): training pictures are blended with
            each other, and so are their labels. None: they are not.
        train_size: pixels a side of the training pictures at the end of the training. None: `size`.
        first_size: pixels a side of the training pictures at the beginning (progressive learning, Tan and Le 2021). They grow
            to `train_size` in steps of 8 during the first 80 % of the training. None: `train_size`.
        average: the decay of an exponential moving average of the weights, such as 0.998; after t steps at most
            (1 + t) / (10 + t). Validated, tested and kept are the averaged weights. 0: no average.
        decay_norms: whether the weight decay is also that of biases and of the parameters of norms.
        decay_from: the part of the training after which the schedule "trapezoid" falls.
        warmup_share: the part of the training over which the learning rate rises to its peak; `warmup` has it in epochs.
        seconds: how long the training lasts by the clock, instead of `epochs` epochs, which are then only the most it may have.
            Every schedule runs over these seconds. The training ends with the batch after which they are over, and a last
            validation. Epochs whose validation would take more than 5 % of the time have none. None: `epochs` epochs.
        continues: whether the result has a checkpoint with the whole state of the training, so that a job with `resume=result`
            continues it, with other settings if wanted: another learning rate, schedule, size, or augmentation. Its `epochs` or
            `seconds`, and all schedules, then are of what is added; the metrics "epochs_before" and "seconds_before" tell what
            was trained before. The optimizer must stay the same.
        folds: `evaluate` cross-validates: it divides the images to learn from and validate with into this many folds, trains a
            child once for each, and measures it on all of them; see `training.cross_validation`, whose `folds_for` says when
            that pays. The curve has `epochs` epochs, the cost counts those of all folds, and `seconds` is for all together. No
            weights are kept: with `keep_weights` the artifact has the out-of-fold predictions. `train` trains once. None:
            `evaluate` trains once and validates with the validation split.
        fold: the number of the one fold, from 0, that is the validation split, in `evaluate`, `train` and `splits`. None: all
            in turn.
        fixed: names of settings that a child does not decide, whatever its genotype says.
        probe: before the training, the network's last linear layer is fitted by logistic regression to what it is given for so many
            training pictures; see `training.linear_probe`. That is for children that start from weights. It counts into
            `seconds`; the metric "probe_accuracy" tells what came of it. 0: the layer begins as it was built.
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
    batch_norm_epsilon: float | None = 1e-5
    precision: str = "auto"
    channels_last: bool = True
    keep_weights: bool = False
    latency: Latency | None = None
    labels: str | os.PathLike[str] | None = added_later(None)
    label_pattern: str | None = added_later(None)
    source_size: int | None = added_later(None)
    crop: str = added_later("shift")
    crop_area: float = added_later(0.35)
    colour: float = added_later(0.0)
    policy: str | None = added_later(None)
    mix: str | None = added_later(None)
    train_size: int | None = added_later(None)
    first_size: int | None = added_later(None)
    average: float = added_later(0.0)
    decay_norms: bool = added_later(True)
    decay_from: float = added_later(0.25)
    warmup_share: float = added_later(0.0)
    seconds: float | None = added_later(None)
    continues: bool = added_later(False)
    folds: int | None = added_later(None)
    fold: int | None = added_later(None)
    inherit_weights: bool = added_later(False)
    fixed: tuple[str, ...] = added_later(())
    probe: int = added_later(0)

    default_reward = staticmethod(cubed_accuracy)
    nonrepeating: ClassVar[tuple[str, ...]] = ("latency", "latency_low", "latency_high")

    @property
    def reported_metrics(self) -> tuple[str, ...]:
        """The metrics of every result: the latency where it is measured."""
        always = ("accuracy", "final_accuracy", "loss", "parameters", "multiply_adds", "train_loss", "train_seconds")
        return always if self.latency is None else (*always, *self.nonrepeating)

    @property
    def epoch_cost(self) -> int:
        """How many passes over the data an epoch of the curve costs: one for each fold."""
        return 1 if self.folds is None or self.fold is not None else self.folds

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "data", located_images(self.data))
        object.__setattr__(self, "labels", located_labels(self.labels, self.label_pattern, self.data))
        object.__setattr__(self, "decay_at", tuple(self.decay_at))
        distinct("learning_rates", self.learning_rates)
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        object.__setattr__(self, "fixed", tuple(self.fixed))
        check_settings(self)

    @property
    def enlargement(self) -> float:
        """The factor by which pictures are enlarged before the middle is taken: `upsample`, unless the crop does not use it."""
        return self.upsample if self.crop == "shift" else 1.0

    def at_size(self, size: int | None) -> ImageClassification:
        """The same for inputs of `size` pixels a side (None: as the pictures are); the sides of the pictures in memory and of
        training pictures stay in proportion."""
        if self.size is None:
            return dataclasses.replace(self, size=size, source_size=None)
        if size is None:
            return dataclasses.replace(self, size=None, source_size=None, train_size=None, first_size=None)
        part = size / self.size
        source = None if self.source_size is None else round(part * self.source_size)
        last, first = (
            None if side is None else max(LEAST_SIDE, round(part * side)) for side in (self.train_size, self.first_size)
        )
        return dataclasses.replace(self, size=size, source_size=source, train_size=last, first_size=first)

    def with_settings(self, settings: Mapping[str, Any]) -> ImageClassification:
        """The evaluator with settings that a child decided. The pictures in memory stay those of this evaluator, as long as they
        are not smaller than what the child wants. Raises ChildFailed for settings that a child cannot decide, and for values
        that are not allowed."""
        if unknown := sorted(map(str, set(settings) - DECIDABLE)):
            raise ChildFailed(
                f"a child cannot decide {', '.join(unknown)} of its training; it may decide {', '.join(sorted(DECIDABLE))}"
            )
        settings = {name: value for name, value in settings.items() if name not in self.fixed}
        try:
            if "size" not in settings:
                return dataclasses.replace(self, **settings)
            decided = dataclasses.replace(self, source_size=None, **settings)
            height, width = self.splits().data.images.shape[1:3]
            if decided.size is None or height != width or height <= decided.size:
                return decided
            return dataclasses.replace(decided, source_size=int(height))
        except (UsageError, TypeError) as error:
            raise ChildFailed(f"the child decides a setting that is not allowed: {error}") from None

    @classmethod
    def desk(cls, data: Any = "digits", epochs: int = 20, max_train: int | None = None) -> ImageClassification:
        """Settings for short trainings of small children on two cores; change others with `dataclasses.replace`."""
        return cls(data, epochs, upsample=1.0, pad=0.125, max_train=max_train)

    # --- the data -----------------------------------------------------------------------------------------------------

    def splits(self) -> ImageSplits:
        """The data with its splits, read once per process. Raises DataError and UnknownName as `data.load` does."""
        splits = self._splits_without_folds()
        if self.folds is None or self.fold is None:
            return splits
        from archsmith.data.folds import fold_splits

        return fold_splits(splits, self.folds, self.split_seed, self.fold)

    def _splits_without_folds(self) -> ImageSplits:
        given: ImageSplits | None = loaded.given(self._data_key)
        if given is not None:
            return given
        whole = self._whole()
        return _split(whole, self.validation, self.split_seed, self.max_train)

    def _whole(self) -> ImageData:
        from archsmith.data.images import converted, load

        if isinstance(self.data, Arrays):
            return converted(self.data.read(), self.source_size or self.size, self.channels)
        given: ImageData | None = loaded.given(self._whole_key)
        if given is not None:
            return given
        labels = None if self.labels is None else str(self.labels)
        side = self.source_size or self.size
        return load(str(self.data), side, self.channels, labels=labels, label_pattern=self.label_pattern)

    def loaded(self) -> dict[Hashable, Any]:
        """The data, for other processes, which may have no access to the files; see `archsmith.core.loaded`."""
        whole = self.data.read() if isinstance(self.data, Arrays) else self._whole()
        given: dict[Hashable, Any] = {}
        splits = self._splits_without_folds()
        for config in self._sized(splits.data.images):
            given |= {config._data_key: splits, config._whole_key: whole}
        return given

    def _sized(self, images: Bytes) -> tuple[ImageClassification, ...]:
        """This evaluator, and the one that gives the same images by their size: a child that decides its size makes it so."""
        height, width = images.shape[1:3]
        named = self.size is not None or height != width or height < 4
        return (self,) if named else (self, dataclasses.replace(self, size=height))

    @property
    def _whole_key(self) -> Hashable:
        """What the data depend on, before they are split."""
        if isinstance(self.data, Arrays):
            return self.data.key
        return ("all images", self.data, self.labels, self.label_pattern, self.source_size or self.size, self.channels)

    @property
    def _data_key(self) -> Hashable:
        """What `splits` depends on."""
        side = self.source_size or self.size
        return ("images", self._whole_key, side, self.channels, self.validation, self.split_seed, self.max_train)

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
        depth, height, width = self.task().input_shape
        return {"shape": [height, width, depth], "classes": list(self.class_names)}

    def recorded_data(self, record: Mapping[str, Any]) -> dict[Hashable, ImageSplits]:
        """Empty data with the recorded shape and classes."""
        import numpy as np

        from archsmith.data.images import ImageData, ImageSplits

        if not {"shape", "classes"} <= record.keys():
            return {}
        height, width, depth = record["shape"]
        side = self.source_size or self.size
        shape = (0, side or height, side or width, self.channels or depth)
        none, images = np.empty(0, np.int64), np.empty(shape, np.uint8)
        whole = ImageData(str(self.data), images, none, None, None, tuple(record["classes"]), "")
        splits = ImageSplits(whole, none, none, images, none, official_test=False, split_digest="")
        return {config._data_key: splits for config in self._sized(images)}

    def task(self) -> Task:
        """What children are built for."""
        splits = self.splits()
        height, width, depth = splits.data.images.shape[1:]
        if self.source_size is not None and self.size is not None:
            height = width = self.size
        check_sides(self, (height, width))
        if depth not in (1, 3) and (self.crop in ("affine", "resized") or self.colour or self.policy or self.mix):
            raise UsageError(
                f"crop={self.crop!r}, colour, policy and mix are for grey or colour pictures, and these have {depth} channels"
            )
        return Task((depth, height, width), len(splits.data.class_names))

    def test_images(self) -> Bytes:
        """The test pictures at the size of the network's input, as `predict` reads them."""
        splits = self.splits()
        if self.source_size is None or self.source_size == self.size:
            return splits.test_images
        at_size = dataclasses.replace(self, source_size=None)
        if isinstance(self.data, Arrays) or not splits.test_files:
            return at_size.splits().test_images
        from archsmith.data.images import read_files

        labels = None if self.labels is None else str(self.labels)
        depth = int(splits.data.images.shape[3])
        return read_files(str(self.data), splits.test_files, self.size, depth, labels, self.label_pattern)

    def steps_per_epoch(self) -> int:
        """Batches of an epoch; of all folds, if there are several."""
        each = [self] if self.epoch_cost == 1 else [dataclasses.replace(self, fold=k) for k in range(self.epoch_cost)]
        return sum(math.ceil(len(config.splits().train) / self.batch_size) for config in each)

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
            "upsample": self.enlargement,
            "crop": "centre",
        }

    # --- training -----------------------------------------------------------------------------------------------------

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Build the genotype's child from the context's seed, train it, and return its validation accuracy, or with `folds` its
        cross-validated accuracy.

        Raises IllegalGenotype, Diverged when a loss becomes NaN or infinite, and LimitExceeded.
        """
        from archsmith.training import cross_validation, image_training

        if self.epoch_cost > 1:
            return cross_validation.evaluate(self, space, genotype, context)
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
        from archsmith.training import image_evaluation

        return image_evaluation.test(self, model, device)

    def probabilities(self, model: torch.nn.Module, split: str, device: str = "cpu") -> torch.Tensor:
        """What the model takes each class for, on "validation" or "test" pictures: float32 [pictures, classes], on the CPU.

        The order is that of `splits()`: its `validation`, or its `test_labels`. Computed in fp32.
        """
        from archsmith.training import image_evaluation

        return image_evaluation.probabilities(self, model, split, device)

    def predictions(self, model: torch.nn.Module, split: str, device: str = "cpu") -> Predictions:
        """The same with the labels and the files of the pictures, for the statistics of `archsmith.metrics`."""
        from archsmith.metrics.predictions import Predictions

        splits = self.splits()
        probabilities = self.probabilities(model, split, device).numpy()
        if split == "test":
            return Predictions(probabilities, splits.test_labels, splits.test_files)
        files = tuple(splits.data.files[k] for k in splits.validation.tolist()) if splits.data.files else ()
        return Predictions(probabilities, splits.data.labels[splits.validation], files)


@functools.lru_cache(maxsize=4)
def _split(whole: Any, validation: float, seed: int, max_train: int | None) -> ImageSplits:
    from archsmith.data import images as data

    return data.split(whole, validation, seed, max_train)
