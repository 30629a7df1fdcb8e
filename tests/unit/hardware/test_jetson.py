"""Which JetPack a board runs, runners-and-scheduling.md 1.9."""

from pathlib import Path

import pytest

from ollamad.hardware.jetson import jetpack, note, release

R35 = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64"
R36 = R35.replace("R35", "R36")
R38 = R35.replace("R35", "R38")
ODD = "Jetson Linux 36.4"


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        (R35, "", "jetpack5"),
        (R36, "", "jetpack6"),
        (R38, "", ""),
        (ODD, "", ""),
        ("", "", ""),
        (None, "", ""),
        # Not a board: the variable has no meaning.
        (None, "6", ""),
        (R35, "6", "jetpack6"),
        (R35, "6.2.1", "jetpack6"),
        ("", ' "5.1" ', "jetpack5"),
        (ODD, "6", "jetpack6"),
        (R36, "six", ""),
        (R36, " ", "jetpack6"),
    ],
)
def test_which(text: str | None, word: str, expected: str) -> None:
    assert jetpack(text, {"JETSON_JETPACK": word}) == expected


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        (R36, "", None),
        (R38, "", None),
        ("", "", None),
        (None, "six", None),
        (ODD, "6", None),
        (
            ODD,
            "",
            "Unexpected format for /etc/nv_tegra_release.  Set JETSON_JETPACK to select version",
        ),
        (R36, "six", "JETSON_JETPACK is no version"),
        (R36, ".5", "JETSON_JETPACK is no version"),
    ],
)
def test_what_there_is_to_say(text: str | None, word: str, expected: str | None) -> None:
    said = note(text, {"JETSON_JETPACK": word})
    assert (said and said.text) == expected


def test_where_the_text_is(tmp_path: Path) -> None:
    assert release(tmp_path, "linux", "aarch64") == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(f"{R36}\n")
    assert release(tmp_path, "linux", "aarch64") == R36
    assert release(tmp_path, "linux", "x86_64") is None
    assert release(tmp_path, "darwin", "arm64") is None
