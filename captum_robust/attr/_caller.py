"""The module in whose source a call that a ``TorchFunctionMode`` intercepts is written."""

import sys
from types import FrameType

__all__ = ["calling_module"]

# torch's own way from a call in the source to the modes that see it.
_PLUMBING = {
    "torch._jit_internal",
    "torch._tensor",
    "torch.autograd.grad_mode",
    "torch.nn.functional",
    "torch.overrides",
    "torch.utils._contextlib",
    "torch.utils._device",
}
_MODES = {
    "captum_robust.attr._attention",
    "captum_robust.attr._captum_draws",
    "captum_robust.attr.differentiable",
    "captum_robust.attr.smooth",
}


def calling_module() -> str:
    """Return the name of the module in whose source the intercepted call is written.

    The modes themselves are skipped, so their order of nesting does not matter. For a function
    decorated with ``torch.no_grad()``, the module of that function is returned; for the end of a
    ``with torch.no_grad():`` block, which restores the state before it, torch's own.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        function = frame.f_code.co_name
        if name in _PLUMBING and function == "__exit__":
            return name
        if name == "torch.utils._contextlib" and "ctx_factory" in frame.f_locals:
            return str(getattr(frame.f_locals["func"], "__module__", ""))
        if not (name in _PLUMBING or name in _MODES or function == "__torch_function__"):
            return name
        frame = frame.f_back
    return ""
