"""Image classifiers: the experiments of Zoph and Le (2017) at paper scale, and smaller ones for a desk."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.errors import UsageError
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.recipes.residual import PictureKind, known_points, known_recipe, light_space, trained_by
from archsmith.searchers import BayesianOptimization, DepthSchedule, Random, Reinforce
from archsmith.spaces import ConvChain
from archsmith.training import ImageClassification, Landscape

# --- desk scale: what is shrunk is said in each summary, and no more is claimed ---------------------------------------

# Short runs make few updates, so the controller learns in larger steps and from smaller minibatches than the paper's
# 6e-4 and 8: benchmarks/results/landscape.md has what that does.
QUICK_CONTROLLER = Reinforce(learning_rate=1e-2, minibatch=4)

# Of a search on a person's images:
MOST_SEARCHED = 2500  # images that it learns from and validates with
EPOCHS, MOST_EPOCHS = 4, 8  # of a child: more where there are few images, so that it sees SEEN in all
SEEN = 2500
KNOWN_SIZE = 1  # of the four known networks the second largest comes first
FASHION_MNIST = PictureKind(train=MOST_SEARCHED * 9 // 10, channels=1, small=True, mirrored=True)


def digits() -> Recipe:
    """The first run: minutes on two cores, data that scikit-learn carries."""
    return Recipe(
        name="digits",
        summary="scikit-learn's digits, chains of 4 narrow layers, 5 epochs a child",
        space=ConvChain(layers=4, filter_heights=(1, 3, 5), filter_widths=(1, 3, 5), filters=(8, 16, 24, 32)),
        evaluator=ImageClassification.desk("digits", epochs=5),
        searcher=QUICK_CONTROLLER,
        budget=Budget(trials=32),
        limits=Limits(seconds=120),
        finish=FinishPlan(top=2, scale={"learning_rate": (0.5, 2.0)}, epochs=15, seeds=3),
    )


def digits_hour() -> Recipe:
    """Long enough for the controller to learn, in about an hour on two cores.

    Many short trainings rather than few long ones: after 20 epochs most children read all 144 validation digits, and
    there is little left to learn from.
    """
    return Recipe(
        name="digits-hour",
        summary="scikit-learn's digits, chains of 6 narrow layers, 6 epochs a child",
        space=ConvChain(layers=6, filter_heights=(1, 3, 5), filter_widths=(1, 3, 5), filters=(8, 16, 24, 32)),
        evaluator=ImageClassification.desk("digits", epochs=6),
        searcher=Reinforce(learning_rate=1e-2),
        budget=Budget(trials=320),
        limits=Limits(seconds=300),
        finish=replace(FinishPlan.desk(), epochs=30, seeds=5),
    )


def images() -> Recipe:
    """Any data set: --data names a folder with one folder of images a class, an .npz file, or a known data set.

    As it stands it suits Fashion-MNIST; `suited` fits it to other pictures.
    """
    evaluator = replace(
        ImageClassification.desk("fashion-mnist", epochs=EPOCHS, max_train=MOST_SEARCHED),
        fixed=("train_size", "first_size"),
    )
    return Recipe(
        name="images",
        summary="any image data set (--data), residual networks with their training recipes, from known ones, short trainings "
        f"on up to {MOST_SEARCHED:,} images",
        space=light_space(FASHION_MNIST),
        evaluator=trained_by(evaluator, known_recipe(FASHION_MNIST)),
        # Who comes with images wants the best of 20 trials, which is too few for a controller to learn much from:
        # docs/log.md, "Which searcher a person's own images get". Known points are told first, so few need be random.
        searcher=BayesianOptimization(initial=2),
        budget=Budget(trials=20),
        limits=Limits(seconds=1200),
        first=tuple(known_points(FASHION_MNIST, KNOWN_SIZE)),
        # The learning rate was a choice of the search. Final trainings are three times as long as those of the search.
        finish=FinishPlan(top=2, seeds=3, final={"max_train": None}),
        suited_by=_suited,
    )


def _suited(recipe: Recipe) -> Recipe:
    """The recipe `images` for its pictures, which are read. What a person changed of it stays."""
    from archsmith.training.picture_sides import SMALL, sides, size_of, with_sides

    evaluator, usual = recipe.evaluator, images()
    if not isinstance(evaluator, ImageClassification):
        return recipe
    found = size_of(evaluator)
    evaluator = with_sides(evaluator, *sides(found.own, found.detail, evaluator.size, cropped=found.colour))
    splits = evaluator.splits()
    channels = int(splits.data.images.shape[3])
    if recipe.space != usual.space:
        return replace(recipe, evaluator=evaluator)
    if channels not in (1, 3):
        raise UsageError(
            f"recipe {recipe.name!r} is for grey or colour pictures, with 1 or 3 channels, and these have {channels}; write "
            "one with a space of your own, such as ConvChain"
        )
    kind = PictureKind(len(splits.train), channels, (evaluator.size or 0) <= SMALL, splits.data.mirrored_is_same)
    evaluator = trained_by(evaluator, known_recipe(kind))
    if evaluator.epochs == EPOCHS:
        evaluator = replace(evaluator, epochs=min(MOST_EPOCHS, max(EPOCHS, SEEN // kind.train)))
    first = tuple(known_points(kind, KNOWN_SIZE)) if recipe.first == usual.first else recipe.first
    return replace(recipe, space=light_space(kind), evaluator=evaluator, first=first)


def landscape() -> Recipe:
    """No training: a made reward, to watch the controller learn in seconds."""
    return Recipe(
        name="landscape",
        summary="a made reward over the convolutional space, to watch the controller learn in seconds; trains nothing",
        space=ConvChain(layers=12, filter_heights=(1, 3, 5, 7), filter_widths=(1, 3, 5, 7)),
        evaluator=Landscape(ruggedness=0.3),
        searcher=Reinforce(learning_rate=6e-3),
        budget=Budget(trials=1600),
        workers=1,
    )


# --- paper scale: Zoph and Le 2017, section 4.1 -----------------------------------------------------------------------

DEPTHS = DepthSchedule(start=6, step=2, every=1600)


def cifar10_conv() -> Recipe:
    """No strides, no pooling, the depth grown from 6 to 20 as the search goes."""
    return Recipe(
        name="cifar10-conv",
        summary="CIFAR-10, filters and skip connections, depth 6 to 20, 12,800 children of 50 epochs",
        space=ConvChain(depths=tuple(range(6, 21, 2))),
        evaluator=ImageClassification("cifar10"),
        searcher=Reinforce(depth_schedule=DEPTHS),
        control_searcher=Random(depth_schedule=DEPTHS),
        budget=Budget(trials=12_800),
        scale="paper",
        finish=FinishPlan.paper(),
    )


def cifar10_conv_strides() -> Recipe:
    """Strides are predicted too."""
    return replace(
        cifar10_conv(),
        name="cifar10-conv-strides",
        summary="CIFAR-10, strides predicted as well, depth 6 to 20, 12,800 children of 50 epochs",
        space=ConvChain(depths=tuple(range(6, 21, 2)), strides=(1, 2, 3)),
    )


def cifar10_conv_pools() -> Recipe:
    """Thirteen predictions of three layers each, with two pools."""
    return replace(
        cifar10_conv(),
        name="cifar10-conv-pools",
        summary="CIFAR-10, 13 blocks of 3 layers with two pools (39 layers), 12,800 children of 50 epochs",
        space=ConvChain.v3(),
        searcher=Reinforce(),
        control_searcher=Random(),
    )


def cifar10_conv_more_filters() -> Recipe:
    """The same with 40 more filters in every layer."""
    return replace(
        cifar10_conv_pools(),
        name="cifar10-conv-more-filters",
        summary="CIFAR-10, 13 blocks of 3 layers with two pools, 40 more filters a layer, 12,800 children",
        space=ConvChain.v3(more_filters=True),
    )
