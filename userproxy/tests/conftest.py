"""What all unit tests share.

Property tests judge what happens, never how long it took: the machine may be busy. They try a few dozen cases
each time; `HYPOTHESIS_PROFILE=thorough` has them try a thousand.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("quick", _UNTIMED, max_examples=40)
settings.register_profile("thorough", _UNTIMED, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
