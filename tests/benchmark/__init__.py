"""Speed and memory as ratios to naive code, against stated goals: ``python -m tests.benchmark``.

Every measure first checks that the two sides compute the same, then compares them in one process.
"""
