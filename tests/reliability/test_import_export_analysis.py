"""Faults after the capture: while the report is imported, exported and analysed."""

from __future__ import annotations

import shutil
import signal
from typing import Final

from fault_scene import IMPORTER, Scene
from fault_table import Resume, Row, faults

IMPORT, EXPORT, ANALYSIS = "Import", "Export", "Report"
CAPTURED: Final = ("control.json", "profiled.json", "trace.nsys-rep")
STREAM: Final = ("control.json", "profiled.json", "trace.qdstrm")
EXPORTED: Final = ("control.json", "profiled.json", "trace.sqlite")
GOES_ON: Final = Resume(0, "")

IMPORT_ENDED: Final = "interrupted in the import; …trace.qdstrm is kept: `dsocr-profile resume …` repeats it"
IMPORTER_KILLED: Final = "QdstrmImporter was ended by SIGKILL …it is kept: `dsocr-profile resume …` imports it again"
EXPORT_ENDED: Final = "interrupted in the export; …trace.nsys-rep is kept: `dsocr-profile resume …` repeats it"
NO_SPACE: Final = (
    "trace.nsys-rep: cannot be exported, the disk is full …it is kept: free space, then `dsocr-profile resume …`"
)
REPORT_ENDED: Final = "interrupted in the analysis; the trace is kept: dsocr-profile resume"

WELL: Final = IMPORTER + "echo whole > $report\n"
HANGS: Final = IMPORTER + "touch 'import is at work'\nexec sleep 300\n"
FAILS: Final = IMPORTER + "rm -f $report; echo 'Importation failed: the stream is of another version' >&2; exit 1\n"


@faults(
    IMPORT,
    Row(
        "Ctrl-C", "import (QdstrmImporter)", 130, "interrupted", IMPORT_ENDED,
        kept=STREAM, resume=GOES_ON, name="once",
    ),
    Row(
        "SIGTERM", "import (QdstrmImporter)", 130, "interrupted", IMPORT_ENDED,
        kept=STREAM, resume=GOES_ON, name="sigterm",
    ),
    Row(
        "SIGKILL of `dsocr-profile`", "import (QdstrmImporter)", -9, "failed", "",
        kept=STREAM, resume=GOES_ON, name="sigkill",
    ),
    Row(
        "SIGKILL of the importer", "import (QdstrmImporter)", 12, "failed", IMPORTER_KILLED,
        kept=STREAM, resume=GOES_ON, name="importer",
    ),
)  # fmt: skip
def test_a_signal_in_the_import(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="stream only")
    scene.importer(HANGS)
    run = scene.run()
    scene.wait_for_file("import is at work")
    if row.name == "importer":
        scene.wait_for_process("sleep 300").kill()
    else:
        run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    scene.check(row, run, mend=lambda: scene.importer(WELL))


@faults(
    IMPORT,
    Row(
        "the importer fails", "import (QdstrmImporter)", 12, "failed",
        "trace.qdstrm: …could not import it: Importation failed: the stream is of another version",
        kept=STREAM, resume=GOES_ON, go_on="with the nsys that recorded it (`--nsys`)",
    ),
)  # fmt: skip
def test_the_importer_fails(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="stream only")
    scene.importer(FAILS)
    scene.check(row, scene.run(), mend=lambda: scene.importer(WELL))


@faults(
    EXPORT,
    Row(
        "Ctrl-C", "export", 130, "interrupted", EXPORT_ENDED,
        kept=CAPTURED, resume=GOES_ON, name="once",
    ),
    Row(
        "Ctrl-C twice, quickly", "export", 130, "interrupted", EXPORT_ENDED,
        kept=CAPTURED, resume=GOES_ON, name="twice",
    ),
    Row(
        "SIGTERM", "export", 130, "interrupted", EXPORT_ENDED,
        kept=CAPTURED, resume=GOES_ON, name="sigterm",
    ),
    Row(
        "SIGKILL of `dsocr-profile`", "export", -9, "failed", "", kept=CAPTURED, resume=GOES_ON, name="sigkill",
    ),
    Row(
        "SIGKILL of nsys", "export", 12, "failed", "trace.nsys-rep: …nsys…SIGKILL",
        kept=CAPTURED, resume=GOES_ON, name="nsys",
    ),
)  # fmt: skip
def test_a_signal_in_the_export(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="hangs in the export")
    run = scene.run()
    scene.wait_for_file("export is at work")
    if row.name == "nsys":
        scene.wait_for_process("nsys export").kill()
    else:
        run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    if row.name == "twice":
        run.send(signal.SIGINT)
    scene.check(row, run)


@faults(
    IMPORT,
    Row(
        "the importer hangs, with `--timeout` (it has 120 s more)", "import (QdstrmImporter)", 14, "timed_out",
        "trace.qdstrm: the import took longer than --timeout and …s more", kept=STREAM, resume=GOES_ON, name="import",
    ),
)  # fmt: skip
def test_a_time_out_of_the_import(scene: Scene, row: Row) -> None:
    scene.environ["DSOCR_STAND_IN_PATIENCE_S"] = "1"
    scene.behave("well", nsys="stream only")
    scene.importer(HANGS)
    run = scene.run_out_of_time(scene.run, lambda: scene.there("import is at work"))
    scene.check(row, run, mend=lambda: scene.importer(WELL))


