"""One check for the sizes of layers."""


def check_sizes(**sizes: int) -> None:
    """Refuses a size below 1, by its name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: got {size}, accepted: 1 or more")
