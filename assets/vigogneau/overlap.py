"""How much two questions share: the measure that keeps the held-out rewordings apart from the training text."""

import re
import unicodedata
from collections.abc import Iterable

LIMIT = 0.6
"""The largest share of its content words that a held-out rewording may find in one training phrasing."""

_FRENCH = """
a ai aie aient ait alors apres as au aucun aucune aura aurais aurait aussi autre autres aux avaient avais avait
avant avec avez avoir avons c ca ce ceci cela celle celles celui ces cet cette ceux chez ci comment combien d dans
de depuis des dessus deux dis dit dites dois doit doivent donc dont du elle elles en encore entre es est et etaient
etais etait ete etes etre eu eux faire fais fait faites faut font ici il ils j je l la le les lequel laquelle leur
leurs lui m ma mais me meme memes merci mes mettre moi moins mon n ne ni non nos notre nous on ont ou oui par parce
pas peu peut peuvent peux plus plutot pour pourquoi pourrais pourrait pouvez pouvoir puis puisque qu quand que quel
quelle quelles quels quelque quelques qui quoi r rien s sa sans se sera serait ses si soit sommes son sont sous
stp suis sur svp t ta tes te toi ton toujours tous tout toute toutes tres trop tu un une va vais vas vers veut
veux voici voila vont vos votre voudrais voulez vous vraiment y plait bonjour salut alor juste bien
"""
_ENGLISH = """
a about after again all also am an and any anything are as at be been before being both but by can cannot could did
do does doing don done each else ever every few for from get gets getting go goes going got had has have having he
her here hers hey hi him his how i if in into is isn it its itself just let ll m made make makes making may maybe me
might mine more most much must my myself need no nor not now of off on once one ones only or other our out over own
please pls put quite re really s same shall she should so some something still such t than thank thanks that the
their them then there these they thing things this those through to too under until up upon us ve very want wanted
was way we were what whatever when where whether which while who whom whose why will with without would wouldn yes
yet you your yours hello kind sort d tell
"""
STOP_WORDS = frozenset((_FRENCH + _ENGLISH).split())
_WORD = re.compile(r"[a-z0-9]+(?:[._][a-z0-9]+)*")


def plain(text: str) -> str:
    """Give `text` in lower case and without accents."""
    spread = unicodedata.normalize("NFKD", text.lower().replace("œ", "oe"))
    return "".join(letter for letter in spread if not unicodedata.combining(letter))


def content(text: str) -> frozenset[str]:
    """Give the words of `text` that carry meaning: lower case, no accents, no function or polite words."""
    return frozenset(word for word in _WORD.findall(plain(text)) if word not in STOP_WORDS)


def overlap(rewording: frozenset[str], phrasing: frozenset[str]) -> float:
    """Give the share of the content words of `rewording` that `phrasing` holds, 0 when it has none."""
    return len(rewording & phrasing) / len(rewording) if rewording else 0.0


def too_close(phrasing: str, rewordings: Iterable[frozenset[str]]) -> bool:
    """Tell whether any of the rewordings shares more than `LIMIT` with `phrasing`."""
    words = content(phrasing)
    return any(overlap(rewording, words) > LIMIT for rewording in rewordings)
