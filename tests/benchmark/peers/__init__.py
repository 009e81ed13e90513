"""Straightforward code without the library: the other side of the comparisons."""
