"""``--tensor-parallel``: one command in several processes, of which the first one writes."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

from specdec.errors import OptionError, SpecdecError

# Seconds in which torchrun ends this rank, if the first one has refused the same.
_PATIENCE = 30.0


@contextmanager
def first_rank_writes(*, tensor_parallel: bool) -> Iterator[None]:
    """Within, other ranks than the first write nothing. What every rank refuses is told by the
    first one; torchrun then ends the others. An error that one rank alone has is told by that one.

    Args:
        tensor_parallel: whether there are ranks; nothing changes without.

    Raises:
        OptionError: the command was not started by torchrun.
    """
    if not tensor_parallel:
        yield
        return
    import torch.distributed

    from specdec.models.ranks import TORCHRUN, in_several_processes

    if not in_several_processes():
        raise OptionError(
            "--tensor-parallel shards the model over several processes, and this is the only one. "
            f"Start one for each device: {TORCHRUN} -m specdec.cli -- {shlex.join(sys.argv[1:])}"
        )
    try:
        with ExitStack() as stack:
            if os.environ["RANK"] != "0":
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield
    except SpecdecError:
        if os.environ["RANK"] != "0":
            time.sleep(_PATIENCE)
        raise
    torch.distributed.destroy_process_group()
