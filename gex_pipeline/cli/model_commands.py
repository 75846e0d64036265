"""The commands of ``gex`` that train a model and use it: their arguments, and what they say of themselves."""

from __future__ import annotations

import argparse

from gex_pipeline.cli.parsing import CommandTable, number, whole
from trainer.annotation_kinds import KINDS


def _train_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "recipe", nargs="?", help="training recipe (TOML), or a published data set: the paper's recipe over it"
    )
    command.add_argument(
        "--template", metavar="NAME", help="print a recipe: pretraining, images, retrieval, classification or scratch"
    )


_MODEL = "trained model: the folder it was exported to, or the output of its training"


def _align_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument("dataset", help="folder or URI of a published data set")
    command.add_argument("key", help="key of a sample, or its beginning")
    command.add_argument("--text", action="append", metavar="T", help="instead of the sample's text; may be repeated")
    command.add_argument("--own-text", action="store_true", help="with --text: the sample's own text as well")
    command.add_argument(
        "--n-iter-video", type=whole(0), metavar="N", help="passes of the video branch (default: trained)"
    )
    command.add_argument(
        "--n-iter-text", type=whole(0), metavar="N", help="passes of the text branch (default: trained)"
    )
    command.add_argument("--patch", type=whole(1), default=32, metavar="PX", help="side of the mask (default 32)")
    command.add_argument("--stride", type=whole(1), default=16, metavar="PX", help="way of the mask (default 16)")
    command.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the image tower; bf16 is quicker where the processor multiplies in it (default fp32)",
    )
    command.add_argument("-o", "--out", metavar="FOLDER", help="where to write (default: alignment- and KEY's start)")


def _cost_arguments(command: argparse.ArgumentParser) -> None:
    what = "trained model, TOML with a table [model], iam-paper or iam-recommended (the default)"
    command.add_argument("model", nargs="?", default="iam-recommended", metavar="MODEL_OR_SETTINGS", help=what)
    command.add_argument("--clip", metavar="DIR", help="folder with the CLIP of settings (default: ViT-B/32's shape)")
    command.add_argument("--no-timing", action="store_true", help="count only, measure nothing")
    command.add_argument(
        "--videos", type=whole(1), metavar="N", help="videos at a time (default: 1 on a CPU, 64 on a GPU)"
    )
    command.add_argument("--repeats", type=whole(1), default=3, metavar="N", help="rounds that count (default 3)")
    command.add_argument("--json", action="store_true", help="print as JSON")


def _embed_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument("source", nargs="?", help="folder or URI of a published data set")
    command.add_argument("--texts", metavar="FILE", help="embed the lines of a text file")
    command.add_argument("--videos", nargs="+", metavar="FILE", help="embed video or image files")
    command.add_argument(
        "--granularity",
        action="append",
        metavar="G",
        help="only this one; may be repeated (default: all that the model knows); texts and files are read as it is",
    )
    command.add_argument("-o", "--out", required=True, metavar="FILE", help="the .parquet file to write")
    _workers_argument(command)


def _export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("training", help="the output of a training, at its end or not")
    command.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="best, latest or a number of steps (default: best where the recipe names a figure for it, else latest)",
    )
    command.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder or URI for the model (default: show the checkpoints)"
    )
    command.add_argument("--json", action="store_true", help="print as JSON")


def _search_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument("text", help="what to look for")
    command.add_argument("dataset", help="folder or URI of a published data set")
    command.add_argument("--granularity", metavar="G", help="where to look, when the data set has several")
    command.add_argument("-n", "--num", type=whole(1), default=10, metavar="N", help="how many matches (default 10)")
    command.add_argument("-o", "--out", metavar="FOLDER", help="write a contact sheet into this folder")
    command.add_argument("--vectors", metavar="FILE", help="vectors of gex embed, so that no video is read again")
    command.add_argument("--json", action="store_true", help="print as JSON")
    _workers_argument(command)


