"""The warning of everything that takes ``compile=True``."""

__all__ = ["CompileWarning", "first_line"]


class CompileWarning(UserWarning):
    """Warning that ``compile=True`` had no effect; the message says why. Results are the same."""


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its message, up to the end of a clause."""
    first, *others = str(error).split("\n")
    if first.endswith(":") and others:
        first = f"{first} {others[0]}"
    return f"{type(error).__name__}: {first}"
