"""MSR-VTT: a CSV with the videos of a split, captions in it or in a JSON file → a row a video with its captions.

Test "1kA": ``MSRVTT_JSFUSION_test.csv`` (key,vid_key,video_id,sentence). Training "9k": ``MSRVTT_train.9k.csv``
(video_id) with ``MSRVTT_data.json`` (``sentences``: video_id, caption) or ``MSR_VTT.json`` (``annotations``:
image_id, caption).
"""

from __future__ import annotations

from pathlib import Path

from trainer.annotations.media_folder import MediaFolder
from trainer.annotations.parsing import csv_table, kept_texts, mapping, read_json, wrong
from trainer.annotations.rows import Annotations, Lack, Ledger, RetrievalPair


def read_msrvtt(videos_csv: Path, media: Path, captions_json: Path | None = None) -> Annotations[RetrievalPair]:
    """The videos that `videos_csv` lists, in its order; captions from `captions_json` where it is given.

    Raises:
        AnnotationError: a file in another format.
    """
    columns = ("video_id",) if captions_json else ("video_id", "sentence")
    captions: dict[str, list[str]] = {}
    for line, record in csv_table(videos_csv, columns):
        video_id = record["video_id"].strip()
        if not video_id:
            raise wrong(videos_csv, line, "no video_id", "one in each row")
        captions.setdefault(video_id, []).extend([] if captions_json else [record["sentence"]])
    if captions_json:
        of_all = _captions(captions_json)
        captions = {video_id: of_all.get(video_id, []) for video_id in captions}
    return pairs(videos_csv, captions, MediaFolder(media))


def pairs(source: Path, captions: dict[str, list[str]], folder: MediaFolder) -> Annotations[RetrievalPair]:
    """A row for each video that has a file and a caption."""
    ledger: Ledger[RetrievalPair] = Ledger(source)
    num_blank = 0
    for video_id, found in captions.items():
        texts, path = kept_texts(found), folder.find(video_id)
        if not texts:
            ledger.lack(Lack.text, video_id)
        elif path is None:
            ledger.lack(Lack.media, video_id)
        else:
            num_blank += len(found) - len(texts)
            ledger.add(RetrievalPair(video_id, path, texts))
    return ledger.close(num_blank_texts=num_blank)


def _captions(path: Path) -> dict[str, list[str]]:
    document = mapping(path, "document", read_json(path))
    for table, id_key in (("sentences", "video_id"), ("annotations", "image_id")):
        if isinstance(document.get(table), list):
            captions: dict[str, list[str]] = {}
            for position, item in enumerate(document[table]):
                entry = mapping(path, f"{table}[{position}]", item, (id_key, "caption"))
                captions.setdefault(str(entry[id_key]), []).append(str(entry["caption"]))
            return captions
    raise wrong(path, "document", ", ".join(document)[:80] or "an empty object", "a list sentences or annotations")
