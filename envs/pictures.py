"""Images of any size as the pictures that a world model takes."""

import numpy as np
from PIL import Image

PICTURE = (64, 64, 3)


def to_picture(image: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3) uint8 -> (64, 64, 3) uint8, an array of its own; grey comes three times.

    Three times the same, since tokenizers, videos and figures then have one kind of picture to deal with.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.shape[:2] != PICTURE[:2]:
        # A box filter averages what it drops, so that small things do not vanish.
        resized = Image.fromarray(np.ascontiguousarray(image)).resize(PICTURE[:2], Image.Resampling.BOX)
        image = np.asarray(resized)
    return np.broadcast_to(image if image.ndim == 3 else image[:, :, None], PICTURE).copy()
