"""A graph network that is fitted to one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .._gcn_weights import GcnLayer, LinearLayer
from .._gnn_fit_weights import GnnFitWeights
from ._nodes import elu, softmax
from ._random import uniform
from ._types import Float64, Real

GRAPH_WIDTH, MLP_WIDTH = 64, 32
# Streams of random numbers; step t drops by stream DROPOUT_STREAM + t.
THETA_STREAM, HIDDEN_STREAM, LOGITS_STREAM, DROPOUT_STREAM = 0, 2, 4, 6
# AdamW's, as torch has them by default.
BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 1e-2


def draw_within(bound: float, seed: int, stream: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Uniform in [-bound, bound)."""
    drawn = uniform(seed, stream, np.arange(np.prod(shape))).reshape(shape)
    return np.asarray((2 * drawn - 1).astype(np.float32) * np.float32(bound), np.float32)


def draw_fit_weights(d: int, k: int, seed: int) -> GnnFitWeights:
    """The weights that `gnn_fit` starts from where none are given.

    As torch-geometric draws a graph convolution (Glorot and Bengio 2010; bias 0) and torch a linear layer
    (weight and bias within 1 / sqrt(inputs)).
    """

    def linear(inputs: int, outputs: int, stream: int) -> LinearLayer:
        bound = inputs**-0.5
        weight = draw_within(bound, seed, stream, (inputs, outputs))
        return LinearLayer(weight, draw_within(bound, seed, stream + 1, (outputs,)))

    theta = draw_within((6 / (d + GRAPH_WIDTH)) ** 0.5, seed, THETA_STREAM, (d, GRAPH_WIDTH))
    return GnnFitWeights(
        GcnLayer(theta, None, np.zeros(GRAPH_WIDTH, np.float32)),
        linear(GRAPH_WIDTH, MLP_WIDTH, HIDDEN_STREAM),
        linear(MLP_WIDTH, k, LOGITS_STREAM),
    )


def propagation(affinity: Real) -> Float64:
    """[n, n] D^-1/2 A D^-1/2, D = rowsum(A).

    A holds the positive entries of the affinity; a node without an edge to itself gets one of weight 1.
    """
    edges = np.maximum(np.asarray(affinity, np.float64), 0)
    alone = np.diag(edges) == 0
    edges[alone, alone] = 1
    scales = 1 / np.sqrt(edges.sum(axis=1))
    return np.asarray(scales[:, None] * edges * scales, np.float64)


def ncut_loss(assignment: Float64, affinity: Real) -> tuple[float, Float64]:
    """The NCut loss and its gradient [n, k]; the cut's term is 0 where there is no edge at all."""
    edges = np.asarray(affinity, np.float64)
    k = assignment.shape[1]
    degrees = edges.sum(axis=1, keepdims=True)
    near = edges @ assignment
    kept, total = (assignment * near).sum(), (degrees * assignment**2).sum()
    gram = assignment.T @ assignment
    size = np.linalg.norm(gram)
    unbalanced = gram / size - np.eye(k) / np.sqrt(k)
    balance = np.linalg.norm(unbalanced)
    direction = unbalanced / balance if balance > 0 else np.zeros((k, k))
    gram_gradient = (direction - (direction * gram).sum() / size**2 * gram) / size
    gradient = 2 * assignment @ gram_gradient
    if total == 0:
        return float(balance), gradient
    gradient += 2 * (kept / total * degrees * assignment - near) / total
    return float(balance - kept / total), gradient


def cc_loss(assignment: Float64, affinity: Real) -> tuple[float, Float64]:
    """The correlation clustering loss and its gradient [n, k]."""
    near = np.asarray(affinity, np.float64) @ assignment
    return -float((assignment * near).sum()), -2 * near


LOSSES = {"ncut": ncut_loss, "cc": cc_loss}


def fit_pass(
    propagated: Float64, affinity: Real, parameters: Sequence[Float64], kept: Float64, loss: str
) -> tuple[Float64, float, list[Float64]]:
    """Assignment [n, k], loss, and the loss's gradient by each parameter, of one pass.

    Args:
        propagated: [n, d] Ahat features.
        affinity: [n, n].
        parameters: weight and bias of the three layers, in turn.
        kept: [n, MLP_WIDTH], the factor of each unit of the hidden layer: 0 where it is dropped.
        loss: key of `LOSSES`.
    """
    theta, theta_bias, hidden, hidden_bias, logits, logits_bias = parameters
    nodes = elu(propagated @ theta + theta_bias)
    units = elu(nodes @ hidden + hidden_bias)
    assignment = softmax((units * kept) @ logits + logits_bias)
    value, slope = LOSSES[loss](assignment, affinity)

    to_logits = assignment * (slope - (slope * assignment).sum(axis=1, keepdims=True))
    to_units = (to_logits @ logits.T) * kept * elu_slope(units)
    to_nodes = (to_units @ hidden.T) * elu_slope(nodes)
    gradients = [
        *(propagated.T @ to_nodes, to_nodes.sum(axis=0)),
        *(nodes.T @ to_units, to_units.sum(axis=0)),
        *((units * kept).T @ to_logits, to_logits.sum(axis=0)),
    ]
    return assignment, value, gradients


def elu_slope(y: Float64) -> Float64:
    """elu'(x) for y = elu(x)."""
    return np.where(y > 0, 1, y + 1)


def gnn_fit(
    features: Real,
    affinity: Real,
    k: int,
    *,
    loss: str = "ncut",
    steps: int = 10,
    learning_rate: float = 1e-3,
    dropout: float = 0.25,
    tolerance: float = 0.0,
    init: GnnFitWeights | None = None,
    seed: int = 0,
) -> tuple[Float64, Float64, Float64]:
    """[n, k] assignment of the last pass, [steps] the loss of each, and [p] the last one's weights.

    Examples:
        >>> fit = pk.reference.gnn_fit(np.eye(4), np.ones((4, 4)), 2, steps=3)
        >>> [values.shape for values in fit]
        [(4, 2), (3,), (2466,)]
    """
    n, d = np.shape(features)
    start = draw_fit_weights(d, k, seed) if init is None else init
    parameters = [values.astype(np.float64) for values in start.arrays()]
    means = [np.zeros_like(values) for values in parameters]
    squares = [np.zeros_like(values) for values in parameters]
    propagated = propagation(affinity) @ np.asarray(features, np.float64)
    width = len(parameters[4])
    losses = np.zeros(steps)
    for step in range(steps):
        drawn = uniform(seed, DROPOUT_STREAM + step, np.arange(n * width)).reshape(n, width)
        kept = (drawn >= np.float32(dropout)) / (1 - dropout)
        assignment, losses[step:], gradients = fit_pass(propagated, affinity, parameters, kept, loss)
        little = step > 0 and losses[step - 1] - losses[step] < tolerance * abs(losses[step])
        if step + 1 == steps or (tolerance > 0 and little):
            break
        for at, gradient in enumerate(gradients):
            means[at] = BETAS[0] * means[at] + (1 - BETAS[0]) * gradient
            squares[at] = BETAS[1] * squares[at] + (1 - BETAS[1]) * gradient**2
            mean = means[at] / (1 - BETAS[0] ** (step + 1))
            square = squares[at] / (1 - BETAS[1] ** (step + 1))
            parameters[at] *= 1 - learning_rate * WEIGHT_DECAY
            parameters[at] -= learning_rate * mean / (np.sqrt(square) + EPSILON)
    return assignment, losses, np.concatenate([values.ravel() for values in parameters])
