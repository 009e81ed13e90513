"""Experiments on real data: train the models of the papers and attack their explanations."""
