"""An earlier name of `igb_jax.data.nyuv2.sources` and what it is made of."""

from igb_jax.data.nyuv2._mat import MAT_NAME as MAT_NAME
from igb_jax.data.nyuv2._mat import NUM_IMAGES as NUM_IMAGES
from igb_jax.data.nyuv2.sources import recognise as recognise
from igb_jax.data.nyuv2.tables import classes_of_names as classes_of_names
from igb_jax.data.nyuv2.tables import scaled_intrinsics as scaled_intrinsics
from igb_jax.data.nyuv2.types import PARTS as PARTS
from igb_jax.data.nyuv2.types import Part as Part
from igb_jax.data.nyuv2.types import Reading as Reading
from igb_jax.data.nyuv2.types import SceneFile as SceneFile
from igb_jax.data.nyuv2.types import SceneSource as SceneSource
from igb_jax.data.scene import CLASS_NAMES as CLASS_NAMES
from igb_jax.data.scene import RawScene as RawScene
