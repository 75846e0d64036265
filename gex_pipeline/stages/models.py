"""Training and evaluation as steps of a run: in this process, or training in several under Ray Train.

The one place outside the command line that knows the trainer, which is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gex_pipeline import storage
from gex_pipeline.errors import MissingExtraError

if TYPE_CHECKING:
    from trainer.pretrained import Pretrained
    from trainer.train import Outcome

_NEEDED = ("torch", "transformers", "safetensors")


def require_train_extra() -> None:
    """Say what to install, before anything of it is loaded.

    Raises:
        MissingExtraError: a package of the extra is not there.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")


def open_model(uri: str) -> Pretrained:
    """A trained model on the accelerator where there is one.

    Raises:
        GexError: there is no model.
    """
    import torch

    from trainer.pretrained import Pretrained

    return Pretrained.from_pretrained(uri, "cuda" if torch.cuda.is_available() else "cpu")


def train_model(place: str, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train over a training recipe (TOML), or over a published data set with the paper's; or go on with it.

    Raises:
        RecipeError: the recipe is wrong; GexError: training cannot begin or go on.
    """
    require_train_extra()
    from trainer.train_recipe import load_train_recipe, recipe_over

    recipe = load_train_recipe(place) if Path(place).suffix == ".toml" else recipe_over(place)
    if recipe.launch.num_processes == 1:
        from trainer.processes import joined
        from trainer.train import train

        with joined() as processes:
            return train(recipe, processes, say)
    from gex_pipeline.ray_jobs import ray_session
    from gex_pipeline.recipe import RaySettings
    from trainer.launch import train_with_ray

    num_cpus = int(recipe.launch.num_processes * recipe.launch.cpus_a_process + 1)
    with ray_session(RaySettings(address=recipe.launch.address, num_cpus=num_cpus)):
        return train_with_ray(recipe, say)


def evaluate_model(model: str, dataset: str, max_samples: int | None = None) -> list[dict[str, Any]]:
    """Figures of a trained model on a published data set, on the sources that its trainings held out, if any.

    Raises:
        GexError: the model or the data set is not there, or they do not go together.
    """
    require_train_extra()
    from trainer.evaluate import Options, PublishedData, evaluate_published
    from trainer.history import held_out_of_dataset

    pretrained = open_model(model)
    held_out = held_out_of_dataset(pretrained.trained, dataset)
    data = PublishedData(storage.absolute(dataset), held_out=held_out)
    found = evaluate_published(pretrained, data, Options(max_samples=max_samples))
    return [evaluation.as_dict() for evaluation in found]
