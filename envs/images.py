"""Images of any size as the images that a world model takes."""

import numpy as np
from PIL import Image

IMAGE_SHAPE = (64, 64, 3)


def to_image(image: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3) uint8 -> a new array (64, 64, 3) uint8; gray is repeated in the three channels."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.shape[:2] != IMAGE_SHAPE[:2]:
        # A box filter averages what it drops, so that small objects do not vanish.
        resized = Image.fromarray(np.ascontiguousarray(image)).resize(IMAGE_SHAPE[:2], Image.Resampling.BOX)
        image = np.asarray(resized)
    return np.broadcast_to(image if image.ndim == 3 else image[:, :, None], IMAGE_SHAPE).copy()
