"""Architectures from known libraries, each put through the same jobs."""
