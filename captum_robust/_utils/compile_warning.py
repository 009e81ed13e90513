"""The warning of everything that takes ``compile=True``."""

__all__ = ["CompileWarning", "first_line"]


class CompileWarning(UserWarning):
    """Warning that ``compile=True`` had no effect; the message says why. Results are the same."""


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
