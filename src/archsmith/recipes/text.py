"""Language models: the recurrent cells of Zoph and Le (2017) at paper scale, and smaller searches for a desk."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.searchers import Reinforce
from archsmith.spaces import RecurrentCell
from archsmith.training import LanguageModel

# --- desk scale: what is shrunk is said in each summary, and no more is claimed ---------------------------------------

# Short runs make few updates, so the controller learns in larger steps than the paper's 5e-4.
QUICK_CONTROLLER = Reinforce(learning_rate=1e-2, minibatch=4)

# Search by short trainings of one layer on a part of the text; then train longer, on all of it.
DESK_FINISH = FinishPlan(
    top=2,
    scale={"learning_rate": (0.5,)},
    grid={"dropout": (0.3,)},
    epochs=10,
    final={"max_train": None, "max_validation": None, "decay_after": 6},
    seeds=3,
)


def text() -> Recipe:
    """Any text: --data names a file, or a folder with train.txt, valid.txt and test.txt. Minutes on two cores."""
    return Recipe(
        name="text",
        summary="any text (--data), by words; cells of 4 leaves in one layer of 128 units, 4 epochs of 20,000 words",
        space=RecurrentCell(base=4),
        evaluator=replace(
            LanguageModel.desk("python-docs", epochs=4, max_train=20_000), hidden=128, max_validation=10_000
        ),
        searcher=QUICK_CONTROLLER,
        budget=Budget(trials=32),
        limits=Limits(seconds=600),
        finish=DESK_FINISH,
    )


def text_chars() -> Recipe:
    """The same by characters, also for text that has no spaces between words."""
    return replace(
        text(),
        name="text-chars",
        summary="any text (--data), by characters; cells of 4 leaves in one layer, 200,000 parameters, 4 epochs of 60,000",
        evaluator=replace(
            LanguageModel.desk("python-docs", epochs=4, level="char", max_train=60_000), max_validation=30_000
        ),
    )


def ptb_cell_desk() -> Recipe:
    """The paper's space and text, long enough for the controller to learn: about an hour on two cores."""
    evaluator = LanguageModel.desk("ptb", epochs=3, max_train=30_000)
    return Recipe(
        name="ptb-cell-desk",
        summary="Penn Treebank, cells of 8 leaves in one layer, 1 million parameters, 3 epochs of 30,000 words",
        space=RecurrentCell(),
        evaluator=replace(evaluator, parameters=1_000_000, max_validation=10_000),
        searcher=QUICK_CONTROLLER,
        budget=Budget(trials=120),
        limits=Limits(seconds=900),
        finish=replace(DESK_FINISH, epochs=8, final={"max_train": 200_000, "max_validation": 20_000, "decay_after": 5}),
    )


def ptb_cell_desk_max_sin() -> Recipe:
    """The first control experiment of the paper at that scale."""
    return replace(
        ptb_cell_desk(),
        name="ptb-cell-desk-max-sin",
        summary="ptb-cell-desk with max and sin in the space",
        space=RecurrentCell.enlarged(),
    )


# --- paper scale: Zoph and Le 2017, section 4.2 -----------------------------------------------------------------------


def ptb_cell() -> Recipe:
    """Cells of 8 leaves in two layers of a 20-million-parameter language model. Random search beside it is the paper's
    second control experiment (figure 6)."""
    return Recipe(
        name="ptb-cell",
        summary="Penn Treebank, cells of 8 leaves in two layers, 20 million parameters, 15,000 children of 35 epochs",
        space=RecurrentCell(),
        evaluator=LanguageModel("ptb"),
        # A replica samples one architecture at a time, and the parameter server moves after 10 gradients.
        searcher=Reinforce(learning_rate=5e-4, minibatch=10),
        budget=Budget(trials=15_000),
        scale="paper",
        finish=FinishPlan.text_paper(),
    )


def ptb_cell_max_sin() -> Recipe:
    """The paper's first control experiment (section 4.2): max among the combinations, sin among the activations."""
    return replace(
        ptb_cell(),
        name="ptb-cell-max-sin",
        summary="ptb-cell with max and sin in the space: 1.5e21 cells in place of 6.3e16",
        space=RecurrentCell.enlarged(),
    )
