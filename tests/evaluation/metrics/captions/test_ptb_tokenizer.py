import importlib.util
import json
import random
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_jax.evaluation.metrics.captions import ptb_tokenizer
from coca_jax.evaluation.metrics.captions.ptb_tokenizer import PUNCTUATION, tokenize

# What Stanford CoreNLP 3.4.1's PTBTokenizer made of these, less pycocoevalcap's punctuation.
FROM_STANFORD = {
    "A man's dog doesn't bark, and it won't bite.": "a man 's dog does n't bark and it wo n't bite",
    "It's the dogs' toys; they'd've said \"I can't\".": "it 's the dogs toys they 'd 've said i ca n't",
    "Children's toys aren't the bananas' or the boss's.": "children 's toys are n't the bananas or the boss 's",
    "You cannot say y'all gonna gimme some rock 'n' roll, ma'am.": (
        "you can not say y' all gon na gim me some rock 'n' roll ma'am"
    ),
    "CAN'T Won't CANNOT 'Tis": "ca n't wo n't can not 't is",
    "Mr. Smith and Dr. O'Neil at St. Mary's, Main St. no. 5.": (
        "mr. smith and dr. o'neil at st. mary 's main st. no. 5"
    ),
    "He left the U.S. at 3 p.m. on Jan. 5th.": "he left the u.s. at 3 p.m. on jan. 5th",
    "Ill. is not ill. and Miss. is not amiss.": "ill. is not ill and miss. is not amiss",
    "Vitamin C. The man ate plan B.": "vitamin c the man ate plan b.",
    "A 10-ft. pole, a 5-year-old, and a black-and white well-known T-shirt.": (
        "a 10-ft pole a 5-year-old and a black-and white well-known t-shirt"
    ),
    "1,000 people at 10:30am paid $5.50, 20% or 1/2 of 5 1/2.": (
        "1,000 people at 10:30 am paid $ 5.50 20 % or 1/2 of 5\xa01/2"
    ),
    "In the 1980's and '90s it was -5 degrees, 5'6\" tall and 3x4.": (
        "in the 1980 's and '90s it was -5 degrees 5 6 tall and 3x4"
    ),
    "\"Quoted\" 'single' “curly” ‘curls’ don’t ``latex''": "quoted single curly curls do n't latex",
    "(a) [b] {c} <d> <b>bold</b> a < b": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- <d> <b> bold </b> a < b",
    "wait... what?! no.... . . . ok… really!! yes? - a -- b --- c – d — e": (
        "wait what ?! no ok really !! yes a b c d e"
    ),
    "See http://www.example.com/a?b=1, example.com or me@example.org. #dog @cat": (
        "see http://www.example.com/a?b=1 example.com or me@example.org #dog @cat"
    ),
    "and/or he/she w/ b/w AT&T R&B salt & pepper fish&chips 24/7": (
        "and/or he/she w / b/w at&t r&b salt & pepper fish & chips 24/7"
    ),
    "café naïve Zoë 日本 ☃ £5 5¢ €7 ½ cup 30°C x² ™": "café naïve zoë 日本 ☃ # 5 5 cents $ 7 1/2 cup 30 ° c x ² ™",
    "a 🙂 dog🐕cat ❤️ ok": "a dog cat ❤ ok",
    ":) ;-) :D <3 A+B a+b = c * ** _ a_b # ~ ^ |": ":-rrb- ;--rrb- :d < 3 a+b a + b = c * ** _ a_b # ~ ^ |",
    "&amp; &lt;b&gt; &quot;hi&quot; caf&eacute; &nbsp; &mdash;": "& < b > hi caf&eacute;",
    "photo.jpg 2.jpg img_2.png file": "photo.jpg 2.jpg img_2 png file",
    "a word,another word.Another (555) 123-4567": "a word another word.another -lrb-555-rrb-\xa0123-4567",
    "soft\xadhyphen non\xa0breaking zero\u200bwidth": "softhyphen non breaking zero width",
    "": "",
    " . ": "",
}


@pytest.mark.parametrize("caption", FROM_STANFORD)
def test_it_says_what_stanford_says(caption):
    assert tokenize(caption) == FROM_STANFORD[caption]


