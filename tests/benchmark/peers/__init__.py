"""What one would write without the library: the other side of the comparisons."""
