"""Notes which models the results in a folder are of, so that results of others are not taken for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qwen3vl.durable import make_folder, write_file
from qwen3vl.errors import InputError, RecipeError
from qwen3vl.recipe import Recipe

_FIX = "Name another folder for the results, or use the same model and settings."


def result_folder(out: Path, recipe: Recipe) -> Path:
    """Return the folder of a model's results, which has the model's name, as the official scripts name it.

    Args:
        out: The folder of all results.
        recipe: The model's recipe.

    Returns:
        The folder; with an adapter its name follows that of the model.
    """
    names = [recipe.model, *([recipe.adapter] if recipe.adapter else [])]
    return out / "+".join(Path(name).name for name in names)


def check_origin(file: Path, recipes: Mapping[str, Recipe], dtype: str) -> None:
    """Check that results were made by the same models, and note the models if there are no results yet.

    Args:
        file: The file that notes the models.
        recipes: Recipes of the models, by what they do.
        dtype: The dtype that was asked for, which recipes do not have.

    Raises:
        InputError: The file is damaged.
        RecipeError: The results are of other models, or of another dtype; the message names the differences.
    """
    if not file.is_file():
        make_folder(file.parent)
        noted = {"dtype": dtype, "models": {name: recipe.to_dict() for name, recipe in recipes.items()}}
        write_file(file, json.dumps(noted, indent=2).encode())
        return
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        stored_dtype = stored["dtype"]
        models = {name: (recipes[name], Recipe.from_dict(fields)) for name, fields in stored["models"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}, which notes the models of the results beside it, is damaged: {error!r}. Name another folder for "
            f"the results, or delete {file.parent}"
        ) from error
    if stored_dtype != dtype:
        raise RecipeError(f"the results in {file.parent} are of dtype {stored_dtype}, not {dtype}. {_FIX}")
    for name, (recipe, earlier) in models.items():
        if earlier.digest != recipe.digest:
            differences = recipe.describe_differences(earlier)
            raise RecipeError(f"the results in {file.parent} are of another {name}: {differences}. {_FIX}")
