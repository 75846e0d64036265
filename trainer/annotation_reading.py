"""Whose frames and #iter a public data set is read with, and which part of a video: its kind and a model in.

The paper's granularity of each kind, as the model was trained on it, else with the paper's numbers. A granularity that
is none of the paper's stands in for it: that of a training on annotations of the same kind, or the only one of the
model's last training where it knows the paper's not. Reads no annotations.
"""

from __future__ import annotations

from dataclasses import replace

from trainer.annotation_kinds import KINDS, KindName
from trainer.data_settings import PAPER_GRANULARITIES, AnnotationSettings
from trainer.evaluate import Options, ReadAs
from trainer.history import granularity_of_kind, last_granularities, trainings_of
from trainer.pretrained import Pretrained

_IMAGES = "IT"


def paper_granularity(kind: KindName, *, pictures: bool) -> str:
    """The paper's granularity for annotations of a kind; `pictures`: there are images among the media."""
    return _IMAGES if pictures else KINDS[kind].granularity


def granularity_for(pretrained: Pretrained, kind: str, usual: str) -> str:
    """As what a model reads annotations of a kind whose granularity is `usual` in the paper."""
    known = pretrained.granularities
    same_kind = granularity_of_kind(pretrained.trained, kind)
    if same_kind in known and same_kind not in PAPER_GRANULARITIES:
        return str(same_kind)
    own = last_granularities(pretrained.trained, known)
    # after a stage of images alone a video is no image: one of the paper's granularities stands for itself only
    if usual not in known and len(own) == 1 and own[0] not in PAPER_GRANULARITIES:
        return own[0]
    return usual


def trimmed_as_trained(pretrained: Pretrained, settings: AnnotationSettings) -> AnnotationSettings:
    """COIN with what is said of `trim`, else as the newest training on COIN took it, else whole videos."""
    if settings.kind != "coin" or settings.trim is not None:
        return settings
    trained = [one["annotations"] for one in trainings_of(pretrained.trained) if one.get("annotations")]
    of_coin = [annotations for annotations in trained if annotations.get("kind") == "coin"]
    # the record of a version that did not know the key: it trimmed
    return settings.model_copy(update={"trim": bool(of_coin) and of_coin[-1].get("trim", True)})


def with_texts(pretrained: Pretrained, read: ReadAs, usual: str, options: Options) -> ReadAs:
    """The same to encode texts as well: a classifier was trained without any, so its recipe's #iter of texts, 0 in the
    template, says nothing; it is that of `usual`, as a training before knew it, or the paper's."""
    own = last_granularities(pretrained.trained, pretrained.granularities)
    if pretrained.classifier is None or options.n_iter_text is not None or read.granularity not in own:
        return read
    if usual in pretrained.granularities and usual not in own:
        return replace(read, n_iter_text=pretrained.granularities[usual].n_iter_text)
    return replace(read, n_iter_text=PAPER_GRANULARITIES[usual]["n_iter_text"])
