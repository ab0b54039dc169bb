"""``enginehouse doctor``: problems of this machine, or of the stack that runs on it, each with its fix.

Without a running stack it checks what `enginehouse up` needs; with one, also Redis, Chroma, the API and the workers.
"""

import os
from collections.abc import Iterator

from cli.admin import machine_checks, stack_checks
from cli.admin.findings import Finding
from cli.admin.sections import Section, print_sections
from cli.output import Output
from shared.settings import Settings
from workers.gpu.hardware.cuda_facts import read_cuda_facts


def find_problems(settings: Settings, *, explicit_redis: bool) -> Iterator[Finding]:
    """The findings of all checks. ``explicit_redis``: the settings name the Redis to check."""
    yield from machine_checks.check_versions()
    yield from machine_checks.check_disk(settings)
    yield from machine_checks.check_descriptors(settings)
    yield from machine_checks.check_sandbox()
    yield from machine_checks.check_ocr(settings)
    yield from machine_checks.check_models(settings)
    yield from machine_checks.check_gpus(read_cuda_facts(os.environ))
    yield from stack_checks.check_stack(settings, explicit_redis=explicit_redis)


def report_problems(settings: Settings, *, explicit_redis: bool, out: Output) -> int:
    """Print the findings; return their number."""
    findings = list(find_problems(settings, explicit_redis=explicit_redis))
    if out.as_json:
        out.print_json([{"area": each.area, "problem": each.problem, "fix": each.fix} for each in findings])
    elif findings:
        rows = [(each.area, each.problem, each.fix) for each in findings]
        if out.terminal:
            for area, problem, fix in rows:
                out.print_line(f"{area}: {problem}", "bold red")
                out.print_text(f"  {fix}")
        else:
            print_sections([Section("problem", ("area", "problem", "fix"), rows)], out)
    else:
        out.print_text(
            "No problems found: versions, disk, sandbox, OCR, models and GPUs"
            + (
                ", Redis, Chroma, the API and the workers."
                if stack_checks.is_running(settings, explicit_redis)
                else " of this machine."
            )
        )
    return len(findings)
