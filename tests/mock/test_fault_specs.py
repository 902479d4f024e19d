"""Specs of faults are read strictly, and explained when they cannot be read."""

import re
from typing import Any

import httpx
import pytest

from techforge.mock import Fault
from techforge.mock.faults import parse_faults

BAD = {
    "": "KEY=VALUE",
    "status": "KEY=VALUE",
    "colour=red": "unknown part 'colour'; allowed are status,",
    "status=999": "status='999' is not a status from 200 to 599",
    "status=x": "status='x' is not a status",
    "delay=nan": "delay='nan' is not a number of seconds",
    "body=pdf": "one of html, truncated, broken-json, empty",
    "close=never": "one of before-body, after-body, mid-answer",
    "operation=deleteAll": "one of createJob, generateSignedPath, ",
    "times=-1": "a whole number from 0 on",
    "reset=yes;close=after-body": "reset='yes' is not one of 1, 0",
    "reset=1": "reset needs",
    "retry-after=2": "retry-after needs status",
    "status=429;retry-after=soon": "a whole number of seconds, or date:",
    "cdn-status=404;operation=createJob": "for operation=storage only",
    "json={": "is not JSON",
    "json={}x": "follows the JSON",
    "json={};body=html": "exclude each other",
}


@pytest.mark.parametrize("spec", BAD)
def test_bad_spec_is_explained(spec: str, api: httpx.Client, job: dict[str, Any]) -> None:
    """A spec that is not understood names the part and says what is allowed, in Python and over HTTP."""
    with pytest.raises(ValueError, match=re.escape(BAD[spec])):
        Fault.parse(spec)
    answer = api.post("/jobs/v2", json=job, headers={"x-mock-fault": spec})
    assert answer.status_code == 400
    assert BAD[spec] in answer.json()["message"]


def test_header_takes_no_counts(api: httpx.Client, job: dict[str, Any]) -> None:
    """A header means one request, so counts in it are a mistake."""
    assert api.post("/jobs/v2", json=job, headers={"x-mock-fault": "status=503;times=2"}).status_code == 400


@pytest.mark.parametrize(
    "spec",
    [
        "status=429;retry-after=date:2",
        "delay=1.5;operation=createJob",
        'json={"a":";|"}',
        "close=after-body;reset=1;create=0",
        "cdn-close-after=0",
        "status=429;over=0.5;times=0",
    ],
)
def test_spec_of_a_fault_reads_as_the_fault(spec: str) -> None:
    """A fault can be written down and read again."""
    assert Fault.parse(Fault.parse(spec).spec) == Fault.parse(spec)


def test_several_specs() -> None:
    """Several specs are separated by a bar."""
    assert parse_faults('status=503 ; times=2 | json={"a":"|"};status=500') == [
        Fault(status=503, times=2),
        Fault(json='{"a":"|"}', status=500),
    ]
    with pytest.raises(ValueError, match="one fault expected, not 2"):
        Fault.parse("status=500|status=501")
