"""``devices``: what is printed about GPUs. Ours."""

from ollamad.cli.devices import Found, report
from ollamad.wire import DeviceStatus, NoteStatus

GIB = 1 << 30


def device(**more: object) -> DeviceStatus:
    fields = {
        "id": "0",
        "library": "CUDA",
        "name": "CUDA0",
        "description": "NVIDIA T4",
        "compute": "7.5",
        "driver": "12.8",
        "pci_id": "0000:01:00.0",
        "uuid": "GPU-a",
        "type": "discrete",
        "total": 16 * GIB,
        "free": 15 * GIB,
    }
    return DeviceStatus(**{**fields, **more})  # type: ignore[arg-type]


def test_a_device() -> None:
    assert report(Found(devices=[device()]), here=False) == (
        "ID    LIBRARY    NAME         COMPUTE    DRIVER    PCI ID          TYPE        TOTAL     "
        "  FREE     \n"
        "0     CUDA       NVIDIA T4    7.5        12.8      0000:01:00.0    discrete    16.0 GiB  "
        "  15.0 GiB    \n"
    )


def test_none_and_why() -> None:
    found = Found(
        notes=[
            NoteStatus(level="warning", text="a card is idle", hint="do this"),
            NoteStatus(level="info", text="another one too", hint=""),
        ]
    )
    assert report(found, here=False) == (
        "No GPU is used: models run on the CPU.\n"
        "\nwarning: a card is idle\n  do this\n"
        "\ninfo: another one too\n"
    )


def test_nobody_was_asked() -> None:
    assert report(Found(), here=True) == (
        "No server is running; one started here would find this:\n"
        "\nNo GPU is used: models run on the CPU.\n"
    )


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    found = Found(
        devices=[device(description="x\x1b[31m")],
        notes=[NoteStatus(level="info", text="y\x1b]0;", hint="z\x07")],
    )
    assert report(found, here=False).replace("\n", "").isprintable()


def test_a_device_without_a_description_has_its_name() -> None:
    assert "CUDA0" in report(Found(devices=[device(description="")]), here=False)
