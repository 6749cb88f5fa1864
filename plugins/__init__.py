"""The strategies that ship with specdec: each package is an ordinary plugin on the public API."""
