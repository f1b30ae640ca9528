"""Flax Linen modules: the 3D U-Net, its blocks and its conditioning."""
