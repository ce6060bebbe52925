"""Steered: netfilter sends the packets straight to a pod, which a steering process chooses.

It is redirect to pod, with the pods told to whoever chooses: what a listener has to relay is the same, and so
are the rules while nobody chooses. Whoever does has clients wait for endpoints, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from userproxy.model.service import Path, Protocol
from userproxy.model.snapshot import Problem
from userproxy.model.state import Drop, Frontend, Steer, ToListener, ToPods
from userproxy.model.steering import MOST_PODS
from userproxy.planner.context import path_of
from userproxy.planner.entries import pools_of
from userproxy.planner.paths import to_pod
from userproxy.planner.paths.to_host import leaving, unchecked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from userproxy.model.address import Address
    from userproxy.model.service import PoolName, ServicePort, ServicePortName
    from userproxy.model.snapshot import Snapshot
    from userproxy.model.state import Target
    from userproxy.planner.context import PlanContext
    from userproxy.planner.outcome import Outcome, Traffic
    from userproxy.planner.topology import Choice


def listeners_of(service: ServicePort, context: PlanContext) -> tuple[PoolName, ...]:
    """The pools of a Service port that need a listener of ours: as on the path redirect-to-pod."""
    return to_pod.listeners_of(service, context)


def outcome_of(traffic: Traffic) -> Outcome:
    """What a Service port comes to: captures that ask first, and what whoever is asked must know."""
    if not traffic.context.queues:  # of which the control side tells, once for all
        return to_pod.outcome_of(traffic)
    direct = [entry for entry in traffic.entries if not entry.is_loopback]
    choices = {pool: traffic.choice(pool) for pool in pools_of(traffic.service.name, direct)}
    most = max((len(_steerable(choice)) for choice in choices.values()), default=0)
    if most > MOST_PODS:
        outcome = to_pod.outcome_of(traffic)
        problem = _too_many(traffic.service.name, most)
        return msgspec.structs.replace(outcome, problems=(*outcome.problems, problem))
    outcome = to_pod.carried(traffic)
    return msgspec.structs.replace(
        outcome,
        captures=outcome.captures
        | {
            entry.frontend: _asking(outcome.captures[entry.frontend], choices[outcome.pools[entry.frontend]])
            for entry in direct
        },
        checked={},
        steered={
            pool: _steer(
                traffic,
                pool,
                choice,
                [
                    each.frontend
                    for each in direct
                    if each.pool_of(pool.service_port) == pool
                    and outcome.captures[each.frontend] != Drop()  # or who is asked would refuse
                ],
            )
            for pool, choice in choices.items()
        },
    )


def unsteered(snapshot: Snapshot, context: PlanContext) -> tuple[Problem, ...]:
    """That who is to be steered is not, as the kernel has no queues: told once for all Services."""
    if context.queues or all(
        path_of(each, context.mode) is not Path.STEERED for each in snapshot.services.values()
    ):
        return ()
    message = (
        f"path {Path.REDIRECT_TO_POD} is used for steered Services, as the kernel has no netfilter queues: "
        f"load nfnetlink_queue, and nft_queue or xt_NFQUEUE, and start again"
    )
    return (Problem(context.node.name, "NoQueues", message),)


def frontends_of(steer: Steer) -> tuple[Frontend, ...]:
    """Whose packets it is asked for."""
    return (
        *(Frontend(steer.protocol, address) for address in steer.frontends),
        *(Frontend(steer.protocol, address, outside=True) for address in steer.outside),
    )


def moving(steer: Steer, captures: Mapping[Frontend, Target]) -> tuple[int, ...]:
    """The indices by which the kernel, while it has these captures, finds another pod than is meant, or none.

    A frontend that is not captured has no packets that could be led wrong.
    """
    pods = [backend.address for backend in (*steer.backends, *steer.far)]
    found: set[int] = set()
    for frontend in frontends_of(steer):
        target = captures.get(frontend)
        if target is not None:
            known = (*target.pods, *target.others) if isinstance(target, ToPods) else ()
            found |= {index for index, pod in enumerate(pods) if known[index : index + 1] != (pod,)}
    return tuple(sorted(found))


def _asking(target: Target, choice: Choice) -> Target:
    """The same, once whoever chooses has been asked: who waits for endpoints does so there, if he can."""
    if isinstance(target, ToListener):
        return msgspec.structs.replace(target, steered=True)
    if not isinstance(target, ToPods):
        return target
    far = tuple(backend.address for backend in choice.far)
    return msgspec.structs.replace(target, steered=True, others=far)


def _steer(traffic: Traffic, pool: PoolName, choice: Choice, frontends: list[Frontend]) -> Steer:
    service = traffic.service
    is_udp = service.protocol is Protocol.UDP
    return Steer(
        service=service.name,
        policy=pool.policy,
        family=pool.family,
        backends=choice.backends,
        far=choice.far,
        leaving=leaving(traffic, pool, choice),
        settings=unchecked(service.settings) if is_udp else service.settings,
        affinity=service.affinity,
        frontends=tuple(key.address for key in frontends if not key.outside),
        outside=tuple(key.address for key in frontends if key.outside),
        protocol=service.protocol,
    )


def _steerable(choice: Choice) -> tuple[Address, ...]:
    return tuple(backend.address for backend in (*choice.backends, *choice.far))


def _too_many(name: ServicePortName, pods: int) -> Problem:
    message = (
        f"path {Path.REDIRECT_TO_POD} is used, as a mark tells {MOST_PODS} pods apart and it has {pods}: "
        f"split the Service, or choose that path"
    )
    return Problem(str(name), "TooManyPods", message)
