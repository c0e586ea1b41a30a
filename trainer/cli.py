"""Define the command line: `trainer prepare | train | distill | refine | export | bench | eval`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rtfuse.cli.app import add_version, run_app
from rtfuse.errors import ConfigError
from rtfuse.hints import need
from trainer.eval_cli import evaluate
from trainer.outputs import check_output, write_output
from trainer.printing import out, print_lines, print_whole
from trainer.recipe import Recipe, load_recipe
from trainer.run_folder import claim

if TYPE_CHECKING:
    from torch import nn

    from trainer.export import Build, Manifest

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train the fusion network on your own footage: EMMA's two stages.",
)
add_version(app, "trainer")

RecipeFile = Annotated[Path | None, typer.Option("--config", help="Recipe (YAML).")]
RunFolder = Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME by default.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="e.g. fusion.epochs=2")]
_TRAIN = ("torch", "lightning_fabric", "tensorboard")


def main() -> None:
    """Run the command line; each error is one line with its exit status."""
    run_app(app)


def _claim(folder: Path, recipe: Recipe) -> None:
    if changed := claim(folder, recipe):
        out.print(f"the recipe of {folder} has changed, which it allows: {', '.join(changed)}", soft_wrap=True)


def _recipe(command: str, config: Path | None, overrides: list[str] | None) -> Recipe:
    """Load the recipe of a command. Raises ConfigError if none is named or it is wrong."""
    examples = next((f for f in (Path("configs"), Path(sys.prefix) / "share/rtfuse/configs") if f.is_dir()), None)
    example = f"for example --config {(examples or Path('configs')) / 'train_quick.yaml'}"
    if config is None:
        bare = next((item for item in overrides or [] if item.endswith((".yaml", ".yml"))), None)
        hint = f"--config {bare}" if bare else f"--config FILE, {example}"
        raise ConfigError(f"trainer {command} needs a recipe: give {hint}")
    if not config.exists():
        raise ConfigError(f"recipe {config} does not exist: give another, {example}")
    return load_recipe(config, overrides or ())


def _folder(recipe: Recipe, run: Path | None) -> Path:
    return run or Path("runs") / recipe.name


def _print_weights(weights: Path) -> None:
    out.print(f"weights: {weights}\ntry them: rtfuse fuse IR RGB -o o.mp4 fuse.weights={weights}", soft_wrap=True)


@app.command()
def prepare(config: RecipeFile = None, run: RunFolder = None, overrides: Overrides = None) -> None:
    """Choose and cut the patches; print how many were left out, with the reasons.

    Example: trainer prepare --config configs/train_quick.yaml
    """
    recipe = _recipe("prepare", config, overrides)
    need("trainer prepare", ("torch",), "train")
    from trainer.checks import check_data
    from trainer.data import prepare as cut

    check_data(recipe.data)
    folder = _folder(recipe, run)
    _claim(folder, recipe)
    index = cut(recipe.data, folder / "data")
    print_lines([*index.lines(), f"prepared in {folder / 'data'}"])


@app.command()
def train(
    config: RecipeFile = None,
    run: RunFolder = None,
    stage: Annotated[Literal["both", "sensing", "fusion"], typer.Option(help="Stage to train.")] = "both",
    overrides: Overrides = None,
) -> None:
    """Train both stages, resuming from the run folder's checkpoints; write weights that rtfuse loads.

    Example: trainer train --config configs/train_quick.yaml seed=2
    """
    recipe = _recipe("train", config, overrides)
    need("trainer train", _TRAIN, "train")
    from trainer.checks import check_train
    from trainer.training import train as train_stages

    folder = _folder(recipe, run)
    check_train(recipe, folder, stage)
    _claim(folder, recipe)
    if weights := train_stages(recipe, folder, stage):
        _print_weights(weights)


@app.command()
def distill(config: RecipeFile = None, run: RunFolder = None, overrides: Overrides = None) -> None:
    """Train the student to imitate the teacher, resuming from the run folder's checkpoint; write its weights.

    Example: trainer distill --config configs/distill.yaml
    """
    recipe = _recipe("distill", config, overrides)
    need("trainer distill", _TRAIN, "train")
    from trainer.checks import check_distill
    from trainer.training import distill as train_student

    folder = _folder(recipe, run)
    check_distill(recipe)
    _claim(folder, recipe)
    if weights := train_student(recipe, folder):
        _print_weights(weights)


@app.command()
def refine(config: RecipeFile = None, run: RunFolder = None, overrides: Overrides = None) -> None:
    """Refine a network by what its pictures keep of both sources, resuming from the checkpoint; write its weights.

    Example: trainer refine --config configs/train_student.yaml
    """
    recipe = _recipe("refine", config, overrides)
    need("trainer refine", _TRAIN, "train")
    from trainer.checks import check_refine
    from trainer.training import refine as refine_network

    folder = _folder(recipe, run)
    check_refine(recipe)
    _claim(folder, recipe)
    if weights := refine_network(recipe, folder):
        _print_weights(weights)


@app.command()
def export(
    config: Annotated[Path | None, typer.Option(help="Recipe (YAML) of a run.")] = None,
    run: RunFolder = None,
    weights: Annotated[Path | None, typer.Option(help="Weights (.safetensors), instead of a run.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("ufuser.onnx"),
    target: Annotated[
        str | None,
        typer.Option(help="Format: safetensors, onnx, torch-export, openvino, tensorrt or tensorrt-rtx."),
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of RGB, or `dynamic`.")] = "640x480",
    ir_size: Annotated[str | None, typer.Option(help="TensorRT: WIDTHxHEIGHT of thermal, if it differs.")] = None,
    gpu: Annotated[str | None, typer.Option(help="TensorRT-RTX: compute capability, e.g. 8.6.")] = None,
    rigs: Annotated[int, typer.Option(min=1, help="TensorRT: largest number of frames in one call.")] = 1,
    precision: Annotated[
        Literal["float16", "float32"], typer.Option(help="TensorRT: network's precision.")
    ] = "float16",
    lanes: Annotated[int, typer.Option(help="OpenVINO: float32 per vector register; 16 for AVX-512.")] = 8,
    metrics: Annotated[list[str] | None, typer.Option(help="[NAME=]CSV of `trainer eval`, for the manifest.")] = None,
) -> None:
    """Write weights in a format that rtfuse or another program loads, with a manifest of their origin.

    Example: trainer export --weights ufuser.safetensors --target tensorrt-rtx --gpu 8.6 -o ufuser.plan
    """
    if (config is None) == (weights is None):
        raise ConfigError("trainer export needs either --config RECIPE or --weights FILE")
    onnx = ("onnx", "onnxscript") if (target or output.suffix) in ("onnx", ".onnx", "tensorrt", "tensorrt-rtx") else ()
    need("trainer export", ("torch", *onnx), "export")
    from rtfuse.cli.arguments import size_of
    from trainer.export import TARGETS, Build, target_of

    if target is not None and target not in TARGETS:
        raise ConfigError(f"--target {target}: there are {', '.join(TARGETS)}")
    target = target_of(output, target)  # before the work
    build = Build(
        size_wh=None if size == "dynamic" else size_of(size),
        ir_size_wh=size_of(ir_size) if ir_size else None,
        rigs=rigs,
        gpu=gpu,
        precision=precision,
        lanes=lanes,
    )
    net, manifest = _weights_of_file(weights) if weights else _weights_of_run(config, run)
    _export(net, _measured(net, manifest, metrics or []), output, build, target)


def _measured(net: nn.Module, manifest: Manifest, metrics: list[str]) -> Manifest:
    """Return the manifest with the network's name and the metrics of the tables."""
    from msgspec.structs import replace

    from trainer.export import read_metrics
    from trainer.refine import name_of

    name = name_of(net)
    return replace(manifest, network=name, metrics=manifest.metrics | read_metrics(metrics, name))


