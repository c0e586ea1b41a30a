"""`trainer eval`: the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rtfuse.errors import ConfigError
from rtfuse.hints import need
from trainer.outputs import check_output, write_output
from trainer.printing import print_lines, print_whole

if TYPE_CHECKING:
    from trainer.evaluate import FuseLuma, Result, Watcher
    from trainer.measures.detection import Detection
    from trainer.measures.segmentation import Overlap, Segmentation
    from trainer.tables import Detected


def evaluate(
    ir: Annotated[str, typer.Option(help="Folder of thermal images, or a recording.")],
    rgb: Annotated[str, typer.Option(help="Folder of RGB images of the same names, or a recording.")],
    fused: Annotated[list[str] | None, typer.Option(help="Fused images to measure: a folder or a recording.")] = None,
    weights: Annotated[list[Path] | None, typer.Option(help="Weights of U-Fuser to run and measure.")] = None,
    run: Annotated[list[Path] | None, typer.Option(help="Run folder whose fusion checkpoint to measure.")] = None,
    against: Annotated[list[str] | None, typer.Option(help="As --fused: another method.")] = None,
    pyramid: Annotated[bool, typer.Option("--pyramid", help="Measure the pyramid fuser too.")] = False,
    only: Annotated[Path | None, typer.Option(help="Split file of root/stem lines: measure only these pairs.")] = None,
    root: Annotated[str, typer.Option(help="Use only the lines of this root in the split file.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Add published rows: msrs, roadscene, m3fd, harvard.")] = None,
    protocol: Annotated[Literal["plain", "paper"], typer.Option(help="paper: stretch every fused image.")] = "plain",
    calib: Annotated[str | None, typer.Option(help="Calibration that aligns thermal.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Of recordings, measure only the first pairs.")] = None,
    detector: Annotated[Path | None, typer.Option(help="ONNX detector of the YOLO family: measure AP.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of its labels: NAME.txt with YOLO's boxes.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of label classes: 0=person,2=car+truck; or a file.")
    ] = None,
    segmenter: Annotated[Path | None, typer.Option(help="ONNX segmentation network: measure IoU.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of its masks: NAME.png with class numbers.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every number of all tables to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write fidelity and artefacts of every pair to this file.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG, JPEG); for folders only.")] = None,
) -> None:
    """Measure fused images as papers do: EN, SD, SF, AG, SCD, VIF, Qabf, MI, SSIM, with 95 % intervals.

    Qabf_mirror and SSIM_gauss are Qabf and SSIM without the flaws that the papers' evaluator has: for your own
    comparisons. A second table has artefacts. Of recordings, flicker and steadiness in motion are measured too.
    With --detector and --labels, AP; with --segmenter and --masks, IoU: for each method, RGB alone and thermal alone.

    Example: trainer eval --ir pairs/ir --rgb pairs/rgb --weights ufuser.safetensors --pyramid --sheet sheet.png
    """
    need("trainer eval", ("torch",), "train")
    _check_outputs(dataset, csv, json, sheet)
    pictures = _are_pictures(ir, _of_recordings(frames), _of_folders(only, root, sheet, protocol, detector, segmenter))
    methods = _Methods(_fusers(weights or [], run or [], pyramid), _stored([*(fused or []), *(against or [])]))
    families = _watchers(rgb, detector, labels, classes, segmenter, masks)
    if pictures:
        names, paper = _listed(only, root), protocol == "paper"
        result = methods.on_folders(ir, rgb, calib, only=names, paper=paper, watchers=families)
    else:
        result = methods.on_recordings(ir, rgb, calib, frames=frames)
    _tell(result, dataset, families, csv, json)
    if sheet:
        methods.write_sheet(result, ir, rgb, calib, sheet)
    print_lines(f"{output} written" for output in (csv, json, sheet) if output)


@dataclass(frozen=True, slots=True)
class _Methods:
    """Methods to measure, by name: fusers to run, and folders or recordings of fused pictures.

    Raises ConfigError if there is none.
    """

    fusers: dict[str, FuseLuma]
    stored: dict[str, str]

    def __post_init__(self) -> None:
        if not self.fusers and not self.stored:
            raise ConfigError("nothing to measure: give --fused PATH, --weights FILE, --run DIR or --pyramid")

    @property
    def folders(self) -> dict[str, Path]:
        """Folders of stored pictures, by method."""
        return {method: Path(path) for method, path in self.stored.items()}

    def on_folders(
        self,
        ir: str,
        rgb: str,
        calib: str | None,
        *,
        only: set[str] | None,
        paper: bool,
        watchers: tuple[Watcher | None, ...],
    ) -> Result:
        """Measure the pairs of two folders."""
        from trainer.evaluate import evaluate

        present = [watcher for watcher in watchers if watcher is not None]
        return evaluate(ir, rgb, self.folders, self.fusers, calib=calib, only=only, paper=paper, watchers=present)

    def on_recordings(self, ir: str, rgb: str, calib: str | None, *, frames: int | None) -> Result:
        """Measure the pairs of two recordings."""
        from trainer.evaluate import evaluate_recordings

        return evaluate_recordings(ir, rgb, self.stored, self.fusers, calib=calib, frames=frames)

    def write_sheet(self, result: Result, ir: str, rgb: str, calib: str | None, sheet: Path) -> None:
        """Write the contact sheet."""
        from trainer.evaluate import contact_sheet
        from trainer.pictures import encoded

        drawn = contact_sheet(result, ir, rgb, self.folders, self.fusers, calib=calib)
        write_output("--sheet", sheet, encoded(drawn, sheet))


def _stored(paths: list[str]) -> dict[str, str]:
    """Return folders or recordings of fused pictures by their names; a name that comes again is the whole path."""
    from trainer.evaluate import method_name

    stored: dict[str, str] = {}
    for path in paths:
        name = method_name(Path(path))
        stored[name if name not in stored else path] = path
    return stored


def _check_outputs(dataset: str | None, csv: Path | None, json: Path | None, sheet: Path | None) -> None:
    """Raise ConfigError for an unknown dataset, OutputUnwritable for an output that cannot be written."""
    from trainer.published import published

    if dataset:
        published(dataset)
    listed = (("--csv", csv, ()), ("--json", json, ()), ("--sheet", sheet, (".png", ".jpg", ".jpeg")))
    for option, output, suffixes in listed:
        if output:
            check_output(option, output, suffixes)


def _tell(
    result: Result,
    dataset: str | None,
    families: tuple[Detection | None, Segmentation | None],
    csv: Path | None,
    json: Path | None,
) -> None:
    """Print the tables, and write them."""
    from trainer.tables import table, to_csv, to_json

    print_lines(result.survey.lines())
    print_whole(table(result, dataset))
    found, overlaps = _print_families(result, *families)
    if json:
        write_output("--json", json, to_json(result, found, overlaps))
    if csv:
        write_output("--csv", csv, to_csv(result).encode())


Given = list[tuple[str, object]]
"""Options and their values; None is not given."""


def _of_recordings(frames: int | None) -> Given:
    """Return the options that have no meaning for pictures."""
    return [("--frames", frames)]


def _of_folders(
    only: Path | None, root: str, sheet: Path | None, protocol: str, detector: Path | None, segmenter: Path | None
) -> Given:
    """Return the options that have no meaning for recordings."""
    listed: Given = [("--only", only), ("--root", root), ("--sheet", sheet), ("--protocol paper", protocol == "paper")]
    return [*listed, ("--detector", detector), ("--segmenter", segmenter)]


def _are_pictures(ir: str, of_recordings: Given, of_folders: Given) -> bool:
    """Return True for folders of pictures. Raises ConfigError for an option of the other kind of input."""
    from trainer.evaluate import are_pictures

    pictures = are_pictures(ir)
    for option, given in of_recordings if pictures else of_folders:
        if given:
            wanted = "recordings" if pictures else "folders of pictures"
            hint = ": fuse some frames into a folder" if option in ("--detector", "--segmenter") else ""
            raise ConfigError(f"{option} is for {wanted}: {ir} is not{hint}")
    return pictures


def _listed(only: Path | None, root: str) -> set[str] | None:
    """Return the names of a split file; None without one."""
    from trainer.scenes import split_names

    return split_names(only, root) if only else None


def _fusers(weights: list[Path], runs: list[Path], pyramid: bool) -> dict[str, FuseLuma]:
    """Return the fusers to measure, by name."""
    from rtfuse.fuse.pyramid import fuse_pyramid
    from trainer.evaluate import by_network
    from trainer.export import trained

    fusers: dict[str, FuseLuma] = {}
    for path in weights:
        fusers[path.stem if path.stem not in fusers else str(path)] = by_network(path)
    for path in runs:
        fusers[path.resolve().name] = by_network(trained(path)[0])
    if pyramid:
        fusers["pyramid"] = fuse_pyramid
    return fusers


def _watchers(
    rgb: str,
    detector: Path | None,
    labels: Path | None,
    classes: str | None,
    segmenter: Path | None,
    masks: Path | None,
) -> tuple[Detection | None, Segmentation | None]:
    """Open the detector and the segmenter with their labels. Raises ConfigError if one lacks the other."""
    for (a, one), (b, other) in (
        (("--detector", detector), ("--labels", labels)),
        (("--segmenter", segmenter), ("--masks", masks)),
        (("--labels", labels), ("--classes", classes)),
    ):
        if other is not None and one is None:
            raise ConfigError(f"{b} needs {a}")
        if one is not None and other is None and b != "--classes":
            raise ConfigError(f"{a} needs {b} FOLDER")
    detection = segmentation = None
    if detector is not None and labels is not None:
        need("trainer eval --detector", ("pycocotools",), "eval")
        from rtfuse.detect.yolo import Yolo
        from trainer.measures.detection import CONFIDENCE, IOU, Detection
        from trainer.measures.labels import read_classes, read_labels

        truth = read_labels(labels, _names(rgb))
        detection = Detection(Yolo(detector, confidence=CONFIDENCE, iou=IOU), truth, read_classes(classes, labels))
    if segmenter is not None and masks is not None:
        from trainer.measures.segmentation import Segmentation, open_segmenter, read_masks

        segmentation = Segmentation(open_segmenter(segmenter), read_masks(masks, _names(rgb)))
    return detection, segmentation


def _names(rgb: str) -> list[str]:
    """Return the names of the pictures of a folder, as pairs have them."""
    from rtfuse.capture.scenes.listing import list_pictures
    from trainer.pairs import stem

    return [stem(name) for name in list_pictures(rgb, "rgb", recursive=True).names]


def _print_families(
    result: Result, detection: Detection | None, segmentation: Segmentation | None
) -> tuple[Detected | None, dict[str, Overlap] | None]:
    """Print a table for each family of measures beside fidelity; return AP and IoU."""
    from trainer.tables import artefact_table, detection_table, segmentation_table, video_table

    print_whole(artefact_table(result))
    if result.steadiness:
        print_whole(video_table(result.steadiness))
    found = overlaps = None
    if detection is not None:
        found = detection.result()
        print_lines(f"note: {line}" for line in detection.lines())
        print_whole(detection_table(found))
    if segmentation is not None:
        overlaps = segmentation.result()
        print_lines(f"note: {line}" for line in segmentation.lines())
        print_whole(segmentation_table(overlaps))
    return found, overlaps
