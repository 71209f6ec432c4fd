"""LDC-MTL: learnt weights that keep the losses of neighbouring tasks alike.

    total = sigma . y / S + penalty sum_i |sigma_i y_i - sigma_{i+1} y_{i+1}|

is minimised over the model and, by an Adam of their own, over the logits v of sigma:

    form     sigma                   y                           S          penalty
    qm9      sigmoid(relu(v))        log(L / L_base)             sum sigma     0.05
    celeba   sigmoid(v)              L                           sum sigma     0.01
    nyuv2    clip(softmax(v), 0.2, 0.8)  L min(L_first) / L_first  sum sigma   0.05

S is a constant to the logits but in the form "nyuv2". L_base are the losses of the
first batch of each epoch, L_first those of the very first. The weights are

    w_k = (sigma_k / S + d_k sigma_k) dy_k/dL_k
    d_k = penalty (sign(q_k - q_{k+1}) - sign(q_{k-1} - q_k)),    q = sigma y

Reference: Xiao et al., "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
Discrepancy Control", 2025, Algorithm 1, in the three forms of its code. There the
logits of "nyuv2" are a linear router's, of features of the batch; here too, with
`num_features`, but the router's gradient does not reach the features' network.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import (
  check_count,
  check_numbers,
  check_one_of,
  check_positive,
)
from igb_jax.balancers.common import constant_float32, increment, is_valid, log_losses
from igb_jax.balancers.loss import descent
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer

_PENALTIES = {"qm9": 0.05, "celeba": 0.01, "nyuv2": 0.05}


class LDCState(NamedTuple):
  """State of `ldc_mtl`.

  Attributes:
    step: i32[], number of updates so far.
    router: f32[K, d + 1], weights and bias of each logit; d is 0 without features.
    adam: optax state, one Adam a number of the router (leading axis K (d + 1)).
    base: f32[K], the losses that others are compared with.
    known: bool[K], which tasks have one.
    weights: f32[K], weights of the latest update, which may be negative.
  """

  step: jax.Array
  router: jax.Array
  adam: optax.OptState
  base: jax.Array
  known: jax.Array
  weights: jax.Array


@method(
  "ldc",
  "loss",
  paper="Xiao et al., 2025",
  forward_passes=1,
  backward_passes="1",
  draws=True,
  needs_positive=True,
  equivariant=False,
  scale_invariant=True,
  takes_log=True,
  normalised=False,
  positive=False,
  recovers=True,
  ties_tasks=True,
  needs=(),
)
def ldc_mtl(
  num_tasks: int,
  steps_per_epoch: int,
  *,
  form: str = "qm9",
  penalty: jax.typing.ArrayLike | None = None,
  learning_rate: jax.typing.ArrayLike = 1e-3,
  initial_logits: Any = None,
  num_features: int = 0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """LDC-MTL: weights that learn to keep losses of neighbouring tasks alike.

  The order of the tasks matters: each is compared with the next. Weights may be
  negative where the penalty exceeds 1 / (2 S). A loss that is not positive and finite
  has the weight 0 and says nothing to the logits. With many tasks the form "nyuv2"
  clips all of sigma to 0.2, and then learns nothing: it is for two or three.

  Args:
    num_tasks: K.
    steps_per_epoch: number of updates that make an epoch.
    form: "qm9", "celeba" or "nyuv2".
    penalty: the penalty of differing losses; None for that of the form.
    learning_rate: the learning rate of the logits' Adam.
    initial_logits: float[K], v at the start; None for draws from 0.2 to 1 ("qm9"),
      ones ("celeba") or zeros ("nyuv2"). With a router, its bias.
    num_features: d, of the extra argument `features` of `update`, float[d], which a
      linear router makes the logits of; 0 for logits that are free.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `LDCState`. Its weights in the form "qm9" are those of the
    logarithms of the losses.

  Raises:
    ValueError: by `update`, `features` are missing or have another shape.

  Example:
    >>> balancer = ldc_mtl(2, steps_per_epoch=10, form="celeba")
    >>> _, state = balancer.update(jnp.array([1.0, 3.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.493', '0.507']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
  num_features = check_count("num_features", num_features, minimum=0)
  check_one_of("form", form, tuple(_PENALTIES))
  if penalty is None:
    penalty = _PENALTIES[form]
  penalty = check_positive("penalty", penalty, or_zero=True)
  start = None
  if initial_logits is not None:
    start = check_numbers("initial_logits", initial_logits, num_tasks)
  optimizer = descent.adam(learning_rate)

  def init(key: jax.Array | None = None) -> LDCState:
    if start is not None:
      logits = jnp.asarray(start, jnp.float32)
    elif form == "qm9":
      if key is None:
        raise ValueError(
          "ldc_mtl draws its first logits: init needs a key, e.g. "
          "init(jax.random.key(0)), got None; or pass initial_logits=."
        )
      logits = jax.random.uniform(key, (num_tasks,), jnp.float32, 0.2, 1.0)
    else:
      logits = jnp.full(num_tasks, float(form == "celeba"), jnp.float32)
    router = jnp.zeros((num_tasks, num_features + 1), jnp.float32)
    router = router.at[:, -1].set(logits)
    return LDCState(
      step=jnp.zeros((), jnp.int32),
      router=router,
      adam=jax.vmap(optimizer.init)(router.ravel()),
      base=jnp.ones(num_tasks, jnp.float32),
      known=jnp.zeros(num_tasks, bool),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def sigma_of(logits: jax.Array, valid: jax.Array) -> jax.Array:
    if form == "qm9":
      return jax.nn.sigmoid(jax.nn.relu(logits))
    if form == "celeba":
      return jax.nn.sigmoid(logits)
    return jnp.clip(jax.nn.softmax(logits, where=valid), 0.2, 0.8)

  def total(
    router: jax.Array, y: jax.Array, inputs: jax.Array, valid: jax.Array
  ) -> jax.Array:
    sigma = jnp.where(valid, sigma_of(router @ inputs, valid), 0.0)
    size = jnp.maximum(jnp.sum(sigma), 0.1)  # of no task
    if form != "nyuv2":
      size = jax.lax.stop_gradient(size)
    # neighbours among the tasks that are there
    order = jnp.argsort(~valid, stable=True)
    q, here = (sigma * y)[order], valid[order]
    differences = jnp.where(here[1:], q[:-1] - q[1:], 0.0)
    # the derivative of jnp.abs at 0 would be 1
    signs = jax.lax.stop_gradient(jnp.sign(differences))
    return jnp.sum(sigma * y) / size + penalty * jnp.sum(signs * differences)

  def update(
    losses: jax.Array,
    state: LDCState,
    present: jax.Array | None,
    *,
    features: jax.typing.ArrayLike | None = None,
    **extra: Any,
  ) -> tuple[jax.Array, LDCState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    known = state.known
    if form == "qm9":
      known &= state.step % steps_per_epoch > 0
    base = jnp.where(valid & ~known, constant, state.base)
    known |= valid
    usable = jnp.where(valid, constant, 1.0)
    if form == "qm9":
      # exactly 0 in the first batch, where no task is to seem larger than another
      y = jnp.log(usable) - jnp.log(jnp.where(valid, base, 1.0))
      y, slopes = jnp.where(usable == base, 0.0, y), 1.0
    elif form == "celeba":
      y, slopes = usable, 1.0
    else:
      slopes = jnp.min(base, where=known, initial=jnp.inf) / base
      slopes = jnp.where(valid, slopes, 1.0)
      y = usable * slopes
    inputs = jnp.append(_check_features(features, num_features), 1.0)
    of_router, of_y = jax.grad(total, argnums=(0, 1))(state.router, y, inputs, valid)
    weights = jnp.where(valid, of_y * slopes, 0.0)
    moved = jnp.repeat(valid, num_features + 1)
    router, adam = descent.descend(
      optimizer, of_router.ravel(), moved, state.router.ravel(), state.adam
    )
    weighted = weights * (log_losses(losses) if form == "qm9" else losses)
    return weighted, LDCState(
      step=increment(state.step),
      router=router.reshape(state.router.shape),
      adam=adam,
      base=base,
      known=known,
      weights=weights,
    )

  return loss_balancer(num_tasks, init, update, absent)


def _check_features(features: Any, num_features: int) -> jax.Array:
  if not num_features:
    return jnp.zeros(0, jnp.float32)
  if features is None:
    raise ValueError(
      f"ldc with num_features={num_features} needs features, float[{num_features}], "
      "such as the mean over the batch of pooled features; pass features=."
    )
  array = jnp.asarray(features, jnp.float32)
  if array.shape != (num_features,):
    raise ValueError(
      f"features must have the shape ({num_features},), got {array.shape}."
    )
  return jax.lax.stop_gradient(array)
