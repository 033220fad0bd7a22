# shellcheck shell=bash
# Functions for artefacts that are slow to build and rarely change. They are cached outside of the checkout, with a hash of
# their inputs in the name. `lab` sources this file. Each function prints the path or the image name of its artefact.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/openclaw-egress
mkdir -p "$CACHE"
SUITE=trixie
OPENCLAW_VERSION=2026.9.6
NODE_VERSION=24.21.0
COLLECTOR_VERSION=v0.162.0
VICTORIALOGS_VERSION=v1.51.1-0.20260624061259-dc94972a8708
HOST_PACKAGES=acl,ca-certificates,curl,dnsmasq,docker-buildx,docker-cli,docker-compose,docker.io,git,iproute2,iptables,procps
HOST_PACKAGES+=,python3,python3-brotli,python3-cffi-backend,python3-cryptography,sudo,ufw
BASE_PACKAGES=ca-certificates,git,gosu,procps,python3,python3-venv
# The gateway's image also needs the packages for the gateway's own dockerd.
GATEWAY_PACKAGES=$BASE_PACKAGES,docker-cli,docker.io,iptables
# Packages of the sandbox image in OpenClaw's documentation, and packages that operators typically add.
SANDBOX_PACKAGES=bash,ca-certificates,curl,git,jq,python3,python3-pip,ripgrep
BROWSER_PACKAGES="chromium socat"
INTERNET_PACKAGES="docker-registry nginx python3-websockets"
# Files that the lab does not need: documentation, and graphics drivers that Chromium is configured not to use.
LEFT_OUT=(/usr/share/{doc,info,locale,man}/'*' '/usr/share/icons/*/cursors/*' '/usr/lib/*/lib'{LLVM,gallium,z3}'*' '/usr/lib/chromium/libVkLayer*')

say() { echo "lab: $*" >&2; }
key() { sha256sum | cut -c1-12; }

