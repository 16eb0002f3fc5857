"""What a page carries.

``segment_fallback.page`` is also the public call of that name, and Python gives a package's name to its module as soon
as anything imports that: so the module can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _PageCall(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> tuple[bool, dict[str, Any]]:
        from segment_fallback.client import page

        return page(*args, **kwargs)


sys.modules[__name__].__class__ = _PageCall
