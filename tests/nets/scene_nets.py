"""The networks for scenes, and the shapes of their variables."""

import jax
import jax.numpy as jnp

from igb_jax.nets import mtan, segnet

NETS = {"segnet": segnet.SegNet, "mtan": mtan.MTAN}


def shapes_of(net, height=32, width=32):
  """Shapes of the variables, without computing them."""
  images = jnp.ones((2, height, width, 3))
  return jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
