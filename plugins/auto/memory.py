"""What the policy has learned, for every generation of an engine, and on disk if asked."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from specdec.errors import OptionError
from specdec_plugins.auto.calibration import Calibration, Prior
from specdec_plugins.auto.costs import Economy, Times

_FIELDS = ("theta", "precision", "steps")


class Memory:
    """Calibrations by sampling setting; costs by setting and batch size.

    Costs are those of this process and never saved.

    Args:
        file: where calibrations are read from, if it exists, and written to by :meth:`save`.

    Raises:
        OptionError: a file that is no such file, or a folder that does not exist.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.calibrations: dict[str, Calibration] = {}
        self.times: dict[int, Times] = {}
        self.economies: dict[tuple[str, int], Economy] = {}
        self._file = file
        self._saved: dict[str, dict[str, object]] = {}
        if file is not None and not file.parent.is_dir():
            raise OptionError(
                f"policy.memory={str(file)!r}: there is no folder {str(file.parent)!r}: make it, "
                "or give another file"
            )
        if file is not None and file.exists():
            self._saved = _read(file)

    def calibration(self, setting: str, prior: Prior, device: torch.device) -> Calibration:
        """That of a setting: known, saved or new."""
        if setting not in self.calibrations:
            made = Calibration(prior, device)
            if saved := self._saved.get(setting):
                made.theta = made.theta.new_tensor(saved["theta"])
                made.precision = made.precision.new_tensor(saved["precision"])
                made.steps = int(str(saved["steps"]))
            self.calibrations[setting] = made
        return self.calibrations[setting]

    def save(self) -> None:
        """Write the calibrations to the file, if there is one; whole or not at all."""
        if self._file is None:
            return
        for setting, known in self.calibrations.items():
            self._saved[setting] = {
                "theta": known.theta.tolist(),
                "precision": known.precision.tolist(),
                "steps": known.steps,
            }
        beside = self._file.with_name(self._file.name + ".part")
        beside.write_text(json.dumps(self._saved, indent=2) + "\n", encoding="utf-8")
        beside.replace(self._file)


def _read(file: Path) -> dict[str, dict[str, object]]:
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        for known in saved.values():
            theta, precision, steps = (known[name] for name in _FIELDS)
            shapes = torch.tensor(theta).shape, torch.tensor(precision).shape
            if shapes != ((2,), (2, 2)) or not isinstance(steps, int):
                raise ValueError("numbers of the wrong shape")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OptionError(
            f"policy.memory={str(file)!r} is no memory of the policy 'auto' ({error!r}): give a "
            "file that it has written, or a name that does not exist yet"
        ) from error
    return dict(saved)
