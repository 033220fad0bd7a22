#!/usr/bin/env bash
# Run the playbooks' tests, and all scenarios on one lab. The last line of the output is `N passed, N failed` and counts tests.
# A part that fails without a failed test (in Ansible or in the lab) counts as one failed test. With KEEP=1, do not remove the lab.
# With LAB_READY=1, use the new lab that the caller created. Otherwise create the lab.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p build
# Set a large terminal width, so that Molecule does not wrap the output of tests.
export LAB_KEEP=1 PY_COLORS=0 NO_COLOR=1 ANSIBLE_NOCOLOR=1 COLUMNS=240
# List the slowest tasks of each playbook at the end of its output. Load plugins once in each playbook run, not in each task.
export ANSIBLE_CALLBACKS_ENABLED=ansible.posix.profile_tasks,preload PROFILE_TASKS_TASK_OUTPUT_LIMIT=20
export ANSIBLE_CALLBACK_PLUGINS=$PWD/tests/support/callback_plugins
scenarios=(bare_check collector rollback deployments default classes network)
passed=0 failed=0 broken=() table=() playbooks=''
trap '[[ -z $playbooks ]] || kill "$playbooks" 2>/dev/null' EXIT

# row NAME RESULT TESTS SECONDS: add a line to the table at the end of the output.
row() { table+=("$(printf '%-12s %-8s %5s %6s' "$@")"); }

# finished NAME RESULT LOG BEGAN: count the tests of a part, and show the end of its log if it failed.
finished() {
  local tests bad result=$2
  tests=$(grep -oE '[0-9]+ passed' "$3" | awk '{n += $1} END {print n + 0}')
  bad=$(grep -E '[0-9]+ (passed|failed|errors?)\>.* in [0-9.]+s' "$3" | grep -oE '[0-9]+ (failed|errors?)\>' | awk '{n += $1} END {print n + 0}')
  # A part without tests counts as failed.
  ((tests > 0)) || result=failed
  if [[ $result == failed ]]; then
    broken+=("$3")
    ((bad > 0)) || bad=1
    # Print enough lines to show the failure: the slowest tasks and Molecule's summary follow it in the log.
    tail -n 100 "$3"
  fi
  passed=$((passed + tests)) failed=$((failed + bad))
  row "$1" "$result" "$tests" $((SECONDS - $4))
  echo "── $1: $result, $tests tests, $((SECONDS - $4)) s ($3) ──"
}

[[ ${LAB_READY:-} == 1 ]] || molecule/lab/lab down
# Run the tests that need no lab in parallel with the lab and the scenarios. They have a low priority, so that they do not slow
# down the scenarios. Their timeout is therefore longer.
playbooks_began=$SECONDS playbooks_log=build/playbooks.log
nice -n 10 python -m pytest --timeout 1200 --numprocesses auto --dist worksteal --durations 15 tests/playbooks molecule/lab \
  >"$playbooks_log" 2>&1 </dev/null &
playbooks=$!
# Create the lab here instead of in a scenario's `create`, so that its progress is visible. If the lab is up, only check it.
began=$SECONDS
molecule/lab/lab up </dev/null || { echo "0 passed, 1 failed"; exit 1; }
row "lab up" passed - $((SECONDS - began))
# First run the scenarios that restore the hosts. Each of the last two scenarios needs the deployment that the scenario
# before it leaves.
for scenario in "${scenarios[@]}"; do
  began=$SECONDS log=build/molecule-$scenario.log
  echo "── molecule test --scenario-name $scenario ──"
  result=passed
  molecule test --scenario-name "$scenario" </dev/null 2>&1 | tee "$log" |
    sed -nu 's/^INFO *\[\([a-z_]* > [a-z_]*\)\] Executing$/\1 …/p' || result=failed
  finished "$scenario" "$result" "$log" "$began"
done
[[ ${KEEP:-} == 1 ]] || molecule/lab/lab down
result=passed
wait "$playbooks" || result=failed
playbooks=''
finished playbooks "$result" "$playbooks_log" "$playbooks_began"
printf '\n%-12s %-8s %5s %6s\n' part result tests seconds
printf '%s\n' "${table[@]}"
printf '%-12s %-8s %5s %6s\n\n' "whole run" '' "$passed" "$SECONDS"
echo "slowest tasks: seconds, scenario, task"
for scenario in "${scenarios[@]}"; do
  sed -nE "s/^(.*[^ -]) -+ +([0-9]+\.[0-9]+)s$/\2 $scenario \1/p" "build/molecule-$scenario.log"
done | sort -rn | head -n 30
echo
# Repeat the failures at the end, because often only the end of a long output is visible.
for log in "${broken[@]}"; do
  echo "── failures in $log:"
  grep -oE '((FAILED|ERROR) (tests|molecule)/|fatal: |[^"]*NOT MET ).*' "$log" | tail -n 8 |
    # Shorten long lines, but print their end, which contains the cause of a failed command.
    awk 'length > 900 {$0 = substr($0, 1, 300) " … " substr($0, length - 599)} {print}'
done
echo "$passed passed, $failed failed"
((${#broken[@]} == 0))
