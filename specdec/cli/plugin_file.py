"""A plugin from a Python file that need not be installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from specdec.errors import PluginError
from specdec.plugin.components import PROJECT


def load_plugin(given: str) -> ModuleType:
    """The module that the Python file ``given`` is; importing it runs it.

    Raises:
        PluginError: no such file, a file that fails when it is run, or one without any hook.
    """
    path = Path(given).expanduser()
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"--plugin {given!r}: give the path of a Python file that exists")
    name = f"specdec_plugin_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {given!r}: Python cannot import this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    sys.path.insert(0, str(path.parent))  # as a script that is run finds its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PluginError(
            f"--plugin {given!r} fails when it is imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    if not any(hasattr(value, f"{PROJECT}_impl") for value in vars(module).values()):
        raise PluginError(
            f"--plugin {given!r} has no hooks: functions named specdec_... with @hookimpl, see "
            "docs/hooks.md"
        )
    return module
