"""Regular expressions for the parts of English text: characters, words, abbreviations, addresses, numbers, compounds.

All are read without regard to case, but for the parts marked (?-i: …). They follow Stanford's tokeniser even where it
is odd, since published scores depend on it; see ptb_tokenizer.py.
"""

import unicodedata
from collections.abc import Callable


def _character_class(wanted: Callable[[str], bool]) -> str:
    """The inside of a regular expression's [...] for the characters of the Basic Multilingual Plane that are wanted."""
    ranges: list[list[int]] = []
    for code in range(0x10000):
        if wanted(chr(code)):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


def _is_mark(character: str) -> bool:
    # Marks that sit on a letter, in the scripts that the tokeniser knows marks of (up to Lao).
    return character < "\u0ed0" and unicodedata.category(character) in ("Mn", "Mc")


# Characters. JFlex, which Stanford's lexer is made with, knows no plane but the first, so an emoji is no character.
ALPHA = _character_class(str.isalpha)
DIGIT = _character_class(str.isdecimal)
MARK = _character_class(_is_mark) + r"\u00ad\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u02ff\u0384\u0385"
SYMBOL = (  # tokens of one character each
    r"+%&~^|\\\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3"
    r"\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8"
    r"\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u207a-\u207e"
    r"\u208a-\u208e\u20a4\u2100-\u214f\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    r"\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6"
)
SPACE = r" \t\u00a0\u2000-\u200a\u3000"
BREAK = r"\n"  # the caller ends each text with one and leaves none inside

# Parts of words.
LETTER = f"(?:[{ALPHA}{MARK}]|&[aeiou](?:acute|grave|uml);)"
ALNUM = f"[{ALPHA}{DIGIT}]"
_LETTERS = f"{LETTER}(?:{LETTER}|[{DIGIT}])*"
WORD = rf"{_LETTERS}(?:[.!?]{_LETTERS})*"
APOSTROPHE = r"(?:['\u0092\u2019]|&apos;)"
INNER_APOSTROPHE = r"(?:['`\u0091\u0092\u2018\u2019\u201b]|&apos;)"  # with those that stand inside words by mistake
CLITIC = f"{APOSTROPHE}(?:[msd]|re|ve|ll)"
NOT = f"n{INNER_APOSTROPHE}t"
BEFORE_NOT = r"(?-i:[A-Za-z\u00ad]*[A-MO-Za-mo-z]\u00ad*)"  # is n't, but not an n't
HYPHEN = r"[-_\u058a\u2010\u2011]"
ACRONYM = r"[a-z](?:\.[a-z])+"


def _words(text: str) -> str:
    """An alternative of these words in any case; one written with a capital must start with one."""
    words = (f"(?-i:{word[0]}){word[1:]}" if word[0].isupper() else word for word in text.split())
    return f"(?:{'|'.join(words)})"


# Abbreviations, which keep their full stop. Those of the first kind win over longer words as well ("Jan.5th").
STRONG_ABBREVIATION = _words(
    """jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    ala ariz Ark Az calif colo conn ct dak Del fla ga Ill ind kan kans ky La Mass md mich minn Miss mo mont neb nev okla
    Ore Pa penn tenn Tex va vt Wash wis wisc wyo
    assn bancorp bhd bldg blvd bros co corp cos esq inc intl jr ltd plc ppte pptes ppty pptys pte ptes pty ptys rd rt sr
    sys univ al est etc ext seq sq tel ed\\.d ph\\.d"""
)
ABBREVIATION = _words(
    """adj adm adv assoc asst atty attys brig capt cmdr col comdr cpl det dr drs ens gen gov govs hon insp lieut lt maj
    messrs mlle mme mr mrs ms msgr pfc pres prof profs pvt rep reps rev sen sens sfc sgt spc supt supts
    alex ave cf cie dept elec ft invt jos mfg Miss mt mtg natl ph st ste treas v vs wm"""
)
NUMBERED_ABBREVIATION = _words("art ca fig figs no nos op pp prop")  # only before a number
SENTENCE_OPENING = _words(
    """A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\\. Ms\\.
    Now Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet
    You"""
)

