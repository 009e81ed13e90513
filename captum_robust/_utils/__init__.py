"""Internal functions that the whole package shares, one subject per file."""
