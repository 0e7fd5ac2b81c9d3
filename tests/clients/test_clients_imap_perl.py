"""Mail::IMAPClient, on which imapsync is built, does what imapsync does with an account.

Rules of this file: the program below prints what it has seen as lines, which are compared.
"""

from __future__ import annotations

from pathlib import Path

from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, filled
from support.marks import external

account = served_account

PROGRAM = r"""
use strict; use warnings; use Mail::IMAPClient; use IO::Socket::SSL;
my ($port, $user, $password, $authority) = @ARGV;
my $client = Mail::IMAPClient->new(
    Server => "localhost", Port => $port, User => $user, Password => $password, Uid => 1,
    Ssl => [SSL_ca_file => $authority],
) or die $@;
print "inbox ", (grep { $_ eq "INBOX" } $client->folders) + 0, "\n";
$client->select("INBOX") or die;
print "messages ", join(",", $client->messages), "\n";
print "found ", join(",", $client->search("SUBJECT", "mail-2")), "\n";
print "unseen ", join(",", $client->unseen), "\n";
for my $uid ($client->messages) {
    my $headers = $client->parse_headers($uid, "Subject", "Message-Id");
    my $structure = $client->get_bodystructure($uid);
    print join(" ", "one", $uid, $headers->{Subject}[0], $client->size($uid),
        lc $structure->bodytype, $client->get_envelope($uid)->subject), "\n";
}
$client->create("Copy/of it") or die;
for my $uid ($client->messages) {
    my $content = $client->message_string($uid);
    my $date = $client->internaldate($uid);
    my $flags = join(" ", grep { lc ne "\\recent" } $client->flags($uid));
    my $copy = $client->append_string("Copy/of it", $content, $flags, $date) or die $@;
    print "copy $uid $copy\n";
}
print "count ", $client->message_count("Copy/of it"), "\n";
$client->move("Copy/of it", 1) or die;
$client->delete_message(2) or die;
$client->expunge or die;
print "left ", join(",", $client->messages), "\n";
$client->subscribe("Copy/of it") or die;
print "subscribed ", (grep { $_ eq "Copy/of it" } $client->subscribed) + 0, "\n";
$client->logout or die;
"""


@external("perl")
def test_copy_of_an_account(account: ImapAccount, tmp_path: Path) -> None:
    ours = ImapSide(account.client())
    inbox = filled(ours, "INBOX", "mail", 4)
    program = tmp_path / "program.pl"
    program.write_text(PROGRAM)
    given = (str(account.port), account.user, account.password, account.authority)
    seen = run("perl", program, *given).stdout.decode().splitlines()
    kinds = ("multipart", "text", "text", "multipart")
    assert seen == [
        "inbox 1",
        "messages 1,2,3,4",
        "found 3",
        "unseen 1,3",
        *(
            f"one {number + 1} mail-{number} {len(inbox[f'mail-{number}'].content)} "
            f"{kind} mail-{number}"
            for number, kind in enumerate(kinds)
        ),
        *(f"copy {uid} {uid}" for uid in range(1, 5)),
        "count 4",
        "left 3,4",
        "subscribed 1",
    ]
    client = account.client()
    client.select('"Copy/of it"')
    assert client.search(None, "ALL")[1] == [b"1 2 3 4 5"]
    assert set(ours.read("INBOX")) == {"mail-2", "mail-3"}
