"""Fake `systemctl` that remembers which units were started and enabled, and logs its arguments."""

from pathlib import Path

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "$0.log"
for word; do case $word in *.service | *.timer) unit=$word ;; esac; done
is() { test -e "$0-$unit.$1"; }
case "$1 $2" in
"disable --now") rm -f "$0-$unit.enabled" "$0-$unit.active" ;;
"enable "*) touch "$0-$unit.enabled" ;;
"disable "*) rm -f "$0-$unit.enabled" ;;
"start "* | "restart "*) touch "$0-$unit.active" ;;
"stop "*) rm -f "$0-$unit.active" ;;
"is-enabled "*) is enabled ;;
"is-active "*) is active ;;
"show "*)
  echo LoadState=loaded
  is active && echo ActiveState=active || echo ActiveState=inactive
  is enabled && echo UnitFileState=enabled || echo UnitFileState=disabled ;;
esac
"""


def fake_systemctl(directory: Path) -> Path:
    """Write the fake into a directory. Return the file in which it logs its arguments."""
    (directory / "systemctl").write_text(SYSTEMCTL)
    (directory / "systemctl").chmod(0o755)
    return directory / "systemctl.log"