# rootfs NAME PACKAGES: make a Debian root file system as a tar file.
rootfs() {
  local file work
  file=$CACHE/$1-$SUITE-$(echo "$2" | key).tar
  if [[ ! -f $file ]]; then
    say "debootstrap of $1 (two minutes) …"
    mkdir -p "$CACHE/debs"
    work=$(mktemp -d)
    # Do not let dpkg sync to the disk after each package, because an interrupted build starts again from the beginning
    # anyway.
    mkdir -p "$work/etc/dpkg/dpkg.cfg.d"
    echo force-unsafe-io >"$work/etc/dpkg/dpkg.cfg.d/lab"
    debootstrap --variant=minbase --cache-dir="$CACHE/debs" --include="$2" "$SUITE" "$work" >"$CACHE/$1.log" 2>&1 ||
      { tail -5 "$CACHE/$1.log" >&2; return 1; }
    rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/* "$work/etc/dpkg/dpkg.cfg.d/lab"
    tar -C "$work" -c . >"$file.new" && mv "$file.new" "$file"
    rm -rf "$work"
  fi
  echo "$file"
}

# layer NAME ROOTFS PACKAGES: make a tar file with the files that these packages add to a root file system.
layer() {
  local file work
  file=$CACHE/$1-$(echo "$2 $3 ${LEFT_OUT[*]}" | key).tar
  if [[ ! -f $file ]]; then
    say "installing $3 for $1 (half a minute) …"
    work=$(mktemp -d)
    tar -C "$work" -xf "$2"
    { echo force-unsafe-io && printf 'path-exclude=%s\n' "${LEFT_OUT[@]}"; } >"$work/etc/dpkg/dpkg.cfg.d/lab"
    # Start no service during the installation.
    printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
    chmod 0755 "$work/usr/sbin/policy-rc.d"
    # Wait longer than the resolution of the file system's timestamps, so that all later changes have a newer timestamp.
    sleep 0.1
    touch "$work.began"
    # shellcheck disable=SC2086  # Split $3 into several package names.
    (chroot "$work" apt-get update -qq && DEBIAN_FRONTEND=noninteractive chroot "$work" \
      apt-get install --yes -qq --no-install-recommends -o APT::Sandbox::User=root $3) >"$CACHE/$1.log" 2>&1 ||
      { tail -5 "$CACHE/$1.log" >&2; return 1; }
    # Select files by change time (ctime), because dpkg sets modification times to those stored in the package.
    (cd "$work" && find . -xdev -cnewer "$work.began" ! -path './var/cache/*' ! -path './var/lib/apt/*' ! -path './var/log/*' -print0 |
      tar --null --no-recursion --files-from - -c) >"$file.new" && mv "$file.new" "$file"
    rm -rf "$work" "$work.began"
  fi
  echo "$file"
}

# image NAME TAR: import the tar file as an image.
image() {
  local name
  name=openclaw-egress-lab-$1:$(basename "$2" .tar | key)
  docker image inspect "$name" >/dev/null 2>&1 || docker import "$2" "$name" >/dev/null
  echo "$name"
}

host_image() { image host "$(rootfs host "$HOST_PACKAGES")"; }
base_image() { image base "$(rootfs base "$BASE_PACKAGES")"; }

sandbox_rootfs() { rootfs sandbox "$SANDBOX_PACKAGES"; }

# on_top NAME IMAGE LAYER [FILE] <DOCKERFILE: build an image from an image, a layer (layer.tar) and optionally a file.
on_top() {
  local name work dockerfile
  dockerfile=$(cat)
  name=openclaw-egress-lab-$1:$({ echo "$2 $(basename "$3") $dockerfile"; cat "${@:4}" </dev/null; } | key)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    say "building the image $name …"
    work=$(mktemp -d)
    cp "$3" "$work/layer.tar"
    (($# < 4)) || cp "$4" "$work"
    printf '%s\n' "FROM $2" "$dockerfile" | docker build --quiet --tag "$name" --file - "$work" >/dev/null
    rm -rf "$work"
  fi
  echo "$name"
}

# The image of OpenClaw's code sandboxes. `browser_image` adds Chromium to the same base.
sandbox_image() {
  local base name
  base=$(image sandbox "$(sandbox_rootfs)")
  name=openclaw-egress-lab-sandbox-made:$(echo "$base" | key)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    printf '%s\n' "FROM $base" 'RUN useradd --create-home --shell /bin/bash sandbox' 'USER sandbox' 'WORKDIR /home/sandbox' \
      'CMD ["sleep", "infinity"]' | docker build --quiet --tag "$name" - >/dev/null
  fi
  echo "$name"
}

browser_image() {
  local rootfs base layer
  rootfs=$(sandbox_rootfs)
  base=$(image sandbox "$rootfs")
  layer=$(layer browser "$rootfs" "$BROWSER_PACKAGES")
  # OpenClaw requires this label before it starts a browser from an image.
  on_top browser-made "$base" "$layer" browser/entrypoint.sh <<'DOCKERFILE'
ADD layer.tar /
COPY entrypoint.sh /usr/local/bin/sandbox-browser
RUN useradd --create-home --shell /bin/bash sandbox
LABEL org.openclaw.sandbox-browser.contract=2026-05-12-cdp-relay-auth
USER sandbox
WORKDIR /home/sandbox
EXPOSE 9222
ENTRYPOINT ["sandbox-browser"]
DOCKERFILE
}

# trusting NAME IMAGE CA: build the image NAME from IMAGE with an additional trusted CA, as an operator with a private CA does.
trusting() {
  local work
  work=$(mktemp -d)
  cp "$3" "$work/ca.crt"
  # Write a policy file for Chromium, because only such a file makes Chromium trust a CA for all users.
  mkdir "$work/policies"
  printf '{"CACertificates": ["%s"]}\n' "$(openssl x509 -in "$3" -outform DER | base64 -w0)" >"$work/policies/ca.json"
  docker build --quiet --tag "$1" --file - "$work" >/dev/null <<DOCKERFILE
FROM $2
USER root
COPY ca.crt /usr/local/share/ca-certificates/internet.crt
COPY policies /etc/chromium/policies/managed
RUN update-ca-certificates
USER sandbox
DOCKERFILE
  rm -rf "$work"
}

# Image of the host that serves the fake internet.
internet_image() {
  local rootfs base layer
  rootfs=$(rootfs host "$HOST_PACKAGES")
  base=$(image host "$rootfs")
  layer=$(layer internet "$rootfs" "$INTERNET_PACKAGES")
  on_top internet "$base" "$layer" <<'DOCKERFILE'
ADD layer.tar /
DOCKERFILE
}

# Content of the fake internet's image registry: lab/hello:1, a Debian with pip.
registry() {
  local base directory container port
  base=$(image sandbox "$(sandbox_rootfs)")
  directory=$CACHE/registry-$(echo "$base" | key)
  if [[ ! -d $directory ]]; then
    say "pushing lab/hello:1 into the registry …"
    mkdir -p "$directory.new"
    container=$(docker run --detach --publish 127.0.0.1::5000 --volume "$directory.new:/srv/registry" --volume "$PWD/internet:/lab:ro" \
      --env REGISTRY_HTTP_ADDR=:5000 --env REGISTRY_STORAGE_MAINTENANCE='{"readonly": {"enabled": false}}' \
      "$(internet_image)" docker-registry serve /lab/registry.yml)
    port=$(docker port "$container" 5000 | head -n 1)
    # Set PIP_BREAK_SYSTEM_PACKAGES, because otherwise Debian's Python refuses `pip install` outside a virtual environment.
    printf '%s\n' "FROM $base" 'ENV PIP_BREAK_SYSTEM_PACKAGES=1' 'CMD ["python3"]' |
      docker build --quiet --tag "$port/lab/hello:1" - >/dev/null
    docker push --quiet "$port/lab/hello:1" >&2
    docker rm --force "$container" >/dev/null
    docker rmi "$port/lab/hello:1" >/dev/null
    mv "$directory.new" "$directory"
  fi
  echo "$directory"
}

# Content of the fake internet's other servers: an index with the package lab-hello (PEP 503), and the repository
# hello.git.
sites() {
  local directory work python
  directory=$CACHE/sites-$(cat internet/hello/* | key)
  python=$(readlink -f ../../.venv)/bin/python
  if [[ ! -d $directory ]]; then
    work=$(mktemp -d)
    mkdir -p "$work/packages/simple/lab-hello" "$work/git"
    cp -R internet/hello "$work/hello"
    (cd "$work/packages" && "$python" -m build --wheel --no-isolation --outdir simple/lab-hello "$work/hello" &&
      page() { printf '<!doctype html><title>%s</title>\n' "packages.example.com$1" >".$1index.html"; } && page / && page /simple/ &&
      page /simple/lab-hello/ && echo '<a href="simple/">simple</a>' >>index.html && echo '<a href="lab-hello/">lab-hello</a>' >>simple/index.html &&
      cd simple/lab-hello && for wheel in *.whl; do echo "<a href=\"$wheel\">$wheel</a>"; done >>index.html) >"$CACHE/sites.log" 2>&1 ||
      { tail -5 "$CACHE/sites.log" >&2; return 1; }
    git -C "$work/hello" init --quiet
    git -C "$work/hello" add pyproject.toml lab_hello.py
    git -C "$work/hello" -c user.name=lab -c user.email=lab@example.com commit --quiet --message hello
    git clone --quiet --bare "$work/hello" "$work/git/hello.git"
    # Write the info files that Git needs to clone from a static file server.
    git -C "$work/git/hello.git" update-server-info
    rm -rf "$work/hello"
    chmod 0755 "$work"
    mv "$work" "$directory"
  fi
  echo "$directory"
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

# The OpenTelemetry Collector with the components that collector.yaml lists.
collector() {
  local manifest file work
  manifest=$(readlink -f "${BASH_SOURCE[0]%/*}/collector.yaml")
  file=$CACHE/otelcol-$COLLECTOR_VERSION-$(key <"$manifest")
  if [[ ! -x $file ]]; then
    say "building the OpenTelemetry Collector from its Go modules (two minutes) …"
    work=$(mktemp -d)
    # Omit the start of the document, because the builder reads only the first document of the file.
    { printf 'dist:\n  name: otelcol\n  output_path: %s/made\n' "$work" && grep -vx -- --- "$manifest"; } >"$work/builder.yaml"
    (cd "$work" && export CGO_ENABLED=0 GOBIN=$work && go install "go.opentelemetry.io/collector/cmd/builder@$COLLECTOR_VERSION" &&
      ./builder --config builder.yaml --ldflags="-s -w") >"$CACHE/otelcol.log" 2>&1 || { tail -5 "$CACHE/otelcol.log" >&2; return 1; }
    mv "$work/made/otelcol" "$file"
    rm -rf "$work"
  fi
  echo "$file"
}

# A directory with the real OpenClaw and Node: node/node_modules, app/openclaw and app/node_modules.
openclaw() {
  local directory=$CACHE/openclaw-$OPENCLAW_VERSION-node-$NODE_VERSION work
  if [[ ! -d $directory ]]; then
    say "installing OpenClaw $OPENCLAW_VERSION from npm (one to three minutes) …"
    work=$(mktemp -d -p "$CACHE")
    # Install Node from npm first, because OpenClaw is then installed with this Node.
    (mkdir "$work/node" "$work/app" && cd "$work/node" && npm init -y >/dev/null && npm install "node@$NODE_VERSION" &&
      cd "$work/app" && export PATH=$work/node/node_modules/.bin:$PATH && npm init -y >/dev/null &&
      npm install "openclaw@$OPENCLAW_VERSION") >"$CACHE/openclaw.log" 2>&1 ||
      { tail -5 "$CACHE/openclaw.log" >&2; return 1; }
    # Move OpenClaw out of node_modules, because it is in /app in OpenClaw's own image. Node also searches the parent
    # directory for its dependencies.
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

# The base image for two Dockerfiles: the operator's and the proxy's.
gateway_base_image() {
  local base node_and_app name
  base=$(image gateway "$(rootfs gateway "$GATEWAY_PACKAGES")") node_and_app=$(openclaw)
  name=openclaw-egress-lab-gateway-base:$(echo "$base $node_and_app" | key)
  if ! docker image inspect "$name" >/dev/null 2>&1; then
    say "building the gateway's base image …"
    # shellcheck disable=SC2016  # The shell of the build expands this.
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
