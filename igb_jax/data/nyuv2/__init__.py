"""NYUv2: 1449 images of rooms with 13 classes, depth and surface normals.

`load` gives random access to the scenes of a folder or file in any of three formats
(`igb_jax.data.nyuv2.sources`). The first call checks every file, derives the normals
where there are none (`igb_jax.data.normals`) on all cores, and caches the result as
array_record files; later calls only look whether the files have changed. `split` says
which scenes are for training, validation and testing.

The cache holds images in 8 bits, depth in millimetres (within 0.5 mm; as it is where
the source has floating point) and normals within 0.05 degrees.

Reference: Silberman et al., "Indoor Segmentation and Support Inference from RGBD
Images", ECCV 2012.
"""

from igb_jax.data.nyuv2.cache import load
from igb_jax.data.nyuv2.dataset import NYUv2
from igb_jax.data.nyuv2.splitting import Split, SplitName, split
from igb_jax.data.scene import CLASS_NAMES

__all__ = ["CLASS_NAMES", "NYUv2", "Split", "SplitName", "load", "split"]
