"""What the policy has learned, for every generation of an engine, and on disk if asked."""

from __future__ import annotations

import copy
import json
import math
import threading
from pathlib import Path
from typing import Any

import torch

from specdec.drafting.calibration import Calibration, Prior
from specdec.drafting.seconds_by_size import BREAK_EVEN_TOKENS
from specdec.errors import OptionError, warn
from specdec.files.atomic_files import write_json
from specdec_plugins.auto.acceptance import LASTING, PRIORS, AcceptanceEstimates
from specdec_plugins.auto.costs import Costs
from specdec_plugins.auto.decision import Exploration

# Sampling settings that are remembered, the latest ones: a bound on the memory of a server whose
# requests bring settings of their own.
SETTINGS = 256
# One thread at a time changes what is known. No attribute: what is learned is copied.
CHANGING = threading.RLock()


class Memory:
    """Calibrations by sampling setting; acceptance by setting and batch size to the nearest power
    of two, as rows leave a batch in mid-text; costs by batch size and length of the texts
    (:func:`~specdec.drafting.seconds_by_size.length_bucket`); one budget of exploration.

    Only calibrations are ever saved: the rest is about this process and its texts.

    Args:
        file: where calibrations are read from, if it exists, and written to by :meth:`save`.

    Raises:
        OptionError: a file that is no such file, or a folder that does not exist.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.calibrations: dict[str, Calibration] = {}
        self.exploration = Exploration()
        self._acceptance: dict[tuple[str, int], AcceptanceEstimates] = {}
        self._costs: dict[tuple[int, int], Costs] = {}
        self._file, self._saving, self._unsaved = file, False, False
        self._saved: dict[str, dict[str, Any]] = {}
        if file is not None and not file.parent.is_dir():
            raise OptionError(
                f"policy.calibration_file={str(file)!r}: there is no folder {str(file.parent)!r}: "
                "make it, or give another file"
            )
        if file is not None and file.exists():
            self._saved = _read(file)

    def calibration(self, setting: str, prior: Prior, device: torch.device) -> Calibration:
        """That of a setting: known, saved or new."""
        with CHANGING:
            found = self.calibrations.pop(setting, None)
            if found is None:
                found = Calibration(prior, device, LASTING)
                if setting in self._saved:
                    found.restore(self._saved[setting])
            self.calibrations[setting] = found  # the latest one is last
            if len(self.calibrations) > SETTINGS:
                self._forget(next(iter(self.calibrations)))
            return found

    def _forget(self, setting: str) -> None:
        del self.calibrations[setting]
        for key in [key for key in self._acceptance if key[0] == setting]:
            del self._acceptance[key]

    def acceptance(self, setting: str, rows: int) -> AcceptanceEstimates:
        """That of a batch size; a new one begins with what is known of the nearest size."""
        size = round(math.log2(rows))
        with CHANGING:
            if (setting, size) not in self._acceptance:
                own = [(abs(other - size), other) for s, other in self._acceptance if s == setting]
                near = self._acceptance[setting, min(own)[1]] if own else AcceptanceEstimates()
                self._acceptance[setting, size] = copy.deepcopy(near)
            return self._acceptance[setting, size]

    def costs(self, rows: int, length: int = 0, break_even: int = BREAK_EVEN_TOKENS) -> Costs:
        """Those of a batch size and a length bucket; new ones begin with what is known of
        the nearest, at most a doubling of the batch away.

        Args:
            break_even: for a guess where nothing is known.
        """
        with CHANGING:
            if (rows, length) not in self._costs:
                known = [
                    (not own.drafting_known, abs(math.log2(size / rows)), abs(other - length), key)
                    for key, own in self._costs.items()
                    for size, other in [key]
                    if 0.5 <= size / rows <= 2 and own.plain_known
                ]
                near = self._costs[min(known)[-1]] if known else Costs(rows, break_even)
                self._costs[rows, length] = near.for_rows(rows)
            return self._costs[rows, length]

    def save(self) -> None:
        """Write the calibrations to the file, if there is one; whole or not at all.

        Warns where it cannot be written: a text that is complete is not lost for it.
        """
        with CHANGING:
            # Python may collect another generation meanwhile, whose end comes here too.
            self._unsaved = True
            if self._saving:
                return
            self._saving = True
            try:
                while self._unsaved:
                    self._unsaved = False
                    self._write()
            finally:
                self._saving = False

    def _write(self) -> None:
        if self._file is None:
            return
        self._saved.update((name, known.saved()) for name, known in self.calibrations.items())
        self._saved = dict([*self._saved.items()][-SETTINGS:])
        try:
            if not self._file.parent.is_dir():
                raise OptionError(f"{self._file} cannot be written: its folder is gone")
            write_json(self._file, self._saved)
        except OptionError as error:
            warn(f"policy.calibration_file: {error}; nothing is kept")
            self._file = None


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        for known in saved.values():
            Calibration(PRIORS["greedy"], torch.device("cpu"), LASTING).restore(known)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OptionError(
            f"policy.calibration_file={str(file)!r} was not written by the policy 'auto' "
            f"({error!r}): give a file that it has written, or a name that does not exist yet"
        ) from error
    return dict(saved)
