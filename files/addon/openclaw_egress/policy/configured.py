"""Loader of the configured policy, for the proxy and the commands."""

from __future__ import annotations

from openclaw_egress.policy.host_addresses import with_host_addresses
from openclaw_egress.policy.loader import builtin_policy, load_policy
from openclaw_egress.policy.model import Policy
from openclaw_egress.settings import DEFAULT_LLM_HOSTS, Settings


def configured_policy(settings: Settings) -> Policy:
    """Return the configured policy, or the built-in policy if no policy file is set.

    The returned policy also contains the addresses of the proxy's host, so that the address guard refuses them.

    Raises:
        PolicyError: a configured file is missing or invalid.
    """
    if settings.policy_file is not None:
        policy = load_policy(settings.policy_file, settings.llm_hosts)
    else:
        policy = builtin_policy(settings.llm_hosts or DEFAULT_LLM_HOSTS)
    return with_host_addresses(policy, settings.host_addresses_file)
