"""Immutable nouns: plain data, no tensor, no torch."""
