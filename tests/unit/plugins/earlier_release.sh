#!/usr/bin/env bash
# Builds openclaw:local out of the clone.
set -euo pipefail

CLONE="${CLONE:-/home/openclaw/openclaw}"

# ── 1. Sources ────────────────────────────────────────────────────────────
cd "$CLONE"

# ── 2. Patches ────────────────────────────────────────────────────────────
if ! grep -q 'docker.io' Dockerfile; then
	sed -i '/^USER node$/i RUN echo docker.io gosu' Dockerfile
fi
grep -q 'patched' extensions/a.ts || sed -i 's/plain/patched/' extensions/a.ts

# ── 3. Build ──────────────────────────────────────────────────────────────
echo "docker build of openclaw:local"
# ── openclaw.egress: begin 2d7b92438337 ─────────────────────────────────────
# Written by the Ansible module openclaw.egress.build_patch, removed by its `state: absent`; edits are lost.
# Each `docker build` below finds proxy-bootstrap.cjs in its context, and in its Dockerfile the line that copies it
# beside the app. When the build has ended, well or badly, both are taken back before this script goes on.
docker() { openclaw_egress_run docker "$@"; }
openclaw_egress_run() {
  openclaw_egress_status=0
  (
    bootstrap=/home/openclaw/openclaw-egress/proxy-config/proxy-bootstrap.cjs
    fixed_context=''
    context='' dockerfile='' target='' state=before value_of=''
    say() { printf 'openclaw.egress: %s\n' "$1" >&2; }

    for word in "$@"; do
      if [ -n "$value_of" ]; then
        case $value_of in file) dockerfile=$word ;; target) target=$word ;; esac
        value_of=''
        continue
      fi
      case $state:$word in
        before:docker) state=docker ;;
        before:*) ;;
        docker:build) state=build ;;
        docker:buildx | docker:builder | docker:image | docker:-*=* | docker:-D | docker:--debug | docker:--tls*) ;;
        docker:-*) value_of=other ;;
        docker:*) state=other ;;
        build:-f | build:--file) value_of=file ;;
        build:-f=* | build:--file=*) dockerfile=${word#*=} ;;
        build:-f*) dockerfile=${word#-f} ;;
        build:--target) value_of=target ;;
        build:--target=*) target=${word#*=} ;;
        build:--*=* | build:--no-cache | build:--pull | build:--rm | build:--force-rm | build:--quiet | build:-q) ;;
        build:--load | build:--push | build:--squash | build:--compress | build:--check | build:--debug | build:-D) ;;
        build:--disable-content-trust | build:--) ;;
        build:-) context=- ;;
        build:-? | build:--*) value_of=other ;;
        build:-*) ;;
        build:*) context=$word ;;
      esac
    done
    case $state:${dockerfile##*/} in
      build:*sandbox*) state=skip ;;
    esac
    if [ "$state" != build ]; then
      command "$@"
      exit
    fi

    [ -z "$fixed_context" ] || context=$fixed_context
    if [ ! -d "$context" ] || [ "$dockerfile" = - ]; then
      say "docker build: '$context' is no directory to put proxy-bootstrap.cjs into; set context_dir of build_patch"
      exit 1
    fi
    dockerfile=${dockerfile:-$context/Dockerfile}
    if [ ! -f "$dockerfile" ]; then # docker's own message is the right one
      command "$@"
      exit
    fi
    if [ ! -r "$bootstrap" ]; then
      say "$bootstrap is missing, or not readable by $(id -un)"
      say "run the playbook site.yml again, or take this section out (build_patch, state: absent)"
      exit 1
    fi

    copy=$context/proxy-bootstrap.cjs
    without_ours() { sed -e '\|^# openclaw.egress: proxy-bootstrap.cjs, here for the time of this build only$|d' -e '\|^COPY --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs$|d' "$1"; }
    trap : HUP INT TERM # docker gets the signal; this shell lives on to tidy up
    saved=$(mktemp -d) || exit 1
    # An untracked file of this name is left over from a killed build, so it is not saved.
    if git -C "$context" ls-files --error-unmatch proxy-bootstrap.cjs >/dev/null 2>&1 && [ -f "$copy" ]; then
      cp -p "$copy" "$saved/bootstrap" || exit 1
    fi
    cp -p "$dockerfile" "$saved/Dockerfile" && cp -p "$dockerfile" "$saved/patched" || exit 1
    if grep -q '^# openclaw.egress: proxy-bootstrap.cjs, here for the time of this build only$' "$dockerfile"; then
      without_ours "$dockerfile" >|"$saved/Dockerfile" || exit 1
    fi
    if ! grep -q 'proxy-bootstrap\.cjs' "$saved/Dockerfile"; then
      LC_ALL=C awk -v target="$target" -v mark='# openclaw.egress: proxy-bootstrap.cjs, here for the time of this build only' -v copy='COPY --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs' '
        # The line goes into the stage that becomes the image: behind its last WORKDIR, before its last USER or its CMD.
        { line[NR] = $0 }
        END {
          escape = "\\\\"; stages = 0; here = ""; open = 0; chosen = 0
          for (i = 1; i <= NR; i++) {
            text = line[i]; sub(/\r$/, "", text)
            if (here != "") { sub(/^\t+/, "", text); if (text == here) here = ""; continue }
            if (!stages && tolower(text) ~ /^#[ \t]*escape[ \t]*=[ \t]*`/) escape = "`"
            if (text ~ /^[ \t]*(#|$)/) continue
            if (!open) {
              n = split(text, part, /[ \t]+/); k = (part[1] == "") ? 2 : 1; word = toupper(part[k])
              if (word == "FROM") {
                if (chosen) break
                stages++; user = 0; start = 0
                alias = (n > 2 && toupper(part[n - 1]) == "AS") ? tolower(part[n]) : ""
                if (target != "" && (alias == tolower(target) || target == stages - 1 "")) chosen = 1
              } else if (word == "WORKDIR") { user = 0; start = 0 }
              else if (word == "USER") user = i
              else if ((word == "CMD" || word == "ENTRYPOINT") && !start) start = i
            }
            open = (text ~ (escape "[ \t]*$"))
            if (word ~ /^(RUN|COPY|ADD)$/ && match(text, /(^|[ \t])[0-9]*<<-?["\047]?[A-Za-z_][A-Za-z0-9_]*/)) {
              here = substr(text, RSTART, RLENGTH); sub(/^[ \t]*[0-9]*<<-?["\047]?/, "", here)
            }
          }
          if (!stages) exit 3
          at = user ? user : (start ? start : i)
          for (j = 1; j <= NR; j++) {
            if (j == at) { print mark; print copy }
            print line[j]
          }
          if (at > NR) { print mark; print copy }
        }' "$saved/Dockerfile" >|"$saved/patched"
      if [ $? -ne 0 ]; then
        say "$dockerfile has no FROM line to follow"
        rm -rf "$saved"
        exit 1
      fi
    fi

    status=1
    if rm -f "$copy" && cp "$bootstrap" "$copy" && chmod 0644 "$copy" && cp "$saved/patched" "$dockerfile"; then
      command "$@"
      status=$?
    fi
    if cmp -s "$saved/patched" "$dockerfile" || [ ! -f "$dockerfile" ]; then
      cp -p "$saved/Dockerfile" "$dockerfile" || status=1
    else # someone wrote to it while it was being built: theirs stays
      without_ours "$dockerfile" >|"$saved/Dockerfile" && cp "$saved/Dockerfile" "$dockerfile" || status=1
    fi
    rm -f "$copy" || status=1
    [ ! -f "$saved/bootstrap" ] || cp -p "$saved/bootstrap" "$copy" || status=1
    rm -rf "$saved"
    exit "$status"
  ) || openclaw_egress_status=$?
  return "$openclaw_egress_status"
}
# ── openclaw.egress: end ────────────────────────────────────────────────────

docker build -t openclaw:local .

# ── 4. Restore ────────────────────────────────────────────────────────────
git checkout -- Dockerfile extensions/ 2>/dev/null || true
echo "done"
