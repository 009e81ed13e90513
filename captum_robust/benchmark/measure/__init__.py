"""Train a model, attack its explanations and measure them: the work of one unit."""
