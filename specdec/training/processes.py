"""The processes of a run, through accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from specdec.errors import OptionError, install_extra

if TYPE_CHECKING:
    from accelerate import Accelerator


def processes(device: torch.device | str | None, accumulate: int) -> Accelerator:
    """accelerate's view of this process: alone, or one of those that ``accelerate launch`` started.

    Args:
        device: what the user asked for; a GPU if there is one, for None.
        accumulate: batches whose gradients make one step.

    Raises:
        OptionError: accelerate is missing.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise OptionError(f"training needs accelerate: {install_extra('train')}")
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    asked = device is not None and torch.device(device).type == "cpu"
    return Accelerator(
        cpu=asked or not torch.cuda.is_available(),
        gradient_accumulation_steps=accumulate,
        device_placement=False,  # the network is where the target is
        # One process may wait for hours for the answers of another; gone ones are noticed anyway.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )


def agreed(accelerator: Accelerator, values: list[Any]) -> list[Any]:
    """What the main process has: clocks, signals and files differ between processes, and what they
    decide must not."""
    if accelerator.num_processes == 1:
        return values
    from accelerate.utils import broadcast_object_list

    found: list[Any] = broadcast_object_list(values)
    return found


def on_main(accelerator: Accelerator, act: Callable[[], object]) -> None:
    """Let one process do something while the others wait."""
    if accelerator.is_main_process:
        act()
    accelerator.wait_for_everyone()
