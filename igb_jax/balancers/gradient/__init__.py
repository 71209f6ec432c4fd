"""Gradient balancers, one file a method."""

from igb_jax.balancers.gradient.cagrad import cagrad
from igb_jax.balancers.gradient.imtl_g import imtl_g
from igb_jax.balancers.gradient.mgda import mgda
from igb_jax.balancers.gradient.nash_mtl import nash_mtl
from igb_jax.balancers.gradient.pcgrad import pcgrad

__all__ = ["cagrad", "imtl_g", "mgda", "nash_mtl", "pcgrad"]
