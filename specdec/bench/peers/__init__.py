"""Other decoders beside the strategies: each in a process of its own, in an environment of its own.

``protocol.py`` and the workers (``worker_*.py``) run as scripts in environments that need not have
specdec; they import nothing of it.
"""
