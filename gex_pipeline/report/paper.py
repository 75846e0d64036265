"""What the paper reports, for the places of the page where a figure can stand next to it. Text and numbers only.

Paper: GEXIA §4.1 (numbers of clips and samples), §4.4 (seconds and words of a clip), appendix A with table 7, appendix
B with table 8.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE_MEANS = {"duration_s": 10.0, "num_words": 9.4}  # of the paper's SVST clips
EXPANSION = (
    "The paper expands InternVid-10M-FLT: clips of 10 s and 9.4 words on average; "
    "about 4.5 million of these clips became 1 million LVLT samples."
)


@dataclass(frozen=True)
class PaperScore:
    """A mean and a standard deviation of the paper's table 8."""

    mean: float
    std: float
    pair: str


SCORES = {
    "clip_video_long_text": PaperScore(0.220, 0.037, "long video and long text"),
    "clip_video_short_text": PaperScore(0.215, 0.033, "long video and short text"),
    "clip_text_cosine": PaperScore(0.791, 0.084, "long text and short text"),
}
CLIP_NOTE = (
    "The paper's are of CLIP features of its own data. It does not say which variant (its encoders start from "
    "ViT-B/32), nor whether long texts were cut at 77 tokens; here a text is cut at the length that the model reads. "
    "Another model, other data and another cut move these cosines."
)
BERTSCORE_NOTE = (
    "A BERTScore here is of a summary against its long text. The paper's BERTScore-F1 of 0.87 to 0.92 (table 7) are of "
    "summaries against GPT-4's references, by a model it does not name (the range is that of roberta-large): not "
    "comparable."
)


@dataclass(frozen=True)
class PaperSummarizer:
    """A row of the paper's table 7: means over 100 tasks, references by GPT-4."""

    name: str
    rouge1: float
    rouge2: float
    rougeL: float
    bertscore_f1: float
    seconds_a_task: float


SUMMARIZERS = (
    PaperSummarizer("Longchat-7b", 0.43, 0.20, 0.34, 0.90, 2.45),
    PaperSummarizer("OpenLlama-7b", 0.48, 0.24, 0.39, 0.89, 1.03),
    PaperSummarizer("OpenLlama-13b", 0.38, 0.18, 0.31, 0.90, 2.19),
    PaperSummarizer("Fastchat-t5-3b", 0.48, 0.25, 0.40, 0.91, 2.97),
    PaperSummarizer("Dolly-v2-7b", 0.36, 0.15, 0.28, 0.89, 4.93),
    PaperSummarizer("Internlm-7b", 0.32, 0.13, 0.26, 0.87, 3.36),
    PaperSummarizer("RWKV-4-7b", 0.28, 0.11, 0.23, 0.88, 1.04),
    PaperSummarizer("Vicuna-7b", 0.46, 0.23, 0.37, 0.91, 1.91),
    PaperSummarizer("Vicuna-13b-v1.5", 0.48, 0.24, 0.39, 0.92, 2.19),
    PaperSummarizer("Vicuna-33b", 0.50, 0.27, 0.42, 0.92, 7.38),
)
SUMMARIZERS_NOTE = (
    "Of the paper's rows only the scale can be compared: its 100 tasks (drawn from LSMDC's validation set), its "
    "references (by GPT-4) and its machine are others, and it does not name the model of its BERTScore. Its seconds "
    "are the time of one summary; seconds a task here are the time of answering all tasks, with up to hundreds of "
    "them in flight, divided by their number. Latency is the median time of one summary while others are in flight, "
    "which takes longer than one by itself. The paper chose Vicuna-13b-v1.5."
)
