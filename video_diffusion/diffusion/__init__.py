"""The paper's mathematics: imports jax alone, knows no network, no config.

Videos are float32 [batch, time, height, width, channels] in [-1, 1]. A log-SNR
is [batch] or [batch, time] (an appended image has its own) and is broadcast
over the trailing axes.
"""
