"""Enrolment: who counts, who is refused, and when it is over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fedemu.client import join
from fedemu.enrolment import counts_of, enrol, settings
from fedemu.errors import NetworkError, PeerError, RunError
from fedemu.net.channel import Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.messages import PROTOCOL, Message
from fedemu.scenario import load
from fedemu.tokens import load as load_tokens

QUIET = 1.0


class Office:
    """An enrolment that goes on in a thread, and the clients that come to it."""

    def __init__(self, **how: object) -> None:
        self.said: list[str] = []
        self._opened: list[Conversation] = []
        settings = {"quiet": QUIET, "announce": self.said.append, **how}
        self.outcome = asyncio.create_task(asyncio.to_thread(enrol, "127.0.0.1:0", ["phones", "laptops"], **settings))

    async def hears(self, line: str) -> str:
        """Wait until the last thing that the server has said begins so; return the rest."""
        while not self.said or not self.said[-1].startswith(line):
            assert not self.outcome.done(), self.said
            await asyncio.sleep(0.01)
        return self.said[-1].removeprefix(line)

    @property
    def address(self) -> str:
        return self.said[0].removeprefix("enrolling clients at ")

    async def connected(self) -> Conversation:
        if not self.said:
            await self.hears("enrolled: phones 0")
        self._opened.append(Conversation(await GrpcTransport().connect(self.address), limit=0))
        return self._opened[-1]

    async def come(self, *hello: object) -> "Came":
        """Say hello; return when the server has counted this client."""
        counted = asyncio.Event()
        conversation = await self.connected()
        joining = asyncio.create_task(join(conversation, *hello, enrolled=counted.set))
        waiting = asyncio.create_task(counted.wait())
        await asyncio.wait([joining, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if joining.done():
            joining.result()
        return conversation, joining

    async def close(self) -> None:
        for conversation in self._opened:
            await conversation.aclose()


Came = tuple[Conversation, "asyncio.Task[object]"]


@asynccontextmanager
async def office(**how: object) -> AsyncIterator[Office]:
    """An enrolment that is over at the end: whoever is missing comes."""
    it = Office(**how)
    try:
        yield it
    finally:
        await it.close()
        if not it.outcome.done():
            ending = [await it.come(group, None, "any", "") for group in ("phones", "laptops")]
            await it.outcome
            await asyncio.gather(*(joining for _, joining in ending), return_exceptions=True)
            await it.close()


async def refusal(awaitable: object) -> str:
    with pytest.raises(PeerError) as caught:
        await awaitable
    return str(caught.value)


async def test_those_who_have_come_are_the_counts_and_are_sent_away_to_come_again() -> None:
    """Two phones and a laptop. While there is no laptop it goes on, however long nobody comes; the port is known."""
    async with office() as it:
        phones = [await it.come("phones", None) for _ in range(2)]
        await asyncio.sleep(2 * QUIET)
        assert not it.outcome.done()
        laptop = await it.come("laptops", None)
        address, counts = await it.outcome
        assert counts == {"phones": 2, "laptops": 1}
        assert address == it.address
        for _, joining in (*phones, laptop):
            with pytest.raises(NetworkError, match="the connection ended: OK"):
                await joining
    assert it.said[1:] == [
        f"enrolled: phones {phones}, laptops {laptops}" for phones, laptops in [(0, 0), (1, 0), (2, 0), (2, 1)]
    ]


async def test_who_has_left_does_not_count_and_who_comes_late_is_waited_for() -> None:
    """One of two phones leaves before the laptop comes; who comes within a second of the last one still counts."""
    async with office() as it:
        gone, joining = await it.come("phones", None)
        await it.come("phones", None)
        await it.hears("enrolled: phones 2, laptops 0")
        await gone.aclose()
        joining.cancel()
        await it.hears("enrolled: phones 1, laptops 0")
        came = []
        for group in ("laptops", "phones", "phones", "laptops"):
            came.append(await it.come(group, None))
            await asyncio.sleep(QUIET / 2)
        assert (await it.outcome)[1] == {"phones": 3, "laptops": 2}
        await asyncio.gather(*(joining for _, joining in came), return_exceptions=True)


@pytest.mark.parametrize(
    ("hello", "expected"),
    [
        (("tablets", None), "NOT_FOUND: no group 'tablets'; there are phones, laptops"),
        (("phones", 0), "ALREADY_EXISTS: slot 0 of phones is in use"),
        (("phones", 1, None, "x" * 256), "INVALID_ARGUMENT: a host of 256 characters; at most 255 are expected"),
    ],
)
async def test_a_hello_that_a_run_would_refuse_is_refused_in_its_words_and_not_counted(
    hello: tuple[object, ...], expected: str
) -> None:
    """Slot 0 is there already: it was asked for by number, and counts."""
    async with office() as it:
        await it.come("phones", 0)
        assert await refusal(it.come(*hello)) == expected
        await it.come("laptops", None)
        assert (await it.outcome)[1] == {"phones": 1, "laptops": 1}
    assert any(line.startswith("refused ipv4:127.0.0.1:") and line.endswith(expected) for line in it.said)


@pytest.mark.parametrize("what", ["another protocol", "no hello", "more"])
async def test_what_the_protocol_does_not_allow_is_refused(toy: object, what: str) -> None:
    """Also from a client that is enrolled already."""
    hello = toy.pb.Hello(protocol=PROTOCOL, group="phones")
    said, expected = {
        "another protocol": (
            [toy.pb.Hello(protocol=7, group="phones")],
            "FAILED_PRECONDITION: protocol 7; this server speaks 1",
        ),
        "no hello": ([toy.pb.Ready()], "INVALID_ARGUMENT: Ready where Hello was expected"),
        "more": ([hello, toy.pb.Ready()], "INVALID_ARGUMENT: Ready from a client that is enrolled"),
    }[what]
    async with office() as it:
        conversation = await it.connected()
        for header in said:
            await conversation.send(Message(header))
        if what == "more":
            assert isinstance((await conversation.receive()).header, toy.pb.Enrolled)
        assert await refusal(conversation.receive()) == expected


async def test_tokens_let_in_any_number_with_a_groups_and_one_with_a_clients(tmp_path: Path) -> None:
    """Of the file's slots nobody knows yet whether there will be such: `phones/1` is one all the same."""
    (tmp_path / "tokens").write_text("phones any\nlaptops any\nphones/1 mine\n")
    tokens = load_tokens(tmp_path / "tokens", {"phones": None, "laptops": None})
    async with office(tokens=tokens) as it:
        await it.come("phones", None, "mine")
        told = [
            await refusal(it.come("phones", None)),
            await refusal(it.come("phones", None, "mine")),
            await refusal(it.come("phones", 1, "any")),
            await refusal(it.come("phones", 6, "mine")),
            await refusal(it.come("laptops", None, "mine")),
        ]
        for hello in (("phones", None, "any"), ("phones", 2, "any"), ("laptops", None, "any")):
            await it.come(*hello)
        assert (await it.outcome)[1] == {"phones": 3, "laptops": 1}
    assert told == [
        "UNAUTHENTICATED: no token, and this server asks for one; join with --token",
        "RESOURCE_EXHAUSTED: all 1 slots of phones for this token are in use",
        "ALREADY_EXISTS: slot 1 of phones is in use",
        "UNAUTHENTICATED: this token is not for slot 6 of phones",
        "UNAUTHENTICATED: this token is not for group 'laptops'",
    ]


