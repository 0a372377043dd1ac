#!/usr/bin/env python3
"""Writes the container image as an OCI archive: one layer, no shell, user 65532.

image.py PROGRAM STAGE VERSION ARCHIVE

STAGE is the directory of packaging/release with the package's other files. The C library and the
certificates are those of this Debian. The same files give the same bytes; SOURCE_DATE_EPOCH is the
date of all of them.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATE = int(os.environ["SOURCE_DATE_EPOCH"])
USER = 65532
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
STATE, LOGS = "var/lib/langmart-prober", "var/log/langmart-prober"
MEDIA = "application/vnd.oci.image"
DEBIAN_PACKAGES = ("ca-certificates", "libc6", "libgcc-s1")


class Archive:
    """A tar archive in memory with fixed dates and owners."""

    def __init__(self) -> None:
        """Starts an empty archive."""
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.GNU_FORMAT)
        self.directories: set[str] = set()

    def directory(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        """Adds a directory after its parents, once."""
        if name in ("", ".") or name in self.directories:
            return
        self.directory(str(pathlib.PurePath(name).parent))
        self.directories.add(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, mode, DATE
        entry.uid = entry.gid = owner
        self.tar.addfile(entry)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Adds a file after its directories."""
        self.directory(str(pathlib.PurePath(name).parent))
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(content), mode, DATE
        self.tar.addfile(entry, io.BytesIO(content))

    def finish(self) -> bytes:
        """Returns the archive."""
        self.tar.close()
        return self.bytes.getvalue()


def printed(*command: str) -> str:
    """Runs a command and returns its standard output."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def libraries(program: str) -> list[str]:
    """Returns the paths of the shared libraries of a program, with the dynamic linker."""
    return sorted(set(re.findall(r"(/\S+) \(0x", printed("ldd", program))))


def certificates() -> bytes:
    """Returns the certificates that Debian ships, without those that this machine has added."""
    files = printed("dpkg", "-L", "ca-certificates").splitlines()
    files = sorted(name for name in files if name.endswith(".crt"))
    assert files, "ca-certificates has no certificates"
    return b"".join(pathlib.Path(name).read_bytes() for name in files)


def environment() -> list[str]:
    """Returns the environment: the unit's own, and what systemd sets for the unit."""
    unit = (ROOT / "systemd/langmart-prober.service").read_text()
    own = re.findall(r"^Environment=(\S+)$", unit, re.MULTILINE)
    return ["PATH=/usr/bin", f"STATE_DIRECTORY=/{STATE}", f"LOGS_DIRECTORY=/{LOGS}", *own]


def layer(program: str, stage: pathlib.Path) -> bytes:
    """Returns the only layer, uncompressed."""
    archive = Archive()
    archive.file("usr/bin/langmart-prober", pathlib.Path(program).read_bytes(), 0o755)
    for name in libraries(program):
        archive.file(name.lstrip("/"), pathlib.Path(name).read_bytes(), 0o755)
    archive.file("etc/ssl/certs/ca-certificates.crt", certificates())
    archive.file("etc/nsswitch.conf", b"hosts: files dns\n")
    account = f"langmart-prober:x:{USER}:"
    archive.file("etc/passwd", f"{account}{USER}::/{STATE}:/usr/sbin/nologin\n".encode())
    archive.file("etc/group", f"{account}\n".encode())
    archive.file(
        "etc/langmart-prober/config.toml",
        (ROOT / "packaging/container/config.toml").read_bytes(),
    )
    for path in sorted((stage / "share/langmart-prober").rglob("*")):
        if path.is_file():
            archive.file(f"usr/{path.relative_to(stage)}", path.read_bytes())
    doc = "usr/share/doc"
    licences = stage / "share/doc/langmart-prober/licences.txt.gz"
    archive.file(f"{doc}/langmart-prober/copyright", (stage / "copyright").read_bytes())
    archive.file(f"{doc}/langmart-prober/licences.txt.gz", licences.read_bytes())
    for package in DEBIAN_PACKAGES:
        name = f"{doc}/{package}/copyright"
        archive.file(name, pathlib.Path(f"/{name}").read_bytes())
    for name in (STATE, LOGS):
        archive.directory(name, 0o750, USER)
    return archive.finish()


def image(program: str, stage: pathlib.Path, version: str) -> bytes:
    """Returns the image as an OCI archive."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def text(value: object) -> bytes:
        return json.dumps(value, indent=2, sort_keys=True).encode()

    content = layer(program, stage)
    compressed = blob(f"{MEDIA}.layer.v1.tar+gzip", gzip.compress(content, 9, mtime=0))
    created = printed("date", "-u", "-d", f"@{DATE}", "+%Y-%m-%dT%H:%M:%SZ").strip()
    labels = {
        "org.opencontainers.image.title": "langmart-prober",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": "https://github.com/langmartai/langmart-prober",
    }
    configuration = {
        "created": created,
        "architecture": ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": environment(),
            "Entrypoint": ["/usr/bin/langmart-prober"],
            "Cmd": ["run"],
            "ExposedPorts": {"10429/tcp": {}},
            "Volumes": {f"/{STATE}": {}, f"/{LOGS}": {}},
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        "history": [{"created": created, "created_by": "packaging/container/image.py"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": blob(f"{MEDIA}.config.v1+json", text(configuration)),
        "layers": [compressed],
        "annotations": labels,
    }
    entry = blob(f"{MEDIA}.manifest.v1+json", text(manifest))
    entry["annotations"] = {
        "org.opencontainers.image.ref.name": f"localhost/langmart-prober:{version}"
    }
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [entry]}
    archive = Archive()
    archive.file("oci-layout", text({"imageLayoutVersion": "1.0.0"}))
    archive.file("index.json", text(index))
    for digest, content in sorted(blobs.items()):
        archive.file(f"blobs/sha256/{digest}", content)
    return archive.finish()


if __name__ == "__main__":
    program, stage, version, output = sys.argv[1:]
    pathlib.Path(output).write_bytes(image(program, pathlib.Path(stage), version))
