"""Acceleration of an engine's networks: packed weights or ``torch.compile``."""

from specdec.acceleration.acceleration import Acceleration

__all__ = ["Acceleration"]
