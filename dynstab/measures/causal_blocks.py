"""Diagonal token blocks of causal steps, where they are affordable."""

from __future__ import annotations

from dynstab.linear.operator import JacobianOperator
from dynstab.linear.tokens import TokenBlocks, token_blocks
from dynstab.measures.survey import Survey
from dynstab.systems.trajectory import Step


def causal_blocks(survey: Survey, step: Step) -> TokenBlocks:
    """The blocks of a step at the spectral inputs; its eigenvalues are theirs only if the trajectory is causal.

    None of them, with the reason, where it is not, or where the decompositions of all steps cost too much.
    """
    trajectory, operator, effort = survey.spectral, step.jacobian, survey.effort
    source, target = trajectory.states[step.source], trajectory.states[step.target]
    if not trajectory.causal or source.token_dim is None or target.token_dim is None:
        return TokenBlocks(reason="not causal in the tokens")
    if not isinstance(operator, JacobianOperator):
        return TokenBlocks(reason="the step is not on a tape")
    tokens = source.value[0].shape[source.token_dim]
    width = operator.cols // max(1, tokens)
    count = operator.samples * tokens
    affordable = len(trajectory.steps) * count * float(width) ** 3 <= effort.dense_work
    if width > effort.block_size or not affordable or count * width**2 * 8 > effort.vectors_bytes:
        return TokenBlocks(reason=f"{tokens} token blocks of width {width} are too large")
    return token_blocks(operator, source.token_dim, target.token_dim)
