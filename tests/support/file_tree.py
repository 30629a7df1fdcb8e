"""Trees of small files, such as those below ``/sys``, kept as one text.

``PATH = TEXT`` makes a file of one line, ``PATH:`` one of the indented lines below it,
``PATH -> TARGET`` a link and ``PATH/`` a directory. Blank lines and those with ``#`` say nothing.
"""

from pathlib import Path


def unpack(text: str, root: Path) -> Path:
    """Make the tree below ``root`` and return that; existing files are replaced."""
    block: Path | None = None
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            assert block, line
            with block.open("a") as file:
                file.write(f"{line.strip()}\n")
            continue
        block = None
        if not line or line.startswith("#"):
            continue
        if line.endswith("/"):
            (root / line.strip("/")).mkdir(parents=True, exist_ok=True)
        elif " -> " in line:
            name, _, target = line.partition(" -> ")
            _new(root, name).symlink_to(target)
        elif line.endswith(":"):
            block = _new(root, line[:-1])
            block.touch()
        else:
            name, between, content = line.partition(" = ")
            assert between, line
            _new(root, name).write_text(f"{content}\n")
    return root


def _new(root: Path, name: str) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path
