"""Compression Θ_t: captions in, one checked sentence out. Granularities and shards are not known here."""
