# shellcheck shell=bash
# What is slow to make and seldom changes, made once and kept outside of the checkout, named by what it is made from.
# Sourced by `lab`. Each function prints the path (or the image's name) of what it made.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-egress
mkdir -p "$CACHE"
SUITE=trixie
OPENCLAW_VERSION=2026.9.6
NODE_VERSION=24.21.0
VICTORIALOGS_VERSION=v1.51.1-0.20260624061259-dc94972a8708
HOST_PACKAGES=acl,ca-certificates,curl,dnsmasq,docker-buildx,docker-cli,docker-compose,docker.io,git,iproute2,iptables,procps
HOST_PACKAGES+=,python3,python3-brotli,python3-cffi-backend,python3-cryptography,sudo,ufw
BASE_PACKAGES=ca-certificates,git,gosu,procps,python3,python3-venv
# The gateway has a dockerd of its own.
GATEWAY_PACKAGES=$BASE_PACKAGES,docker-cli,docker.io,iptables
# As OpenClaw's documentation makes its sandbox image.
SANDBOX_PACKAGES=bash,ca-certificates,curl,git,jq,python3,ripgrep

say() { echo "lab: $*" >&2; }
key() { sha256sum | cut -c1-12; }

# rootfs NAME PACKAGES: a Debian of its own as a tar file.
rootfs() {
  local file work
  file=$CACHE/$1-$SUITE-$(echo "$2" | key).tar
  if [[ ! -f $file ]]; then
    say "debootstrap of $1 (two minutes) …"
    mkdir -p "$CACHE/debs"
    work=$(mktemp -d)
    debootstrap --variant=minbase --cache-dir="$CACHE/debs" --include="$2" "$SUITE" "$work" >"$CACHE/$1.log" 2>&1 ||
      { tail -5 "$CACHE/$1.log" >&2; return 1; }
    rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*
    tar -C "$work" -c . >"$file.new" && mv "$file.new" "$file"
    rm -rf "$work"
  fi
  echo "$file"
}

# image NAME TAR: the tar file as an image of this engine.
image() {
  local name
  name=openclaw-egress-lab-$1:$(basename "$2" .tar | key)
  docker image inspect "$name" >/dev/null 2>&1 || docker import "$2" "$name" >/dev/null
  echo "$name"
}

host_image() { image host "$(rootfs host "$HOST_PACKAGES")"; }
base_image() { image base "$(rootfs base "$BASE_PACKAGES")"; }

# What OpenClaw starts code sandboxes from, under the name that it expects.
sandbox_image() {
  local base name=openclaw-sandbox:bookworm-slim
  base=$(image sandbox "$(rootfs sandbox "$SANDBOX_PACKAGES")")
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    printf '%s\n' "FROM $base" 'RUN useradd --create-home --shell /bin/bash sandbox' 'USER sandbox' 'WORKDIR /home/sandbox' \
      'CMD ["sleep", "infinity"]' | docker build --quiet --tag "$name" - >/dev/null
  fi
  echo "$name"
}

victorialogs() {
  local file=$CACHE/victoria-logs-$VICTORIALOGS_VERSION work
  if [[ ! -x $file ]]; then
    say "building VictoriaLogs from its Go module (a minute or two) …"
    work=$(mktemp -d)
    cat >"$work/go.mod" <<MOD
module lab

go 1.26.5

require github.com/VictoriaMetrics/VictoriaLogs $VICTORIALOGS_VERSION
require github.com/VictoriaMetrics/VictoriaMetrics v1.148.8

tool github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs
MOD
    (cd "$work" && CGO_ENABLED=0 GOFLAGS=-mod=mod go build -trimpath -ldflags="-s -w" -o victoria-logs \
      github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs) >"$CACHE/victoria-logs.log" 2>&1 ||
      { tail -5 "$CACHE/victoria-logs.log" >&2; return 1; }
    mv "$work/victoria-logs" "$file"
    rm -rf "$work"
  fi
  echo "$file"
}

# The real OpenClaw with the Node that it needs: a directory with node/node_modules, app/openclaw and app/node_modules.
openclaw() {
  local directory=$CACHE/openclaw-$OPENCLAW_VERSION-node-$NODE_VERSION work
  if [[ ! -d $directory ]]; then
    say "installing OpenClaw $OPENCLAW_VERSION from npm (one to three minutes) …"
    work=$(mktemp -d -p "$CACHE")
    # npm's package of Node brings the binary; it goes first, and OpenClaw is installed with it.
    (mkdir "$work/node" "$work/app" && cd "$work/node" && npm init -y >/dev/null && npm install "node@$NODE_VERSION" &&
      cd "$work/app" && export PATH=$work/node/node_modules/.bin:$PATH && npm init -y >/dev/null &&
      npm install "openclaw@$OPENCLAW_VERSION") >"$CACHE/openclaw.log" 2>&1 ||
      { tail -5 "$CACHE/openclaw.log" >&2; return 1; }
    # OpenClaw stands at /app in its image; what it needs is found one directory up.
    mv "$work/app/node_modules/openclaw" "$work/app/openclaw"
    mv "$work" "$directory"
  fi
  echo "$directory"
}

# The proxy's locked requirements as wheels for the Python of the base image: builds in the lab have no network.
wheels() {
  local lock=../../files/addon/requirements.txt directory
  directory=$CACHE/wheels-$(key <"$lock")
  if [[ ! -d $directory ]]; then
    say "downloading the proxy's locked requirements …"
    rm -rf "$directory.new"
    ../../.venv/bin/python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
      --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none --platform manylinux_2_28_x86_64 \
      --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_34_x86_64 --platform any \
      --dest "$directory.new" --requirement "$lock" >&2
    mv "$directory.new" "$directory"
  fi
  echo "$directory"
}

# The image that the operator's Dockerfile and the proxy's begin from.
gateway_base_image() {
  local base node_and_app name
  base=$(image gateway "$(rootfs gateway "$GATEWAY_PACKAGES")") node_and_app=$(openclaw)
  name=openclaw-egress-lab-gateway-base:$(echo "$base $node_and_app" | key)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    say "making the gateway's base image …"
    # shellcheck disable=SC2016  # for the shell of the build
    printf '%s\n' "FROM $base" \
      'COPY node/node_modules /opt/node/node_modules' \
      'RUN ln -s "$(readlink -f /opt/node/node_modules/.bin/node)" /usr/local/bin/node' \
      'COPY app/node_modules /node_modules' \
      'COPY app/openclaw /app' \
      'RUN useradd --create-home --shell /bin/bash --groups docker node' \
      'RUN printf "%s\n" "#!/bin/sh" "exec node /app/openclaw.mjs \"\$@\"" >/usr/local/bin/openclaw && chmod 0755 /usr/local/bin/openclaw' |
      docker build --quiet --tag "$name" --file - "$node_and_app" >/dev/null
  fi
  echo "$name"
}

proxy_base_image() {
  local base directory name
  base=$(base_image) directory=$(wheels)
  name=openclaw-egress-lab-proxy-base:$(echo "$base $directory" | key)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    printf '%s\n' "FROM $base" 'COPY . /wheels' 'ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels' |
      docker build --quiet --tag "$name" --file - "$directory" >/dev/null
  fi
  echo "$name"
}
