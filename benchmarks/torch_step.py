"""The train step of a recipe in torch: loss, clip, Muon and Adam, EMA.

The arithmetic is that of diffusion/loss.py and training/optimizer.py, in place
and over lists of tensors, as torch's own optimizers run it. torch.optim.Muon
orthogonalises in bfloat16 and one matrix at a time; here matrices of one size
are one stack in float32, as in training/muon.py.
"""
import collections
import math

try:
  import torch
except ImportError:  # the arguments are parsed without it
  torch = None

from video_diffusion.training import muon

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. (2024), five times


def loss_fn(network, p, x, noise, labels):
  """Mean squared error of v.

  Args:
    network: a `torch_unet.Network`.
    p: its parameters.
    x: clean frames [b, f, h, w, c] in [-1, 1].
    noise: (log-SNR [b, f], eps of x's shape, keep [b]).
    labels: see `torch_unet.Network`.
  """
  logsnr, eps, keep = noise
  broadcast = logsnr[..., None, None, None]
  alpha, sigma = broadcast.sigmoid().sqrt(), (-broadcast).sigmoid().sqrt()
  output = network(p, alpha * x + sigma * eps, logsnr, labels, keep)
  return (output - (alpha * eps - sigma * x)).square().mean()


def draw_noise(shape, num_images: int, cond_drop: float):
  """The noise of `loss_fn`, by the cosine schedule between -20 and 20.

  Args:
    shape: of the video, [b, f, h, w, c].
    num_images: K.
    cond_drop: share of the clips whose labels are dropped.
  """
  b, f = shape[:2]
  low, high = math.atan(math.exp(-10.0)), math.atan(math.exp(10.0))
  t = torch.rand(b, 1 + num_images)
  logsnr = -2 * torch.log(torch.tan(low + t * (high - low)))
  video = logsnr[:, :1].expand(-1, f - num_images)
  keep = torch.rand(b) >= cond_drop
  return torch.cat([video, logsnr[:, 1:]], 1), torch.randn(shape), keep


class Optimizer:
  """The clip, Muon for kernels, Adam for the rest, and the EMA."""

  def __init__(self, params, optim, learning_rate, ema_decay):
    """Starts from zero moments.

    Args:
      params: name -> tensor, which `step` writes to.
      optim: the optim fields of a config.
      learning_rate: number of an update -> learning rate.
      ema_decay: number of an update -> decay.
    """
    self._optim, self._count = optim, 0
    self._learning_rate, self._ema_decay = learning_rate, ema_decay
    names = sorted(params, key=lambda name: not name.endswith('.kernel'))
    self._params = [params[name] for name in names]
    self._kernels = sum(name.endswith('.kernel') for name in names)
    zeros = lambda: [torch.zeros_like(p) for p in self._params]
    self._mean, self._square = zeros(), zeros()[self._kernels:]
    self._ema = [p.detach().clone() for p in self._params]
    self.ema = dict(zip(names, self._ema, strict=True))

  @torch.no_grad() if torch else lambda method: method
  def step(self, loss) -> bool:
    """Takes the gradients of the parameters, and says whether they are finite.

    Args:
      loss: a scalar, whose gradients are in the parameters.
    """
    grads, n, optim = [p.grad for p in self._params], self._kernels, self._optim
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    if not torch.isfinite(loss + norm):
      return False
    if norm > optim.clip_norm:
      torch._foreach_mul_(grads, optim.clip_norm / norm.item())
    lr, t = self._learning_rate(self._count), self._count + 1
    self._muon(grads[:n], self._mean[:n], self._params[:n], lr)
    self._adam(grads[n:], self._mean[n:], self._params[n:], lr, t)
    torch._foreach_lerp_(
        self._ema, self._params, 1.0 - self._ema_decay(self._count)
    )
    self._count = t
    return True

  def _muon(self, grads, mean, params, lr):
    torch._foreach_mul_(mean, muon.MOMENTUM)
    torch._foreach_add_(mean, grads)
    updates = torch._foreach_add(grads, mean, alpha=muon.MOMENTUM)
    groups = collections.defaultdict(list)
    for update, param in zip(updates, params, strict=True):
      matrix = update.flatten(1)
      rows, columns = matrix.shape
      turned = rows > columns
      groups[min(matrix.shape), max(matrix.shape)].append(
          (matrix.T if turned else matrix, turned, param)
      )
    a, b, c = NEWTON_SCHULZ
    for (_, high), members in groups.items():
      x = torch.stack([matrix for matrix, _, _ in members])
      x /= torch.linalg.matrix_norm(x, keepdim=True) + 1e-8
      for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a
        )
      x *= -lr * muon.RMS * math.sqrt(high)
      for matrix, (_, turned, param) in zip(x, members, strict=True):
        param += (matrix.T if turned else matrix).reshape(param.shape)

  def _adam(self, grads, mean, params, lr, t):
    b1, b2 = self._optim.beta1, self._optim.beta2
    torch._foreach_lerp_(mean, grads, 1 - b1)
    torch._foreach_mul_(self._square, b2)
    torch._foreach_addcmul_(self._square, grads, grads, 1 - b2)
    ahead = torch._foreach_mul(mean, b1 / (1 - b1 ** (t + 1)))
    torch._foreach_add_(ahead, grads, alpha=(1 - b1) / (1 - b1**t))
    root = torch._foreach_div(self._square, 1 - b2**t)
    torch._foreach_sqrt_(root)
    torch._foreach_add_(root, self._optim.eps)
    torch._foreach_addcdiv_(params, ahead, root, -lr)
