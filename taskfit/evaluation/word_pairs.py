"""Words that can stand for each other: small lists of our own, for changes that need no file.

They hold common words only. Longer lists, misspellings or other groups of people are read from files by
:func:`taskfit.evaluation.perturb.read_word_list`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["AMERICAN", "COLLOQUIAL", "GENDERED", "SYNONYMS"]


def _both_ways(pairs: str) -> dict[str, str]:
    """Read ``a/b`` pairs, each word to the other."""
    listed = [pair.split("/") for pair in pairs.split()]
    return {one: other for pair in listed for one, other in (pair, reversed(pair))}


SYNONYMS: Mapping[str, str] = _both_ways(
    "film/movie big/large small/little begin/start begins/starts began/started buy/purchase bought/purchased "
    "fast/quick quickly/rapidly help/assist helps/assists happy/glad wrong/incorrect hard/difficult "
    "easy/simple maybe/perhaps often/frequently sick/ill shop/store shops/stores kid/child kids/children "
    "picture/image pictures/images answer/reply answers/replies choose/pick chooses/picks chose/picked need/require "
    "needs/requires needed/required get/obtain ask/inquire end/finish ended/finished huge/enormous funny/amusing "
    "sad/unhappy boring/dull terrible/awful great/terrific smart/clever angry/furious error/mistake "
    "errors/mistakes speak/talk whole/entire nearly/almost immediately/instantly "
    "garbage/trash car/automobile cars/automobiles street/road streets/roads"
)
"""Words of like meaning, each way. They are near, not equal: a person would give the same answer to nearly all."""

AMERICAN: Mapping[str, str] = _both_ways(
    "color/colour colors/colours favorite/favourite flavor/flavour honor/honour humor/humour labor/labour "
    "neighbor/neighbour neighbors/neighbours center/centre centers/centres theater/theatre  "
    "organize/organise organized/organised realize/realise realized/realised recognize/recognise analyze/analyse "
    "apologize/apologise canceled/cancelled traveling/travelling traveled/travelled traveler/traveller "
    "defense/defence offense/offence gray/grey catalog/catalogue dialog/dialogue "
    "vacation/holiday truck/lorry diaper/nappy "
    "mom/mum pajamas/pyjamas aging/ageing jewelry/jewellery"
)
"""Spellings and words of American and British English, each way."""

COLLOQUIAL: Mapping[str, str] = {
    "going to": "gonna",
    "want to": "wanna",
    "got to": "gotta",
    "have to": "hafta",
    "kind of": "kinda",
    "sort of": "sorta",
    "because": "cause",
    "about": "bout",
    "them": "em",
    "you all": "y'all",
    "your": "yo",
    "the": "da",
    "that": "dat",
    "this": "dis",
    "with": "wit",
    "and": "an",
    "is not": "ain't",
    "isn't": "ain't",
    "are not": "ain't",
    "aren't": "ain't",
    "nothing": "nuttin",
    "something": "sumthin",
    "brother": "bro",
    "going": "goin",
    "doing": "doin",
    "being": "bein",
    "having": "havin",
    "making": "makin",
    "getting": "gettin",
    "looking": "lookin",
    "trying": "tryin",
    "saying": "sayin",
    "thinking": "thinkin",
    "working": "workin",
    "talking": "talkin",
}
"""Spellings of how many people speak, in several dialects; a rough stand-in for writing in any of them."""

GENDERED: Mapping[str, str] = _both_ways(
    "he/she himself/herself man/woman men/women boy/girl boys/girls father/mother fathers/mothers dad/mom "
    "son/daughter sons/daughters brother/sister brothers/sisters husband/wife husbands/wives uncle/aunt "
    "nephew/niece grandfather/grandmother grandpa/grandma king/queen prince/princess actor/actress actors/actresses "
    "waiter/waitress waiters/waitresses gentleman/lady gentlemen/ladies guy/gal guys/gals male/female males/females "
    "sir/madam mr/mrs boyfriend/girlfriend groom/bride host/hostess hero/heroine policeman/policewoman "
    "businessman/businesswoman chairman/chairwoman salesman/saleswoman fireman/firewoman spokesman/spokeswoman"
)
"""Words for men and women, each way; *his*, *him* and *her* need their surroundings and are done by the change."""
