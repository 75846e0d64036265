"""What is said of a trained model in a README: what it is, on what it was trained, how it is used, what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.build import Built
from trainer.train_recipe import TrainRecipe


def model_card(recipe: TrainRecipe, built: Built, trained: Mapping[str, Any]) -> str:
    """The card in Markdown, with the header that model hubs read."""
    num_parameters = sum(parameter.numel() for parameter in built.module.parameters())
    lines = [
        "---",
        "library_name: gex-pipeline",
        f"pipeline_tag: {'video-classification' if built.class_names else 'feature-extraction'}",
        "tags: [video, text, retrieval, gexia]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        "A video-language model with two towers of CLIP and an Iterative Approximation Module (IAM) a branch, after",
        "*GEXIA: Granularity Expansion and Iterative Approximation for Scalable Multi-grained Video-language Learning*",
        f"(Wang et al.). {num_parameters:,} parameters. Videos and texts of any length become unit vectors of "
        f"{built.settings.iam.dim} numbers in one space.",
        "",
        "## Use",
        "",
        "```python",
        "from trainer.pretrained import Pretrained",
        "",
        'model = Pretrained.from_pretrained("path/to/this/folder")',
        'text = model.encode_texts(["a red circle moves to the left"], n_iter=1)      # (1, D)',
        "```",
        "",
        "Frames are bytes of shape (videos, frames, 3, "
        f"{recipe.data.image_size_px}, {recipe.data.image_size_px}); #iter is free at every call. How it was trained:",
        "",
        "| granularity | frames | #iter video | #iter text | samples |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, reading in recipe.data.granularities.items():
        lines.append(
            f"| {name} | {reading.num_frames} | {reading.n_iter_video} | {reading.n_iter_text} | "
            f"{trained['samples'][name]} |"
        )
    lines += [
        "",
        "## Training",
        "",
        f"- Towers: {_towers(recipe, built)}.",
        f"- Data: {trained['data']}; {recipe.data.held_out_share:.0%} of the sources were held out.",
        f"- {trained['num_steps']} steps of {recipe.data.batch_size} samples, {recipe.optim.epochs} epochs, learning "
        f"rates {recipe.optim.learning_rate_towers:g} (towers) and {recipe.optim.learning_rate:g} (the rest), "
        f"{recipe.optim.precision}.",
        *(["- The weights are a moving average over the steps."] if trained["averaged"] else []),
        *(
            ["- Classes: " + ", ".join(built.class_names[:20]) + (", …" if len(built.class_names) > 20 else "")]
            if built.class_names
            else []
        ),
        "",
        "## Figures on the held-out sources",
        "",
    ]
    figures = trained["figures"]
    if figures:
        lines += ["| figure | value |", "| --- | ---: |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    else:
        lines.append("Nothing was held out.")
    return "\n".join(lines) + "\n"


def _towers(recipe: TrainRecipe, built: Built) -> str:
    towers = built.settings.towers
    if recipe.start_from:
        return f"those of {recipe.start_from}, {'frozen' if towers.frozen else 'trained on'}"
    if towers.shape is not None:
        return "a CLIP from scratch, with a vocabulary learned from the texts"
    start = "from scratch" if towers.weights == "random" else "from its weights"
    return f"{towers.clip}, {start}, {'frozen' if towers.frozen else 'trained'}"
