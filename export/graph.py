"""One deployable ONNX graph of a network: uint8 crops in, what is served out, proven.

The graph normalises by itself, each network in its own way, and ends in a head: embeddings of unit
length, or scores that were calibrated by a temperature. (HSANet takes a Distribution over the
people it was trained on; nothing serves that.) It is given away only if ONNX Runtime answers as
PyTorch does, at several batch sizes and whatever a row's neighbours are.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from service.inference.session import open_session
from training.data.pixels import Files, decode

OPSET = 18
COSINE = 0.99999  # of an embedding and PyTorch's, at least
DIFFERENCE = 1e-5  # of a score and PyTorch's, and of a row among others and alone, at most
SPREAD = 100 * DIFFERENCE  # of the answers to different crops, at least
PROOF_CROPS = 16  # the largest batch of the proof
DENORMAL = 1e-30
Images = NDArray[np.uint8]
Run = Callable[[Images], NDArray[np.float32]]


@dataclass(frozen=True)
class Pixels:
    """What a network wants of a pixel p in [0, 255]: (p - mean) / scale.

    mean, scale: one number for all colours, or three, of R, G and B."""

    mean: tuple[float, ...] = (127.5,)
    scale: tuple[float, ...] = (127.5,)


class UnitLength(nn.Module):
    """Embeddings (n, D) of unit length."""

    output = "embeddings"

    def forward(self, embeddings_BD: Tensor) -> Tensor:
        return embeddings_BD / embeddings_BD.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)


class Distribution(nn.Module):
    """softmax(logits / temperature): one of K is true (Guo et al. 2017, arXiv:1706.04599, 9)."""

    output = "scores"
    temperature: Tensor

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("temperature", _temperature(temperature))

    def forward(self, logits_BK: Tensor) -> Tensor:
        return (logits_BK / self.temperature).softmax(1)


class Presence(nn.Module):
    """sigmoid(logits / temperature - shift): each of K is there or not; one temperature, or K, and
    one shift, or K, as evaluate/temperature.adjusted gives them."""

    output = "scores"
    temperature: Tensor
    shift: Tensor

    def __init__(
        self, temperature: float | list[float] = 1.0, shift: float | list[float] = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("temperature", _temperature(temperature))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    def forward(self, logits_BK: Tensor) -> Tensor:
        return torch.sigmoid(logits_BK / self.temperature - self.shift)


Head = UnitLength | Distribution | Presence


def proven_graph(network: nn.Module, pixels: Pixels, head: Head, crops: Images) -> bytes:
    """The network as a serialised graph: `crops` uint8 (n, H, W, 3) RGB -> the head's output.

    crops: uint8 (n, H, W, 3), n >= 4, real ones, of the size that the network is for. The head's
    temperature stands in the graph's metadata. Raises ValueError where graph and PyTorch differ
    (batches of 1, 2 and n), and where a row's answer changes with the rows beside it."""
    if len(crops) < 4:
        raise ValueError(f"{len(crops)} crops prove little; 4 are the least")
    plain = _Deployed(network, pixels, head)
    model = _exported(_made_fast(plain), crops[:2], head.output)
    _strip(model)
    if not isinstance(head, UnitLength):
        told = json.dumps(head.temperature.tolist())
        onnx.helper.set_model_props(model, {"temperature": told})
    onnx.checker.check_model(model, full_check=True)
    graph: bytes = model.SerializeToString()
    run = runner(graph)
    prove_rows(run, crops)
    _prove_parity(run, plain, crops)
    return graph


