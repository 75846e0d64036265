"""Reading what was published: the manifest, samples by key. Light: no torch, ray, duckdb or ffmpeg."""