def test_it_says_what_stanford_says_of_coco_captions(shared_data):
    path = shared_data / "data" / "caption_metrics" / "ptb_tokenizer_fixture.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    images = json.loads(path.read_text())
    assert len(images) == 126
    for image in images:
        assert [tokenize(caption) for caption in image["raw"]] == image["tokenized"], image["image_id"]


# Found by giving Stanford's tokeniser every string of up to three letters and some longer ones: "x jan. y".
ABBREVIATIONS = [
    "adj",
    "adm",
    "adv",
    "al",
    "ala",
    "alex",
    "apr",
    "ariz",
    "assn",
    "assoc",
    "asst",
    "atty",
    "attys",
    "aug",
    "ave",
    "bancorp",
    "bhd",
    "bldg",
    "blvd",
    "brig",
    "bros",
    "calif",
    "capt",
    "cf",
    "cie",
    "cmdr",
    "co",
    "col",
    "colo",
    "comdr",
    "conn",
    "corp",
    "cos",
    "cpl",
    "ct",
    "dak",
    "dec",
    "dept",
    "det",
    "dr",
    "drs",
    "elec",
    "ens",
    "esq",
    "est",
    "etc",
    "ext",
    "feb",
    "fla",
    "fri",
    "ft",
    "ga",
    "gen",
    "gov",
    "govs",
    "hon",
    "inc",
    "ind",
    "insp",
    "intl",
    "invt",
    "jan",
    "jos",
    "jr",
    "jul",
    "jun",
    "kan",
    "kans",
    "ky",
    "lieut",
    "lt",
    "ltd",
    "maj",
    "mar",
    "md",
    "messrs",
    "mfg",
    "mich",
    "minn",
    "mlle",
    "mme",
    "mo",
    "mon",
    "mont",
    "mr",
    "mrs",
    "ms",
    "msgr",
    "mt",
    "mtg",
    "natl",
    "neb",
    "nev",
    "nov",
    "oct",
    "okla",
    "penn",
    "pfc",
    "ph",
    "plc",
    "ppte",
    "pptes",
    "ppty",
    "pptys",
    "pres",
    "prof",
    "profs",
    "pte",
    "ptes",
    "pty",
    "ptys",
    "pvt",
    "rd",
    "rep",
    "reps",
    "rev",
    "rt",
    "sen",
    "sens",
    "sep",
    "sept",
    "seq",
    "sfc",
    "sgt",
    "spc",
    "sq",
    "sr",
    "st",
    "ste",
    "supt",
    "supts",
    "sys",
    "tel",
    "tenn",
    "thu",
    "thurs",
    "treas",
    "tue",
    "tues",
    "univ",
    "va",
    "vs",
    "vt",
    "wed",
    "wis",
    "wisc",
    "wm",
    "wyo",
]
IF_CAPITAL = ["Ark", "Az", "Del", "Ill", "La", "Mass", "Miss", "Ore", "Pa", "Tex", "Wash"]
BEFORE_A_NUMBER = ["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"]
NEVER = [
    "in",
    "lb",
    "oz",
    "hwy",
    "mph",
    "may",
    "sat",
    "sun",
    "mex",
    "dist",
    "me",
    "yr",
    "hr",
    "min",
    "vol",
    "pg",
    "approx",
]


def test_abbreviations_keep_their_full_stop():
    for word in (*ABBREVIATIONS, *"abcdefghijklmnopqrstuvwxyz", *(word.title() for word in ABBREVIATIONS), *IF_CAPITAL):
        assert tokenize(f"x {word}. y") == f"x {word.lower()}. y"
    for word in (*(word.lower() for word in IF_CAPITAL), *BEFORE_A_NUMBER, *NEVER):
        assert tokenize(f"x {word}. y") == f"x {word} y"
    for word in BEFORE_A_NUMBER:
        assert tokenize(f"x {word}. 5") == f"x {word}. 5"


