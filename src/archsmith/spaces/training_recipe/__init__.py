"""How an image classifier is trained, as a space: the choices, the settings that follow from them, the drawing."""

from archsmith.spaces.training_recipe.space import TrainingRecipe

__all__ = ["TrainingRecipe"]
