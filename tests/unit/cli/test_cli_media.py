"""Paths in prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollamad.cli.media import candidates, extract, unescaped
from ollamad.errors import OllamadError

PNG = b"\x89PNG\r\n\x1a\n"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            r'./relative\ path/one.png x /valid\ path/dir/four.png "./quoted with spaces/five.JPG',
            [
                r"./relative\ path/one.png",
                r"/valid\ path/dir/four.png",
                "./quoted with spaces/five.JPG",
            ],
        ),
        ("./1.svg", []),
        (
            r'c:/users/jdoe/one.png d:\path with\spaces\seven.JPEG "E:\program files\ten.PNG',
            [
                "c:/users/jdoe/one.png",
                r"d:\path with\spaces\seven.JPEG",
                r"E:\program files\ten.PNG",
            ],
        ),
        ("/unescaped space /six.webp", ["/unescaped space /six.webp"]),
        ("http://h/x.png", ["p://h/x.png"]),
    ],
)
def test_candidates(text: str, found: list[str]) -> None:
    assert candidates(text) == found


def test_unescaped() -> None:
    assert unescaped(r"/a\ b\(c\)\[d\]\{e\}\$\&\;\'\\\*\?\~\n") == r"/a b(c)[d]{e}$&;'\*?~\n"


def test_found_files_leave_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, sound = tmp_path / "i m.png", tmp_path / "s.wav"
    image.write_bytes(PNG)
    sound.write_bytes(WAV)
    typed = str(image).replace(" ", r"\ ")
    prompt = extract(f"before '{typed}' {sound} after ")
    assert prompt == ("before   after", [PNG, WAV])
    assert capsys.readouterr().err == f"Added image '{image}'\nAdded audio '{sound}'\n"


def test_missing_files_stay_in_the_text() -> None:
    assert extract("see /nowhere/at/all.png ") == ("see /nowhere/at/all.png", [])


def test_a_file_of_another_type_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "i.png"
    path.write_bytes(b"just text")
    with pytest.raises(OllamadError, match="invalid file type: text/plain"):
        extract(str(path))
    assert capsys.readouterr().err.startswith("Couldn't process file: \"invalid file type: text/")


def test_a_huge_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate((100 << 20) + 1)
    with pytest.raises(OllamadError, match=r"file size exceeds maximum limit \(100MB\)"):
        extract(str(path))


def test_a_folder_with_the_name_of_an_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "i.png").mkdir()
    with pytest.raises(OllamadError, match="directory"):
        extract(str(tmp_path / "i.png"))
