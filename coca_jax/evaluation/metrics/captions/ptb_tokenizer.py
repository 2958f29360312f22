"""Captions as the COCO evaluation reads them: Penn Treebank tokens in lower case, without punctuation."""

import re

from coca_jax.evaluation.metrics.captions import ptb_rules

# What the evaluation drops. It lists the brackets in upper case only, after the tokens were made lower case: so
# "-lrb-" stays, in every published score, and it stays here.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Words that no rule makes anything else of: letters up to a space. They are nine tenths of all captions.
_PLAIN_WORDS = re.compile(r"(?:(?!(?:cannot|gonna|gotta|lemme|gimme|wanna) )[a-z]+ +(?=[!-~]))+", re.IGNORECASE)
_SPACES = re.compile(r"(?: +(?=[!-~]))?")  # before another character even a space may be part of something else
_LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\u2028\u2029]")


def tokenize(caption: str) -> str:
    """The tokens of a caption, joined by spaces: "A man's dog." becomes "a man 's dog".

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
    for rule in ptb_rules.RULES:
        if match := rule.compiled.match(text, position):
            # The last group is what must follow the token, or the token itself.
            found.append((match.end(rule.compiled.groups), match, rule.write))
    if not found:
        return "", 1
    _, best, write = max(found, key=lambda one: one[0])  # of rules that reach equally far the first counts
    return write(best.group(1)), best.end(1) - position
