"""Ratios against hand-tuned PySpark that does the same work without the promises."""
