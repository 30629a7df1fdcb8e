"""Log lines about the hardware, runners-and-scheduling.md 1.13."""

from pathlib import Path

from ollamad.hardware.device import Device
from ollamad.hardware.discovery import Hardware, log_fields, why_no_device
from ollamad.hardware.memory import SystemMemory
from ollamad.hardware.vendor import Note

GIB = 1 << 30


def test_the_processor_alone() -> None:
    (line,) = log_fields(Hardware(SystemMemory(16 * GIB, 8 * GIB)))
    assert line == {
        "id": "cpu",
        "library": "cpu",
        "compute": "",
        "name": "cpu",
        "description": "cpu",
        "libdirs": "ollama",
        "driver": "",
        "pci_id": "",
        "type": "",
        "total": "16.0 GiB",
        "available": "8.0 GiB",
    }


def test_discrete_devices_with_much_memory_come_first() -> None:
    def device(number: int, free: int, integrated: bool = False) -> Device:
        return Device(
            id=str(number),
            library="CUDA",
            name=f"CUDA{number}",
            free_memory=free * GIB,
            total_memory=16 * GIB,
            integrated=integrated,
            library_path=(Path("/lib/ollama"), Path("/lib/ollama/cuda_v13")),
        )

    devices = (device(0, 15, integrated=True), device(1, 4), device(2, 12))
    lines = list(log_fields(Hardware(SystemMemory(), devices)))
    assert [line["name"] for line in lines] == ["CUDA2", "CUDA1", "CUDA0"]
    assert [line["type"] for line in lines] == ["discrete", "discrete", "iGPU"]
    assert lines[0]["libdirs"] == "ollama,cuda_v13"
    assert (lines[0]["total"], lines[0]["available"]) == ("16.0 GiB", "12.0 GiB")


def test_why_there_is_no_device() -> None:
    assert why_no_device(Hardware(SystemMemory())) == "no GPU was found"
    notes = (
        Note("info", "a card is hidden"),
        Note("warning", "another card is not used", "do this"),
        Note("warning", "a third one neither"),
    )
    assert why_no_device(Hardware(SystemMemory(), (), notes)) == (
        "another card is not used (do this); a third one neither"
    )
