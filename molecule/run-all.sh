#!/usr/bin/env bash
# Run the playbooks' tests, and every scenario on one lab. The last line is `N passed, N failed`; KEEP=1 keeps the lab.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p build
# Wide enough for Molecule not to wrap a test's output.
export LAB_KEEP=1 PY_COLORS=0 NO_COLOR=1 ANSIBLE_NOCOLOR=1 COLUMNS=240
passed=0 broken=()
molecule/lab/lab down
# These tests need no lab. They run while the lab is created, which is mostly waiting, with a longer timeout.
began=$SECONDS log=build/playbooks.log
python -m pytest --timeout 400 --numprocesses auto --dist worksteal tests/playbooks molecule/lab >"$log" 2>&1 </dev/null &
playbooks=$!
# Create the lab here, not only in a scenario's `create`, so that its progress is visible.
molecule/lab/lab up </dev/null || { kill "$playbooks" 2>/dev/null; echo "0 passed, 1 failed"; exit 1; }
result=passed
wait "$playbooks" || result=failed
tests=$(grep -oE '[0-9]+ passed' "$log" | tail -n 1 | grep -oE '[0-9]+' || echo 0)
if [[ $result == failed ]]; then
  broken+=("$log")
  tail -n 60 "$log"
fi
passed=$((passed + tests))
echo "── playbooks: $result, $tests tests, $((SECONDS - began)) s beside the lab ($log) ──"
# First the scenarios that restore the hosts. Each of the last two continues with the deployment of the previous one.
for scenario in bare_check rollback default classes network; do
  began=$SECONDS log=build/molecule-$scenario.log
  echo "── molecule test --scenario-name $scenario ──"
  result=passed
  molecule test --scenario-name "$scenario" </dev/null 2>&1 | tee "$log" |
    sed -nu 's/^INFO *\[\([a-z_]* > [a-z_]*\)\] Executing$/\1 …/p' || result=failed
  tests=$(grep -oE '[0-9]+ passed' "$log" | awk '{n += $1} END {print n + 0}')
  # A scenario without tests counts as failed.
  ((tests > 0)) || result=failed
  if [[ $result == failed ]]; then
    broken+=("$log")
    tail -n 60 "$log"
  fi
  passed=$((passed + tests))
  echo "── $scenario: $result, $tests tests, $((SECONDS - began)) s ($log) ──"
done
[[ ${KEEP:-} == 1 ]] || molecule/lab/lab down
# Repeat the failures in short: of a run of half an hour, often only the end is visible.
for log in "${broken[@]}"; do
  echo "── failures in $log:"
  grep -oE '((FAILED|ERROR) (tests|molecule)/|fatal: |[^"]*NOT MET ).*' "$log" | cut -c -240 | tail -n 8
done
echo "$passed passed, ${#broken[@]} failed"
((${#broken[@]} == 0))
