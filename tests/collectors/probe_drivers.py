"""Drivers for a probe's child process, which finds them by import path; a file says on which GPUs they hang."""

import importlib.util
import os
import signal
import threading
from ctypes import c_void_p, cast
from pathlib import Path
from typing import Any


def _driver_module() -> Any:
    spec = importlib.util.spec_from_file_location("nvml_driver", Path(__file__).with_name("nvml_driver.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steered() -> Any:
    """Return a driver of three GPUs that does what stands in the file STEERED_DRIVER before each GPU."""
    fake = _driver_module()

    def give(index: Any, out: Any) -> int:
        _obey(f"{index.value}")
        return int(fake.give_handle(index, out))

    def start(_flags: Any) -> int:
        _obey("opening")
        return 0

    def give_place(handle: Any, out: Any) -> int:
        number = cast(handle, c_void_p).value or 0
        return int(fake.put_fields(busId=f"00000000:{0x52 + number:02X}:00.0".encode())(handle, out))

    return fake.FakeDriver(
        gpu_count=3,
        nvmlDeviceGetHandleByIndex_v2=give,
        nvmlInitWithFlags=start,
        nvmlDeviceGetPciInfo_v3=give_place,
    )


def _obey(where: str) -> None:
    orders = dict(line.split("=") for line in Path(os.environ["STEERED_DRIVER"]).read_text().split())
    if orders.get(where) == "hang":
        threading.Event().wait()
    if orders.get(where) == "die":
        os.kill(os.getpid(), signal.SIGKILL)


def missing() -> Any:
    """Return a driver that is not loaded."""
    return _driver_module().FakeDriver(nvmlInitWithFlags=lambda _flags: 9)
