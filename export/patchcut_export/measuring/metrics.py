"""Measures of masks, their contours, boxes and clusters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Boxes = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]
Contingency = npt.NDArray[np.int64]

# Soft maps are cut at k / F_THRESHOLDS for k = 0, ..., F_THRESHOLDS - 1.
F_THRESHOLDS = 255

# Contours match within this share of the image's diagonal (DAVIS).
_CONTOUR_TOLERANCE = 0.008
# A frame is recalled whose J, or F, is above this (DAVIS).
_RECALLED = 0.5


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one shape; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


@dataclass(frozen=True, eq=False)
class Contour:
    """The contour of a mask, as DAVIS compares it.

    Attributes:
        line: [H, W] bool, one pixel wide.
        near: [H, W] bool, what is at most 0.008 of the image's diagonal away from it, rounded up to pixels.
    """

    line: Mask
    near: Mask

    @classmethod
    def of(cls, mask: Mask) -> Contour:
        """The contour of a mask [H, W]: pixels that differ from the right, the lower or the diagonal next.

        What a mask covers of the image's border is no contour: nothing beyond it differs.
        """
        height, width = mask.shape
        beyond = np.pad(mask, ((0, 1), (0, 1)), "edge")
        line = (mask != beyond[:-1, 1:]) | (mask != beyond[1:, :-1]) | (mask != beyond[1:, 1:])
        if not line.any():
            return cls(line, line)
        radius = math.ceil(_CONTOUR_TOLERANCE * math.hypot(height, width))
        pixels, near = line.view(np.uint8), np.zeros(mask.shape, np.uint8)
        x, y, w, h = cv2.boundingRect(pixels)
        around = np.s_[max(0, y - radius) : y + h + radius, max(0, x - radius) : x + w + radius]
        near[around] = cv2.dilate(pixels[around], _disc(radius))
        return cls(line, near.view(bool))


def _disc(radius: int) -> npt.NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x**2 + y**2 <= radius**2, np.uint8)


def contour_f(found: Contour, truth: Contour) -> float:
    """F-measure of two contours of one shape, 1 where both are empty: F of DAVIS.

    Precision is the share of the found contour that is near the true one, recall the share of the true one
    that is near the found. This stands for the bipartite matching of their pixels, as in DAVIS' own code;
    F = 2 P R / (P + R). Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
    Segmentation" (CVPR 2016), section 4.
    """
    found_pixels, true_pixels = (int(np.count_nonzero(contour.line)) for contour in (found, truth))
    if not found_pixels or not true_pixels:
        return float(found_pixels == true_pixels)
    precision = np.count_nonzero(found.line & truth.near) / found_pixels
    recall = np.count_nonzero(truth.line & found.near) / true_pixels
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def recall_and_decay(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Two more statistics of a measure over the frames of a video, as DAVIS 2016 has them.

    Args:
        values: [t] in [0, 1], t at least 1.
    Returns:
        Recall, the share of frames above 0.5; and decay, the mean over the first quarter of the frames less
        that over the last. Quarters share the frames at their borders.
    """
    last = len(values) - 1
    borders = np.floor(np.linspace(0, last, 5) + 0.5).astype(int)
    decay = values[: borders[1] + 1].mean() - values[borders[3] :].mean()
    return float((values > _RECALLED).mean()), float(decay)


