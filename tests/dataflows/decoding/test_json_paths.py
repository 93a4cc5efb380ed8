"""Formats by settings: other JSON shapes, and what an operator can get wrong."""

import json
import re

import pytest

from schemas.errors import OperatorError
from tests.dataflows.decoding.one import NOW, arrive, decoder, detail, events, letters, reason

ACME = "application/vnd.acme+json"


def test_paths_say_where_things_are() -> None:
    """The example of the contract."""
    by = decoder("plant", formats={ACME: {"device_id": "$.dev.id", "ts": "$.t", "metrics": "$.data"}})
    payload = b'{"dev":{"id":"b7"},"t":"2025-11-21T04:40:00Z","data":{"temp":21.5,"on":true,"bad":"x"}}'
    decoded = arrive(payload, ACME, "plant", by)
    assert [("b7", NOW, {"temp": 21.5, "on": 1.0})] == events(decoded)
    assert ["not_a_number"] == [reason(letter) for letter in letters(decoded)]


def test_other_formats_stay_as_they_are() -> None:
    """A format of the settings is one more; JSON without a content type is still our own."""
    by = decoder(formats={ACME: {"metrics": "$.data"}})
    assert [("boiler-7", NOW, {"a": 1.0})] == events(arrive(b'{"metrics":{"a":1}}', None, by=by))
    assert [("boiler-7", NOW, {"a": 1.0})] == events(arrive(b'{"data":{"a":1}}', ACME + "; v=1", by=by))


def test_application_json_may_be_another_shape() -> None:
    """Devices that set no content type can have a shape of their own too."""
    by = decoder(formats={"application/json": {"metrics": "$", "ts": "$.when"}})
    decoded = arrive(b' {"temp":21.5,"hum":40,"when":1763700000000}', None, by=by)
    assert [("boiler-7", NOW, {"temp": 21.5, "hum": 40.0})] == events(decoded)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("$.a", {"a": {"m": 1}}),
        ("$.a.b", {"a": {"b": {"m": 1}}}),
        ("$['a b'].c", {"a b": {"c": {"m": 1}}}),
        ('$["a.b"]', {"a.b": {"m": 1}}),
        ("$.a[1]", {"a": [0, {"m": 1}]}),
        ("$.a-b_c", {"a-b_c": {"m": 1}}),
        ("$.größe", {"größe": {"m": 1}}),
    ],
)
def test_a_path_names_one_value(path: str, document: object) -> None:
    """Names, quoted names and places in arrays, in an object and in each of an array of them."""
    by = decoder(formats={ACME: {"metrics": path}})
    assert [{"m": 1.0}] == [message.metrics for message in events(arrive(json.dumps(document).encode(), ACME, by=by))]
    assert 2 == len(events(arrive(json.dumps([document] * 2).encode(), ACME, by=by)))


@pytest.mark.parametrize(
    "payload", [b"{}", b'{"a":5}', b'{"a":[]}', b'{"a":{"b":null}}', b"[{}]", b"[[]]", b"[]", b"5", b"{"]
)
def test_a_document_of_another_shape_is_refused(payload: bytes) -> None:
    """A path that leads nowhere is no metrics, and no exception."""
    by = decoder(formats={ACME: {"metrics": "$.a.b[3].c"}})
    (letter,) = arrive(payload, ACME, by=by).records
    assert reason(letter) in {"no_metrics", "bad_shape", "not_json"}
    assert payload == letter.value
    assert detail(letter)


WRONG = [
    ({"metrics": "data"}, "'data' is not a path"),
    ({"metrics": ""}, "is not a path"),
    ({"metrics": "$."}, "is not a path"),
    ({"metrics": "$.a[*]"}, "is not a path"),
    ({"metrics": "$..a"}, "is not a path"),
    ({"metrics": "$.a[-1]"}, "is not a path"),
    ({"metrics": "$.a b"}, "is not a path"),
    ({"ts": "$.t"}, "says not where the metrics are"),
    ({"metrics": "$.m", "time": "$.t"}, "decoding.formats.application/vnd.acme+json.time: no such key"),
    ({"metrics": "$.m", "ts": "$"}, "cannot be the whole document"),
]


@pytest.mark.parametrize(("paths", "words"), WRONG)
def test_a_wrong_format_is_the_operators_to_put_right(paths: dict[str, str], words: str) -> None:
    """One message, which names the setting."""
    with pytest.raises(OperatorError, match=re.escape(words)) as caught:
        decoder(formats={ACME: paths})
    assert str(caught.value).startswith("decoding.formats.application/vnd.acme+json")
