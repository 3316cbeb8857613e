"""One answer for a target: does the file fit it, what falls back to the CPU, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from edgeheads.bundle import Bundle
from edgeheads.compression.quantize.schemes import get_scheme
from edgeheads.device import DeviceProfile
from edgeheads.targets.edgetpu import CompilerLog, compile_for_edgetpu
from edgeheads.targets.ethos import VelaEstimate, estimate
from edgeheads.targets.graph import Operation, read_operations
from edgeheads.targets.rules import Placement, load_rules, place
from edgeheads.verify import Check

__all__ = ["TargetReport", "check_target"]

_EDGETPU = "edgetpu"


@dataclass(frozen=True)
class TargetReport:
    """What a target would do with a Bundle's file, without the target.

    Attributes:
        target: the profile's name.
        checks: whether the file fits it.
        placements: where every operation would run by the published rules; empty where the
            target has none in devices/rules/.
        source: of the rules.
        compiler: what the Edge TPU's compiler says; None where it is not installed.
        vela: Vela's estimate, for Ethos-U.
    """

    target: str
    checks: list[Check]
    placements: list[Placement]
    source: str
    compiler: CompilerLog | None
    vela: VelaEstimate | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON; what Vela says is called an estimate."""
        return {
            "target": self.target,
            "passed": all(check.passed for check in self.checks),
            "checks": [asdict(check) for check in self.checks],
            "placements": [asdict(one) for one in self.placements],
            "source": self.source,
            "compiler": asdict(self.compiler) if self.compiler else None,
            "vela_estimate": asdict(self.vela) if self.vela else None,
        }


def check_target(bundle: Bundle, profile: DeviceProfile) -> TargetReport:
    """Compare a Bundle with what is published of a target, and store target-NAME.json.

    Raises:
        MissingDependencyError: Ethos-U needs Vela.
        RuntimeFailureError: a compiler refused the file.
    """
    operations = read_operations(bundle.model_path)
    checks = _fit(bundle, profile, operations)
    placements: list[Placement] = []
    source, compiler, vela = "", None, None
    if profile.op_rules:
        rules = load_rules(profile.op_rules)
        source = rules.source
        placements = place(operations, rules)
        checks.append(_mapped(rules.title, placements))
    if profile.op_rules == _EDGETPU:
        compiler = compile_for_edgetpu(bundle.model_path)
        if compiler is not None:
            checks.append(_compiled(compiler))
    if profile.vela.accelerator:
        vela = estimate(bundle.model_path, profile.vela)
        checks.append(_on_npu(vela))
    report = TargetReport(profile.name, checks, placements, source, compiler, vela)
    bundle.save_measurement(f"target-{profile.name}", report.as_json())
    return report


def _fit(bundle: Bundle, profile: DeviceProfile, operations: list[Operation]) -> list[Check]:
    wanted = profile.quantization
    contract = bundle.contract
    checks = [
        Check(
            f"{profile.title} runs this precision",
            get_scheme(bundle.precision).computes in wanted.precisions,
            f"{bundle.precision}; it runs {', '.join(wanted.precisions)}",
        )
    ]
    if wanted.io_types:
        types = {one.name: one.dtype for one in (contract.image.tensor, *contract.outputs)}
        other = {name: dtype for name, dtype in types.items() if dtype not in wanted.io_types}
        checks.append(
            Check(
                "inputs and outputs need no conversion",
                not other,
                ", ".join(f"{name} is {dtype}" for name, dtype in (other or types).items()),
            )
        )
    if wanted.weights == "per-tensor":
        scaled = [one for op in operations for one in op.inputs if one.is_constant]
        several = sum(one.scales > 1 for one in scaled)
        detail = f"{several} of {len(scaled)} constants have one scale for each channel"
        checks.append(Check("weights have one scale per tensor", not several, detail))
    if limit := profile.memory.ram_mb << 20:
        size = bundle.model_path.stat().st_size
        detail = f"the file has {size} bytes, the device {limit}"
        checks.append(Check("the file fits the memory", size < limit, detail))
    return checks


def _mapped(title: str, placements: list[Placement]) -> Check:
    left = [one for one in placements if not one.is_mapped]
    counted = Counter(one.op for one in left)
    listed = ", ".join(f"{count} {op}" for op, count in counted.most_common(6))
    first = f"; left to the CPU: {listed}; the first because {left[0].reason}" if left else ""
    count = len(placements) - len(left)
    return Check(
        f"every operation maps to the {title}",
        not left,
        f"{count} of {len(placements)} by the published rules{first}",
    )


def _compiled(log: CompilerLog) -> Check:
    left = [one for one in log.ops if one.status != "Mapped to Edge TPU"]
    # Without the totals, the table speaks.
    on_cpu = log.on_cpu if log.on_cpu is not None else sum(one.count for one in left)
    reasons = "; ".join(f"{one.count} {one.op}: {one.status}" for one in left[:6])
    mapped = sum(one.count for one in log.ops) - sum(one.count for one in left)
    detail = f"{log.mapped if log.mapped is not None else mapped} mapped, {on_cpu} on the CPU"
    return Check(
        f"edgetpu_compiler {log.version or ''} maps every operation".replace("  ", " "),
        on_cpu == 0,
        detail + (f"; {reasons}" if reasons else ""),
    )


def _on_npu(vela: VelaEstimate) -> Check:
    total = vela.npu_operations + vela.cpu_operations
    detail = f"{vela.npu_operations} of {total} operations of Vela {vela.version}'s graph"
    if vela.reasons:
        first, count = Counter(vela.reasons).most_common(1)[0]
        more = f", and {len(vela.reasons) - count} more" if len(vela.reasons) > count else ""
        detail += f"; left to the CPU: {count} {first}{more}"
    return Check("every operation runs on the NPU", vela.cpu_operations == 0, detail)
