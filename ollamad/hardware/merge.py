"""What the makers' libraries know and what a runner lists, made into the devices to use. Pure.

``runners-and-scheduling.md`` 1.2, 1.4, 1.5, 1.6 and 1.8. The runner's list is the authority: only
what it lists can be used. What is known besides adds to it, and a GPU that is there and cannot be
used becomes a note with the reason and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ollamad.hardware import gfx, matching, visible
from ollamad.hardware.device import Device, split_gfx
from ollamad.hardware.finding import Candidate, Outcome, Pass, Rules, RunnerFacts
from ollamad.hardware.listing import Listed
from ollamad.hardware.refusals import doubt, refusal
from ollamad.hardware.unused import about_choices, about_passes, about_unused
from ollamad.hardware.vendor import Note, Survey, VendorDevice


def admitted(variants: Iterable[str], rules: Rules, jetpack: str = "") -> list[str]:
    """The variant directories that are asked, by name (1.2).

    ``jetpack``: that of a Jetson board, such as ``jetpack6``.
    """
    names = sorted(variants)
    if jetpack and f"cuda_{jetpack}" not in names:
        jetpack = ""
    wanted = rules.llm_library
    found = []
    for name in names:
        if wanted and not wanted.startswith("mlx_") and wanted != name:
            continue
        if jetpack and name != f"cuda_{jetpack}":
            continue
        if not jetpack and "cuda_jetpack" in name:
            continue
        if not rules.vulkan and "vulkan" in name:
            continue
        found.append(name)
    return found


def candidates(
    passes: Sequence[Pass], survey: Survey, rules: Rules, runner: RunnerFacts
) -> tuple[list[Candidate], list[Note]]:
    """Every device of every pass that may be used (1.4, 1.5 rules 1 to 3), and why others not."""
    found: list[Candidate] = []
    notes: list[Note] = []
    if rules.cpu_only:
        return [], []
    for each in passes:
        known = matching.matched(each.devices, survey.devices, rules.environ)
        for listed in each.devices:
            candidate = _candidate(listed, each, known.get(listed.name), rules)
            if refused := refusal(candidate, each, rules, runner):
                notes.append(refused)
                continue
            found.append(candidate)
            if warning := doubt(candidate, each):
                notes.append(warning)
    return found, notes


def chosen(
    validated: Sequence[Candidate],
    passes: Sequence[Pass],
    survey: Survey,
    rules: Rules,
    runner: RunnerFacts,
    notes: Sequence[Note] = (),
) -> Outcome:
    """The devices to use, out of those that proved themselves (1.5 rules 5 to 8).

    ``notes`` are those of ``candidates`` and of the proof; to them come notes about GPUs that are
    in the machine and cannot be used.
    """
    kept = _numbered(_without_overlap(validated), rules)
    distinct: list[Candidate] = []
    # The makers' own libraries first: they are faster than Vulkan on the same GPU.
    for candidate in sorted(kept, key=lambda c: c.device.library == "Vulkan"):
        if not any(matching.same_gpu(candidate.device, other.device) for other in distinct):
            distinct.append(candidate)
    distinct.sort(key=kept.index)
    all_notes = [*notes, *about_passes(passes, runner)]
    all_notes += about_choices(rules)
    all_notes += about_unused(survey, distinct, passes, all_notes, rules, runner)
    return Outcome(
        devices=tuple(candidate.device for candidate in distinct),
        notes=tuple(dict.fromkeys([*survey.notes, *all_notes])),
        vendors=tuple(candidate.vendor for candidate in distinct),
    )


def isolated(candidate: Candidate, rules: Rules) -> Device:
    """``candidate``'s device as a runner of its own would be given it, to see whether it works."""
    return _with_words(candidate, rules).device


def _candidate(listed: Listed, each: Pass, vendor: VendorDevice | None, rules: Rules) -> Candidate:
    target = (vendor.gfx if vendor else "") or listed.gfx
    if (forced := gfx.override(rules.environ, None)) and forced.gfx and not vendor:
        target = forced.gfx
    integrated = vendor.integrated if vendor else None
    if integrated is None:
        integrated = listed.integrated
    if integrated is None:
        integrated = listed.library == "Metal" and rules.apple_silicon
    device = Device(
        id=str(listed.ordinal),
        library=listed.library,
        name=listed.name,
        description=listed.description,
        pci_id=vendor.pci_id if vendor else "",
        integrated=integrated,
        total_memory=listed.total,
        free_memory=free_memory(listed.free, listed.total, vendor),
        library_path=each.backend.directories,
        env=each.env if listed.library == "Metal" else (),
    )
    if listed.library == "CUDA":
        device = _with_cuda(device, listed, each, vendor)
    elif listed.library == "ROCm":
        device = replace(device, compute=split_gfx(target), gfx_target=target)
    return Candidate(device=device, backend=each.backend, ordinal=listed.ordinal, vendor=vendor)


def _with_cuda(device: Device, listed: Listed, each: Pass, vendor: VendorDevice | None) -> Device:
    if vendor is None:
        return replace(device, compute=listed.compute, driver=each.backend.runtime)
    unknown = (0, 0)
    return replace(
        device,
        uuid=vendor.uuid,
        compute=listed.compute if vendor.compute == unknown else vendor.compute,
        driver=each.backend.runtime if vendor.driver == unknown else vendor.driver,
        nvidia_driver=vendor.nvidia_driver,
    )


def free_memory(free: int, total: int, vendor: VendorDevice | None) -> int:
    """The smaller of what the runner and the driver say, bytes; none of them is trusted alone."""
    if vendor is None or vendor.total <= 0 or vendor.integrated:
        return min(free, total)
    return max(0, min(free, vendor.free, total))


def _without_overlap(found: Sequence[Candidate]) -> list[Candidate]:
    """One variant for each device (1.5 rule 5)."""
    kept = list(found)
    for library in dict.fromkeys(c.device.library for c in found):
        ids: dict[str, set[int]] = {}
        for candidate in found:
            if candidate.device.library == library:
                ids.setdefault(candidate.backend.variant, set()).add(candidate.ordinal)
        names = sorted(ids, reverse=True)
        # The newest if it knows all that the others know, else the oldest.
        best = names[0] if all(ids[name] == ids[names[0]] for name in names) else names[-1]
        kept = [
            c
            for c in kept
            if c.device.library != library
            or c.backend.variant == best
            or c.ordinal not in ids[best]
        ]
    return kept


def _numbered(found: Sequence[Candidate], rules: Rules) -> list[Candidate]:
    counted: dict[str, int] = {}
    numbered = []
    for candidate in found:
        number = counted.get(candidate.device.library, 0)
        counted[candidate.device.library] = number + 1
        named = _with_words(candidate, rules)
        numbered.append(replace(named, device=replace(named.device, id=str(number))))
    return numbered


def _with_words(candidate: Candidate, rules: Rules) -> Candidate:
    """With what selects it from outside of the user's own choice (1.5 rules 6 and 7)."""
    device = candidate.device
    word = visible.user_word(device.library, candidate.ordinal, rules.environ, rules.platform)
    return replace(candidate, device=replace(device, filter_id=word or str(candidate.ordinal)))
