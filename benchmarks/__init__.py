"""Benchmarks: one file a question. `python -m benchmarks` answers all, `--quick` in about a minute."""