def _export(net: nn.Module, manifest: Manifest, output: Path, build: Build, target: str) -> None:
    """Write the file, and print its origin."""
    from trainer.export import export as write

    manifest = write(net, output, manifest, build, target)
    steps = f"{manifest.steps} steps" if manifest.steps or manifest.recipe else "origin unknown"
    out.print(f"{output}: {steps}, weights {manifest.weights_sha256[:12]}…", soft_wrap=True)


def _weights_of_file(weights: Path) -> tuple[nn.Module, Manifest]:
    """Return the network of a file of weights, and the its manifest."""
    from rtfuse.fuse.networks.loading import load_network
    from trainer.export import manifest_beside

    return load_network(weights), manifest_beside(weights)


def _weights_of_run(config: Path | None, run: Path | None) -> tuple[nn.Module, Manifest]:
    """Return the fusion net of a run and its manifest; the recipe in the run folder counts, with its overrides."""
    from trainer.data import Patches
    from trainer.export import manifest_of, trained

    folder = _folder(_recipe("export", config, None), run)
    net, steps = trained(folder)
    recipe = load_recipe(folder / "recipe.yaml")
    if recipe.fusion.without:
        raise ConfigError(f"{folder} is an ablation: only `trainer eval --run` loads its weights")
    return net, manifest_of(recipe, steps, Patches(folder / "data", seed=recipe.seed).counts, {})


@app.command()
def bench(
    config: RecipeFile = None,
    run: RunFolder = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to time, of each kind.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
    overrides: Overrides = None,
) -> None:
    """Time one optimizer step of each stage, its parts and the device's use; trains nothing.

    Example: trainer bench --config configs/train_cpu.yaml
    """
    recipe = _recipe("bench", config, overrides)
    need("trainer bench", _TRAIN, "train")
    if json:
        check_output("--json", json)
    import msgspec

    from trainer.bench import bench as measure_steps
    from trainer.bench import table
    from trainer.checks import check_train
    from trainer.data import Patches
    from trainer.data import prepare as cut
    from trainer.run import Run, make_fabric

    check_train(recipe, _folder(recipe, run), "both")
    with tempfile.TemporaryDirectory() as scratch:
        data = _folder(recipe, run) / "data"
        if not (data / "index.json").exists():
            data = Path(scratch)
            cut(recipe.data, data)
        patches = Patches(data, seed=recipe.seed)
        fabric = make_fabric()
        report = measure_steps(recipe, patches, Run(Path(scratch), recipe, fabric), steps)
    if not fabric.is_global_zero:
        return
    print_whole(table(report))
    if json:
        write_output("--json", json, msgspec.json.format(msgspec.json.encode(report)))
        print_lines([f"{json} written"])


app.command(name="eval")(evaluate)
