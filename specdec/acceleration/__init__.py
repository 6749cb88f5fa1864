"""What an engine does to make the forwards of its networks cheaper: packing or compiling them."""

from specdec.acceleration.acceleration import Acceleration

__all__ = ["Acceleration"]
