"""The command line: `trainer prepare | train | eval | export | bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from rtfuse.cli.app import add_version, run_app
from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.hints import need
from trainer.recipe import Recipe, dump_recipe, load_recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train the fusion network on your own footage: EMMA's two stages.",
)
add_version(app, "trainer")
out = Console(highlight=False)

RecipeFile = Annotated[Path, typer.Option("--config", help="Recipe (YAML).")]
_TRAIN = ("torch", "lightning_fabric", "tensorboard")
RunFolder = Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME by default.")]


def main() -> None:
    """Run the command line; errors become one line and an exit status."""
    run_app(app)


def _print_whole(grid: Table) -> None:
    """Print a table in its own width: a narrow terminal may wrap its lines, but nothing is cut."""
    width = Console(width=1000).measure(grid).maximum
    Console(highlight=False, width=max(out.width, width)).print(grid)


def _folder(recipe: Recipe, run: Path | None) -> Path:
    return run or Path("runs") / recipe.name


@app.command()
def prepare(config: RecipeFile, run: RunFolder = None) -> None:
    """Choose and cut the patches; says what was refused and why.

    Example: trainer prepare --config configs/train_quick.yaml
    """
    need("trainer prepare", ("torch",), "train")
    from trainer.data import prepare as cut

    recipe = load_recipe(config)
    folder = _folder(recipe, run) / "data"
    index = cut(recipe.data, folder)
    out.print(f"{len(index.scenes)} patches of {index.patch_px} px from {len(set(index.scenes))} scenes in {folder}")
    out.print(f"pseudo ground truth: {', '.join(index.methods)}")
    for reason, count in sorted(index.refused.items()):
        out.print(f"left out: {count} × {reason}")


@app.command()
def train(
    config: RecipeFile,
    run: RunFolder = None,
    stage: Annotated[Literal["both", "sensing", "fusion"], typer.Option(help="Which stage.")] = "both",
) -> None:
    """Train both stages, resuming where the run folder says; ends with weights that rtfuse loads.

    Example: trainer train --config configs/train_quick.yaml
    """
    need("trainer train", _TRAIN, "train")
    recipe = load_recipe(config)
    folder = _folder(recipe, run)
    _claim(folder, recipe)  # a mistake is said before what trains is loaded, which takes seconds
    from trainer.data import Patches
    from trainer.data import prepare as cut
    from trainer.export import export as write
    from trainer.export import manifest_of, trained
    from trainer.fusion import fusion_stage
    from trainer.run import Run, make_fabric
    from trainer.sensing import SensingTask, sensing_stage

    fabric = make_fabric()
    if fabric.is_global_zero and not (folder / "data" / "index.json").exists():
        cut(recipe.data, folder / "data")
    fabric.barrier()
    patches = Patches(folder / "data", seed=recipe.seed)
    work = Run(folder, recipe, fabric)
    first = sensing_stage(recipe, patches)
    if stage == "fusion" and not work.checkpoint("sensing").exists():
        raise ConfigError(f"--stage fusion needs {work.checkpoint('sensing')}; run --stage sensing first")
    sensed = recipe.fusion.epochs > recipe.fusion.warm_up_epochs  # the warm-up has no use for the sensing nets
    sensing = work.train(first) if sensed or stage == "sensing" else first.task
    if stage == "sensing":
        return
    assert isinstance(sensing, SensingTask)
    work.train(fusion_stage(recipe, patches, sensing))
    if fabric.is_global_zero and recipe.fusion.without:
        out.print(
            f"an ablation, not for deployment; judge it: trainer eval --run {folder} --ir IR --rgb RGB", soft_wrap=True
        )
    elif fabric.is_global_zero:
        weights = folder / "ufuser.safetensors"
        net, steps = trained(folder)
        write(net, weights, manifest_of(recipe, steps, patches.counts, {}))
        out.print(f"weights: {weights}\ntry them: rtfuse fuse IR RGB -o o.mp4 fuse.weights={weights}", soft_wrap=True)


@app.command()
def distill(config: RecipeFile, run: RunFolder = None) -> None:
    """Teach the student what the teacher makes, resuming where the run folder says; ends with weights.

    Example: trainer distill --config configs/distill.yaml
    """
    need("trainer distill", _TRAIN, "train")
    from trainer.distill import DistillTask, distill_stage, taught
    from trainer.export import export as write
    from trainer.export import manifest_of
    from trainer.run import Run, make_fabric
    from trainer.teacher import Pictures

    recipe = load_recipe(config)
    folder = _folder(recipe, run)
    _claim(folder, recipe)
    fabric = make_fabric()
    if fabric.is_global_zero and not (folder / "data" / "pictures.json").exists():
        index = taught(recipe, folder / "data")
        out.print(f"{len(index.pictures)} pictures of the teacher in {folder / 'data'}")
    fabric.barrier()
    pictures = Pictures(folder / "data", seed=recipe.seed)
    stage = distill_stage(recipe, pictures)
    task = Run(folder, recipe, fabric).train(stage)
    if fabric.is_global_zero:
        assert isinstance(task, DistillTask)
        weights = folder / "student.safetensors"
        write(task.student, weights, manifest_of(recipe, stage.steps, pictures.counts, {}, network="student"))
        out.print(f"weights: {weights}\ntry them: rtfuse fuse IR RGB -o o.mp4 fuse.weights={weights}", soft_wrap=True)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Keep the recipe in the run folder, and refuse to go on there with another one."""
    kept = folder / "recipe.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if kept.exists() and load_recipe(kept) != recipe:
            raise ConfigError(f"run folder {folder} was begun with another recipe ({kept}); give another with --run")
        if not kept.exists():
            partial = folder / "recipe.yaml.partial"
            partial.write_text(dump_recipe(recipe), encoding="utf-8")
            partial.replace(kept)
    except OSError as e:
        raise OutputUnwritable(f"run folder {folder} cannot be written: {e.strerror or e}") from e