FRAGMENTS = [
    "a",
    "man",
    "dog's",
    "the",
    "cannot",
    "don't",
    "n't",
    "'s",
    "I'm",
    "he'll",
    "'",
    "''",
    '"',
    "`",
    "``",
    ".",
    "..",
    "...",
    "....",
    ",",
    ";",
    ":",
    "!",
    "?",
    "?!",
    "-",
    "--",
    "---",
    "_",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "&",
    "&amp;",
    "&quot;",
    "&eacute;",
    "$",
    "%",
    "#",
    "@",
    "*",
    "+",
    "=",
    "~",
    "^",
    "|",
    "\\",
    "/",
    "//",
    "1",
    "2",
    "5",
    "10",
    "1990s",
    "1,000",
    "3.14",
    "1/2",
    "-5",
    ".5",
    "5'6",
    "10:30",
    "12/25/2010",
    "555-1234",
    "Mr.",
    "St.",
    "Inc.",
    "U.S.",
    "U.S",
    "p.m",
    "e.g.",
    "No.",
    "fig.",
    "Ph.D.",
    "A.",
    "b.",
    "x.y",
    "www.foo.com",
    "foo.com",
    "http://a.b/c",
    "a@b.c",
    "#tag",
    "@user",
    "T-shirt",
    "AT&T",
    "and/or",
    "O'Brien",
    "y'all",
    "'em",
    "'90s",
    "'tis",
    "gonna",
    "ol'",
    "c++",
    "C#",
    ":)",
    ";-)",
    ":D",
    "</b>",
    "<br/>",
    "X",
    "Y",
    "AB",
    "TV",
    "iPhone5",
    ".jpg",
    "file.txt",
    "OK!",
    "Ltd.",
    "ft.",
    "6ft",
    "3.5kg",
    "café",
    "’",
    "‘",
    "“",
    "”",
    "—",
    "…",
    "½",
    "€",
    "£",
    "™",
    "×",
    "日",
    "☃",
    "️",
    "\xad",
    "\u200b",
    "²",
]


def random_texts(count: int) -> list[str]:
    rng = random.Random(0)
    texts = []
    for _ in range(count):
        share = rng.choice((0.15, 0.6))  # of spaces
        words = rng.choices(FRAGMENTS, k=rng.randint(1, 6))
        texts.append("".join(word + (" " if rng.random() < share else "") for word in words))
    return texts


@pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="Stanford's tokeniser itself needs pycocoevalcap and Java",
)
def test_it_says_what_stanford_says_of_random_texts():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = random_texts(3000)
    # A plain line after each, since Stanford's rules look ahead past the end of a line.
    lines = {i: [{"caption": text}, {"caption": "a line"}] for i, text in enumerate(texts)}
    stanford = PTBTokenizer().tokenize(lines)
    assert [tokenize(text).rstrip() for text in texts] == [stanford[i][0].rstrip() for i in lines]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_words_in_lower_case_without_punctuation(text):
    tokenized = tokenize(text)
    words = tokenized.split(" ") if tokenized else []
    assert all(words) and not PUNCTUATION.intersection(words)
    assert tokenized == tokenized.lower() and "\n" not in tokenized


@settings(max_examples=100, deadline=None)
@given(st.lists(st.from_regex("[a-z]{3,8}", fullmatch=True), max_size=8))
def test_plain_words_are_their_own_tokens(words):
    words = [word for word in words if word not in ("cannot", "gonna", "gotta", "lemme", "gimme", "wanna")]
    text = " ".join(words)
    assert tokenize(text) == tokenize(text.upper()) == tokenize(f"  {text.replace(' ', '   ')} !") == text


def test_the_quick_way_through_plain_words_changes_nothing(monkeypatch):
    texts = [*FROM_STANFORD, *random_texts(300)]
    quick = [tokenize(text) for text in texts]
    monkeypatch.setattr(ptb_tokenizer, "_PLAIN_WORDS", re.compile("(?!)"))  # never matches
    monkeypatch.setattr(ptb_tokenizer, "_SPACES", re.compile(""))
    assert [tokenize(text) for text in texts] == quick


def test_a_line_break_is_a_space():
    for line_break in ("\n", "\r\n", "\r", "\u2028"):
        assert tokenize(f"a dog.{line_break}A cat.") == "a dog a cat"
        assert tokenize(f"5{line_break}1/2") == tokenize("5 1/2")


@pytest.mark.parametrize("garbage", ["a" * 5000, "a.b" * 1000, "<a " * 1000, "a@" * 1000, "-" * 5000, "<a b= " * 500])
def test_garbage_takes_no_forever(garbage):
    tokenize(garbage)  # a pattern that backtracks through all of it would never come back


def test_every_rule_compiles_and_moves_on():
    for rule in ptb_tokenizer.RULES:
        pattern = rule.compiled
        assert not pattern.match(""), rule
        assert pattern.groups == 1 + bool(rule.ahead), rule  # the last group ends where the rule reaches to
