"""Flows on one line between walls in compiled loops: right-hand sides, Newton's method, and whole marches."""
