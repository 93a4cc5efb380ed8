"""Files of rules: what is read, and what an operator who got one wrong is told."""

import re
from pathlib import Path

import pytest
import yaml

from schemas.errors import OperatorError
from schemas.rules import ALWAYS, KINDS, Rule, ThresholdRule, defaults
from schemas.rules_file import RULES_MAX, load_rules

REFERENCE = Path(__file__).parents[2] / "infra" / "settings" / "rules.yaml"
HOT = "rules:\n  - name: hot\n    detector: threshold\n    above: 90\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def read(file: Path, text: str) -> dict[str, Rule]:
    file.write_text(text)
    return load_rules(file)


def refusal(file: Path, text: str) -> str:
    """The message, without the file's name."""
    with pytest.raises(OperatorError) as caught:
        read(file, text)
    return str(caught.value).replace(f"{file}:", "")


# What is read


@pytest.mark.parametrize("text", ["rules: []\n", "rules:\n"])
def test_without_rules_the_defaults_are_on(file: Path, text: str) -> None:
    """Novelty, stuck sensors and silence, for everything."""
    assert defaults() == read(file, text)
    assert set(ALWAYS) == set(defaults())


def test_a_rule_is_added_to_the_defaults(file: Path) -> None:
    """With what it says, and otherwise the defaults of its kind."""
    rules = read(file, HOT + "    clear: 85\n    devices: [boiler-*, 'pump-?']\n    unless: [{devices: boiler-9}]\n")
    hot = rules["hot"]
    assert isinstance(hot, ThresholdRule)
    assert (90.0, 85.0, ("boiler-*", "pump-?"), "*") == (hot.above, hot.clear, hot.devices, hot.metrics)
    assert [*ALWAYS, "hot"] == list(rules)


def test_a_default_is_changed_or_switched_off_by_its_name(file: Path) -> None:
    """What is not said of it stays as it is."""
    rules = read(file, "rules:\n  - {name: stuck, after_rollups: 30}\n  - {name: silence, enabled: false}\n")
    assert ["novelty", "stuck"] == list(rules)
    assert {"after_rollups": 30} == {
        key: getattr(rules["stuck"], key)
        for key in rules["stuck"].__struct_fields__
        if getattr(rules["stuck"], key) != getattr(defaults()["stuck"], key)
    }


def test_the_reference_has_the_defaults_and_comments_every_key_once(file: Path) -> None:
    """rules.yaml is the documentation: each key of each kind has a comment above the line in which it first stands.

    What is on in it is what is on without it; there is an example, switched off, of every kind.
    """
    lines = REFERENCE.read_text().splitlines()
    assert defaults() == load_rules(REFERENCE)
    every = REFERENCE.read_text().replace("enabled: false", "enabled: true")
    rules = read(file, every)
    assert len(rules) > len(defaults())
    keys = [re.match(r"  (?:- |  )([a-z_]+):", line) for line in lines]
    commented = [key[1] for key, above in zip(keys[1:], lines, strict=False) if key and re.match(r" +# \S", above)]
    repeats = {"name"}  # what stands above it speaks of the rule
    known = {field for kind in KINDS.values() for field in kind.__struct_fields__}
    assert known == set(commented)
    assert sorted(set(commented) - repeats) == sorted(each for each in commented if each not in repeats)
    assert set(KINDS) == {rule.detector for rule in rules.values()}