# Words that keep an apostrophe.
APOSTROPHE_WORDS = (
    f"{APOSTROPHE}n{APOSTROPHE}?",  # rock 'n' roll
    f"[ldj]{APOSTROPHE}",
    f"(?:dunkin|somethin|ol){APOSTROPHE}",
    f"{APOSTROPHE}(?:em|cause|till?|[2-9]0s)",
    f"(?-i:[A-HJ-XZn]){INNER_APOSTROPHE}[{ALPHA}]{{2,}}",  # O'Brien
    f"[{ALPHA}]+(?-i:[aeiouyAEIOUY]){INNER_APOSTROPHE}(?-i:[aeiouA-Z])[{ALPHA}]*",  # ma'am, Shi'ite
    r"c'mon|cont'd\.?|e'er|ev'ry|li'l|nat'l|nor'easter|s'mores",
    f"o{INNER_APOSTROPHE}o",
    f"(?:cap{APOSTROPHE}n|c{APOSTROPHE}est)",
)

# Addresses. They do not end in a mark of punctuation that more likely ends the sentence.
_OUTSIDE = r' \t\n\f\r"<>|'
_PATH = rf"(?:/[^{_OUTSIDE}()]+[^{_OUTSIDE}.!?(){{}},-])?"
_DOMAIN = rf"[^{_OUTSIDE}.!?(){{}},"  # the start of a class of characters
ADDRESSES = (
    rf"https?://[^{_OUTSIDE}(){{}}]+[^{_OUTSIDE}.!?(){{}},-]",
    rf"www\.(?:{_DOMAIN}]+\.)+[a-z]{{2,4}}{_PATH}",
    # Neither capitals nor digits may stand before .com, a slip of Stanford's.
    rf"(?:(?-i:{_DOMAIN}`'$\--_])+\.)+(?:com|net|org|edu){_PATH}",
)
_MAIL = rf"[^{_OUTSIDE}(){{}}\u00a0"
EMAIL = rf"(?:&lt;|<)?[a-z0-9]{_MAIL}]*@(?:{_MAIL}.]+\.)*{_MAIL}.]+(?:&gt;|>)?"
HANDLE = rf"@[a-z_][a-z_0-9]*|#{LETTER}+"
_STEM = f"(?:{LETTER}|[{DIGIT}])+"
_ENDING = _words(
    """bat bmp c cgi class cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt ps py sql tar txt
    wav x xml zip"""
)
FILE = rf"{_STEM}(?:\.{_STEM})*\.{_ENDING}"

# Numbers.
NUMBER = rf"(?:[{DIGIT}]*(?:[.:,\u00ad\u066b\u066c][{DIGIT}]+)+|[{DIGIT}]+)"
DATE = rf"[{DIGIT}]{{1,2}}[-/][{DIGIT}]{{1,2}}[-/][{DIGIT}]{{2,4}}"
_SHORT = f"[{DIGIT}]{{1,4}}"
FRACTION = rf"(?:{_SHORT}[- \u00a0])?{_SHORT}(?:\\?/|\u2044){_SHORT}"
_GAP = r"[- \u00a0]"
_LOCAL = f"[0-9]{{3,4}}{_GAP}?[0-9]{{3,5}}"
PHONES = (
    rf"\([0-9]{{2,3}}\)[ \u00a0]?{_LOCAL}",
    rf"(?:\+{{1,2}})?(?:[0-9]{{2,4}}{_GAP}){{1,2}}{_LOCAL}",
    r"(?:(?:\+{1,2})?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
)

# Compounds.
_PART = f"(?:[dol]{INNER_APOSTROPHE}{ALNUM})?{ALNUM}+"
COMPOUND = f"{_PART}(?:{HYPHEN}{_PART})*"  # well-known
NUMBER_COMPOUND = rf"[a-z0-9][a-z0-9.,\u00ad]*(?:-(?:{ACRONYM}\.|[a-z0-9\u00ad]+))+"  # 4,000-lb
_SLASHED = "[a-z0-9]+(?:-[a-z]+){0,2}"
SLASHED = rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}"  # and/or
CAPITALS = "(?-i:[A-Z]+)(?:(?:[+&]|&amp;)(?-i:[A-Z]+))+"  # AT&T

# Signs.
_NAME = "[a-z][a-z0-9_:.-]*"
_ATTRIBUTE = rf"""{_NAME}(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?"""
TAG = rf"<(?:[!?][a-z-][^>\n]*|/{_NAME}|{_NAME}(?: +{_ATTRIBUTE})* */?) *>"
SMILEY = r"(?-i:[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])"
FACES = (r"(?-i:[-^x=~<>']_[-^x=~<>'])", r"(?-i:\([-^x=~<>'](?:[_.]?[-^x=~<>']|-[\^x=~<>'`])\))")
