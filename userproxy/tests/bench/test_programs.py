"""What wrk, iperf3 and /proc say is understood, and what cannot be believed is refused in one line."""

from __future__ import annotations

import json

import pytest

from userproxy.bench import usage
from userproxy.bench.workloads import dns, iperf, wrk
from userproxy.bench.workloads.base import MeasurementError

COUNTED: dict[str, float] = {
    "requests": 120_000,
    "microseconds": 2_000_000,
    "failures": 0,
    "refusals": 0,
    "p50": 410.0,
    "p99": 1900.0,
    "p999": 5000.0,
}


def wrk_output(**changes: float) -> str:
    """What wrk prints with our script: its own summary, and then our line."""
    summary = (
        "Running 2s test @ http://10.3.241.152:80/\n  1 threads and 64 connections\nRequests/sec:  1.00\n"
    )
    return f"{summary}{wrk.MARK}{json.dumps(COUNTED | changes)}\n"


def test_the_rate_is_requests_over_the_time_they_took() -> None:
    result = wrk.parse(wrk_output())
    assert result.rate == 60_000
    assert (result.p50, result.p99, result.p999) == (410.0, 1900.0, 5000.0)


def test_the_script_prints_every_field_and_only_those() -> None:
    fields = set(wrk.WrkResult.__struct_fields__)
    assert {part.split('"')[0] for part in wrk.SCRIPT.split('"')[1::2]} == fields


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "it ends: nothing"),
        ("unable to connect to 10.3.241.152:80 Connection refused\n", "it ends: unable to connect to 10.3"),
        (f'{wrk.MARK}{{"requests": 12', "is not understood"),
        (f'{wrk.MARK}{{"requests": 12}}\n', "missing required field"),
        (f"{wrk.MARK}[]\n", "is not understood"),
        (wrk_output(p50=float("nan")).replace("NaN", "-nan"), "is not understood"),
        (wrk_output(requests=0, failures=64), r"no request was answered \(64 failures\)"),
        (wrk_output(microseconds=0), "no request was answered"),
        (wrk_output(refusals=3), "3 answers had an error's status"),
        (wrk_output(failures=1201), "1201 failures beside 120000 answers"),
    ],
)
def test_a_run_of_wrk_that_is_none_is_refused(output: str, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint):
        wrk.parse(output)


def test_a_few_failures_among_many_answers_are_tolerated() -> None:
    assert wrk.parse(wrk_output(failures=1200)).failures == 1200


def dnsperf_output(answers: int = 120_000, lost: int = 0, codes: str = "NOERROR 120000 (100.00%)") -> str:
    """The end of what dnsperf prints."""
    return (
        "Statistics:\n\n"
        f"  Queries sent:         {answers + lost}\n"
        f"  Queries completed:    {answers} (100.00%)\n"
        f"  Queries lost:         {lost} (0.00%)\n\n"
        f"  Response codes:       {codes}\n"
        "  Average packet size:  request 57, response 111\n"
        "  Queries per second:   59990.123456\n"
    )


def test_the_rate_of_queries_is_that_of_their_answers() -> None:
    assert dns.parse(dnsperf_output(lost=120)) == dns.DnsperfResult(120_000, 120, 59990.123456)


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "it ends: nothing"),
        ("Error: unable to resolve\n", "it ends: Error: unable to resolve"),
        (dnsperf_output(answers=0, lost=64), r"no query was answered \(64 were lost\)"),
        (dnsperf_output(lost=121), "121 queries were lost beside 120000 answers"),
        (dnsperf_output(codes="SERVFAIL 120000 (100.00%)"), "not every answer was one: SERVFAIL"),
        (dnsperf_output(codes="NOERROR 119999 (99.99%), REFUSED 1 (0.01%)"), "not every answer was one"),
    ],
)
def test_a_run_of_dnsperf_that_is_none_is_refused(output: str, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint):
        dns.parse(output)


def test_throughput_is_what_the_server_received() -> None:
    sums = {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8.5e9, "bytes": 1}}
    assert iperf.parse(json.dumps({"start": {}, "intervals": [], "end": sums})) == 8.5e9


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "is not understood"),
        ("iperf3: error - unable to connect", "is not understood"),
        ('{"start": {}, "end": {}, "error": "unable to connect to server"}', "unable to connect to server"),
        ('{"start": {}, "end": {}}', "nothing was received"),
        ('{"end": {"sum_received": {"bits_per_second": 0}}}', "nothing was received"),
        ('{"end": {"sum_received": {"bits_per_second": "8"}}}', "is not understood"),
    ],
)
def test_a_run_of_iperf3_that_is_none_is_refused(output: str, complaint: str) -> None:
    with pytest.raises(MeasurementError, match=complaint):
        iperf.parse(output)


def test_cpu_time_is_read_past_a_name_with_brackets_and_blanks() -> None:
    line = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 0 0 731 1204 0 0 20 0 4 0 5511 1 1 1"
    assert usage.parse_stat(line) == (731, 1204)


def test_a_line_that_is_no_stat_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of /proc/PID/stat"):
        usage.parse_stat("42 (short) S 1")
