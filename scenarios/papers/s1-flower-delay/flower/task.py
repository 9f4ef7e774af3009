"""What is learned: a network of one hidden layer on drawn digits-like data, in NumPy; about as large as S1's CNN."""

import numpy as np

INPUTS, HIDDEN, CLASSES, EXAMPLES = 256, 232, 10, 3000

Weights = list[np.ndarray]


def initial() -> Weights:
    """Return the weights to begin with: 61,954 numbers, 248 kB."""
    rng = np.random.default_rng(0)
    shapes = ((INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
    return [rng.normal(0, 0.05, shape).astype(np.float32) for shape in shapes]


def data(client: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a client's examples: each class is a point in space with noise around it."""
    centres = np.random.default_rng(1).normal(0, 1, (CLASSES, INPUTS))
    rng = np.random.default_rng(2 + client)
    y = rng.integers(0, CLASSES, EXAMPLES)
    return (centres[y] + rng.normal(0, 3, (EXAMPLES, INPUTS))).astype(np.float32), y


def forward(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden layer and the class probabilities."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)
    scores = hidden @ w2 + b2
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def train(
    weights: Weights, x: np.ndarray, y: np.ndarray, *, epochs: int = 5, batch: int = 32, lr: float = 0.05
) -> Weights:
    """Return the weights after some passes of SGD over the examples."""
    w1, b1, w2, b2 = (w.copy() for w in weights)
    for start in list(range(0, len(x), batch)) * epochs:
        xs, ys = x[start : start + batch], y[start : start + batch]
        hidden, wrong = forward([w1, b1, w2, b2], xs)
        wrong[np.arange(len(ys)), ys] -= 1
        wrong /= len(ys)
        back = (wrong @ w2.T) * (hidden > 0)
        w2 -= lr * hidden.T @ wrong
        b2 -= lr * wrong.sum(axis=0)
        w1 -= lr * xs.T @ back
        b1 -= lr * back.sum(axis=0)
    return [w1, b1, w2, b2]


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> float:
    """Return the share of examples that are told right."""
    return float((forward(weights, x)[1].argmax(axis=1) == y).mean())
