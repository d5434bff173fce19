"""Models -> Trajectory: where a graph is cut, what its steps are called, and whether their derivatives are right."""
