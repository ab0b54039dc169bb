"""Pin the digests of container images that others publish: `make digests`.

Each `image:` and `FROM` with a tag gets the digest that its registry has for this tag now, so that later builds and pulls use exactly
this image. Needs Docker (`docker buildx imagetools inspect`). Our own images, which have no registry here, stay as they are.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("docker-compose.yml", "deploy/Dockerfile", "deploy/chart/values.yaml")
IMAGE = re.compile(
    r"^(?P<before>\s*image: |FROM )(?P<name>(?!enginehouse)[\w./-]+:[\w.-]+)(?:@sha256:[0-9a-f]{64})?(?=\s|$)", re.MULTILINE
)


def main() -> None:
    """Rewrite the files, and print each image with its digest."""
    digests: dict[str, str] = {}
    for path in map(ROOT.joinpath, FILES):
        text = path.read_text()
        for match in IMAGE.finditer(text):
            name = match["name"]
            digests.setdefault(name, digest_of(name))
        path.write_text(IMAGE.sub(lambda match: f"{match['before']}{match['name']}@{digests[match['name']]}", text))
    for name, digest in digests.items():
        print(f"{name}@{digest}")


def digest_of(image: str) -> str:
    """The digest of an image in its registry. Exits if Docker cannot read it."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit("Docker is not installed; it reads the digests from the registry.")
    digest = done.stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        sys.exit(f"{image}: its digest could not be read: {done.stderr.strip() or digest}")
    return digest


if __name__ == "__main__":
    main()
