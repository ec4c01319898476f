"""Slow, obvious versions of what the package computes fast; one sample at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np


def ranking(row):
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


def rounded(row, parts):
    near = [round(value * parts) / parts for value in row]
    return row if sorted(near)[-1] == sorted(near)[-2] else near


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


def swapped(logits, place):
    """Every row that a swap of one place with another, or with itself, can give."""
    rows = set()
    for other in range(len(logits)):
        row = list(logits)
        row[place], row[other] = row[other], row[place]
        rows.add(tuple(row))
    return rows


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


def max_logit(row):
    return sorted(row)[-1]


def logit_gap(row):
    return sorted(row)[-1] - sorted(row)[-2]


def confidence(row):
    return max(math.exp(z) for z in row) / math.fsum(math.exp(z) for z in row)


def skewness(values):
    mean = math.fsum(values) / len(values)
    second = math.fsum((v - mean) ** 2 for v in values) / len(values)
    third = math.fsum((v - mean) ** 3 for v in values) / len(values)
    return third / math.sqrt(second) ** 3


def rank(value, values):
    """Mean place of the value among the sorted values, from 0."""
    places = [i for i, v in enumerate(sorted(values)) if v == value]
    return sum(places) / len(places)


def rank_disagreement(first, second, labels, threshold):
    shares = []
    for label in sorted(set(labels)):
        one = [v for v, y in zip(first, labels, strict=True) if y == label]
        two = [v for v, y in zip(second, labels, strict=True) if y == label]
        far = 0
        for v, w in zip(one, two, strict=True):
            far += abs(rank(v, one) - rank(w, two)) > threshold * (len(one) - 1)
        shares.append(far / len(one))
    return shares


def errors_by_rank(logits, labels, predictions):
    """The average logit vector and the errors of each class in turn."""
    classes = len(logits[0])
    counts = [0] * classes
    for label in range(classes):
        own = [
            row
            for row, y in zip(logits, labels, strict=True)
            if y == label and ranking(row)[0] == label
        ]
        if own:
            mean = [math.fsum(column) / len(own) for column in zip(*own, strict=True)]
            for y, prediction in zip(labels, predictions, strict=True):
                if y == label and prediction != label:
                    counts[ranking(mean).index(prediction)] += 1
    return [count / sum(counts) for count in counts]


def average_overlap(row, other, k):
    total = 0.0
    for i in range(1, k + 1):
        total += len(set(ranking(row)[:i]) & set(ranking(other)[:i])) / i
    return total / k


def accuracy_by_gap(gaps, hits, edges):
    result = []
    for i in range(len(edges) - 1):
        last = i == len(edges) - 2
        inside = [
            hit
            for gap, hit in zip(gaps, hits, strict=True)
            if edges[i] <= gap < edges[i + 1] or (last and gap == edges[-1])
        ]
        result.append((sum(inside) / len(inside) if inside else math.nan, len(inside)))
    return result


def nearest(logits, seed, count):
    def cosine(a, b):
        dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))

    others = [i for i in range(len(logits)) if i != seed]
    return sorted(others, key=lambda i: -cosine(logits[seed], logits[i]))[:count]


def colour_distance(image, other):
    total = 0.0
    for c in range(3):
        means = [
            math.fsum(v / 255 for row in each[c] for v in row) / 1024 for each in (image, other)
        ]
        total += (means[0] - means[1]) ** 2
    return math.sqrt(total)


def edge_thumbnail(image, cells):
    """Central differences inside, one-sided ones at the border."""
    _, rows, columns = image.shape
    grey = [
        [sum(float(image[c, y, x]) for c in range(3)) / 765 for x in range(columns)]
        for y in range(rows)
    ]

    def slope(values, i):
        if 0 < i < len(values) - 1:
            return (values[i + 1] - values[i - 1]) / 2
        return values[1] - values[0] if i == 0 else values[-1] - values[-2]

    result = [0.0] * cells**2
    for y in range(rows):
        for x in range(columns):
            across = slope(grey[y], x)
            down = slope([grey[i][x] for i in range(rows)], y)
            cell = (y * cells // rows) * cells + x * cells // columns
            result[cell] += math.sqrt(across**2 + down**2) * cells**2 / (rows * columns)
    return result


def shape_distance(image, other, cells):
    return 1 - np.corrcoef(edge_thumbnail(image, cells), edge_thumbnail(other, cells))[0, 1]


def background_variation(image, border):
    channels, rows, columns = image.shape
    total = 0.0
    for c in range(channels):
        frame = [
            float(image[c, y, x]) / 255
            for y in range(rows)
            for x in range(columns)
            if min(y, x, rows - 1 - y, columns - 1 - x) < border
        ]
        mean = math.fsum(frame) / len(frame)
        total += math.fsum((v - mean) ** 2 for v in frame) / len(frame)
    return math.sqrt(total / channels)


def rank_correlation(first, second):
    """Pearson's correlation of the ranks."""
    a, b = ([rank(v, values) for v in values] for values in (first, second))
    a, b = ([v - sum(values) / len(values) for v in values] for values in (a, b))
    products = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return products / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def harmonic_mean(values):
    """Return the number of values over the sum of their reciprocals."""
    total = 0.0
    for value in values:
        total += 1 / value
    return len(values) / total


def separable_share(layer, load):
    """Count draws whose fewest features are no more than P / (load * capacity)."""
    features = len(layer["exemplar"]) / (load * float(layer["simulated_capacity"]))
    return np.mean([float(fewest) <= features for fewest in layer["simulated_features"]])


def radius_share(r0, r1, d0, d1):
    """Average both orders of changing R and D in alpha_Ball, by quadrature of the definition."""

    def log_ball(radius, dimension):
        kappa = radius * np.sqrt(dimension)
        t = np.linspace(-12, kappa, 200_001)
        density = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
        return -np.log(np.trapezoid(density * (t - kappa) ** 2, t) / (1 + radius**2))

    first = log_ball(r1, d0) - log_ball(r0, d0)
    last = log_ball(r1, d1) - log_ball(r0, d1)
    return (first + last) / 2 / (log_ball(r1, d1) - log_ball(r0, d0))