@faults(
    EXPORT,
    Row(
        "nsys hangs, with `--timeout` (it has 120 s more)", "export", 14, "timed_out",
        "trace.nsys-rep: the export took longer than --timeout and …s more", kept=CAPTURED, resume=GOES_ON, name="export",
    ),
)  # fmt: skip
def test_a_time_out_of_the_export(scene: Scene, row: Row) -> None:
    scene.environ["DSOCR_STAND_IN_PATIENCE_S"] = "1"
    scene.behave("well", nsys="hangs in the export")
    scene.check(row, scene.run_out_of_time(scene.run, lambda: scene.there("export is at work")))


@faults(
    EXPORT,
    Row(
        "nsys leaves half an export, and exits 0", "export", 12, "failed", "the export is damaged…resume",
        kept=CAPTURED, resume=GOES_ON, name="half an export",
    ),
    Row(
        "nsys says that the disk is full", "export", 12, "failed", NO_SPACE,
        kept=CAPTURED, resume=GOES_ON, name="no space",
    ),
)  # fmt: skip
def test_nsys_fails_in_the_export(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys=row.name)
    scene.check(row, scene.run())


@faults(
    ANALYSIS,
    Row(
        "Ctrl-C", "report", 130, "interrupted", REPORT_ENDED,
        kept=EXPORTED, resume=GOES_ON, name="once",
    ),
    Row(
        "SIGTERM", "report", 130, "interrupted", REPORT_ENDED,
        kept=EXPORTED, resume=GOES_ON, name="sigterm",
    ),
    Row(
        "Ctrl-C twice, quickly", "report", 130, "interrupted", REPORT_ENDED,
        kept=EXPORTED, resume=GOES_ON, name="twice",
    ),
    Row(
        "Ctrl-C, and the analysis hangs (SIGSTOP)", "report", 130, "interrupted",
        REPORT_ENDED,
        kept=EXPORTED, resume=GOES_ON, name="stopped",
    ),
    Row("SIGKILL of `dsocr-profile`", "report", -9, "failed", "", kept=EXPORTED, resume=GOES_ON, name="sigkill"),
    Row(
        "SIGKILL of the analysis", "report", 13, "failed", "the analysis…SIGKILL…the trace is kept: dsocr-profile resume",
        kept=EXPORTED, resume=GOES_ON, name="analysis",
    ),
    Row(
        "the analysis hangs (SIGSTOP), with `--timeout`", "report", 14, "timed_out",
        "the analysis was ended by --timeout …the trace is kept: dsocr-profile resume",
        kept=EXPORTED, resume=GOES_ON, name="hangs",
    ),
)  # fmt: skip
def test_a_signal_in_the_report(scene: Scene, row: Row) -> None:
    if row.name == "hangs":
        run = scene.run_out_of_time(
            scene.run,
            lambda: scene.process("analysis.cli") is not None,
            lambda: scene.wait_for_process("analysis.cli").suspend(),
        )
        scene.check(row, run)
        return
    run = scene.run()
    analysis = scene.wait_for_process("analysis.cli")
    if row.name == "analysis":
        analysis.kill()
    else:
        if row.name == "stopped":
            analysis.suspend()
        run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    if row.name == "twice":
        run.send(signal.SIGINT)
    scene.check(row, run)


@faults(
    EXPORT,
    Row("the run's folder vanishes (`rm -rf`)", "export", 10, None, "…is not there any more"),
)
def test_the_folder_vanishes_in_the_export(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="waits in the export")
    run = scene.run()
    shutil.rmtree(scene.wait_for_file("export is at work").parent)
    scene.check(row, run)


@faults(
    ANALYSIS,
    Row("the run's folder vanishes (`rm -rf`)", "report", 10, None, "…is not there any more"),
)
def test_the_folder_vanishes_while_the_report_is_made(scene: Scene, row: Row) -> None:
    run = scene.run()
    analysis = scene.wait_for_process("analysis.cli")
    analysis.suspend()
    shutil.rmtree(scene.directory.path)
    analysis.resume()
    scene.check(row, run)


@faults(
    EXPORT,
    Row(
        "the export is damaged afterwards, and the report is there", "`resume`", 0, "complete",
        "trace.sqlite: the export is damaged…it is trace.sqlite.damaged now, and the export is made again",
        kept=(*EXPORTED, "trace.nsys-rep", "trace.sqlite.damaged"), resume=GOES_ON, name="report",
    ),
    Row(
        "the export is damaged afterwards, and the report was deleted", "`resume`", 12, "complete",
        "trace.sqlite: the export is damaged…there is no report to make it of again; run it again",
        kept=("control.json", "profiled.json"), go_on="run it again", name="none",
    ),
)  # fmt: skip
def test_a_damaged_export(scene: Scene, row: Row) -> None:
    """`resume` said that it is to be repeated with `resume`."""
    assert scene.run().code() == 0
    run = scene.directory
    with run.trace_file.open("r+b") as export:
        export.seek(100)
        export.write(b"\xff" * 8192)
    if row.name == "none":
        run.report_file.unlink()
    resumed = scene.do("resume", run.path.name, "--out", str(scene.out), "--nsys", scene.nsys)
    if row.name == "none":
        run.trace_file.unlink()  # it is known to be none
    scene.check(row, resumed)