# What an operator is told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HOT + "    claer: 85\n", "5: rules.hot.claer: no such setting; did you mean clear?"),
        (HOT + "    for_secs: 120\n", "5: rules.hot.for_secs: .*the unit is in the name: for_mins, here for_mins: 2"),
        (HOT + "    for: 2\n", "5: rules.hot.for: .*for_mins"),
        (HOT + "    for_mins: two\n", "5: rules.hot.for_mins: expected a whole number"),
        (HOT + "    for_mins: 0\n", "5: rules.hot.for_mins: .*>= 1"),
        (HOT + "    clear: 95\n", "2: rules.hot: clear: 95 is on the wrong side of above: 90"),
        (HOT + "    below: 5\n", "2: rules.hot: give one limit, above or below"),
        (HOT.replace("above", "clear"), "2: rules.hot: give one limit, above or below"),
        (HOT.replace("above", "below") + "    clear: 85\n", "rules.hot: clear: 85 is on the wrong side of below: 90"),
        (HOT + "    above: 95\n", "5: not YAML: this key stands twice"),
        (HOT.replace("90", ".nan"), "rules.hot.above: .*finite"),
        (HOT + "    span_mins: 5\n", "5: rules.hot.span_mins: no such setting here; .*rate have it"),
        (HOT + "    sevrity: info\n", "rules.hot.sevrity: .*severity"),
        (HOT + "    severity: urgent\n", "5: rules.hot.severity: give one of info, warning, critical"),
        (HOT.replace("threshold", "treshold"), "3: rules.hot.detector: no such detector; did you mean threshold?"),
        (HOT.replace("    detector: threshold\n", ""), "2: rules.hot: says no detector; give one of novelty, stuck"),
        (HOT.replace("name: hot", "name: 'so hot'"), "2: rules.so hot.name: 1 to 64 letters"),
        (HOT.replace("name: hot\n    ", ""), "2: rules.#1: has no name"),
        (HOT.replace("hot", "stuck"), "2: rules.stuck.name: stuck is the rule of the detector stuck"),
        (HOT.replace("hot", "pipeline"), "2: rules.pipeline.*: pipeline is the name of the pipeline's own flags"),
        (HOT + HOT.partition("\n")[2], "5: rules.#2: another rule is called hot"),
        (HOT + "    devices: ''\n", "rules.hot: devices: '' can match nothing: it is empty"),
        (HOT + "    metrics: ['[z-a]*']\n", "rules.hot: metrics: .* a range runs backwards"),
        (HOT + "    devices: 7\n", "5: rules.hot.devices: expected a pattern in quotes, or a list of them"),
        (HOT + "    devices: []\n", "5: rules.hot.devices: expected a pattern in quotes, or a list of them"),
        (HOT + "    devices: 'a\\tb'\n".replace("'", '"'), "rules.hot: devices: .* control characters"),
        (HOT + f"    devices: {'é' * 129}\n", "rules.hot: devices: .* 256 bytes at most"),
        (HOT + "    unless: [{metrics: '*'}]\n", "rules.hot: unless leaves out all"),
        (HOT + "    unless: [{device: b}]\n", "5: rules.hot.unless.0.device: no such setting; did you mean devices?"),
        (HOT + "    unless: boiler-9\n", "5: rules.hot.unless: expected a list"),
        ("rules:\n  - {name: novelty, clear_at: 0.5}\n", "2: rules.novelty: clear_at: 0.5 is above flag_at: 0.35"),
        ("rules:\n  - {name: silence, forget_hours: 1, after_mins: 60}\n", "forget_hours is not above after_mins"),
        ("rules:\n  - {name: stuck, forget_rollups: 10}\n", "forget_rollups is not above after_rollups"),
        ("rules:\n  - hot\n", "2: rules.#1: is no rule"),
        ("rules: {hot: {above: 3}}\n", "1: rules: is a list; begin each rule with a dash"),
        ("rule: []\n", "1: rule: no such section; a file of rules has one, rules"),
        ("[]\n", "begin as infra/settings/rules.yaml does"),
        ("# nothing\n", "is empty"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_path(file: Path, text: str, words: str) -> None:
    """One line, with what to write instead where that is known."""
    said = refusal(file, text)
    assert re.match(f".*{words}", said), said
    assert "\n" not in said


def test_all_that_is_wrong_is_named_at_once(file: Path) -> None:
    """A line for each, in the order of the file."""
    said = refusal(file, HOT + "    clear: no\n" + "  - name: cold\n    detector: threshold\n    belo: 5\nmore: 1\n")
    assert ["5", "8", "9"] == sorted(line.partition(":")[0] for line in said.splitlines())


def test_rules_beyond_reason_are_refused(file: Path) -> None:
    """Each has a state for every series it watches."""
    many = "".join(f"  - {{name: r{n}, detector: threshold, above: {n}}}\n" for n in range(RULES_MAX + 1))
    assert "let patterns choose" in refusal(file, "rules:\n" + many)


def test_a_missing_file_is_said_with_those_there_are(tmp_path: Path) -> None:
    """The path, and its neighbours."""
    (tmp_path / "rules.yaml").write_text("rules: []\n")
    with pytest.raises(OperatorError, match=r"rulez\.yaml: no such rules file; there are .*rules\.yaml"):
        load_rules(tmp_path / "rulez.yaml")


def test_the_example_of_the_docstring_is_a_file(file: Path) -> None:
    """What the module shows is read."""
    import schemas.rules_file as module

    text = "\n".join(line[4:] for line in (module.__doc__ or "").splitlines() if line.startswith("    "))
    assert 85 == yaml.safe_load(text)["rules"][0]["clear"]
    assert "too-hot" in read(file, text)
