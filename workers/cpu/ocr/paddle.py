"""PaddleOCR engine: the PP-OCRv6 models of the package ``rapidocr``, run by onnxruntime in this thread.

The package's own pipeline is not used. It takes a second to import, recognizes lines in batches (slower on one thread, and with
several times the memory), sorts lines by rows only, and downloads models that it misses.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import onnxruntime

from workers.cpu.ocr.installation import PADDLE_MODELS, find_paddle_models
from workers.cpu.ocr.layout import Line, Place, RecognizedText, compose_text

Image = Any
"""Pixels as an array: height, width, and the channels red, green and blue."""

DETECTION_SIDE = 1280
"""Longest side of the picture in which lines are looked for. They are recognized at full resolution."""

MIN_CONFIDENCE = 0.5
"""Lines that the model is less sure of are mostly drawings and stains."""

LINE_HEIGHT, MAX_LINE_WIDTH, UPRIGHT_WIDTH = 48, 4800, 192
_MIN_LINE_WIDTH, _WIDTH_STEP = 96, 16
_MASK_THRESHOLD, _MIN_BOX_SCORE, _UNCLIP_RATIO = 0.3, 0.5, 1.6
_MAX_LINES, _MIN_SIDE = 1000, 3
_UPRIGHT_SAMPLE = 12


class PaddleEngine:
    """Reader of pictures with text in Latin letters, Chinese and Japanese."""

    def __init__(self) -> None:
        folder = find_paddle_models()
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Pictures and lines have all sizes, so memory that is kept for one size is of no use to the next.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        self._sessions = {
            task: onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for task, name in PADDLE_MODELS.items()
        }
        characters = self._sessions["recognize"].get_modelmeta().custom_metadata_map["character"].split("\n")
        self._characters = ["", *characters, " "]  # the first is the blank of the CTC decoder

    def read_text(self, image: Image) -> RecognizedText:
        """The text of a picture in reading order."""
        return compose_text(self.read_lines(image))

    def read_lines(self, image: Image) -> list[Line]:
        """The lines of a picture that may be turned by a quarter or half, and a little askew. Boxes are those on the upright picture."""
        image = np.ascontiguousarray(image[:, :, ::-1])  # the models were trained with blue first
        detected = self._detect(image)
        places = [_place(box, image.shape[1], image.shape[0]) for box in detected]
        image, boxes = self._set_upright(image, detected)
        upright = _without_skew(boxes)
        lines = []
        for box, (left, top, right, bottom), place in zip(boxes, upright, places, strict=True):
            text, confidence = self._recognize(_crop(image, box))
            if text.strip() and confidence >= MIN_CONFIDENCE:
                lines.append(Line(text.strip(), confidence, left, top, right, bottom, place))
        return lines

    def _run(self, task: str, values: Any) -> Any:
        session = self._sessions[task]
        return session.run(None, {session.get_inputs()[0].name: values})[0]

    def _detect(self, image: Image) -> list[Any]:
        """Boxes of lines, as four corners each: top left, top right, bottom right, bottom left."""
        height, width = image.shape[:2]
        scale = min(1.0, DETECTION_SIDE / max(height, width))
        size = [max(32, round(side * scale / 32) * 32) for side in (width, height)]
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        scores = self._run("detect", _normalized(shrunk)[None])[0, 0]
        mask = cv2.dilate((scores > _MASK_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        to_image = np.array([width / size[0], height / size[1]], np.float32)
        boxes = []
        for contour in contours[:_MAX_LINES]:
            center, (across, along), angle = cv2.minAreaRect(contour)
            if min(across, along) < _MIN_SIDE or _mean_score(scores, center, (across, along), angle) < _MIN_BOX_SCORE:
                continue
            # The model marks the core of each line; the margin that it leaves out grows with the line.
            margin = 2 * across * along * _UNCLIP_RATIO / (2 * (across + along))
            corners = cv2.boxPoints((center, (across + margin, along + margin), angle)) * to_image
            boxes.append(_ordered(np.clip(corners, 0, (width - 1, height - 1)).astype(np.float32)))
        return [box for box in boxes if min(_size(box)) > _MIN_SIDE]

    def _set_upright(self, image: Image, boxes: list[Any]) -> tuple[Image, list[Any]]:
        """Turn the picture by a quarter if most of its lines run up or down, and by half if they are upside down."""
        lengths = {True: 0.0, False: 0.0}
        for box in boxes:
            width, height = _size(box)
            lengths[height >= 1.5 * width] += max(width, height)
        if lengths[True] > lengths[False]:
            boxes = [_ordered(np.stack([box[:, 1], image.shape[1] - 1 - box[:, 0]], axis=1)) for box in boxes]
            image = np.ascontiguousarray(np.rot90(image))
        if boxes and self._is_upside_down(image, boxes):
            boxes = [_ordered(np.array([image.shape[1] - 1, image.shape[0] - 1], np.float32) - box) for box in boxes]
            image = np.ascontiguousarray(np.rot90(image, 2))
        return image, boxes

    def _is_upside_down(self, image: Image, boxes: Sequence[Any]) -> bool:
        votes = 0.0
        for box in sorted(boxes, key=lambda box: -_size(box)[0])[:_UPRIGHT_SAMPLE]:
            line = _crop(image, box)
            # The beginning of the line, as a whole line in this width would be too narrow to tell its direction.
            start = line[:, : line.shape[0] * UPRIGHT_WIDTH // LINE_HEIGHT]
            upright, turned = self._run("turn", _fitted(start, UPRIGHT_WIDTH)[None])[0]
            votes += float(turned - upright)
        return votes > 0

    def _recognize(self, line: Image) -> tuple[str, float]:
        width = math.ceil(LINE_HEIGHT * line.shape[1] / line.shape[0] / _WIDTH_STEP) * _WIDTH_STEP
        scores = self._run("recognize", _fitted(line, min(MAX_LINE_WIDTH, max(_MIN_LINE_WIDTH, width)))[None])[0]
        best = scores.argmax(axis=1)
        shown = best != 0
        shown[1:] &= best[1:] != best[:-1]
        text = "".join(self._characters[index] for index in best[shown])
        return text, float(scores[np.flatnonzero(shown), best[shown]].mean()) if text else 0.0


def _normalized(image: Image) -> Any:
    """Channels first, values from -1 to 1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 127.5 - 1


