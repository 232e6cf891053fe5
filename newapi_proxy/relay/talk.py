"""What is said in a session between two charges, by both sides, and what that is worth.

Knows moments, no formats and no money's way. Sources: relay-and-billing 5.12, 5.7.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from newapi_proxy.billing.charge import Find, Ratio, charge
from newapi_proxy.billing.count import Tally
from newapi_proxy.billing.prices import Price
from newapi_proxy.ir.session import Moment
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay.instalments import added
from newapi_proxy.relay.settle import off_loop

IN_MS, OUT_MS = 36, 72  # milliseconds of sound to a token, said and answered (relay-and-billing 5.7.5)
LISTENERS: Final = 16  # models beside the session's whose work is told apart
RESPONSES: Final = 64  # responses in progress that are told apart; providers have one, and a few beside it
_TEXT: Final = 4  # bytes of text to a token, for what is reckoned while it comes
_STEP: Final = 4  # it is reckoned anew when a quarter more has come


class Answer:
    """What has been handed on of a response that is not done."""

    __slots__ = ("begun", "sound", "text")

    def __init__(self) -> None:
        self.text = Tally()
        self.sound = 0
        self.begun = False


class Talk:
    """What has been said since the last charge: by the client, beside the responses, and in those in progress."""

    __slots__ = ("_grown", "answers", "said", "sides", "sound")

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.fresh()

    def fresh(self) -> None:
        """It has been charged; what is in progress goes on."""
        self.said = Tally()
        self.sound = 0
        self.sides: dict[str, Usage] = {}
        self._grown = 0

    def take(self, moment: Moment) -> None:
        """Listens to one message that ends nothing."""
        match moment.kind:
            case "said":
                self.said.feed(moment.text)
                self.sound += moment.sound
            case "begun":
                self._answer(moment.response)
            case "part":
                answer = self._answer(moment.response)
                answer.begun = True
                answer.text.feed(moment.text)
                answer.sound += moment.sound
            case "side" if moment.usage is not None:
                name = moment.model if moment.model in self.sides or len(self.sides) < LISTENERS else ""
                known = self.sides.get(name)
                self.sides[name] = moment.usage if known is None else added(known, moment.usage)
            case _:
                return

    def _answer(self, response: str) -> Answer:
        known = self.answers.get(response)
        if known is None:
            response = response if len(self.answers) < RESPONSES else ""
            known = self.answers.setdefault(response, Answer())
            self._grown = 0
        return known

    def grown(self) -> bool:
        """Whether enough has come of the responses in progress, since it was asked last, to reckon what they cost."""
        size = sum(one.sound + one.text.size for one in self.answers.values())
        size += sum(one.prompt + one.completion for one in self.sides.values())
        if size < self._grown:
            return False
        self._grown = size + size // _STEP + 1
        return True

    def running(self, price: Price, ratio: Ratio, find: Find, least: int) -> int:
        """The units that the responses in progress cost so far by what has come of them, `least` each at least, and
        what was done beside them."""
        if price.call is not None:  # it is the session's, and paid once
            return 0
        heard = sum(one.sound for one in self.answers.values()) // OUT_MS
        words = sum(one.text.size for one in self.answers.values()) // _TEXT
        usage = Usage(completion=heard + words, audio_out=heard, source="counted", others=tuple(self.sides.items()))
        return max(charge(usage, price, ratio, find).units, least * len(self.answers))


async def counted(said: Tally, sound: int, answers: Sequence[Answer], model: str) -> Usage:
    """The usage of these responses to what was said, as it is reckoned here."""
    size = said.size + sum(one.text.size for one in answers)
    entry = await off_loop(size, lambda: said.tokens(model, ended=False), model)
    out = await off_loop(size, lambda: sum(one.text.tokens(model) for one in answers), model)
    heard, spoken = sound // IN_MS, sum(one.sound for one in answers) // OUT_MS
    return Usage(prompt=entry + heard, audio_in=heard, completion=out + spoken, audio_out=spoken, source="counted")
