"""What to tell about GPUs that are in the machine and not used. Pure.

``runners-and-scheduling.md`` 1.3 and 1.8. A GPU that stays idle without a word is what costs users
most: each one gets a reason, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.hardware import matching, visible
from ollamad.hardware.finding import Candidate, Pass, Rules, RunnerFacts
from ollamad.hardware.refusals import BUILD_HINT
from ollamad.hardware.vendor import Note, Survey, VendorDevice


def about_passes(passes: Sequence[Pass], runner: RunnerFacts) -> list[Note]:
    """Listings that failed."""
    return [
        Note(
            "warning",
            f"failure during llama-server GPU discovery{_with(p.backend.variant)}: {p.error}",
            f"{runner.title} could not list its devices",
        )
        for p in passes
        if p.error
    ]


def about_choices(rules: Rules) -> list[Note]:
    """What the user set that leaves nothing to use."""
    if rules.cpu_only:
        return [Note("info", f"no GPU is used: OLLAMA_LLM_LIBRARY is {rules.llm_library}")]
    return []


def about_unused(
    survey: Survey,
    used: Sequence[Candidate],
    passes: Sequence[Pass],
    said: Sequence[Note],
    rules: Rules,
    runner: RunnerFacts,
) -> list[Note]:
    """GPUs of the machine that no device of the runner stands for, and why."""
    if rules.cpu_only:
        return []
    notes: list[Note] = []
    taken = [c.vendor for c in used if c.vendor is not None]
    seen_nvidia = matching.seen_by_cuda(
        [d for d in survey.devices if d.library == "CUDA"], rules.environ
    )
    for vendor in survey.devices:
        if vendor in taken or _is_said(vendor, said) or _may_be_used(vendor, used):
            continue
        name = vendor.name or f"a GPU for {vendor.library}"
        name += f" ({vendor.uuid or vendor.pci_id})" if vendor.uuid or vendor.pci_id else ""
        if vendor.library == "CUDA" and vendor not in seen_nvidia:
            notes.append(_hidden_from_cuda(name, vendor, rules))
            continue
        variable = _hides_rocm(rules) if vendor.library == "ROCm" else ""
        if variable:
            value = visible.words(rules.environ, variable)
            notes.append(Note("info", f"{name} is not among those of {variable}={','.join(value)}"))
            continue
        notes.append(_unusable(name, vendor, passes, rules, runner))
    return notes


def _hidden_from_cuda(name: str, vendor: VendorDevice, rules: Rules) -> Note:
    if visible.CUDA in rules.environ:
        return Note(
            "info",
            f"{name} is not used: {visible.CUDA} is {rules.environ[visible.CUDA].strip()!r}",
        )
    return Note(
        "info",
        f"{name} is not used: a process sees one instance of a partitioned GPU",
        f"name the instance to use in {visible.CUDA}",
    )


def _unusable(
    name: str, vendor: VendorDevice, passes: Sequence[Pass], rules: Rules, runner: RunnerFacts
) -> Note:
    library = vendor.library
    preset = library.lower()
    if runner.libraries is not None and library not in runner.libraries:
        return Note(
            "warning",
            f"{name} is not used: {runner.title} has no support for {library}",
            "use a runner that has: " + BUILD_HINT.format(preset=preset),
        )
    if rules.llm_library and not passes:
        return Note(
            "info",
            f"{name} is not used: OLLAMA_LLM_LIBRARY is {rules.llm_library}, which is not there",
        )
    if any(p.error for p in passes):
        return Note("warning", f"{name} is not used: {runner.title} could not list its devices")
    complaint = next((p.complaint for p in passes if p.complaint), "")
    because = f" ({complaint})" if complaint else ""
    if runner.libraries is None:
        return Note(
            "warning",
            f"{name} is not used: {runner.title} lists no {library} device for it{because}",
            f"if it was built without {library}, " + BUILD_HINT.format(preset=preset),
        )
    return Note(
        "warning",
        f"{name} is not used: {runner.title} supports {library} and lists no device for it"
        f"{because}",
        "its libraries or the driver's may not fit together: run it with --list-devices, and see "
        "the log with OLLAMA_DEBUG=1",
    )


def _hides_rocm(rules: Rules) -> str:
    """The variable by which the user chose among AMD's devices, ``""`` for none."""
    for variable in (visible.ROCR, visible.HIP, visible.ORDINAL):
        if visible.words(rules.environ, variable):
            return variable
    return ""


def _is_said(vendor: VendorDevice, said: Sequence[Note]) -> bool:
    """Whether a note already tells why the device is not used."""
    return any(
        (vendor.pci_id and vendor.pci_id in note.text)
        or (not vendor.pci_id and vendor.name and vendor.name in note.text)
        for note in said
    )


def _may_be_used(vendor: VendorDevice, used: Sequence[Candidate]) -> bool:
    """Whether it may well be one of those that nothing more is known about."""
    return any(
        candidate.vendor is None
        and matching.similar_names(candidate.device.description, vendor.name)
        and matching.similar_memory(candidate.device.total_memory, vendor.total)
        for candidate in used
    )


def _with(variant: str) -> str:
    return f" with {variant}" if variant else ""
