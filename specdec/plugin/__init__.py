"""What plugins register, and how parts are chosen by name."""

from typing import Literal

Role = Literal["drafter", "policy", "verifier", "acceptor"]
ROLES: tuple[Role, ...] = ("drafter", "policy", "verifier", "acceptor")

# What an engine runs unless another strategy is named. A plugin registers it.
DEFAULT_STRATEGY = "auto"
