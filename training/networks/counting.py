"""How large a network is, in the units that papers use; nothing is computed and no memory taken.

Networks come on torch's meta device, where a tensor is a shape and no numbers. shape: of one input,
(C, H, W)."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, int, int]
MIB = 1024**2


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def with_statistics(network: nn.Module) -> int:
    """Parameters and batch norm's running means and variances: what Keras counts."""
    return parameters(network) + sum(b.numel() for b in network.buffers() if b.ndim)


def flops(network: nn.Module, shape: Shape) -> int:
    """Floating-point operations of one answer, a multiplication and an addition counted as two.

    torch's counter: convolutions and matrix products, attention's among them; what is done element
    by element (norms, activations, pooling, softmax) is not in it."""
    with FlopCounterMode(display=False) as counter:
        _answer(network, shape)
    return counter.get_total_flops()


def file_size(network: nn.Module) -> float:
    """A checkpoint file's size, bytes / 1,024,000: the unit of SRANet's "MB".

    The file is torch.save's older form (not a zip) of {"iters", "net_state_dict"}. Only this unit
    gives the 170.51 of its baseline. Bytes are counted, not written; memory is asked for and never
    touched."""

    class Sink:
        size = 0

        def write(self, part: bytes | memoryview) -> int:
            self.size += memoryview(part).nbytes
            return memoryview(part).nbytes

        def flush(self) -> None:
            pass

    sink = Sink()
    weights = network.to_empty(device="cpu").state_dict()
    network.to("meta")
    torch.save({"iters": 0, "net_state_dict": weights}, sink, _use_new_zipfile_serialization=False)
    return sink.size / 1_024_000


def summary_parameters(network: nn.Module) -> float:
    """MiB of layers' weights and biases as torchsummary counts them: HSANet's "params size".

    It looks at `weight` and `bias` of every layer, so bare parameters (HSANet's tables of
    positions) are not seen."""
    found = 0
    for layer in network.modules():
        for name in ("weight", "bias"):
            value = getattr(layer, name, None)
            found += value.numel() if isinstance(value, Tensor) else 0
    return found * 4 / MIB


def summary_passes(network: nn.Module, shape: Shape) -> float:
    """MiB of all layers' outputs for one input, twice: torchsummary's "forward/backward size".

    It counts the output of every module but nn.Sequential and the network itself, so a block's
    output counts beside that of its last layer."""
    found = 0

    def count(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        found += output.numel()

    layers = [m for m in network.modules() if m is not network]
    hooks = [m.register_forward_hook(count) for m in layers if not isinstance(m, nn.Sequential)]
    _answer(network, shape)
    for hook in hooks:
        hook.remove()
    return found * 2 * 4 / MIB


def _answer(network: nn.Module, shape: Shape) -> None:
    with torch.no_grad():
        network.eval()(torch.empty(1, *shape, device="meta"))
