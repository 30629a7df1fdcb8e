"""Help texts of the conversation; they go to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rows = Iterable[tuple[str, str]]


def _block(title: str, rows: Rows, width: int) -> str:
    return f"{title}\n" + "".join(f"  {name:{width}} {text}\n" for name, text in rows)


def general(multimodal: bool) -> str:
    text = _block(
        "Available Commands:",
        (
            ("/set", "Set session variables"),
            ("/show", "Show what the model is made of"),
            ("/load <model>", "Talk to another model"),
            ("/save <model>", "Save this session as a model"),
            ("/clear", "Forget the conversation so far"),
            ("/bye", "Leave"),
            ("/?, /help", "Help about a command"),
            ("/? shortcuts", "Help about the keys"),
        ),
        15,
    )
    text += '\nA message of several lines starts with """ and ends with """.\n'
    if multimodal:
        text += "Name a file by its path, /path/to/file, to add a .jpg, .png, .webp or .wav.\n"
    return text + "\n"


SET = (
    _block(
        "Available Commands:",
        (
            ("/set parameter ...", "Set a parameter"),
            ("/set system <string>", "Set the system message"),
            ("/set history", "Keep what is typed for later sessions"),
            ("/set nohistory", "Keep nothing that is typed"),
            ("/set wordwrap", "Wrap long lines"),
            ("/set nowordwrap", "Do not wrap long lines"),
            ("/set format json", "Answer in JSON"),
            ("/set noformat", "Answer in any format"),
            ("/set verbose", "Show timings after each answer"),
            ("/set quiet", "Show no timings"),
            ("/set think [level]", "Let the model think"),
            ("/set nothink", "Do not let the model think"),
        ),
        22,
    )
    + "\n"
)

SHOW = (
    _block(
        "Available Commands:",
        (
            ("/show info", "Show the model in short"),
            ("/show license", "Show the license"),
            ("/show modelfile", "Show the Modelfile"),
            ("/show parameters", "Show the parameters"),
            ("/show system", "Show the system message"),
            ("/show template", "Show the prompt template"),
        ),
        17,
    )
    + "\n"
)

PARAMETERS = (
    _block(
        "Available Parameters:",
        (
            ("/set parameter seed <int>", "Random number seed"),
            ("/set parameter num_predict <int>", "Most tokens of an answer"),
            ("/set parameter top_k <int>", "Choose from the k likeliest tokens"),
            ("/set parameter top_p <float>", "Choose from tokens of this total probability"),
            ("/set parameter min_p <float>", "Drop tokens less likely than this, relatively"),
            ("/set parameter num_ctx <int>", "Context length in tokens"),
            ("/set parameter temperature <float>", "How far the choice strays"),
            ("/set parameter repeat_penalty <float>", "How strongly repetition is avoided"),
            ("/set parameter repeat_last_n <int>", "How far back repetition is looked for"),
            ("/set parameter num_gpu <int>", "Layers on the GPU"),
            ("/set parameter stop <string> <string> ...", "Texts that end an answer"),
        ),
        43,
    )
    + "\n"
)

SHORTCUTS = (
    _block(
        "Available keyboard shortcuts:",
        (
            ("Ctrl + a", "To the start of the line (Home)"),
            ("Ctrl + e", "To the end of the line (End)"),
            ("Alt + b", "Back one word"),
            ("Alt + f", "Forward one word"),
            ("Ctrl + k", "Delete to the end of the line"),
            ("Ctrl + u", "Delete to the start of the line"),
            ("Ctrl + w", "Delete the word before the cursor"),
            ("Ctrl + l", "Clear the screen"),
            ("Ctrl + c", "Stop the answer"),
            ("Ctrl + d", "Leave (/bye)"),
        ),
        10,
    )
    + "\n"
)


def topic(words: Sequence[str], multimodal: bool) -> str:
    """What ``/help WORDS`` prints; nothing for a topic that there is not."""
    if not words:
        return general(multimodal)
    by_name = {"set": SET, "show": SHOW, "shortcut": SHORTCUTS, "shortcuts": SHORTCUTS}
    return by_name.get(words[0].removeprefix("/"), "")
