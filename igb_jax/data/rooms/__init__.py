"""Rooms: made indoor scenes with the labels of NYUv2, by ray casting in NumPy.

For multi-task learning where the real photographs are not at hand. Every scene has
an image and, for each of its pixels, one of the 13 classes of NYUv2, the depth and
the surface normal, exact and without holes. A scene is a pure function of its seed
and index; any size of picture samples the same scene.

A ray through every pixel is cut with the room, which is a box seen from within, and
with the solids of `_layout` (boxes, ellipsoids, cylinders), each of them only
in the rectangle of pixels that its corners span. Colours are looked up afterwards,
once a pixel, as are light and shadow.
"""

from igb_jax.data.rooms._rays import Intrinsics
from igb_jax.data.rooms.rendering import Rooms, intrinsics, scene
from igb_jax.data.scene import CLASS_NAMES as CLASSES
from igb_jax.data.scene import Scene

__all__ = ["CLASSES", "Intrinsics", "Rooms", "Scene", "intrinsics", "scene"]
