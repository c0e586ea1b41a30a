"""Load the networks, each in the form that an engine computes fastest."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from rtfuse.errors import WeightsMissing
from rtfuse.fuse.networks import student
from rtfuse.fuse.networks.checkpoints import below, read_tensors
from rtfuse.fuse.networks.folding import fold
from rtfuse.fuse.networks.scaling import scaled
from rtfuse.fuse.networks.ufuser import UFuser, ufuser_of
from rtfuse.fuse.networks.ufuser_processor import ProcessorUFuser


def load_network(path: str | Path) -> nn.Module:
    """Return the network whose weights a file holds, a U-Fuser or a student, on the processor, in float32.

    Raises WeightsMissing if the file is absent, unreadable, damaged, or its tensors fit neither.
    """
    state = read_tensors(path)
    if (found := below(state, student.MARK)) is None:
        return ufuser_of(state, str(path))
    try:
        return student.student_of(found)
    except (RuntimeError, KeyError, ValueError) as e:
        raise WeightsMissing(f"weights {path} do not fit the student: {' '.join(str(e).split())[:200]}") from e


def for_gpu(net: nn.Module) -> nn.Module:
    """Return a network in the form that is fastest on GPUs, and that float16 holds."""
    return fold(scaled(net)) if isinstance(net, UFuser) else net


def for_processor(net: nn.Module, lanes: int) -> nn.Module:
    """Return a network in the form that is fastest on processors; `lanes`: see `ufuser_processor`."""
    return ProcessorUFuser(net, lanes=lanes) if isinstance(net, UFuser) else net