@app.command()
def export(
    config: Annotated[Path | None, typer.Option(help="Recipe (YAML) of a run, trained or still training.")] = None,
    run: RunFolder = None,
    weights: Annotated[Path | None, typer.Option(help="Instead of a run: weights (.safetensors).")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The suffix says what, unless --target does.")] = Path(
        "ufuser.onnx"
    ),
    target: Annotated[
        str | None, typer.Option(help="safetensors, onnx, torch-export, openvino, tensorrt or tensorrt-rtx.")
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of a program, or `dynamic`.")] = "640x480",
    ir_size: Annotated[str | None, typer.Option(help="TensorRT: WIDTHxHEIGHT of thermal, if another.")] = None,
    gpu: Annotated[str | None, typer.Option(help="TensorRT-RTX: compute capability, e.g. 8.6.")] = None,
    rigs: Annotated[int, typer.Option(min=1, help="TensorRT: frames at once, at most.")] = 1,
    precision: Annotated[Literal["float16", "float32"], typer.Option(help="TensorRT: of the network.")] = "float16",
    lanes: Annotated[int, typer.Option(help="OpenVINO: float32 in a vector register; 16 for AVX-512.")] = 8,
    metrics: Annotated[list[str] | None, typer.Option(help="[NAME=]CSV of `trainer eval`, for the manifest.")] = None,
) -> None:
    """Write a run's weights, or existing ones, as what rtfuse or other programs load, with a manifest beside them.

    Example: trainer export --weights ufuser.safetensors --target tensorrt-rtx --gpu 8.6 -o ufuser.plan
    """
    onnx = ("onnx", "onnxscript") if (target or output.suffix) in ("onnx", ".onnx", "tensorrt", "tensorrt-rtx") else ()
    need("trainer export", ("torch", *onnx), "export")
    import msgspec

    from rtfuse.cli.words import size_of
    from rtfuse.fuse.networks.loading import load_network
    from trainer.data import Patches
    from trainer.export import TARGETS, Build, manifest_beside, manifest_of, read_metrics, trained
    from trainer.export import export as write

    if (config is None) == (weights is None):
        raise ConfigError("trainer export needs either --config RECIPE or --weights FILE")
    if target is not None and target not in TARGETS:
        raise ConfigError(f"--target {target}: there are {', '.join(TARGETS)}")
    build = Build(
        size_wh=None if size == "dynamic" else size_of(size),
        ir_size_wh=size_of(ir_size) if ir_size else None,
        rigs=rigs,
        gpu=gpu,
        precision=precision,
        lanes=lanes,
    )
    if weights:
        net, manifest = load_network(weights), manifest_beside(weights)
        manifest = msgspec.structs.replace(manifest, metrics=manifest.metrics | read_metrics(metrics or []))
    else:
        assert config
        recipe = load_recipe(config)
        if recipe.fusion.without:
            raise ConfigError(f"{config} is an ablation: nothing loads its weights but trainer eval --run")
        folder = _folder(recipe, run)
        net, steps = trained(folder)
        counts = Patches(folder / "data", seed=recipe.seed).counts
        manifest = manifest_of(recipe, steps, counts, read_metrics(metrics or []))
    manifest = write(net, output, manifest, build, target)
    out.print(f"{output}: {manifest.steps} steps, weights {manifest.weights_sha256[:12]}…", soft_wrap=True)


@app.command()
def bench(
    config: RecipeFile,
    run: RunFolder = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time, of each kind.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file.")] = None,
) -> None:
    """Time one optimizer step of each stage, its parts and the device's use; trains nothing.

    Example: trainer bench --config configs/train_cpu.yaml
    """
    need("trainer bench", _TRAIN, "train")
    import msgspec

    from trainer.bench import bench as measure_steps
    from trainer.bench import table
    from trainer.data import Patches
    from trainer.data import prepare as cut
    from trainer.run import Run, make_fabric

    recipe = load_recipe(config)
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
    _print_whole(table(report))
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


@app.command(name="eval")
def evaluate(
    ir: Annotated[str, typer.Option(help="Folder of thermal images, or a recording.")],
    rgb: Annotated[str, typer.Option(help="Folder of RGB images of the same names, or a recording.")],
    fused: Annotated[list[str] | None, typer.Option(help="What was fused of them: a folder or a recording.")] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="Weights of U-Fuser to run and measure.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="Run folder whose fusion checkpoint to measure.")] = None,
    against: Annotated[list[str] | None, typer.Option(help="The same as --fused: other methods.")] = None,
    pyramid: Annotated[bool, typer.Option("--pyramid", help="Measure the pyramid fuser too.")] = False,
    only: Annotated[Path | None, typer.Option(help="A split file: only its root/stem lines.")] = None,
    root: Annotated[str, typer.Option(help="Which root's lines of the split file.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Add published rows: msrs, roadscene, m3fd, harvard.")] = None,
    protocol: Annotated[Literal["plain", "paper"], typer.Option(help="paper: stretch every fused image.")] = "plain",
    calib: Annotated[str | None, typer.Option(help="Calibration of the recordings.")] = None,
    frames: Annotated[int | None, typer.Option(help="Of recordings, the first so many pairs.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every number to this file.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of pictures (PNG), of folders.")] = None,
) -> None:
    """Measure fused images: EN, SD, SF, AG, SCD, VIF, Qabf, MI, SSIM, with 95 % intervals; of recordings, flicker too.

    Example: trainer eval --ir pairs/ir --rgb pairs/rgb --weights ufuser.safetensors --pyramid --sheet sheet.png
    """
    need("trainer eval", ("torch",), "train")
    import cv2

    from rtfuse.fuse.pyramid import fuse_pyramid
    from trainer.data import split_names
    from trainer.evaluate import FuseLuma, by_network, contact_sheet, evaluate_recordings, method_name, table, write_csv
    from trainer.evaluate import evaluate as evaluate_folders
    from trainer.export import trained

    fusers: dict[str, FuseLuma] = {}
    for path in weights or []:
        fusers[path.stem if path.stem not in fusers else str(path)] = by_network(path)
    for path in run or []:
        fusers[path.resolve().name] = by_network(trained(path)[0])
    if pyramid:
        fusers["pyramid"] = fuse_pyramid
    stored = {method_name(Path(f)): f for f in [*(fused or []), *(against or [])]}
    if not fusers and not stored:
        raise ConfigError("nothing to measure: give --fused PATH, --weights FILE, --run DIR or --pyramid")
    if Path(ir).is_dir():
        folders = {method: Path(f) for method, f in stored.items()}
        names = split_names(only, root) if only else None
        result = evaluate_folders(Path(ir), Path(rgb), folders, fusers, only=names, paper=protocol == "paper")
    else:
        result = evaluate_recordings(ir, rgb, stored, fusers, calib=calib, frames=frames)
    _print_whole(table(result, dataset))
    for name, reason in sorted(result.skipped.items())[:10]:
        out.print(f"skipped {name}: {reason}")
    if csv:
        write_csv(result, csv)
    if sheet and Path(ir).is_dir():
        cv2.imwrite(str(sheet), contact_sheet(result, Path(ir), Path(rgb), folders, fusers))


if __name__ == "__main__":
    main()
