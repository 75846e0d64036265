"""The model of GEXIA and its training: shards of any granularity in, a video and a text branch in one space out."""
