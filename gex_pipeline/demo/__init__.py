"""The demo corpus: seeded procedural videos in InternVid's shape, whose captions are true by construction.

`draw_corpus(folder, CorpusSettings())` draws it. The words are in `vocabulary` and `captions`, who does what in
`stories`, pixels in `shapes`, `backdrops`, `motions` and `scenes`, planted bad inputs in `faults`, files in `corpus`.
"""

from gex_pipeline.demo.corpus import CorpusSettings, CorpusSummary, draw_corpus

__all__ = ["CorpusSettings", "CorpusSummary", "draw_corpus"]