async def test_a_slot_that_there_will_not_be_ends_it() -> None:
    """The run would wait for a third and a fourth phone for ever."""
    async with office() as it:
        await it.come("phones", None)
        await it.come("phones", 3)
        await it.come("laptops", None)
        with pytest.raises(RunError, match=r"somebody came as phones/3, and 2 phones have come: 0..1; leave"):
            await it.outcome


async def test_a_port_in_use_is_an_error() -> None:
    """Two enrolments at one address would each count a part."""
    async with office() as it:
        await it.hears("enrolled: phones 0, laptops 0")
        with pytest.raises(NetworkError, match=f"cannot listen on {it.address}"):
            await asyncio.to_thread(enrol, it.address, ["phones"], quiet=QUIET)


def test_a_run_directory_tells_the_counts_that_it_was_begun_with(tmp_path: Path) -> None:
    """They replace the scenario's own, as `--set` would."""
    text = "dataset: {kind: digits}\npartition: {kind: iid}\nmodel: {kind: softmax}\nstrategy: {kind: fedavg}\n"
    path = tmp_path / "scenario.yaml"
    path.write_text(f"{text}clients: {{phones: {{count: 12}}, laptops: {{count: 2}}}}\nstop: {{rounds: 1}}\n")
    assert counts_of(tmp_path) == {"phones": 12, "laptops": 2}
    replaced = load(path, settings({"phones": 5, "laptops": 3})).cells[0].scenario
    assert {name: group.count for name, group in replaced.clients.items()} == {"phones": 5, "laptops": 3}