def best_matching(values: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """The pairs (row, column) of the matching whose sum of values is largest, by columns.

    Args:
        values: [m, n] finite. Each row and each column is in one pair at most; min(m, n) are.
    The Hungarian method with shortest augmenting paths: Jonker and Volgenant (1987).
    """
    if values.shape[0] < values.shape[1]:
        return sorted(((r, c) for c, r in best_matching(values.T)), key=lambda pair: pair[1])
    costs = -values.T  # [n, m]: every column of `values` finds a row
    n, m = costs.shape
    owner = np.full(m + 1, -1)  # the column of `values` that has each row; the last row is where paths begin
    potentials, prices = np.zeros(n), np.zeros(m + 1)
    for column in range(n):
        owner[m], row = column, m
        least, came_from = np.full(m, np.inf), np.full(m, m)
        reached = np.zeros(m + 1, bool)
        while owner[row] >= 0:
            reached[row] = True
            current = owner[row]
            reduced = costs[current] - potentials[current] - prices[:m]
            better = ~reached[:m] & (reduced < least)
            least[better], came_from[better] = reduced[better], row
            row = int(np.argmin(np.where(reached[:m], np.inf, least)))
            step = least[row]
            potentials[owner[reached]] += step
            prices[reached] -= step
            least[~reached[:m]] -= step
        while row != m:
            owner[row], row = owner[came_from[row]], int(came_from[row])
    return sorted(((row, int(owner[row])) for row in range(m) if owner[row] >= 0), key=lambda pair: pair[1])


def box_ious(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """[m, n] intersection over union of boxes [m, 4] and [n, 4], xyxy, half-open."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    ious: npt.NDArray[np.float32] = shared / (areas[0][:, None] + areas[1][None] - shared)
    return ious


def precision_recall(soft: npt.NDArray[np.float32], truth: Mask) -> tuple[Curve, Curve]:
    """Precision [255] and recall [255] of `soft > k / 255` for k = 0, ..., 254.

    Args:
        soft: float32 in [0, 1], any shape.
        truth: bool of the same shape.
    Precision is 1 where nothing is found, recall is 1 where there is nothing to find, as in TokenCut's code.
    """
    # v > k / 255 holds for ceil(255 v) of the thresholds, the lowest; 255 v is exact in float64.
    passed = np.ceil(soft.astype(np.float64).ravel() * F_THRESHOLDS).astype(np.int64)
    counts = np.bincount(2 * passed + truth.ravel(), minlength=2 * (F_THRESHOLDS + 1)).reshape(-1, 2)
    above = counts[::-1].cumsum(axis=0)[::-1][1:]  # [255, 2]: pixels over each threshold, false and true ones
    hits, found, wanted = above[:, 1], above.sum(axis=1), np.count_nonzero(truth)
    precision = np.where(found > 0, hits / np.maximum(found, 1), 1.0)
    recall = hits / wanted if wanted else np.ones(F_THRESHOLDS)
    return precision, np.asarray(recall, np.float64)


def f_beta(precision: Curve, recall: Curve, beta_squared: float) -> Curve:
    """F = (1 + b) P R / (b P + R) with b = `beta_squared`; 0 where both are 0."""
    below = beta_squared * precision + recall
    return np.asarray((1 + beta_squared) * precision * recall / np.where(below > 0, below, 1), np.float64)


def roc_auc(scores: npt.NDArray[np.floating], truth: Mask) -> float:
    """Area under the ROC curve: how often what is true scores above what is not; ties count half.

    Args:
        scores: of any shape, finite.
        truth: bool of the same shape, with both values.
    The Mann-Whitney statistic over the number of pairs: Hanley and McNeil (1982).
    """
    values, where = np.unique(scores, return_inverse=True)
    counts = np.bincount(2 * where.ravel() + truth.ravel(), minlength=2 * len(values)).reshape(-1, 2)
    false, true = counts.T.astype(np.float64)
    below = false.cumsum() - false
    return float((true * (below + false / 2)).sum() / (true.sum() * false.sum()))


def contingency(columns: npt.NDArray[np.integer], classes: npt.NDArray[np.integer]) -> Contingency:
    """[k, c] how often each column meets each class, of two arrays of one shape with values from 0."""
    k, c = (int(values.max(initial=0)) + 1 for values in (columns, classes))
    pairs = columns.astype(np.int64).ravel() * c + classes.ravel()
    return np.bincount(pairs, minlength=k * c).reshape(k, c).astype(np.int64)


def add_contingencies(tables: Iterable[Contingency]) -> Contingency:
    """The sum of tables of different shapes, as if the smaller ones had more rows and columns of 0."""
    tables = list(tables)
    total = np.zeros([max((table.shape[i] for table in tables), default=0) for i in (0, 1)], np.int64)
    for table in tables:
        total[: table.shape[0], : table.shape[1]] += table
    return total


def pair_ious(table: Contingency) -> npt.NDArray[np.float64]:
    """[k, c] intersection over union of each column's pixels and each class'; 0 where both have none.

    Args:
        table: [k, c], pixels of each column and class.
    """
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table
    return np.asarray(table / np.maximum(union, 1), np.float64)


def class_ious(confusion: Contingency) -> npt.NDArray[np.float64]:
    """[c] intersection over union of each class, NaN where it is neither true nor found.

    Args:
        confusion: [r, c], r at least c: how many pixels of each class were taken for the class of the row;
            from row c on they were taken for none.
    """
    count = confusion.shape[1]
    found, true = confusion.sum(axis=1)[:count], confusion.sum(axis=0)
    right = np.diagonal(confusion)
    union = found + true - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def normalized_mutual_information(table: Contingency) -> float:
    """Mutual information of columns and classes over the mean of their entropies, in [0, 1].

    1 where both have one value only, as in scikit-learn.
    """
    table = _occupied(table)
    if table.shape in ((0, 0), (1, 1)):
        return 1.0
    total = table.sum()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    share = table[table > 0] / total
    outer = (rows[:, None] / total * (columns[None] / total))[table > 0]
    information = float((share * np.log(share / outer)).sum())
    return max(0.0, information) / ((_entropy(rows / total) + _entropy(columns / total)) / 2)


def adjusted_rand_index(table: Contingency) -> float:
    """Agreement of columns and classes on pairs of pixels, 0 by chance, 1 where they are the same.

    Hubert and Arabie (1985).
    """
    table = _occupied(table)
    if table.shape in ((0, 0), (1, 1)):
        return 1.0
    # Python's integers: the pairs of a data set's pixels are more than 64 bits hold once multiplied.
    together = sum(math.comb(int(n), 2) for n in table.ravel())
    same_column, same_class = (sum(math.comb(int(n), 2) for n in table.sum(axis=axis)) for axis in (1, 0))
    pairs = math.comb(int(table.sum()), 2)
    # (together - expected) / (mean - expected), with expected = same_column * same_class / pairs
    above = 2 * (together * pairs - same_column * same_class)
    below = (same_column + same_class) * pairs - 2 * same_column * same_class
    return above / below if below else 1.0


def _occupied(table: Contingency) -> Contingency:
    return table[table.any(axis=1)][:, table.any(axis=0)]


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())
