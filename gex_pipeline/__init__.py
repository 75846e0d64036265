"""GEX: multi-granularity expansion of video-text data sets (after the GEXIA paper)."""

__version__ = "0.1.0"
