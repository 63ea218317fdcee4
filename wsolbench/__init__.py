"""Benchmarking and ablation harness for weakly supervised object localization."""
