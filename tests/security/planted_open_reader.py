"""The planted reader without its walls; `sandbox.py` calls a module's `serve`."""

from planted_reader import serve_open as serve

__all__ = ["serve"]