def _workers_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers", type=whole(0), default=4, metavar="N", help="processes that read videos (default 4)"
    )


_TIES = ("average", "optimistic", "pessimistic", "index", "clip4clip")


def _eval_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument("target", help="published data set; with --annotations, the annotation file of a public one")
    command.add_argument(
        "--granularity", action="append", metavar="G", help="only this one; may be repeated (default: those trained)"
    )
    command.add_argument("--num-frames", type=whole(1), metavar="N", help="frames of a video (default: as trained)")
    command.add_argument("--n-iter-video", type=whole(0), metavar="N", help="#iter of videos (default: as trained)")
    command.add_argument("--n-iter-text", type=whole(0), metavar="N", help="#iter of texts (default: as trained)")
    command.add_argument(
        "--held-out",
        type=number(least=0, below=1),
        metavar="SHARE",
        help="only sources that this share holds out (default: as trained)",
    )
    command.add_argument("--held-out-seed", type=int, metavar="N", help="which sources these are")
    command.add_argument("--max-samples", type=whole(1), metavar="N", help="measure so many, chosen by --seed")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of that choice (default 0)")
    command.add_argument("--ties", choices=_TIES, help="what a tie counts for (default average)")
    command.add_argument("--batch-size", type=whole(1), default=32, metavar="N", help="videos at a time (default 32)")
    _workers_argument(command)
    command.add_argument("--json", action="store_true", help="print all that is needed to have the figures again")
    published = command.add_argument_group("of a published data set")
    published.add_argument("--snapshot", type=whole(0), metavar="N", help="the last one to read (default: all)")
    public = command.add_argument_group("of a public data set")
    public.add_argument("--annotations", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    public.add_argument("--media", metavar="FOLDER", help="folder with the videos, at any depth")
    public.add_argument("--captions", metavar="FILE", help="MSR-VTT: JSON file with the captions")
    public.add_argument("--class-names", metavar="FILE", help="Charades-Ego: list of classes; folders: their names")
    public.add_argument("--subset", metavar="S", help="COIN: training or testing (default); ActivityNet: file of ids")
    public.add_argument("--templates", metavar="FILE", help="prompts for classes, a line each with {label} once")
    public.add_argument(
        "--span-s", type=number(above=0), metavar="S", help="LVU: longest span (default: as trained, or whole videos)"
    )
    public.add_argument(
        "--trim",
        action=argparse.BooleanOptionalAction,
        help="COIN: only the part of a video that shows its task (default: as trained, or whole videos)",
    )


MODEL_COMMANDS: CommandTable = {
    "train": (
        "train the model of the paper on a published data set; run it again to go on where it stopped",
        "gex train training.toml",
        _train_arguments,
    ),
    "eval": (
        "measure a model: retrieval on a published data set, or the usual figures on a public one",
        "gex eval training demo/output --granularity LVLT --n-iter-video 5\n"
        "  gex eval training MSRVTT_JSFUSION_test.csv --annotations msrvtt --media videos",
        _eval_arguments,
    ),
    "export": (
        "make a model of a checkpoint: the best one, or one of a training that is not at its end",
        "gex export training --checkpoint best -o best-model",
        _export_arguments,
    ),
    "align": (
        "show where in a video a text is: maps of one sample as a strip of pictures, a video and numbers",
        "gex align training/model demo/output 3f2a --own-text --text 'a red circle' -o maps",
        _align_arguments,
    ),
    "cost": (
        "show what a model costs: parameters, operations, and time against mean pooling",
        "gex cost iam-paper --no-timing",
        _cost_arguments,
    ),
    "embed": (
        "write the vectors of a data set, of texts or of video files as Parquet",
        "gex embed training/model demo/output -o vectors.parquet",
        _embed_arguments,
    ),
    "search": (
        "find the videos of a data set that are nearest to a text",
        "gex search training/model 'a red circle moves left' demo/output --granularity LVLT -o found",
        _search_arguments,
    ),
}
