"""``gex shards browse``: a local web page to look through a data set. Reads what a target lists, changes nothing."""
