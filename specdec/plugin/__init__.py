"""What plugins register, and how parts are chosen by name."""

# What an engine runs unless another strategy is named. A plugin registers it.
DEFAULT_STRATEGY = "auto"
