"""Flags in plain words: what each means for the reader, and what to do about it."""

from captum_robust.report.blocks import Note
from captum_robust.robust.flags import FLAGS, Flag

__all__ = ["flag_note"]


def flag_note(flag: str, where: str) -> Note:
    """The note on a flag; ``where`` says which rows of which attack it concerns."""
    known = FLAGS.get(flag, Flag("", flag.replace("_", " "), ""))
    return Note(f"{known.title} ({where})", known.text)
