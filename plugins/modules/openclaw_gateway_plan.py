#!/usr/bin/python
# Copyright (c) openclaw.egress maintainers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: openclaw_gateway_plan
short_description: Compute the settings that send OpenClaw's gateway through the proxy
version_added: 0.1.0
author:
  - openclaw.egress maintainers (@openclaw)
description:
  - Computes the settings of the gateway's service in our own compose file, from the project's compose configuration,
    the configuration of the image, and the running container. Changes nothing and starts no program.
  - Checks the configuration with resolved variables. Takes the settings from the configuration without resolved
    variables, so that secrets stay in C(.env).
  - Returns problems instead of failing, each with a code and a remedy, so that a role can report all of them at once.
attributes:
  check_mode:
    support: full
    description: The module changes nothing.
  diff_mode:
    support: none
    description: The module changes nothing.
  idempotent:
    support: full
    description: The same options give the same plan.
options:
  uninterpolated:
    description:
      - The project as C(docker compose config --no-interpolate --format json) prints it, without our own compose file.
      - If empty, the plan writes no command of the operator, and the bootstrap is loaded with C(NODE_OPTIONS). Compose
        2.26 cannot print some projects without resolving their variables.
    type: dict
    default: {}
  interpolated:
    description: The project as C(docker compose config --format json) prints it. Required without O(uninterpolated).
    type: dict
    default: {}
  image_config:
    description: C(Config) of C(docker image inspect). Empty if the image does not exist.
    type: dict
    default: {}
  container:
    description: Output of C(docker inspect) for the gateway's container. Empty if there is no container.
    type: dict
    default: {}
  service:
    description: Name of the gateway's service.
    type: str
    default: openclaw-gateway
  instance:
    description: The gateway's name if the host has several gateways.
    type: str
    default: ""
  compose_dir:
    description: Directory of the compose project.
    type: path
    required: true
  compose_files:
    description: The compose files in effect without ours, in Compose's order.
    type: list
    elements: path
    default: []
  compose_file:
    description: Our own compose file.
    type: path
    required: true
  env_file:
    description: The project's C(.env) file, which remedies mention.
    type: path
    required: true
  image:
    description: The gateway's image. If empty, the image of the service.
    type: str
    default: ""
  bootstrap:
    description:
      - How the bootstrap is installed in the gateway. V(image) copies it when the image is built. V(mount) mounts it.
    type: str
    choices: [image, mount]
    default: image
  enforcement:
    description: Enforcement level, as O(openclaw.egress.openclaw_gateway#role:main:openclaw_gateway_enforcement).
    type: str
    choices: [application, network]
    default: application
  sandbox_daemon:
    description:
      - Docker daemon that runs the sandboxes, as
        O(openclaw.egress.openclaw_gateway#role:main:openclaw_gateway_sandbox_daemon).
    type: str
    choices: [auto, host, nested]
    default: auto
  daemon_seen:
    description:
      - Whether the Docker daemon that the running gateway uses is the host's. V(same), V(other), or empty if the two
        were not compared.
    type: str
    choices: ["", same, other]
    default: ""
  proxy_url:
    description: URL of the proxy's listener for the class gateway.
    type: str
    default: http://openclaw-proxy:8080
  proxy_network:
    description: Docker's name of the network that the proxy is on.
    type: str
    default: openclaw-gateway-net
  proxy_address:
    description: The proxy's address on O(proxy_network).
    type: str
    default: 172.30.0.250
  upstream_proxy:
    description:
      - URL of the network's HTTP proxy, which the egress proxy uses. The plan accepts this proxy in the operator's
        variables and overrides them.
    type: str
    default: ""
  direct_hosts:
    description: Literal hosts for C(NO_PROXY).
    type: list
    elements: str
    default: []
  no_proxy:
    description: Additional destinations for C(NO_PROXY).
    type: list
    elements: str
    default: []
  inner_subnet:
    description: IPv4 subnet of the internal network of enforcement level C(network).
    type: str
    default: 172.31.250.0/24
  shared_port:
    description: The shared proxy port of enforcement level C(network).
    type: str
    default: "3128"
  classes:
    description: The classes of the policy.
    type: dict
    default: {}
seealso:
  - module: openclaw.egress.build_patch
"""

EXAMPLES = r"""
- name: Read the compose configuration
  ansible.builtin.command:
    argv: [docker, compose, config, --format, json]
    chdir: /home/openclaw/openclaw
  register: compose
  changed_when: false
  no_log: true

- name: Compute the gateway's settings
  openclaw.egress.openclaw_gateway_plan:
    interpolated: "{{ compose.stdout | from_json }}"
    compose_dir: /home/openclaw/openclaw
    compose_file: /home/openclaw/openclaw/docker-compose.egress.yml
    env_file: /home/openclaw/openclaw/.env
    bootstrap: mount
  register: plan
  no_log: true

- name: Stop at a problem
  ansible.builtin.assert:
    that: plan.problems | length == 0
    fail_msg: "{{ plan.problems | map(attribute='message') }}"
"""

RETURN = r"""
problems:
  description: Problems that prevent the deployment. If there is one, the other values are incomplete.
  returned: success
  type: list
  elements: dict
  contains: &problem
    code:
      description: >-
        A stable code. Codes: C(bootstrap-hidden), C(command-unreadable), C(daemon-unknown), C(docker-host),
        C(docker-socket), C(environment-cleared), C(host-docker), C(local-service), C(name-taken), C(network-mode),
        C(no-image), C(no-node), C(no-proxy-all), C(no-service), C(only-interpolated), C(other-command),
        C(other-daemon), C(other-directory), C(other-entrypoint), C(other-files), C(other-image), C(other-project),
        C(other-proxy), C(other-service), C(user), C(variable-overridden).
      type: str
      sample: other-proxy
    found:
      description: The problem.
      type: str
      sample: openclaw-gateway has a proxy already
    where:
      description: The setting or label that causes the problem.
      type: str
      sample: services.openclaw-gateway.environment
    remedy:
      description: How the operator can fix the problem.
      type: str
      sample: Remove these variables.
    level:
      description: The enforcement level that the problem prevents.
      type: str
      sample: application
    message:
      description: Setting, problem and remedy in one text.
      type: str
      sample: "services.openclaw-gateway.environment: openclaw-gateway has a proxy already. Remove these variables."
warnings_found:
  description: Problems that limit what the proxy covers, but do not prevent the deployment.
  returned: success
  type: list
  elements: dict
  contains: *problem
workdir:
  description: The working directory of the gateway.
  returned: success
  type: str
  sample: /app
bootstrap:
  description: The path of the bootstrap in the gateway.
  returned: success
  type: str
  sample: /app/proxy-bootstrap.cjs
loaded_by:
  description: The setting that loads the bootstrap. One of C(command), C(entrypoint) and C(NODE_OPTIONS).
  returned: success
  type: str
  sample: command
command:
  description: The command, a list or a string. None if the operator's command stays.
  returned: success
  type: raw
  sample: [node, --require, ./proxy-bootstrap.cjs, dist/index.js, gateway]
entrypoint:
  description: The entrypoint. None if the operator's entrypoint stays.
  returned: success
  type: list
  elements: str
  sample: [/usr/bin/node, --require, ./proxy-bootstrap.cjs]
environment:
  description: The environment variables.
  returned: success
  type: dict
  sample: {HTTPS_PROXY: "http://openclaw-proxy:8080"}
networks:
  description: Networks to add. None if there are none.
  returned: success
  type: dict
  sample: {openclaw-gateway-net: {}}
ca:
  description: The path of the operator's own C(NODE_EXTRA_CA_CERTS) in the gateway. Empty if there is none.
  returned: success
  type: str
  sample: /certs/corp.pem
ca_on_host:
  description: The file on the host that is mounted at RV(ca). Empty if it is in the image or in a named volume.
  returned: success
  type: str
  sample: /etc/ssl/corp.pem
own_networks:
  description: The networks of the operator's service.
  returned: success
  type: dict
  sample: {default: {}}
ports:
  description: The ports of the operator's service.
  returned: success
  type: list
  elements: raw
  sample: ["127.0.0.1:18789:18789"]
class_networks:
  description: C(NETWORK:BRIDGE=PORT) for each class with a network in the nested daemon (enforcement level C(network)).
  returned: success
  type: list
  elements: str
  sample: ["bridge:docker0=8083"]
siblings:
  description:
    - The setting by which the gateway reaches the host's Docker daemon, where its sandboxes are its siblings. Empty if
      they run in a nested daemon.
  returned: success
  type: str
  sample: services.openclaw-gateway.volumes
fingerprint:
  description: A hash of the operator's settings that the plan replaces.
  returned: success
  type: str
  sample: 3f8a0d9c7b21
"""

import os

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openclaw.egress.plugins.module_utils.gateway_plan import Options, make_plan

OPTIONS: dict[str, dict[str, Any]] = {
    "service": {"type": "str", "default": "openclaw-gateway"},
    "instance": {"type": "str", "default": ""},
    "compose_dir": {"type": "path", "required": True},
    "compose_files": {"type": "list", "elements": "path", "default": []},
    "compose_file": {"type": "path", "required": True},
    "env_file": {"type": "path", "required": True},
    "image": {"type": "str", "default": ""},
    "bootstrap": {"type": "str", "choices": ["image", "mount"], "default": "image"},
    "enforcement": {"type": "str", "choices": ["application", "network"], "default": "application"},
    "sandbox_daemon": {"type": "str", "choices": ["auto", "host", "nested"], "default": "auto"},
    "daemon_seen": {"type": "str", "choices": ["", "same", "other"], "default": ""},
    "proxy_url": {"type": "str", "default": "http://openclaw-proxy:8080"},
    "proxy_network": {"type": "str", "default": "openclaw-gateway-net"},
    "proxy_address": {"type": "str", "default": "172.30.0.250"},
    "upstream_proxy": {"type": "str", "default": ""},
    "direct_hosts": {"type": "list", "elements": "str", "default": []},
    "no_proxy": {"type": "list", "elements": "str", "default": []},
    "inner_subnet": {"type": "str", "default": "172.31.250.0/24"},
    "shared_port": {"type": "str", "default": "3128"},
    "classes": {"type": "dict", "default": {}},
}
CONFIGURATIONS = ("uninterpolated", "interpolated", "image_config", "container")


def main() -> None:
    argument_spec = dict(OPTIONS)
    for name in CONFIGURATIONS:
        argument_spec[name] = {"type": "dict", "default": {}}
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True)
    params = module.params
    if not params["uninterpolated"] and not params["interpolated"]:
        module.fail_json(msg="set uninterpolated or interpolated: the output of `docker compose config --format json`")
    given = {name: params[name] or None for name in CONFIGURATIONS}
    plan = make_plan(
        uninterpolated=given["uninterpolated"],
        interpolated=given["interpolated"],
        image=given["image_config"],
        container=given["container"],
        options=Options(**{name: params[name] for name in OPTIONS}),
        real=os.path.realpath,
    ).as_dict()
    # Rename the key, because Ansible treats a return value named `warnings` as its own warnings.
    plan["warnings_found"] = plan.pop("warnings")
    module.exit_json(changed=False, **plan)


if __name__ == "__main__":
    main()
