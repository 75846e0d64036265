"""Scores of a summary against its long text and of a text against its video; one file a score."""
