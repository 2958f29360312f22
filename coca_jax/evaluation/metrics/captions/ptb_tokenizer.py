"""Captions as the COCO evaluation reads them: Penn Treebank tokens in lower case, without punctuation.

A rule is a pattern, what must follow it, and how its token is written. At each place of a text the rule that reaches
furthest, with what must follow it, makes the token; of several that reach equally far, the first in `RULES`. So the
order within the table settles ties only, and a rule can be read on its own.

The rules describe what Stanford CoreNLP 3.4.1's PTBTokenizer does with its default options, since the COCO caption
evaluation tokenises with it (Chen et al., "Microsoft COCO Captions", arXiv 1504.00325, §3.1). They are written anew,
with its published specification (PTBLexer.flex) and its output as the reference: on 60,000 texts strung together from
difficult fragments the tokens were the same in all but a handful, on 30,000 lines of prose and code in all but one.

Known differences:
- Where an abbreviation may end a sentence ("… by Acme Inc. He …") Stanford makes its full stop a second token, which
  the evaluation then removes; here there is none.
- Stanford looks past the end of a line, so that a caption can change how the one before it ends; here none does.
- Letters that Unicode has had only since about 2012, and a few combining marks of South Asian scripts.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from coca_jax.evaluation.metrics.captions import ptb_patterns as p

# What the evaluation drops. It lists the brackets in upper case only, after the tokens were made lower case: so
# "-lrb-" stays, in every published score, and it stays here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Words that no rule makes anything else of: letters up to a space. They are nine tenths of all captions.
_PLAIN_WORDS = re.compile(r"(?:(?!(?:cannot|gonna|gotta|lemme|gimme|wanna) )[a-z]+ +(?=[!-~]))+", re.IGNORECASE)
_SPACES = re.compile(r"(?: +(?=[!-~]))?")  # before another character even a space may be part of something else
_LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\u2028\u2029]")

QUOTES = {
    **dict.fromkeys("\u0091\u2018\u201b\u2039", "`"),
    **dict.fromkeys("\u0092\u2019\u203a", "'"),
    **dict.fromkeys("\u0093\u201c\u00ab", "``"),
    **dict.fromkeys("\u0094\u201d\u00bb", "''"),
}
PARENTHESES = {"(": "-lrb-", ")": "-rrb-"}
BRACKETS = {**PARENTHESES, "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
FRACTIONS = {"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
CURRENCIES = {"\u00a2": "cents", "\u00a3": "#", **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")}

Writer = Callable[[str], str]  # how a token is written, given its characters; str: as it is


def _no_soft_hyphens(token: str) -> str:
    return token.replace("\u00ad", "")


def _plain_ampersand(token: str) -> str:
    return re.sub("&amp;", "&", token, flags=re.IGNORECASE)


def _hard_spaces(token: str) -> str:
    return token.replace(" ", "\u00a0")


def _mapped(table: dict[str, str], then: Writer = str) -> Writer:
    return lambda token: then("".join(table.get(character, character) for character in token))


def _quote(straight: str) -> Writer:
    """Writes a straight quotation mark as `straight`, a double one as two, and a curly one the way it turns."""
    double = re.compile('"|&quot;')
    single = re.compile("'|&apos;")
    curly = _mapped(QUOTES)
    return lambda token: curly(double.sub(straight * 2, single.sub(straight, token)))


@dataclasses.dataclass(frozen=True)
class Rule:
    """`pattern` makes a token where `ahead` (if given) follows it, and `write` says how the token is written."""

    pattern: str
    ahead: str = ""
    write: Writer = str

    @functools.cached_property
    def compiled(self) -> re.Pattern[str]:
        """Group 1 is the token, group 2 (if there is one) what must follow it."""
        ahead = f"(?=({self.ahead}))" if self.ahead else ""
        return re.compile(f"({self.pattern}){ahead}", re.IGNORECASE)


_PUNCTUATION = "[,;:\u3001]"
_DOUBLE_QUOTE = '(?:"|&quot;)'
_SPACE = f"[{p.SPACE}]"
_SPACE_OR_BREAK = f"[{p.SPACE}{p.BREAK}]"
_WEAK_ABBREVIATION = f"(?:{p.ACRONYM}|[a-z]|{p.ABBREVIATION})"  # the longest first


def _before_punctuation(pattern: str, write: Writer = str) -> tuple[Rule, Rule]:
    """A pattern, and the same with a full stop before a comma, which makes it an abbreviation."""
    return Rule(pattern, write=write), Rule(rf"{pattern}\.", _PUNCTUATION, write)


RULES = (
    # Words.
    Rule("can", "not"),
    Rule("'t", "(?:was|is)"),
    Rule("(?:gon|wan)", "na"),
    Rule("got", "ta"),
    Rule("(?:lem|gim)", "me"),
    Rule(p.TAG, write=_hard_spaces),
    Rule("&(?:md|mdash|ndash);|[\u0096\u0097\u2013-\u2015]", write=lambda token: "--"),
    Rule("&amp;", write=_plain_ampersand),
    Rule("&(?:ht|tl|ur|lr|qc|ql|qr|odq|cdq|#[0-9]+);"),
    Rule(r"c\+\+|[cf]#"),
    Rule(p.WORD, p.CLITIC, _no_soft_hyphens),
    Rule(p.BEFORE_NOT, p.NOT, _no_soft_hyphens),
    *_before_punctuation(p.WORD, _no_soft_hyphens),
    *(Rule(word) for word in p.APOSTROPHE_WORDS),
    Rule(f"y{p.APOSTROPHE}", f"[{p.ALPHA}]"),
    *(Rule(address) for address in p.ADDRESSES),
    Rule(p.EMAIL),
    Rule(p.HANDLE),
    Rule(p.CLITIC, "[^a-zA-Z]", _quote("'")),
    Rule(p.NOT, write=_quote("'")),
    # Numbers and amounts.
    Rule(p.DATE),
    Rule(f"[-+]?{p.NUMBER}", write=_no_soft_hyphens),
    Rule("[\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+)"),
    Rule(p.FRACTION, write=_hard_spaces),
    Rule("[\u00bc-\u00be\u2153-\u215e]", write=_mapped(FRACTIONS)),
    Rule("-[lr][rcs]b-|pro-|anti-"),
    Rule(p.SLASHED),
    Rule(r"(?-i:[A-Z]*\$)|#"),
    Rule("[\u00a2-\u00a5\u0080\u20a0\u20ac\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6]", write=_mapped(CURRENCIES)),
    # Abbreviations.
    Rule(rf"{p.NUMBERED_ABBREVIATION}\.", f"{_SPACE_OR_BREAK}?[{p.DIGIT}]"),
    Rule(rf"{p.STRONG_ABBREVIATION}\.", r"[\s\S]{2}"),
    Rule(rf"{p.STRONG_ABBREVIATION}\."),
    # A single letter before "The …" ends a sentence and is no initial: its full stop is a token of its own.
    Rule("[a-z]", rf"\.{_SPACE_OR_BREAK}+(?:{p.SENTENCE_OPENING}|{p.TAG}){_SPACE_OR_BREAK}"),
    Rule(rf"{_WEAK_ABBREVIATION}\."),
    Rule(_WEAK_ABBREVIATION, _SPACE),
    Rule(p.ACRONYM, _SPACE_OR_BREAK),
    Rule(f"{p.APOSTROPHE}[0-9][0-9]", _SPACE_OR_BREAK),  # '90
    Rule(p.FILE, f"[{p.SPACE}{p.BREAK}.?!,]"),
    *(Rule(phone, write=_mapped(PARENTHESES, _hard_spaces)) for phone in p.PHONES),
    # Signs.
    Rule(_DOUBLE_QUOTE, "[a-zA-Z0-9$]", _quote("`")),
    Rule(_DOUBLE_QUOTE, write=_quote("'")),
    Rule("<|&lt;", write=lambda token: "<"),
    Rule(">|&gt;", write=lambda token: ">"),
    Rule("<<|>>"),
    Rule(p.SMILEY, "[^a-zA-Z0-9]", _mapped(PARENTHESES)),
    *(Rule(face, write=_mapped(PARENTHESES)) for face in p.FACES),
    Rule(r"[()\[\]{}]", write=_mapped(BRACKETS)),
    Rule("-+", write=lambda token: "--" if len(token) in (3, 4) else token),
    Rule(r"\.{3,5}|(?:\.[ \u00a0]){2,4}\.|[\u0085\u2026]", write=lambda token: "..."),
    Rule(r"@+|#+|_+|\*+|(?:\\\*){1,3}|[?!]+"),
    Rule(r"[.,;:/=\u3001\u00a1\u00bf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002]"),
    # Compounds.
    *_before_punctuation(p.NUMBER_COMPOUND, _no_soft_hyphens),
    *_before_punctuation(p.COMPOUND),
    *_before_punctuation(p.CAPITALS, _plain_ampersand),
    # What is left.
    Rule("'", f"[a-zA-Z][^{p.SPACE}{p.BREAK}]", _quote("`")),
    Rule(p.CLITIC, write=_quote("'")),
    Rule(f"''|[`\u2018-\u201f\u0091-\u0094\u2039\u203a\u00ab\u00bb]{{1,2}}|{p.APOSTROPHE}", write=_quote("'")),
    Rule(f"[{p.SYMBOL}]"),
    Rule(f"{_SPACE}+|&nbsp;", write=lambda token: ""),
)


def tokenize(caption: str) -> str:
    """The tokens of a caption, joined by spaces.

    >>> tokenize("A man's dog.")
    "a man 's dog"

    It equals what `PTBTokenizer -preserveLines -lowerCase` of Stanford CoreNLP 3.4.1 and the removal of punctuation in
    pycocoevalcap make of a caption of one line. A line break counts as a space here; there, all but "\\n" would move
    the captions that follow to the wrong images.
    """
    words = (token.lower() for token in tokens(caption))
    return " ".join(word for word in words if word not in PUNCTUATION)


def tokens(text: str) -> list[str]:
    """All tokens of a text, punctuation among them, in the case that they are written in."""
    text = _LINE_BREAK.sub(" ", text) + "\n"  # some rules look ahead to the end of a line
    result: list[str] = []
    position = 0
    while position < len(text) - 1:
        spaces = _SPACES.match(text, position)
        position = spaces.end() if spaces else position
        plain = _PLAIN_WORDS.match(text, position)
        if plain:
            result += plain.group().split()
            position = plain.end()
            continue
        token, length = _next_token(text, position)
        if token:
            result.append(token)
        position += length
    return result


def _next_token(text: str, position: int) -> tuple[str, int]:
    """The token at a position of a text and how many characters it takes; "" for a space or an unknown character."""
    found = []
    for rule in RULES:
        if match := rule.compiled.match(text, position):
            # The last group is what must follow the token, or the token itself.
            found.append((match.end(rule.compiled.groups), match, rule.write))
    if not found:
        return "", 1
    _, best, write = max(found, key=lambda one: one[0])  # of rules that reach equally far the first counts
    return write(best.group(1)), best.end(1) - position
