from __future__ import annotations

import torch

from trainer.classifier import VideoClassifier


def test_scores_of_classes_are_not_rounded_to_half_precision(pretrained):
    torch.manual_seed(0)
    classifier = VideoClassifier(pretrained.model, [f"class {number}" for number in range(200)]).eval()
    px = pretrained.image_size_px
    videos = torch.randint(0, 256, (2, 2, 3, px, px), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BK = classifier(videos, 1)
        pooled_BD = pretrained.model.pool_video(videos, 1)
    assert logits_BK.dtype == torch.float32
    with torch.no_grad():
        expected_BK = torch.nn.functional.linear(pooled_BD.float(), classifier.head.weight, classifier.head.bias)
    assert torch.allclose(logits_BK, expected_BK, atol=1e-6)
    assert not torch.equal(logits_BK, logits_BK.bfloat16().float())
