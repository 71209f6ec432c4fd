"""SDMGrad's exact form where the gradients and the mean they are drawn to cancel."""

import jax
import numpy as np

from igb_jax import balancers

# lambda = 0.3: g_1 + 0.3 (g_1 + g_2) / 2 is nearly 0
OPPOSED = np.array([[-0.15864868, -3.8374314e-5], [1.2121826, 8.615554e-4]])


def test_gradients_that_cancel_with_their_mean_are_solved_to_rounding():
  random = np.random.default_rng(0)
  grads = OPPOSED * (1 + 1e-6 * random.normal(size=(2000, 2, 2)))
  balancer = balancers.create("sdmgrad", num_tasks=2).gradient
  state = balancer.init(np.zeros(2, np.float32))
  update = jax.jit(jax.vmap(lambda each: balancer.update(each, state)))
  found, states = update(grads.astype(np.float32))
  assert np.isfinite(found).all()
  assert np.isfinite(states.weights).all()
  # the shortest vector on the segment between the drawn gradients, in float64
  grads = grads.astype(np.float32).astype(np.float64)
  a, b = np.moveaxis(grads + 0.3 * grads.mean(axis=1, keepdims=True), 1, 0)
  share = np.clip(((b - a) * b).sum(1) / ((b - a) ** 2).sum(1), 0, 1)[:, None]
  lengths = np.linalg.norm(share * a + (1 - share) * b, axis=1) / 1.3
  actual = np.linalg.norm(found, axis=1)
  scale = np.linalg.norm(grads, axis=2).max(axis=1)
  # float32 products hold squares to 1e-7 of the largest
  assert ((actual**2 - lengths**2) / scale**2 < 1e-6).all()
