"""Puts the clock of a Python process off by SOAK_CLOCK_SECONDS: whatever it asks in Python is answered wrong."""

import os
import time

_SECONDS = float(os.environ["SOAK_CLOCK_SECONDS"])
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _SECONDS
time.time_ns = lambda: _time_ns() + round(_SECONDS * 1e9)
