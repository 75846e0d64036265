from __future__ import annotations

import tomllib

import torch
from torch.nn import functional

from tests.trainer.tiny_models import linear_model
from trainer.classifier import VideoClassifier
from trainer.model import parameter_groups
from trainer.optim import GuardedOptimiser
from trainer.train_recipe import make_train_recipe, template

NUM_STEPS = 200


def test_at_the_templates_rates_a_head_learns_classes_that_can_be_told_apart():
    """From a head of random weights all of a training moved a weight by 1e-3: its noise chose the class to the end."""
    optim = make_train_recipe(tomllib.loads(template("classification"))).optim
    draw = torch.Generator().manual_seed(0)
    labels_B = torch.arange(8).repeat(8)
    centres_KTX = 2 * torch.randn(8, 2, 6, generator=draw, dtype=torch.float64)
    videos_BTX = centres_KTX[labels_B] + 0.05 * torch.randn(64, 2, 6, generator=draw, dtype=torch.float64)
    classifier = VideoClassifier(linear_model(), [f"class {number}" for number in range(8)]).double()
    classifier.freeze_what_rests()
    groups = parameter_groups(
        classifier,
        learning_rate_towers=optim.learning_rate_towers,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
    )
    optimiser = GuardedOptimiser(groups, optim, num_steps=NUM_STEPS)
    for step in range(NUM_STEPS):
        loss = functional.cross_entropy(classifier(videos_BTX, 1), labels_B)
        loss.backward()
        optimiser.step(step, loss)
    right_B = classifier(videos_BTX, 1).argmax(dim=1) == labels_B
    assert float(right_B.double().mean()) == 1.0  # chance is one of eight


def test_scores_of_classes_are_not_rounded_to_half_precision(pretrained):
    torch.manual_seed(0)
    classifier = VideoClassifier(pretrained.model, [f"class {number}" for number in range(200)]).eval()
    torch.nn.init.normal_(classifier.head.weight)  # a head that is not trained scores all classes alike
    px = pretrained.image_size_px
    videos = torch.randint(0, 256, (2, 2, 3, px, px), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BK = classifier(videos, 1)
        pooled_BD = pretrained.model.pool_video(videos, 1)
    assert logits_BK.dtype == torch.float32
    with torch.no_grad():
        expected_BK = functional.linear(pooled_BD.float(), classifier.head.weight, classifier.head.bias)
    assert torch.allclose(logits_BK, expected_BK, atol=1e-6)
    assert not torch.equal(logits_BK, logits_BK.bfloat16().float())
