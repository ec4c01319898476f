"""Slow, obvious versions of what the package computes fast; one sample at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np


def ranking(row):
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


def average(logits, k):
    result = []
    for row in logits:
        rest = ranking(row)[k:]
        mean = math.fsum(float(row[c]) for c in rest) / len(rest) if rest else 0.0
        result.append([mean if c in rest else row[c] for c in range(len(row))])
    return np.array(result)


def correct(logits, labels):
    result = []
    for row, label in zip(logits, labels, strict=True):
        row = list(row)
        top = ranking(row)[0]
        row[top], row[label] = row[label], row[top]
        result.append(row)
    return np.array(result)


def hybrid(values, ranks):
    result = []
    for value_row, rank_row in zip(values, ranks, strict=True):
        row = [0.0] * len(value_row)
        for value, place in zip(sorted(value_row, reverse=True), ranking(rank_row), strict=True):
            row[place] = value
        result.append(row)
    return np.array(result)


def crop_and_flip(image, shift, flip, padding=4):
    channels, rows, columns = image.shape
    result = np.zeros_like(image)
    for c in range(channels):
        for y in range(rows):
            for x in range(columns):
                sy = y + shift[0] - padding
                sx = (columns - 1 - x if flip else x) + shift[1] - padding
                if 0 <= sy < rows and 0 <= sx < columns:
                    result[c, y, x] = image[c, sy, sx]
    return result


def cross_entropy(row, label):
    top = max(row)
    return top + math.log(sum(math.exp(z - top) for z in row)) - row[label]


def dlr(row, label):
    ordered = sorted(row, reverse=True)
    other = max(z for c, z in enumerate(row) if c != label)
    return -(row[label] - other) / (ordered[0] - ordered[2] + 1e-12)


def margin(row, label):
    return max(z for c, z in enumerate(row) if c != label) - row[label]


def kl_divergence(target_row, row, temperature):
    def softmax(z):
        top = max(z)
        e = [math.exp((v - top) / temperature) for v in z]
        return [v / sum(e) for v in e]

    p, q = softmax(target_row), softmax(row)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def apgd(gradient_and_loss, fooled, image, start, eps, iterations):
    """Algorithm 1 of Croce and Hein for one image, with the official code's checkpoints.

    `gradient_and_loss(x)` returns both; `fooled(x)` says whether x is misclassified.
    """
    clip = lambda x: np.clip(np.clip(x, image - eps, image + eps), 0, 1)  # noqa: E731
    x = previous = np.clip(start, 0, 1)
    if fooled(x):
        return x
    gradient, loss = gradient_and_loss(x)
    best, best_gradient, best_loss = x, gradient, loss
    step, checked_loss, reduced = 2 * eps, loss, True
    losses = [0.0]
    checks, period = [], max(int(0.22 * iterations), 1)
    while sum(checks) + period <= iterations:
        checks.append(period)
        period = max(period - max(int(0.03 * iterations), 1), max(int(0.06 * iterations), 1))
    check_at = {int(at): length for at, length in zip(np.cumsum(checks), checks, strict=True)}
    for iteration in range(1, iterations + 1):
        weight = 0.75 if iteration > 1 else 1.0
        z = clip(x + step * np.sign(gradient))
        x, previous = clip(x + weight * (z - x) + (1 - weight) * (x - previous)), x
        if fooled(x):
            return x
        gradient, loss = gradient_and_loss(x)
        losses.append(loss)
        if loss > best_loss:
            best, best_gradient, best_loss = x, gradient, loss
        if iteration in check_at:
            length = check_at[iteration]
            recent = losses[-length - 1 :]
            increases = sum(b > a for a, b in itertools.pairwise(recent))
            stalls = not reduced and checked_loss >= best_loss
            reduced = increases <= 0.75 * length or stalls
            checked_loss = best_loss
            if reduced:
                step, x, gradient = step / 2, best, best_gradient
    return best


def wilson_interval(share, count, z=1.959963984540054):
    """Solve |p - share| = z sqrt(p (1 - p) / count) for p by bisection on either side."""

    def outside(p):
        return abs(p - share) > z * math.sqrt(p * (1 - p) / count)

    def bisect(inside, end):
        for _ in range(200):
            middle = (inside + end) / 2
            inside, end = (inside, middle) if outside(middle) else (middle, end)
        return inside

    return bisect(share, 0.0), bisect(share, 1.0)
