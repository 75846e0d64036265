"""Text for the text tower: strings in, token ids in windows of the tower's length out.

A window is a start token, words, an end token and padding. A text that fits has one window, so for it both ways of
treating long text are the same. Loads a tokenizer and a configuration, no weights.
"""

# Tensors: B texts, W windows, L tokens of one window.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.settings import TowerSettings


class TextTokens(NamedTuple):
    """Texts as the model takes them; windows that a text does not need are all padding."""

    ids_BWL: Tensor
    mask_BWL: Tensor
    """True for the tokens of a text, its start and end tokens included."""
    truncated_B: Tensor
    """True where the end of a text did not fit."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TextTokens:
        """The same on another device."""
        return TextTokens(*(part.to(device, non_blocking=non_blocking) for part in self))


class TextTokenizer:
    """Byte pair encoding of one CLIP, in windows."""

    def __init__(self, tokenizer: Any, max_tokens: int, settings: TowerSettings) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._max_windows = settings.max_windows if settings.long_text == "windows" else 1

    def save(self, folder: Path) -> None:
        """Write the files of the tokenizer, from which `load_tokenizer` makes the same one."""
        self._tokenizer.save_pretrained(folder)

    def __call__(self, texts: Sequence[str]) -> TextTokens:
        """Token ids of some texts, with as many windows as the longest needs.

        Raises:
            ValueError: there are no texts, or one that is not in a list.
        """
        if isinstance(texts, str):  # a sequence too: of its characters
            raise ValueError("expected a list of texts, found one text; put it into a list")
        texts = list(texts)  # an array or a column of a table does not say whether it is empty
        if not texts:
            raise ValueError("expected at least one text, found none")
        words = self._tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        room = self._max_tokens - 2
        windows = [[ids[start : start + room] for start in range(0, max(len(ids), 1), room)] for ids in words]
        num_windows = min(max(map(len, windows)), self._max_windows)
        shape = (len(texts), num_windows, self._max_tokens)
        ids_BWL = torch.full(shape, self._tokenizer.pad_token_id, dtype=torch.int64)
        mask_BWL = torch.zeros(shape, dtype=torch.bool)
        for row, pieces in enumerate(windows):
            for column, piece in enumerate(pieces[:num_windows]):
                ids = [self._tokenizer.bos_token_id, *piece, self._tokenizer.eos_token_id]
                ids_BWL[row, column, : len(ids)] = torch.tensor(ids)
                mask_BWL[row, column, : len(ids)] = True
        truncated_B = torch.tensor([len(pieces) > self._max_windows for pieces in windows])
        return TextTokens(ids_BWL, mask_BWL, truncated_B)


def load_tokenizer(settings: TowerSettings) -> TextTokenizer:
    """The tokenizer of the CLIP that the settings name.

    Raises:
        OSError: there is no such checkpoint. ValueError: it has no tokenizer, or that of another one.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(settings.clip, revision=settings.revision, trust_remote_code=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        settings.clip, revision=settings.revision, trust_remote_code=False
    )
    num_entries, most = len(tokenizer), int(config.text_config.vocab_size)
    # without its files transformers makes one of an empty vocabulary, for which all words are the same
    if not 256 < num_entries <= most:
        raise ValueError(
            f"its tokenizer has {num_entries} entries, its text encoder {most}; the tokenizer's files are lost"
        )
    return TextTokenizer(tokenizer, int(config.text_config.max_position_embeddings), settings)
