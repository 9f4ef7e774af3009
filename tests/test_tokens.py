"""Join tokens: what a file of them says, what each opens, and what a server tells who has none."""

from pathlib import Path

import pytest

from fedemu.client import join
from fedemu.clock import RealClock
from fedemu.errors import PeerError, ScenarioError
from fedemu.net.grpc import GrpcTransport
from fedemu.tokens import Tokens, given, load

CLIENTS = {"phones": ["phones/0", "phones/1"], "laptops": ["laptops/0"]}


def refused(tokens: Tokens, token: str, group: str, slot: int | None = None) -> str:
    with pytest.raises(PeerError) as caught:
        tokens.open(token, group, slot)
    assert caught.value.status == "UNAUTHENTICATED"
    return caught.value.text


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([("any", "phones"), ("mine", "phones/1"), ("both", "phones/0"), ("both", "laptops/0")])


def test_a_token_opens_what_it_is_for(tokens: Tokens) -> None:
    """A group's any slot, a client's own slot; one that is there twice opens both, each in its group."""
    assert tokens.open("any", "phones", None) == tokens.open("any", "phones", 1) == {"phones"}
    assert tokens.open("mine", "phones", None) == tokens.open("mine", "phones", 1) == {"phones/1"}
    assert tokens.open("both", "phones", 0) == {"phones/0"}
    assert tokens.open("both", "laptops", None) == {"laptops/0"}


@pytest.mark.parametrize(
    ("token", "group", "slot", "reason"),
    [
        ("", "phones", None, "no token, and this server asks for one; join with --token"),
        ("an", "phones", None, "this server does not know this token"),
        ("anyy", "phones", None, "this server does not know this token"),
        ("größe\n", "phones", None, "this server does not know this token"),
        ("any", "laptops", None, "this token is not for group 'laptops'"),
        ("any", "phones/0", None, "this token is not for group 'phones/0'"),
        ("mine", "phones", 0, "this token is not for slot 0 of phones"),
        ("mine", "phones", 2, "this token is not for slot 2 of phones"),
    ],
)
def test_a_token_opens_nothing_else(tokens: Tokens, token: str, group: str, slot: int | None, reason: str) -> None:
    """Not the beginning of one, not one with more behind it; the reason says what would help."""
    assert refused(tokens, token, group, slot) == reason


def test_a_stranger_learns_no_group_and_cannot_flood_the_log(tokens: Tokens) -> None:
    """One that there is and one that there is not get the same answer; of a long name, 40 characters are repeated."""
    assert refused(tokens, "x", "phones") == refused(tokens, "x", "tablets")
    assert len(refused(tokens, "any", "x\n" * 10_000)) < 120
    assert "\n" not in refused(tokens, "any", "x\n")


def test_a_file_gives_tokens_to_groups_and_clients(tmp_path: Path) -> None:
    """Comments and empty lines aside."""
    (tmp_path / "tokens").write_text("# ours\n\nphones any\n  phones/1\tmine  \nlaptops/0 own\n")
    tokens = load(tmp_path / "tokens", CLIENTS)
    assert tokens.open("any", "phones", None) == {"phones"}
    assert tokens.open("mine", "phones", None) == {"phones/1"}
    assert tokens.open("own", "laptops", 0) == {"laptops/0"}


def faults(path: Path) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(path, CLIENTS)
    return [str(fault).removeprefix(f"{path}:") for fault in caught.value.faults]


def test_a_faulty_file_names_every_line_and_repeats_no_token(tmp_path: Path) -> None:
    """Line 2 has no token, line 3 two words too many, lines 4 and 5 a place that is not there."""
    (tmp_path / "tokens").write_text("phones s1\nlaptops\nphones/1 s2 s3 s4\ntablets s5\nphones/2 s6\n")
    assert faults(tmp_path / "tokens") == [
        "2: tokens: is not a group or a client, and its token",
        "3: tokens: is not a group or a client, and its token",
        "4: tokens: 'tablets' is neither a group nor a client here; groups are phones, laptops",
        "5: tokens: 'phones/2' is neither a group nor a client here; groups are phones, laptops",
    ]


def test_a_client_that_could_never_join_is_a_fault(tmp_path: Path) -> None:
    """The server would wait for it for ever."""
    (tmp_path / "tokens").write_text("phones/1 s1\n")
    assert faults(tmp_path / "tokens") == ["1: tokens: no token for phones/0, laptops/0, which could never join"]
    assert faults(tmp_path / "none") == ["1: tokens: cannot be read: No such file or directory"]


def test_a_client_gives_its_token_or_a_file_that_has_it(tmp_path: Path) -> None:
    """The line's end is none of it."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    assert given("secret") == given(f"@{path}") == "secret"
    for text, reason in [("", "has 0 words"), ("phones secret", "has 2 words")]:
        path.write_text(text)
        with pytest.raises(ScenarioError, match=f"{path}:1: token: {reason}, where one token was expected") as caught:
            given(f"@{path}")
        assert "secret" not in str(caught.value)
    with pytest.raises(ScenarioError, match=f"{tmp_path}:1: token: cannot be read: Is a directory"):
        given(f"@{tmp_path}")


async def test_a_server_seats_whom_a_token_lets_in_and_tells_who_was_refused(toy, tokens: Tokens) -> None:
    """`mine` is for phones/1 although phones/0 is free, and then it is taken; `any` gets what is left."""
    said: list[str] = []
    clients = {client: toy.Client() for group in CLIENTS.values() for client in group}
    federation = toy.Federation(clients, RealClock(), tokens=tokens)
    async with toy.hosted(federation, GrpcTransport(refused=said.append)) as connect:

        async def refusal(*hello: object) -> str:
            with pytest.raises(PeerError) as caught:
                await join(await connect(), *hello)
            return str(caught.value)

        assert (await join(await connect(), "phones", None, "mine")).client == "phones/1"
        told = [
            await refusal("phones", None),
            await refusal("phones", None, "wrong"),
            await refusal("phones", None, "mine"),
            await refusal("phones", 1, "any"),
        ]
        assert (await join(await connect(), "phones", None, "any")).client == "phones/0"
        told.append(await refusal("phones", None, "any"))
    assert told == [
        "UNAUTHENTICATED: no token, and this server asks for one; join with --token",
        "UNAUTHENTICATED: this server does not know this token",
        "RESOURCE_EXHAUSTED: all 1 slots of phones for this token are in use",
        "ALREADY_EXISTS: slot 1 of phones is in use",
        "RESOURCE_EXHAUSTED: all 2 slots of phones are in use",
    ]
    assert [line.partition(": ")[2] for line in said] == told
    assert all(line.startswith("refused ipv4:127.0.0.1:") for line in said)
    assert [e.client for e in federation.of("ClientJoined")] == ["phones/1", "phones/0"]
