"""The search of a ball: the region, the scores of points, and the steps."""
