"""NYUv2 as people have it: three formats, recognised by what is in a folder.

* Array folders, the pre-processed form that the literature shares: `train/` and `val/`
  with `image`, `label`, `depth` and `normal`, a file `0.npy`, `1.npy`, ... each. Image
  H x W x 3 in [0, 1], label H x W with -1 ignored, depth H x W (x 1) in metres, normal
  H x W x 3, all floating point. In those data `val` holds the 654 official test images.
* The official `nyu_depth_v2_labeled.mat`, cropped to its valid region, resized to
  288 x 384 and split officially here.
* Image folders: `train/` and `test/` with `image` (JPEG or PNG), `label` (PNG of 8
  bits, 255 ignored), `depth` (PNG of 16 bits, millimetres) and perhaps `normal` (PNG,
  red, green, blue = (x, y, z + 1) / 2 * 255).

In both kinds of folders `train` is the training part. Of `val` and `test` one is
enough, and whichever it is becomes the test part; where there are both, `val` is the
validation part. Without `normal`, normals are to be derived from depth. Normals that
there are must have the axes of `igb_jax.data.normals`; those shorter than 0.5 or longer
than 1.5 are unknown, all others are brought to length 1.
"""

from pathlib import Path

from igb_jax.data.nyuv2._folders import FOLDERS, SUFFIXES, recognise_folders, visible
from igb_jax.data.nyuv2._mat import MAT_NAME, recognise_mat
from igb_jax.data.nyuv2.types import SceneSource


def recognise(path: Path) -> SceneSource:
  """Finds out which of the three formats a folder or file has.

  Only names are looked at, and the header of the official file.

  Args:
    path: Folder, or the official file itself.

  Returns:
    The source, with the problems that its names show.

  Raises:
    FileNotFoundError: If there is nothing, or nothing that has one of the formats.
  """
  given = Path(path).expanduser()
  path = given.resolve()
  if not path.exists():
    raise FileNotFoundError(f"{path}: there is no such file or folder")
  if path.is_file() and given.suffix == ".mat":
    return recognise_mat(path)
  if path.is_dir():
    for kind in ("arrays", "images"):
      files = (file for folder in FOLDERS for file in visible(path / folder / "image"))
      if any(file.suffix.lower() in SUFFIXES[kind]["image"] for file in files):
        return recognise_folders(path, kind)
    if (path / MAT_NAME).is_file():
      return recognise_mat((path / MAT_NAME).resolve())
  raise FileNotFoundError(
    f"{path}: no NYUv2 data there ({_contents(path)}). Expected one of\n"
    "  a folder with train/ and val/ of image|label|depth|normal/*.npy\n"
    f"  the official file {MAT_NAME}, or its folder\n"
    "  a folder with train/ and test/ of image|label|depth[|normal]/*.jpg or .png"
  )


def _contents(path: Path) -> str:
  """What is there, also where images are looked for."""
  if path.is_file():
    return "it is a file"
  places = {f"{folder}/image": path / folder / "image" for folder in FOLDERS}
  contents = [f"the folder {_names(path)}"]
  contents += [
    f"{name} {_names(place)}" for name, place in places.items() if place.is_dir()
  ]
  return "; ".join(contents)


def _names(folder: Path) -> str:
  names = [path.name for path in visible(folder)]
  if not names:
    return "is empty"
  more = f" and {len(names) - 8} more" if len(names) > 8 else ""
  return f"has {', '.join(names[:8])}{more}"
