#!/usr/bin/env python3
"""Renders every panel of the dashboards in six situations, takes pictures, and checks them.

    tests/dashboards/run.py --prober PROGRAM --modules DIRECTORY --pictures DIRECTORY

DIRECTORY of --modules has the packages of package.json; `tests/run dashboards` installs them. The
pictures are SITUATION.DASHBOARD.WIDTH.png. With --documents, those of the documentation are
written, too.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import checks  # noqa: E402
from panels import Evaluated  # noqa: E402
from situations import ROOT, SCENARIOS, Recorded  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
WIDTHS = (1440, 2560)
# The probe that the drill-down shows.
PROBES = {
    "key-rejected": "anthropic-auth",
    "gateway-down": "langmart-gpt-4o-mini",
    "provider-slow": "openai-stream",
}
# The pictures of the documentation, by the name of the file.
DOCUMENTED = {
    "dashboard.png": "gateway-down.overview.1440.top",
    "drill-down.png": "gateway-down.drill-down.1440",
}


def bundle(modules: pathlib.Path, directory: pathlib.Path) -> None:
    """Bundles render.jsx with Grafana's components."""
    shutil.copy(HERE / "render.jsx", modules)
    shutil.copy(HERE / "shoot.mjs", modules)
    loaders = [f"--loader:.{kind}=dataurl" for kind in ("svg", "woff", "woff2", "ttf")]
    subprocess.run(
        [
            modules / "node_modules/.bin/esbuild", "render.jsx", "--bundle", "--format=iife",
            "--jsx=automatic", f"--outfile={directory}/render.js", *loaders,
            '--define:process.env.NODE_ENV="production"', "--log-level=error",
        ],
        cwd=modules, check=True,
    )  # fmt: skip


def main() -> None:
    """Prints what is wrong; exits with 1 if anything is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prober", required=True)
    parser.add_argument("--prometheus", default="prometheus")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--modules", type=pathlib.Path, required=True)
    parser.add_argument("--pictures", type=pathlib.Path, required=True)
    parser.add_argument("--documents", action="store_true")
    arguments = parser.parse_args()
    dashboards = {
        path.stem: json.loads(path.read_text())
        for path in sorted((ROOT / "packaging/grafana").glob("*.json"))
    }
    pictures = arguments.pictures.resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def step(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

    bundle(arguments.modules.resolve(), pictures)
    step("bundled")
    wrong, evaluated = [], {}
    with tempfile.TemporaryDirectory() as directory:
        recorded = Recorded(
            str(pathlib.Path(arguments.prober).resolve()),
            pathlib.Path(directory),
            arguments.prometheus,
        )
        step("recorded")
        try:
            for job in SCENARIOS:
                probe = PROBES.get(job, "langmart-stream")
                asked = Evaluated(recorded.address, recorded.end, job, probe)
                for name, dashboard in dashboards.items():
                    # One situation is enough to see how a wide screen divides the space.
                    for width in WIDTHS if job == "gateway-down" else WIDTHS[:1]:
                        evaluated[f"{job}.{name}.{width}"] = asked.dashboard(dashboard, width)
                wrong += asked.errors
        finally:
            recorded.stop()
    for name, content in evaluated.items():
        top = f"{name}.top" in DOCUMENTED.values()
        (pictures / f"{name}.json").write_text(json.dumps({**content, "top": top}))
    step("evaluated")
    subprocess.run(
        ["node", "shoot.mjs", str(pictures), arguments.chromium, *evaluated],
        cwd=arguments.modules, check=True,
    )  # fmt: skip
    step("pictured")
    for name in evaluated:
        seen = json.loads((pictures / f"{name}.seen.json").read_text())
        job, dashboard, _ = name.split(".")
        wrong += [f"{name}: {text}" for text in checks.check(job, dashboard, seen, recorded)]
    if arguments.documents:
        for document, name in DOCUMENTED.items():
            shutil.copy(pictures / f"{name}.png", ROOT / "docs/images" / document)
    for text in wrong:
        print(f"FAILED: {text}")
    print(f"{len(evaluated)} pictures in {pictures}, {len(wrong)} findings")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
