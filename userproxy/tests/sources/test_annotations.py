"""What an author chooses by annotations, and what he is told where that cannot be meant."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from userproxy.model.service import Path
from userproxy.model.settings import (
    Balance,
    Check,
    HealthCheck,
    NoEndpoints,
    ProxyProtocol,
    Settings,
    SourceAddress,
)
from userproxy.sources.annotations import ANNOTATIONS, PREFIX, Annotation, read_path, read_settings
from userproxy.tests.sources.objects import decoded_service, service

if TYPE_CHECKING:
    from userproxy.model.snapshot import Problem


def read(**annotations: object) -> tuple[Settings, list[Problem]]:
    problems: list[Problem] = []
    named = {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}
    return read_settings(named, "default/web", problems), problems


def complaint(**annotations: object) -> str:
    found, (problem,) = read(**annotations)
    assert found == Settings()
    assert (problem.about, problem.reason) == ("default/web", "BadAnnotation")
    assert "\n" not in problem.message
    return problem.message


def test_without_annotations_everything_has_its_default() -> None:
    assert read_settings({"kubectl.kubernetes.io/x": "y"}, "default/web", []) == Settings()


def test_every_setting_can_be_chosen() -> None:
    chosen, problems = read(
        balance="source-hash",
        slow_start="30s",
        health_check="http",
        health_check_path="/healthz?full=1",
        health_check_status="200-299, 404",
        health_check_interval="500ms",
        health_check_timeout="2s",
        health_check_rise="1",
        health_check_fall="5",
        hedged_dial="250ms",
        max_connection_age="1.5h",
        max_connections="1000",
        max_connections_per_client="10",
        close_on_removal="5m",
        no_endpoints="hold",
        hold_connections="100",
        hold_timeout="30s",
        proxy_protocol="v2",
        accept_proxy_protocol="192.0.2.0/24, 2001:DB8::/64,192.0.2.9",
        source_address="client",
        udp_idle="45s",
        fall_open="false",
    )
    assert problems == []
    assert chosen == Settings(
        balance=Balance.SOURCE_HASH,
        slow_start=30.0,
        check=Check(
            kind=HealthCheck.HTTP,
            path="/healthz?full=1",
            status=((200, 299), (404, 404)),
            interval=0.5,
            timeout=2.0,
            rise=1,
            fall=5,
            proxy_protocol=ProxyProtocol.V2,
        ),
        hedged_dial=0.25,
        max_connection_age=5400.0,
        max_connections=1000,
        max_connections_per_client=10,
        close_on_removal=300.0,
        no_endpoints=NoEndpoints.HOLD,
        hold_connections=100,
        hold_timeout=30.0,
        proxy_protocol=ProxyProtocol.V2,
        accept_proxy_protocol=("192.0.2.0/24", "2001:db8::/64", "192.0.2.9/32"),
        source_address=SourceAddress.CLIENT,
        udp_idle=45.0,
        fall_open=False,
    )


@pytest.mark.parametrize("name", ["slow_start", "hedged_dial", "max_connection_age", "close_on_removal"])
def test_a_time_can_be_switched_off_by_name(name: str) -> None:
    assert read(**{name: "off"}) == (Settings(), [])


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("balance", "fair", "one of round-robin, least-connections, random-two, source-hash"),
        ("health_check", "ping", "one of auto, tcp, http, off"),
        ("no_endpoints", "wait", "one of reject, hold"),
        ("hold_connections", "0", "a whole number from 1 to 1000"),
        ("hold_timeout", "off", "a duration such as 250ms, 30s or 5m"),
        ("slow_start", "30", "a duration such as 250ms, 30s or 5m, or off"),
        ("health_check_interval", "1ms", "between 100ms and 720h"),
        ("max_connection_age", "1000000h", "between 1ms and 720h, or off"),
        ("health_check_rise", "0", "a whole number from 1 to 100"),
        ("max_connections", "-1", "a whole number from 1 to 10000000, or off"),
        ("max_connections", "²", "a whole number from 1 to 10000000, or off"),
        ("health_check_status", "399-200", "HTTP status codes such as 200-399 or 200,404"),
        ("proxy_protocol", "v3", "one of off, v1, v2"),
        ("accept_proxy_protocol", "", "1 to 64 networks such as 192.0.2.0/24,2001:db8::/64"),
        ("accept_proxy_protocol", "192.0.2.1/24", "1 to 64 networks such as 192.0.2.0/24"),
        ("source_address", "pod", "one of node, client"),
        ("health_check_path", "healthz", "a path such as /healthz"),
        ("health_check_path", "/a\r\nHost: b", "a path such as /healthz"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed_and_the_default_is_used(
    name: str, value: str, allowed: str
) -> None:
    message = complaint(**{name: value})
    assert message.startswith(f"annotation {PREFIX}{name.replace('_', '-')}: {value!r} is not {allowed}")
    assert message.endswith("; the default is used")


def test_a_number_without_quotes_is_told_so() -> None:
    assert "3 is not a string: put it in quotes" in complaint(health_check_rise=3)


def test_a_misspelt_annotation_is_told() -> None:
    assert complaint(balnce="source-hash") == (
        "annotation userproxy.dev/balnce is unknown, and has no effect: correct or remove it"
    )


def test_one_wrong_value_leaves_the_others_alone() -> None:
    chosen, problems = read(balance="least-connections", slow_start="soon")
    assert chosen == Settings(balance=Balance.LEAST_CONNECTIONS)
    assert len(problems) == 1


def test_a_service_with_a_wrong_annotation_is_served() -> None:
    decoded = decoded_service(service(metadata={"annotations": {"userproxy.dev/health-check-fall": 3}}))
    assert len(decoded.ports) == len(decoded.problems) == 1


@pytest.mark.parametrize("annotation", [{"proxy-protocol": "v1"}, {"accept-proxy-protocol": "192.0.2.0/24"}])
def test_whoever_speaks_the_proxy_protocol_is_relayed(annotation: dict[str, str]) -> None:
    named = {PREFIX + name: value for name, value in annotation.items()}
    ports = [{"name": "dns-tcp", "port": 53}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    decoded = decoded_service(service(metadata={"annotations": named}, ports=ports))
    assert [port.path for port in decoded.ports] == [Path.REDIRECT_TO_HOST, None]
    assert not decoded.problems
    for path in (Path.REDIRECT_TO_POD, Path.STEERED):
        named[f"{PREFIX}path"] = path.value
        decoded = decoded_service(service(metadata={"annotations": named}, ports=ports))
        assert [port.path for port in decoded.ports] == [Path.REDIRECT_TO_HOST, path]
        assert "takes a relay" in decoded.problems[0].message


def test_the_path_is_chosen_too() -> None:
    assert read_path({f"{PREFIX}path": "redirect-to-pod"}, "default/web", []) is Path.REDIRECT_TO_POD


@given(st.dictionaries(st.sampled_from(["balance", "slow_start", "health_check_status"]), st.text()))
def test_no_text_whatever_keeps_a_service_from_being_served(annotations: dict[str, str]) -> None:
    chosen, _ = read(**annotations)
    assert isinstance(chosen, Settings)


# --- one declaration of each annotation

PAGE = FilePath(__file__).parents[3] / "docs" / "services.md"


OF_THE_DAEMON = {"fall-open": "--fall-open", "udp-idle": "--udp-idle-seconds"}


def shown(annotation: Annotation) -> str:
    """A default as the page has it."""
    match default := annotation.default:
        case None:
            flag = OF_THE_DAEMON.get(annotation.name)
            return f"the daemon's `{flag}`" if flag else "`off`"
        case float():
            return f"`{default:g}s`"
        case ():
            return "nobody"
        case ((first, last),):
            return f"`{first}-{last}`"
    return f"`{default}`"


def test_the_table_of_the_page_is_what_is_declared() -> None:
    lines = PAGE.read_text().splitlines()
    start = lines.index("| `userproxy.dev/...` | values | default | what it does |") + 2
    path, *others = ANNOTATIONS
    assert lines[start : start + len(ANNOTATIONS) + 1] == [
        f"| `{path.name}` | {path.values} | the daemon's `--mode` | {path.text} |",
        *(f"| `{one.name}` | {one.values} | {shown(one)} | {one.text} |" for one in others),
        "",
    ]


def test_each_setting_of_a_service_has_one_annotation() -> None:
    fields = [field.name for field in msgspec.structs.fields(Settings) if field.name != "check"]
    # What a check begins with follows from what every connection begins with.
    fields += [
        f"check.{field.name}" for field in msgspec.structs.fields(Check) if field.name != "proxy_protocol"
    ]
    assert sorted(one.field for one in ANNOTATIONS if one.field) == sorted(fields)
    assert len({one.name for one in ANNOTATIONS}) == len(ANNOTATIONS)
