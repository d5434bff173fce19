"""Trajectories and functions -> matrix-free operators: rules, tapes, chunks, token blocks."""
