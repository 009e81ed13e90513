"""The units of work of a run: their list, their store, and the loop that does them."""
