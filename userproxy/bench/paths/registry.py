"""Which paths there are, in the order of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userproxy.bench.paths.kernel import DirectPath, IptablesRulesPath
from userproxy.bench.paths.kube_proxy import (
    KubeProxyIptablesPath,
    KubeProxyNftablesPath,
    KubeProxyPath,
    KubeProxyUserspacePath,
)
from userproxy.bench.paths.relays import HaproxyPath, NginxPath
from userproxy.bench.paths.userproxy import RedirectToHostPath, RedirectToPodPath, SteeredPath

if TYPE_CHECKING:
    from userproxy.bench.paths.apiserver import ApiServer
    from userproxy.bench.paths.base import Path
    from userproxy.bench.site import Site

PATHS: tuple[type[Path], ...] = (
    DirectPath,
    RedirectToHostPath,
    RedirectToPodPath,
    SteeredPath,
    KubeProxyIptablesPath,
    KubeProxyNftablesPath,
    IptablesRulesPath,
    KubeProxyUserspacePath,
    HaproxyPath,
    NginxPath,
)
NAMES = tuple(path.name for path in PATHS)

INSTEAD = {KubeProxyIptablesPath.name: IptablesRulesPath.name}
"""What is measured in the place of a path that is not installed."""

DEFAULT_NAMES = tuple(name for name in NAMES if name not in INSTEAD.values())


def build(name: str, site: Site, cluster: ApiServer) -> Path:
    """The path of that name, at a site.

    Raises:
        KeyError: there is none of that name.
    """
    kind = {path.name: path for path in PATHS}[name]
    return kind(site, cluster) if issubclass(kind, KubeProxyPath) else kind(site)
