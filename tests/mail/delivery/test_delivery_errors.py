"""Deliveries that fail: the error that counts, and what is not kept, told or claimed after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.deliveries import ALICE, ALL, BOB, CAROL, WatchedDelivery, files, in_office

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.mailbox_delivery import MailboxDelivery
from fastlisten.mail.delivery.message_writer import PIECE_COST, SPOOL_SIZE
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.envelope import EnvelopeRecipient
from fastlisten.mail.reply import Reply


@in_office
async def test_error_of_a_failed_rename_is_the_deliverys(office: PostOffice) -> None:
    """Nothing follows it: no other error, and nobody hears of mail."""
    heard: list[object] = []
    end = office.subscribe(ALICE.name, heard.append)

    def rename(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    watched = WatchedDelivery(office, [ALICE])
    watched.fill(100)
    await watched.prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        await watched.commit()
    error = watched.delivery.error
    assert error is not None
    assert error.errno == errno.EDQUOT
    assert heard == []
    assert files(office) == []
    end()


@in_office
async def test_nothing_is_kept_after_an_error(office: PostOffice) -> None:
    office.mail.write_text("no directory")
    watched = WatchedDelivery(office, [ALICE])
    delivery = watched.delivery
    watched.fill(SPOOL_SIZE)
    await watched.until(lambda it: it.error is not None)
    for _ in range(10):
        delivery.add(bytes(SPOOL_SIZE))
    assert delivery._pending == []
    assert not delivery.full
    assert delivery.size == 11 * SPOOL_SIZE
    delivery.commit()
    assert delivery.done
    delivery.abort()


@in_office
async def test_tiny_pieces_count_as_much_as_they_take(office: PostOffice) -> None:
    watched = WatchedDelivery(office, [ALICE])
    delivery = watched.delivery
    for _ in range(2):
        # The first such batch is handed over, and until that is written the second is too much.
        assert not delivery.full
        for _ in range(SPOOL_SIZE // PIECE_COST):
            delivery.add(b"ab")
    assert delivery.full
    await watched.commit()
    (message,) = office.maildir(ALICE).messages()
    assert office.maildir(ALICE).read(message) == b"ab" * (2 * SPOOL_SIZE // PIECE_COST)


@in_office
async def test_copy_of_a_file_that_has_become_shorter_is_an_error(office: PostOffice) -> None:
    """Somebody has cut it; half a message is not delivered."""

    def link(*_: object, **__: object) -> None:
        os.truncate(watched.delivery.path, 50)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    watched = WatchedDelivery(office, ALL)
    watched.fill(100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", link)
        await watched.commit()
    error = watched.delivery.error
    assert error is not None
    assert error.errno == errno.EIO
    assert files(office) == []


class Owner(WatchedDelivery):
    """Of one delivery for several mailboxes; waits for its replies."""

    def __init__(self, office: PostOffice) -> None:
        super().__init__(office, ALL)
        self.replies: list[Reply] = []

    def recipient_answered(self, reply: Reply) -> None:
        raise AssertionError

    def message_answered(self, replies: list[Reply]) -> None:
        self.replies = replies
        self.changed.set()

    def delivery_resumed(self) -> None:
        raise AssertionError

    def log(self, *_: object, **__: object) -> None:
        pass


@in_office
async def test_who_did_not_get_the_message_is_not_reported_to_have_it(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    (office.mail / BOB.name).write_text("no directory")
    owner = Owner(office)
    delivery = MailboxDelivery(office, "a@b.example", owner, Counts(), independent=True)  # type: ignore[arg-type]
    for account in ALL:
        wishes = EnvelopeRecipient(parse_mailbox(account.name), notify="SUCCESS")
        delivery.accept(wishes, account)
    delivery.add(b"x\r\n")
    assert delivery.commit() is None
    await owner.changed.wait()
    assert [reply.code for reply in owner.replies] == [250, 451, 250]
    (outcome,) = delivery.outcomes()
    told = [recipient.mailbox.text for recipient in outcome.recipients]
    assert told == delivery.destinations() == [ALICE.name, CAROL.name]
