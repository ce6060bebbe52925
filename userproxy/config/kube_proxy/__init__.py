"""kube-proxy's configuration, its file and its flags, as far as it has a meaning here.

A `KubeProxyConfiguration` of kubeproxy.config.k8s.io/v1alpha1, as kubeadm keeps it in a ConfigMap, and the
flags of its command line. What has no meaning here is named in one warning, unless it is as kube-proxy has it
anyway.
"""

from __future__ import annotations

from userproxy.config.kube_proxy.fields import DANGEROUS, FIELDS, OF_BOTH, Field
from userproxy.config.kube_proxy.translate import is_ours, of_document, of_flags, warning

__all__ = ["DANGEROUS", "FIELDS", "OF_BOTH", "Field", "is_ours", "of_document", "of_flags", "warning"]