def _exported(deployed: nn.Module, two: Images, output: str) -> onnx.ModelProto:
    try:
        program = torch.onnx.export(
            deployed,
            (torch.from_numpy(np.ascontiguousarray(two)),),
            input_names=["crops"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"no graph for any number of rows comes of it: {error}") from error
    if program is None:
        raise ValueError("the exporter gave no graph")
    return program.model_proto


def runner(graph: bytes) -> Run:
    """A function from crops to the graph's one output, on one thread."""
    session = open_session(graph, threads=1, device="cpu")

    def run(crops: Images) -> NDArray[np.float32]:
        [output] = session.run(np.ascontiguousarray(crops))
        return np.asarray(output)

    return run


def prove_rows(run: Run, crops: Images, *, difference: float = DIFFERENCE) -> None:
    """Nothing, where every row is answered as it is alone and wherever in the batch it stands.

    difference: of an output, absolute. Raises ValueError with the difference found, and where all
    crops are answered alike, as a dead or untrained network does: that would prove nothing."""
    try:
        together = run(crops)
        alone = np.concatenate([run(crops[i : i + 1]) for i in range(len(crops))])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ValueError(f"the graph cannot run batches of 1 and {len(crops)}: {error}") from error
    order = np.random.default_rng(0).permutation(len(crops))
    permuted = run(crops[order])[np.argsort(order)]
    for how, other in (("alone", alone), ("in another order", permuted)):
        found = float(np.abs(other - together).max())
        if not found <= difference:
            raise ValueError(
                f"rows answered {how} differ by {found:.2g} from the batch, more than "
                f"{difference:g}: a row's answer must not depend on its neighbours"
            )
    if not (spread := float(np.ptp(together, axis=0).max())) >= SPREAD:
        raise ValueError(
            f"all crops are answered alike, to {spread:.2g}; {SPREAD:g} apart is the least"
        )


def temperature_of(graph: bytes) -> Any:
    """The temperature, a number or a list, that a graph of proven_graph holds; None without one."""
    for prop in onnx.load_from_string(graph).metadata_props:
        if prop.key == "temperature":
            return json.loads(prop.value)
    return None


def real_crops(source: Path, height: int, width: int, count: int = PROOF_CROPS) -> Images:
    """Some images of a folder, a zip, or the one beside a csv, resized where they are of another
    size: uint8 (count, height, width, 3) RGB, taken evenly from the names in order.

    Raises FileNotFoundError where neither is there, ValueError where there are too few."""
    places = (
        (source,)
        if source.suffix != ".csv"
        else (source.with_suffix(".zip"), source.parent / source.stem)
    )
    place = next((p for p in places if p.exists()), None)
    if place is None:
        raise FileNotFoundError(f"no images at {' or '.join(map(str, places))}")
    files = Files(place)
    names = [name for name in files.names() if not name.startswith(".")]
    if len(names) < count:
        raise ValueError(f"{place} has {len(names)} files; {count} images are needed")
    chosen = [names[i * len(names) // count] for i in range(count)]
    images = [decode(files.read(name), f"{place}: {name}") for name in chosen]
    return np.stack([np.asarray(cv2.resize(image, (width, height)), np.uint8) for image in images])


class _Deployed(nn.Module):
    """A network between its normalisation and its head, all in evaluation mode."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, pixels: Pixels, head: Head) -> None:
        super().__init__()
        self.network, self.head = copy.deepcopy(network), head
        for name in ("mean", "scale"):
            colours = torch.tensor(getattr(pixels, name), dtype=torch.float32)
            self.register_buffer(name, colours.view(1, -1, 1, 1))
        self.eval()

    def forward(self, crops_BHWC: Tensor) -> Tensor:
        planes_BCHW = crops_BHWC.permute(0, 3, 1, 2).float()
        output: Tensor = self.head(self.network((planes_BCHW - self.mean) / self.scale))
        return output


class _FastPReLU(nn.Module):
    """PReLU with slopes a as a x + s relu(|1 - a| x), s the sign of 1 - a, each factor a 1x1
    depth-wise convolution.

    ONNX Runtime keeps convolutions, ReLUs and sums in blocks of channels (NCHWc); at its own PRelu,
    and at a difference or a negation, it puts the whole map back in order and into blocks again.
    MobileFaceNet with ESCA, one thread of a Xeon with AVX-512, ms of CPU a crop alone and in
    batches of 16: 9.6 and 14.8 with relu(x) - a relu(-x), 6.7 and 8.5 so."""

    def __init__(self, slopes_C: Tensor) -> None:
        super().__init__()
        slopes = slopes_C.detach().clone().view(-1, 1, 1, 1)
        self.straight, self.bent = nn.Parameter(slopes), nn.Parameter((1 - slopes).abs())
        self.sign = nn.Parameter(torch.where(slopes > 1, -1.0, 1.0)) if (slopes > 1).any() else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        bent = F.relu(_scaled(x_BCHW, self.bent))
        if self.sign is not None:
            bent = _scaled(bent, self.sign)
        return _scaled(x_BCHW, self.straight) + bent


def _scaled(x_BCHW: Tensor, factors_C111: Tensor) -> Tensor:
    return F.conv2d(x_BCHW, factors_C111, groups=factors_C111.shape[0])


def _made_fast(plain: _Deployed) -> _Deployed:
    """A copy that computes the same in less time."""
    fast = copy.deepcopy(plain)
    _with_fast_prelu(fast)
    for weights in fast.network.state_dict().values():
        # Denormal numbers cost ONNX Runtime several times the work and change no answer.
        weights[weights.abs() < DENORMAL] = 0
    return fast.eval()


def _with_fast_prelu(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU) and child.num_parameters > 1:
            setattr(module, name, _FastPReLU(child.weight))
        else:
            _with_fast_prelu(child)


def _temperature(temperature: float | list[float]) -> Tensor:
    """As float32; ValueError unless every one is above zero and finite."""
    tensor = torch.tensor(temperature, dtype=torch.float32)
    if not (torch.isfinite(tensor) & (tensor > 0)).all():
        raise ValueError(f"temperature {temperature}: it must be above 0")
    return tensor


def _prove_parity(run: Run, plain: _Deployed, crops: Images) -> None:
    for size in (1, 2, len(crops)):
        with torch.no_grad():
            wanted = plain(torch.from_numpy(np.ascontiguousarray(crops[:size]))).numpy()
        given = run(crops[:size])
        if given.shape != wanted.shape:
            raise ValueError(f"batch {size}: {given.shape} where PyTorch gives {wanted.shape}")
        if isinstance(plain.head, UnitLength):
            cosine = float((given * wanted).sum(1).min())
            if not cosine >= COSINE:
                raise ValueError(f"batch {size}: cosine {cosine:.7f} to PyTorch, under {COSINE}")
        elif not (found := float(np.abs(given - wanted).max())) <= DIFFERENCE:
            raise ValueError(f"batch {size}: {found:.2g} from PyTorch, more than {DIFFERENCE:g}")


def _strip(model: onnx.ModelProto) -> None:
    """Leaves out the exporter's traces, which hold source lines and paths of this machine."""
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        del part.metadata_props[:]
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        del value.metadata_props[:]
