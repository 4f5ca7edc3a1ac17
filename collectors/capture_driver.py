"""A driver made of a capture: the NVML functions as a plain object, so that the real wrappers run on a file.

The object takes the place of `pynvml.nvmlLib`: each function writes through the pointers it is given and returns
an NVML return code, as the C library does. A function it does not have is one the driver does not have.
"""

from collections.abc import Mapping
from pathlib import Path

from collectors.capture import Capture, CapturedGpu, open_capture
from collectors.capture_answers import Answer, CArgument, Function, number_of, write, write_handle, write_text
from collectors.capture_functions import Subject, device_functions
from fleet.batch import Trouble


class CaptureDriver:
    """The functions of a captured driver as attributes; `troubles` tells what the capture could not give."""

    def __init__(self, functions: Mapping[str, Function], troubles: tuple[Trouble, ...]) -> None:
        self.troubles = troubles
        self._functions = functions

    def __getattr__(self, name: str) -> Function:
        """Return the function of that name, or raise `AttributeError` as a library without it does."""
        # A copied or half-made object has no functions yet, and asking itself for them would never end.
        functions: Mapping[str, Function] = self.__dict__.get("_functions", {})
        if name not in functions:
            message = f"the captured driver has no {name}"
            raise AttributeError(message)
        return functions[name]


def driver_for(capture: Capture) -> object:
    """Return an object that stands in for `pynvml.nvmlLib` and answers with the readings of the capture."""
    handles = _Handles(capture)
    functions = {name: handles.answering(function) for name, function in device_functions().items()}
    functions |= {
        "nvmlInitWithFlags": lambda _flags: Answer.SUCCESS,
        "nvmlShutdown": lambda: Answer.SUCCESS,
        "nvmlSystemGetDriverVersion": lambda buffer, _size: write_text(buffer, capture.driver),
        "nvmlDeviceGetCount_v2": lambda count: write(count, len(capture.gpus)),
        "nvmlDeviceGetHandleByIndex_v2": handles.give_gpu,
        "nvmlDeviceGetMigDeviceHandleByIndex": handles.give_slice,
    }
    return CaptureDriver(functions, capture.troubles)


class _Handles:
    """Opaque handles: a number for each GPU and MIG device, never zero, since zero is a null pointer."""

    def __init__(self, capture: Capture) -> None:
        self._gpus = capture.gpus
        self._subjects: list[tuple[Subject, CapturedGpu]] = [(gpu, gpu) for gpu in capture.gpus]
        self._first_slice: list[int] = []
        for gpu in capture.gpus:
            self._first_slice.append(len(self._subjects) + 1)
            self._subjects += [(slice_, gpu) for slice_ in gpu.slices]

    def give_gpu(self, index: CArgument, handle: CArgument) -> int:
        """Write the handle of the GPU at `index`."""
        if index.value >= len(self._gpus):
            return Answer.INVALID_ARGUMENT
        return write_handle(handle, index.value + 1)

    def give_slice(self, parent: CArgument, index: CArgument, handle: CArgument) -> int:
        """Write the handle of the MIG device at `index` of the GPU `parent`."""
        place = number_of(parent) - 1
        if index.value >= len(self._gpus[place].slices):
            return Answer.NOT_FOUND
        return write_handle(handle, self._first_slice[place] + index.value)

    def answering(self, function: Function) -> Function:
        """Return `function` as the library has it: its first argument is a handle."""

        def answer(handle: CArgument, *rest: CArgument) -> int:
            subject, gpu = self._subjects[number_of(handle) - 1]
            return function(subject, gpu, *rest)

        return answer


def open_driver(path: str, phase: str) -> object:
    """Return the driver made of the capture in that file, `phase` being `idle` or `load`."""
    return driver_for(open_capture(Path(path), phase))
