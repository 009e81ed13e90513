"""Load a model from a factory, and rows from a file."""

import importlib
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["LoadError", "Rows", "load_model", "load_rows"]

#: Arguments of ``audit`` without an option, which a factory may return with the model.
_OPTIONS = (
    "additional_forward_args", "attributions", "decision_func", "feature_mask", "feature_names",
    "labels", "target", "tolerance",
)  # fmt: skip
_ARRAYS = ("inputs", "targets", "labels", "feature_names")


class LoadError(ValueError):
    """A factory, file or option that cannot be used; the message gives the reason in one line."""


class Rows(NamedTuple):
    """The rows of a file, with their classes and the names of the features."""

    inputs: Tensor
    targets: Tensor | None
    labels: Tensor | None
    feature_names: tuple[str, ...] | None


def load_model(text: str) -> tuple[nn.Module, dict[str, Any]]:
    """Import ``module:factory``, call the factory, and put its model in evaluation mode.

    The module is looked for in the current folder, then among the installed packages. It is the
    user's own code and is executed; its exceptions are not caught.

    Returns:
        - **model** (*nn.Module*)
        - **options** (*dict*): arguments of ``audit`` that the factory returned, if any.

    Raises:
        LoadError: for a factory that does not exist or returns something else.
    """
    module_name, colon, factory_name = text.partition(":")
    if not (module_name and colon and factory_name):
        raise LoadError(f"got {text!r}, accepted: module:factory, such as my_models:make")
    with _current_folder_first():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # an import of the module itself fails
            raise LoadError(
                f"no module {module_name!r} in the current folder or among the installed packages"
            ) from error
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            raise LoadError(f"{module_name} has no function {factory_name!r}")
        made = factory()
    model, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, nn.Module) or not isinstance(options, dict):
        raise LoadError(
            f"{text} returned {type(made).__name__}, accepted: an nn.Module, or one and a dict of "
            f"{', '.join(_OPTIONS)}"
        )
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise LoadError(
            f"{text} returned the options {sorted(unknown)}, accepted: {', '.join(_OPTIONS)}"
        )
    return model.eval(), options


def load_rows(path: Path, model: nn.Module, n_rows: int) -> Rows:
    """Load the first rows of an ``.npz`` file, in the precision and on the device of the model.

    The file holds ``inputs`` and may hold ``targets``, one integer per row, ``labels``, one integer
    per row, or one number of a regression, and ``feature_names``. Files that would have to be
    unpickled are refused.

    Raises:
        LoadError: for a file that is missing, of another form, or holds something else.
    """
    arrays = _arrays(path)
    unknown = set(arrays) - set(_ARRAYS)
    if "inputs" not in arrays or unknown:
        raise LoadError(
            f"{path} holds {sorted(arrays)}, accepted: inputs, and any of {', '.join(_ARRAYS[1:])}"
        )
    values = arrays["inputs"]
    if values.dtype.kind not in "fiub" or values.ndim < 2 or len(values) == 0:
        raise LoadError(
            f"inputs of {path} have {values.dtype} values of shape {values.shape}, accepted: "
            "numbers of shape (N, …)"
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(1))
    names = arrays.get("feature_names")
    return Rows(
        torch.from_numpy(values[:n_rows].astype(np.float64)).to(like),
        _classes(path, "targets", arrays, n_rows, like.device),
        _classes(path, "labels", arrays, n_rows, like.device),
        None if names is None else tuple(str(name) for name in names.reshape(-1)),
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise LoadError(f"{path} is no .npz file: write it with numpy.savez")
            return {name: file[name] for name in file.files}
    except LoadError:
        raise
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise LoadError(f"{path} is no .npz file of plain arrays: {error}") from error


def _classes(
    path: Path, name: str, arrays: dict[str, Any], n_rows: int, device: torch.device
) -> Tensor | None:
    values = arrays.get(name)
    if values is None:
        return None
    values = values.reshape(-1)
    is_regression = name == "labels" and values.dtype.kind == "f"
    fits = values.dtype.kind in "iub" or (is_regression and bool(np.isfinite(values).all()))
    if not fits or len(values) != len(arrays["inputs"]):
        raise LoadError(
            f"{name} of {path} have {len(values)} values of {values.dtype}, accepted: "
            f"{len(arrays['inputs'])} integers, one per row"
            f"{', or finite numbers of a regression' if name == 'labels' else ''}"
        )
    dtype = np.float64 if is_regression else np.int64
    return torch.from_numpy(values[:n_rows].astype(dtype)).to(device)


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Let Python find modules in the current folder, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
