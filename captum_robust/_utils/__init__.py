"""Tools that every floor above needs, one subject per file."""
