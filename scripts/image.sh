#!/usr/bin/env bash
# Build the image and run what was built.   scripts/image.sh [TAG]     (default kochava-consumer:dev)
#
# Builds with Docker where its engine answers, else with buildah, which needs no engine. Without access to an image
# registry (or with STAND_IN=1), buildah builds on a stand-in for the base: Debian bookworm with its Python 3.11, made by
# debootstrap from this machine's own Debian mirror. That proves the Dockerfile, not the published base.
#   BASE=...        another base image, such as one pinned by digest
#   PIP_CONFIG=..., CA_FILE=...   how pip reaches its index here (default: this machine's); nothing of it stays in the image
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-kochava-consumer:dev}
base=${BASE:-python:3.13-slim-bookworm}
stand_in=localhost/kochava-consumer-base:bookworm
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
pip_config=${PIP_CONFIG:-/etc/pip.conf}
ca_file=${CA_FILE:-/etc/ssl/certs/ca-certificates.crt}

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The arguments that docker and buildah share.
build_arguments() {
  printf '%s\n' --build-arg "BASE=$1" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$tag"
  if [ -r "$pip_config" ]; then printf '%s\n' --secret "id=pip,src=$pip_config"; fi
  if [ -r "$ca_file" ]; then printf '%s\n' --secret "id=ca,src=$ca_file"; fi
}

make_stand_in() {
  local root container mirror
  [ "$(id -u)" = 0 ] || die "the stand-in base needs root (debootstrap); or let this machine reach an image registry"
  command -v debootstrap >/dev/null || die "no image registry, no debootstrap: apt-get install debootstrap"
  mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^[a-z]+:/) {print $i; exit}}') || true
  [ -n "$mirror" ] || die "no Debian mirror in this machine's apt sources"
  say "Making a stand-in for $base (once, about a minute)"
  root=$(mktemp -d)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" "$mirror" >/dev/null
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >/dev/null
  buildah commit --quiet --rm "$container" "$stand_in" >/dev/null
  rm -rf "$root"
}

# -- the same checks for both engines; each is given as a function `inside COMMAND...` that runs in the image

check() {
  local got status=0
  got=$(inside python -m consumer --version)
  [ "$got" = "kochava-consumer, version $version" ] || die "--version says: $got"
  echo "    --version             $got"

  got=$(inside kochava-consumer settings --example)
  [[ $got == *bootstrap_servers* ]] || die "settings --example says: $got"
  echo "    settings --example    $(wc -l <<<"$got") lines"

  inside python -m consumer run >/dev/null 2>&1 || status=$?
  [ "$status" = 3 ] || die "run without settings ends with $status, not with 3 (settings)"
  echo "    run, nothing set      refused with exit code 3"

  got=$(inside python -c 'import os; print(os.getuid(), os.getgid())')
  [ "$got" = "65532 65532" ] || die "the image runs as $got"
  echo "    user                  $got"

  got=$(inside python -c '
import os
where = []
for folder in ("/", "/opt", "/opt/kochava-consumer", "/etc", "/usr", "/tmp"):
    try:
        with open(os.path.join(folder, "probe"), "x"):
            where.append(folder)
        os.remove(os.path.join(folder, "probe"))
    except OSError:
        pass
print(*where)')
  [ "$got" = /tmp ] || die "writable: $got"
  echo "    writable              $got, nothing else"
}

with_docker() {
  mapfile -t arguments < <(build_arguments "$base")
  say "Building $tag with Docker"
  DOCKER_BUILDKIT=1 docker build "${arguments[@]}" .
  inside() {
    local entrypoint=$1
    shift
    docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --entrypoint "$entrypoint" "$tag" "$@"
  }
  say "Running it: read-only root, no capabilities"
  check
  docker image inspect --format '    size                  {{.Size}} bytes' "$tag"
}

with_buildah() {
  if [ -n "${STAND_IN:-}" ] || ! buildah pull --quiet --policy ifmissing "$base" >/dev/null 2>&1; then
    buildah inspect --type image "$stand_in" >/dev/null 2>&1 || make_stand_in
    base=$stand_in
  fi
  mapfile -t arguments < <(build_arguments "$base")
  say "Building $tag with buildah on $base"
  buildah build --isolation chroot "${arguments[@]}" .

  container=$(buildah from "$tag")
  trap 'buildah rm "$container" >/dev/null' EXIT
  mapfile -t environment < <(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$tag" | sed '/^$/d')
  user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$tag")
  if [ "$(id -u)" = 0 ]; then
    say "Running it: user $user, read-only root, a new /tmp"
    root=$(buildah mount "$container")
    inside() {  # a mount namespace of its own: nothing to undo
      unshare --mount --pid --fork sh -euc '
        root=$1 user=$2; shift 2
        mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
        mount --bind /dev "$root/dev"; mount -t tmpfs tmpfs "$root/tmp"
        exec chroot --userspec="$user" "$root" "$@"' sh "$root" "$user" env -i "${environment[@]}" "$@"
    }
  else
    say "Running it: user $user"
    inside() { buildah run --isolation chroot --user "$user" "$container" -- "$@"; }
  fi
  check
  echo "    size                  $(buildah images --format '{{.Size}}' "$tag")"
}

start=$SECONDS
if docker info >/dev/null 2>&1; then
  with_docker
elif command -v buildah >/dev/null; then
  with_buildah
else
  die "needs a running Docker, or buildah (Debian: apt-get install buildah debootstrap)"
fi
say "$tag is good ($((SECONDS - start)) s)"
