"""The members of AutoERAttack, and the order in which they run."""