def _fitted(line: Image, width: int) -> Any:
    """A line in the height that the models expect, with empty space at its end if it is shorter than ``width``."""
    own = min(width, max(1, math.ceil(LINE_HEIGHT * line.shape[1] / line.shape[0])))
    shrinks = line.shape[0] > 2 * LINE_HEIGHT
    values = np.zeros((3, LINE_HEIGHT, width), np.float32)
    values[:, :, :own] = _normalized(
        cv2.resize(line, (own, LINE_HEIGHT), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    )
    return values


def _mean_score(scores: Any, center: Any, size: Any, angle: float) -> float:
    corners = cv2.boxPoints((center, size, angle))
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, None)
    high = np.ceil(corners.max(axis=0)).astype(int) + 1
    part = scores[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(corners - low).astype(np.int32)], 1)
    return float(cv2.mean(part, mask)[0])


def _place(box: Any, width: int, height: int) -> Place:
    """The box around four corners, as fractions of the picture."""
    (left, top), (right, bottom) = box.min(axis=0), box.max(axis=0)
    return float(left / width), float(top / height), float(right / width), float(bottom / height)


def _ordered(corners: Any) -> Any:
    """Corners as top left, top right, bottom right, bottom left."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    (top_left, bottom_left), (top_right, bottom_right) = (
        side[np.argsort(side[:, 1], kind="stable")] for side in (by_x[:2], by_x[2:])
    )
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)


def _size(box: Any) -> tuple[float, float]:
    """Width and height."""
    return float(np.linalg.norm(box[1] - box[0])), float(np.linalg.norm(box[3] - box[0]))


def _crop(image: Image, box: Any) -> Image:
    width, height = (max(1, round(side)) for side in _size(box))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(box, target)
    line = cv2.warpPerspective(image, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(line)) if height >= 1.5 * width else line


def _without_skew(boxes: Sequence[Any]) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each box, after turning the page so that its long lines are level."""
    slopes = [(box[1] - box[0], _size(box)) for box in boxes]
    long_lines = [math.atan2(edge[1], edge[0]) for edge, (width, height) in slopes if width >= 5 * height]
    angle = float(np.median(long_lines)) if long_lines else 0.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], np.float32)
    bounds = []
    for box in boxes:
        level = box @ turn
        middle_left, middle_right = (level[0] + level[3]) / 2, (level[1] + level[2]) / 2
        middle, half = (middle_left[1] + middle_right[1]) / 2, _size(box)[1] / 2
        bounds.append((float(middle_left[0]), float(middle - half), float(middle_right[0]), float(middle + half)))
    return bounds
