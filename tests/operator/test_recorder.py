"""lora_operator.recorder"""

from lora_operator.changes import Event
from lora_operator.recorder import build_event
from tests.support.observations import NOW, make_subject, moment

EVENT = Event("Warning", "Unschedulable", "0/1 nodes are available")


def test_an_event_is_about_the_training() -> None:
    manifest = build_event(make_subject(), EVENT, identity="operator-0", now=NOW)

    assert manifest["involvedObject"]["name"] == "hina"
    assert (manifest["type"], manifest["reason"], manifest["count"]) == ("Warning", "Unschedulable", 1)
    assert manifest["firstTimestamp"] == manifest["lastTimestamp"] == "2026-11-22T12:00:00Z"
    assert manifest["reportingInstance"] == "operator-0"


def test_the_same_thing_said_twice_is_one_event() -> None:
    names = {
        build_event(make_subject(), EVENT, identity=identity, now=now)["metadata"]["name"]
        for identity, now in (("a", NOW), ("b", moment(60)))
    }

    assert len(names) == 1


def test_another_thing_is_another_event() -> None:
    other = Event("Warning", "Unschedulable", "0/2 nodes are available")

    first, second = (build_event(make_subject(), e, identity="a", now=NOW)["metadata"]["name"] for e in (EVENT, other))

    assert first != second


def test_a_long_message_is_cut_to_what_kubernetes_keeps() -> None:
    manifest = build_event(make_subject(), Event("Normal", "A", "x" * 5000), identity="a", now=NOW)

    assert len(manifest["message"]) <= 1024
