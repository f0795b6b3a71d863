import time

import pytest

from dpo.prompts import count_syntax, parse_prompt, plain_words

UP, DOWN = 1.1, 1 / 1.1


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a cat, 16:9", [("a cat, 16:9", 1.0)]),
        ("", []),
        ("(a) b", [("a", UP), (" b", 1.0)]),
        ("(a:1.3) b", [("a", 1.3), (" b", 1.0)]),
        ("( a : 1.3 )", [(" a ", 1.3)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:-1)", [("a", -1.0)]),
        ("[a] b", [("a", DOWN), (" b", 1.0)]),
        ("((a) b)", [("a", UP * UP), (" b", UP)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3.0), (" c", 1.5)]),
        ("[(a:2)]", [("a", 2 * DOWN)]),
        (r"\(a\) (b \[c\]) \\", [("(a) ", 1.0), ("b [c]", UP), (" \\", 1.0)]),
        ("[a:b]", [("a:b", DOWN)]),
        ("(a:1.2.3)", [("a:1.2.3", UP)]),
        ("(a:99999999)", [("a", 10.0)]),
    ],
)
def test_weights_are_a1111s(text, expected):
    (section,) = parse_prompt(text)
    assert [words for words, _ in section] == [words for words, _ in expected]
    assert [weight for _, weight in section] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("(a", [("a", UP)]),
        ("[a (b", [("a ", DOWN), ("b", DOWN * UP)]),
        ("a) b] c", [("a) b] c", 1.0)]),
        ("a :1.2) b", [("a :1.2) b", 1.0)]),
        ("(a [b ) c]", [("a ", UP), ("b ", 1.0), (" c", DOWN)]),
        ("([a|b):1.2]", [("a|b", 1.0), (":1.2", DOWN)]),
        ("a\\", [("a", 1.0)]),
    ],
)
def test_brackets_without_a_partner_are_closed_at_the_end_or_are_characters(text, expected):
    (section,) = parse_prompt(text)
    assert [words for words, _ in section] == [words for words, _ in expected]
    assert [weight for _, weight in section] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    "text, words",
    [
        ("[a:b:0.3] c", "b c"),
        ("[a:b:0.5] c", "a c"),  # of equals, the first
        ("[a:b:9] c", "b c"),  # of 20 steps
        ("[a:b:10] c", "a c"),
        ("[a:b:1.0] c", "a c"),
        ("[a:b:1] c", "b c"),
        ("[a:0.3] c", "a c"),
        ("[a:0.7] c", "c"),
        ("[a::0.3] c", "c"),
        ("[a::0.7] c", "a c"),
        ("[cow|horse|man] c", "cow c"),
        ("[|red] c", "c"),
        ("[16:9|4:3] c", "16:9 c"),
        ("[a:[b|d]:0.1] c", "b c"),
        ("[[a:x:0.9]:b:0.9] c", "a c"),
        ("[(a:1.2)|b] c", "a c"),
        ("[a (x:1.2):b:0.9] c", "a x c"),
    ],
)
def test_of_what_changes_from_step_to_step_the_one_most_steps_saw_is_read(text, words):
    assert plain_words(text) == words
    assert "".join(text for text, _ in parse_prompt(text)[0]).strip() == words


def test_break_begins_a_new_section_also_inside_brackets():
    assert parse_prompt("a cat BREAK (a dog\nBREAK a cow:1.2)") == [[("a cat", 1.0)], [("a dog", 1.2)], [("a cow", 1.2)]]
    assert parse_prompt("BREAK a BREAK") == [[], [("a", 1.0)], []]
    assert parse_prompt("BREAKFAST, a BREAK_IN") == [[("BREAKFAST, a BREAK_IN", 1.0)]]
    assert plain_words("a cat, BREAK a dog") == "a cat, a dog"


@pytest.mark.parametrize(
    "text, words",
    [
        ("<lora:some-name_v2:0.8> a cat, <lyco:x:1:0.5>, <hypernet:y:1>, b", "a cat, b"),
        ("a <lora:x:1>cat", "a cat"),
        ("(embedding:bad-hands.pt:1.2), embedding:folder/name, a cat", "a cat"),
        ("# by hand\na /* black */ cat\n  // later\nb", "a cat\nb"),
        ("# 1 in a line of its own", "# 1 in a line of its own"),
        ("a color #ff0000, http://x.y", "a color #ff0000, http://x.y"),
        ("a <3 b > c", "a <3 b > c"),
    ],
)
def test_what_says_nothing_to_a_text_encoder_is_left_out(text, words):
    assert plain_words(text) == words
    said = "".join(text for text, _ in parse_prompt(text)[0])  # commas stay where they were
    assert said.replace(",", " ").split() == words.replace(",", " ").split()


@pytest.mark.parametrize(
    "text, words",
    [
        ('a sign "OPEN (24h)", [sic]', 'a sign "OPEN (24h)", [sic]'),
        ("a sign (in red:1.2)", "a sign in red"),
        ("((in red)), (((b)))", "in red, b"),
        ("((a) (b))", "((a) (b))"),
        ("(a (b:1.2) c:1.1), ((d:1.3))", "a b c, d"),
        (r"saber \(fate\)", "saber (fate)"),
        ('{"scene": ["a", "b"]}', '{"scene": ["a", "b"]}'),
        ("two  spaces, , stay", "two  spaces, , stay"),
    ],
)
def test_a_model_without_weights_is_told_the_words_and_brackets_that_say_no_weight(text, words):
    assert plain_words(text) == words


def test_no_text_is_a_mistake_and_none_takes_long():
    began = time.monotonic()
    for text in (
        "(" * 50_000, "[" * 20_000 + ")" * 20_000, "(a" * 5_000 + ")" * 5_000, "(:9)" * 10_000, " " * 50_000 + "BREAK",
        "/* " * 9_000, "[a:" * 9_000 + ":0.5]" * 9_000, "[a|" * 9_000 + "]" * 9_000, "<lora:" * 9_000, "embedding:" * 9_000,
        ":" * 50_000, "\\" * 9_001, "a\n" * 9_000, ", " * 9_000, "\ud800 \x00 ()[]",
    ):  # fmt: skip
        assert isinstance(plain_words(text), str)
        for section in parse_prompt(text):
            assert all(abs(weight) <= 10 for _, weight in section)
        count_syntax([text])
    assert time.monotonic() - began < 60  # some would take many minutes if brackets were matched naively


def test_prompts_are_counted_by_what_they_hold_each_once():
    prompts = ["a", "<lora:x:1> a", "<lora:x:1> a", "(a:1.2) <lora:y:1>", r"\(a\)", "embedding:bad, [a]"]
    assert count_syntax(prompts) == (2, 1, 2)
