"""The search of a ball: where points may go, how they are scored, and how they move."""
