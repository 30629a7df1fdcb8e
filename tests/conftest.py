"""Rules for every test: in CI a skip is a failure, and no property fails for being slow."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a property; what is slow is for the benchmarks to say.
settings.register_profile(
    "ollamad", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ollamad")

# Threads of real runners that look for work for a millisecond wait for each other's time slices
# when tests run beside other programs: minutes instead of seconds.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("OLLAMAD_TEST_SKIPS_FAIL")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where every part must be there: {reason}"
    return report
