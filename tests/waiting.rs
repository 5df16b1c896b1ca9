//! Commands that wait in the log (`BLPOP` and its kin), put to a machine as nodes put them: who is served, in which order, by whose
//! clock, and what is left of them when a node starts anew or reads a snapshot.

use bytes::Bytes;
use plenary::machine::entry::{Command, Entry, Millis, Origin};
use plenary::machine::event::Event;
use plenary::machine::internal::{self, Unwait};
use plenary::machine::reply::{CommandError, Reply};
use plenary::machine::{Machine, Outcome, snapshot};
use std::collections::BTreeMap;

/// A machine, and the nodes that write into its log.
#[derive(Default)]
struct Log {
    machine: Machine,
    clock: Millis,
    /// The start of each node, and its groups so far.
    nodes: BTreeMap<u64, (u64, u64)>,
}

fn words(line: &str) -> Command {
    Command::new(0, line.split(' ').map(str::to_owned))
}

impl Log {
    /// Applies a group of a node; its replies.
    fn group(&mut self, node: u64, commands: Vec<Command>) -> Vec<Reply> {
        let (start, number) = self.nodes.entry(node).or_insert((1, 0));
        *number += 1;
        let entry = Entry {
            format: Entry::FORMAT,
            at: self.clock,
            seed: *number,
            origin: Origin {
                node,
                start: *start,
                number: *number,
            },
            commands,
        };
        match self.machine.apply(&entry) {
            Outcome::Applied(replies) => replies,
            other => panic!("a group in its turn: {other:?}"),
        }
    }

    /// Applies one command of node 1; its reply.
    fn run(&mut self, line: &str) -> String {
        self.run_of(1, line)
    }

    fn run_of(&mut self, node: u64, line: &str) -> String {
        self.group(node, vec![words(line)]).iter().map(text).collect()
    }

    /// Applies one command that must wait; its number.
    fn wait(&mut self, line: &str) -> u64 {
        self.wait_of(1, line)
    }

    fn wait_of(&mut self, node: u64, line: &str) -> u64 {
        match self.group(node, vec![words(line)])[..] {
            [Reply::Waiting(number)] => number,
            ref other => panic!("{line} waits: {other:?}"),
        }
    }

    /// A tick of the leader at a later time.
    fn tick(&mut self, at: Millis) {
        self.clock = at;
        let entry = Entry {
            format: Entry::FORMAT,
            at,
            seed: 0,
            origin: Origin::default(),
            commands: Vec::new(),
        };
        assert_eq!(self.machine.apply(&entry), Outcome::Applied(Vec::new()));
    }

    /// Who was answered since this was last asked, in order, and what.
    fn answered(&mut self) -> Vec<(u64, String)> {
        let events = self.machine.store_mut().take_events();
        let answers = events.into_iter().filter_map(|event| match event {
            Event::Answered { waiter, reply } => Some((waiter.number, text(&reply))),
            _ => None,
        });
        answers.collect()
    }

    /// Those who wait still.
    fn waiting(&self) -> usize {
        self.machine.store().waiting().len()
    }

    /// Goes on from a snapshot of itself.
    fn restart(&mut self) {
        let mut bytes = Vec::new();
        snapshot::write(&self.machine, &mut bytes).expect("a Vec takes everything");
        let restored = snapshot::read(&mut &bytes[..]).expect("what was just written");
        assert_eq!(restored.digest(), self.machine.digest());
        assert_eq!(restored.next_deadline(), self.machine.next_deadline());
        self.machine = restored;
    }
}

/// An answer in one line.
fn text(reply: &Reply) -> String {
    match reply {
        Reply::Simple(text) => text.clone().into_owned(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Nil => "nil".to_owned(),
        Reply::NilArray => "no array".to_owned(),
        Reply::Array(replies) => format!("[{}]", replies.iter().map(text).collect::<Vec<_>>().join(" ")),
        Reply::Error(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

fn answers<const N: usize>(expected: [(u64, &str); N]) -> Vec<(u64, String)> {
    expected.map(|(number, text)| (number, text.to_owned())).to_vec()
}

#[test]
fn first_come_first_served_on_whatever_node_they_wait() {
    let mut log = Log::default();
    let waiters = [3, 1, 2, 1].map(|node| log.wait_of(node, "BLPOP l 0"));
    assert_eq!(
        log.run_of(2, "RPUSH l a b c"),
        "3",
        "the length before anybody was served"
    );
    let [first, second, third, fourth] = waiters;
    assert_eq!(
        log.answered(),
        answers([(first, "[l a]"), (second, "[l b]"), (third, "[l c]")])
    );
    assert_eq!((log.waiting(), log.run("EXISTS l")), (1, "0".to_owned()));
    log.run("LPUSH l d e");
    assert_eq!(log.answered(), answers([(fourth, "[l e]")]));
    assert_eq!((log.waiting(), log.run("LRANGE l 0 -1")), (0, "[d]".to_owned()));
}

#[test]
fn each_takes_from_its_own_end_and_as_many_as_it_asked_for() {
    let mut log = Log::default();
    let left = log.wait("BLPOP l 0");
    let several = log.wait("BLMPOP 0 2 k l RIGHT COUNT 2");
    let right = log.wait("BRPOP l 0");
    log.run("RPUSH l 1 2 3 4 5");
    assert_eq!(
        log.answered(),
        answers([(left, "[l 1]"), (several, "[l [5 4]]"), (right, "[l 3]")])
    );
    assert_eq!(log.run("LRANGE l 0 -1"), "[2]");
}

#[test]
fn who_waits_for_several_keys_is_served_by_the_first_that_is_changed_and_once() {
    let mut log = Log::default();
    let both = log.wait("BLPOP a b a 0");
    let one = log.wait("BLPOP a 0");
    log.run("RPUSH b x");
    assert_eq!(log.answered(), answers([(both, "[b x]")]));
    log.run("RPUSH a y z");
    assert_eq!(
        log.answered(),
        answers([(one, "[a y]")]),
        "who was served waits for no other key"
    );
    assert_eq!(log.run("LRANGE a 0 -1"), "[z]");
}

#[test]
fn a_transaction_is_over_before_anybody_is_served() {
    let mut log = Log::default();
    let waiter = log.wait("BLPOP b a 0");
    // What is gone again at its end serves nobody.
    let transaction = ["RPUSH a x", "DEL a"].map(words);
    log.group(1, vec![internal::exec(&[], transaction.to_vec())]);
    assert_eq!((log.answered(), log.waiting()), (Vec::new(), 1));
    // The key that was changed first decides, and what the list is at the end.
    let transaction = ["RPUSH a 1", "RPUSH b 2", "LPUSH a 3"].map(words);
    let replies = log.group(1, vec![internal::exec(&[], transaction.to_vec())]);
    assert_eq!(replies.iter().map(text).collect::<String>(), "[1 1 2]");
    assert_eq!(log.answered(), answers([(waiter, "[a 3]")]));
    assert_eq!(log.run("LRANGE a 0 -1"), "[1]");
}

#[test]
fn nobody_waits_in_a_transaction() {
    let mut log = Log::default();
    let transaction = [
        "BLPOP a 0",
        "BLMOVE a b LEFT RIGHT 0",
        "BRPOPLPUSH a b 0",
        "BLMPOP 0 1 a LEFT",
    ]
    .map(words);
    let replies = log.group(1, vec![internal::exec(&[], transaction.to_vec())]);
    assert_eq!(
        replies.iter().map(text).collect::<String>(),
        "[no array nil nil no array]"
    );
    assert_eq!(log.waiting(), 0);
}

#[test]
fn the_commands_of_a_group_are_served_one_by_one() {
    let mut log = Log::default();
    // Two connections of one node: the second command of the group finds what the first waited for gone.
    let replies = log.group(1, ["BLPOP l 0", "RPUSH l x", "LLEN l"].map(words).to_vec());
    let [Reply::Waiting(waiter), Reply::Integer(1), Reply::Integer(0)] = replies[..] else {
        panic!("{replies:?}")
    };
    assert_eq!(log.answered(), answers([(waiter, "[l x]")]));
}

#[test]
fn what_is_moved_serves_the_next_in_a_chain() {
    let mut log = Log::default();
    let last = log.wait("BLPOP c 0");
    let second = log.wait("BLMOVE b c LEFT RIGHT 0");
    let first = log.wait("BRPOPLPUSH a b 0");
    log.run("RPUSH a x");
    assert_eq!(
        log.answered(),
        answers([(first, "x"), (second, "x"), (last, "[c x]")])
    );
    assert_eq!((log.run("EXISTS a b c"), log.waiting()), ("0".to_owned(), 0));
}

#[test]
fn moves_in_a_circle_end() {
    let mut log = Log::default();
    let there = log.wait("BLMOVE a b LEFT LEFT 0");
    let back = log.wait("BLMOVE b a LEFT LEFT 0");
    let around = log.wait("BLMOVE a a LEFT RIGHT 0");
    log.run("RPUSH a x");
    assert_eq!(
        log.answered(),
        answers([(there, "x"), (back, "x"), (around, "x")])
    );
    assert_eq!((log.run("LRANGE a 0 -1"), log.waiting()), ("[x]".to_owned(), 0));
}

#[test]
fn what_is_put_there_by_other_means_serves_as_well() {
    for how in [
        "RENAME l2 l",
        "COPY l2 l",
        "LMOVE l2 l LEFT LEFT",
        "RPOPLPUSH l2 l",
    ] {
        let mut log = Log::default();
        log.run("RPUSH l2 x");
        let waiter = log.wait("BLPOP l 0");
        log.run(how);
        assert_eq!(log.answered(), answers([(waiter, "[l x]")]), "{how}");
    }
    let mut log = Log::default();
    log.group(1, vec![Command::new(1, ["RPUSH", "l", "x"])]);
    let waiter = log.wait("BLPOP l 0");
    log.run("SWAPDB 0 1");
    assert_eq!(
        log.answered(),
        answers([(waiter, "[l x]")]),
        "the databases were exchanged"
    );
}

#[test]
fn what_is_no_list_lets_them_wait_on() {
    let mut log = Log::default();
    let waiter = log.wait("BLPOP k l 0");
    let mover = log.wait("BLMOVE k l LEFT LEFT 0");
    for line in ["SET k v", "DEL k", "SADD k x", "SREM k x", "HSET k f v", "DEL k"] {
        log.run(line);
        assert_eq!((log.answered(), log.waiting()), (Vec::new(), 2), "{line}");
    }
    log.run("RPUSH k x y");
    assert_eq!(log.answered(), answers([(waiter, "[k x]"), (mover, "y")]));
}

#[test]
fn a_move_onto_what_is_no_list_is_refused_when_its_turn_comes() {
    let mut log = Log::default();
    log.run("SET s v");
    let refused = log.wait("BRPOPLPUSH l s 0");
    let served = log.wait("BLPOP l 0");
    log.run("RPUSH l x");
    let wrong = CommandError::WrongType.to_string();
    assert_eq!(
        log.answered(),
        answers([(refused, wrong.as_str()), (served, "[l x]")])
    );
    assert_eq!(log.waiting(), 0);
}

#[test]
fn a_time_ends_by_the_clock_of_the_log_and_in_order() {
    let mut log = Log::default();
    log.tick(1_000);
    let late = log.wait("BLPOP l 2");
    let early = log.wait("BLMOVE l m LEFT LEFT 0.5");
    let never = log.wait("BRPOP l 0");
    assert_eq!(log.machine.next_deadline(), Some(1_500), "the leader ticks then");
    log.tick(1_500);
    assert_eq!(log.answered(), Vec::new());
    log.tick(1_501);
    assert_eq!(log.answered(), answers([(early, "no array")]));
    // A push that comes with the end is too late.
    log.clock = 3_001;
    log.run("RPUSH l x");
    assert_eq!(log.answered(), answers([(late, "no array"), (never, "[l x]")]));
    assert_eq!((log.waiting(), log.machine.next_deadline()), (0, None));
}

#[test]
fn who_is_taken_back_takes_nothing() {
    let mut log = Log::default();
    let [first, second, third] = ["BLPOP l 0", "BLPOP l 0", "BLPOP l 0"].map(|line| log.wait(line));
    let replies = log.group(
        1,
        vec![
            internal::unwait(first, Unwait::Timeout),
            internal::unwait(second, Unwait::Error),
            internal::unwait(first, Unwait::Timeout),
        ],
    );
    assert_eq!(replies.iter().map(text).collect::<Vec<_>>(), ["1", "1", "0"]);
    let error = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
    assert_eq!(log.answered(), answers([(first, "no array"), (second, error)]));
    log.run("RPUSH l x");
    assert_eq!(log.answered(), answers([(third, "[l x]")]));
}

#[test]
fn a_node_that_starts_anew_waits_for_nothing_any_more() {
    let mut log = Log::default();
    let gone = log.wait_of(2, "BLPOP l 0");
    let stays = log.wait_of(3, "BLPOP l 0");
    log.nodes.insert(2, (2, 0));
    let again = log.wait_of(2, "BLPOP l 0");
    assert_eq!(
        (log.waiting(), log.answered()),
        (2, answers([(gone, "no array")])),
        "whoever may still be there waited in vain"
    );
    log.run("RPUSH l a b");
    assert_eq!(log.answered(), answers([(stays, "[l a]"), (again, "[l b]")]));
    assert!(gone < stays && stays < again, "no number is used again");
}

#[test]
fn a_snapshot_keeps_who_waits_and_in_which_order() {
    let mut log = Log::default();
    log.tick(1_000);
    let moved = log.wait_of(2, "BLMOVE l m LEFT RIGHT 0");
    let popped = log.wait_of(1, "BLMPOP 9 2 m l RIGHT COUNT 7");
    let timed = log.wait_of(3, "BLPOP k l 5");
    log.restart();
    assert_eq!((log.waiting(), log.machine.next_deadline()), (3, Some(6_000)));
    log.run("RPUSH l a b");
    // Served by `l` in their order: one moves, one takes the rest; then `m` has what the first has moved, and nobody left to take it.
    assert_eq!(log.answered(), answers([(moved, "a"), (popped, "[l [b]]")]));
    log.restart();
    assert_eq!(log.run("LRANGE m 0 -1"), "[a]");
    log.tick(6_001);
    assert_eq!(log.answered(), answers([(timed, "no array")]));
    let next = log.wait("BLPOP l 0");
    assert!(next > timed, "numbers go on");
    log.restart();
    log.run("RPUSH l c");
    assert_eq!(log.answered(), answers([(next, "[l c]")]));
}

#[test]
fn databases_are_waited_for_apart() {
    let mut log = Log::default();
    let here = log.wait("BLPOP l 0");
    let [Reply::Waiting(there)] = log.group(1, vec![Command::new(1, ["BLPOP", "l", "0"])])[..] else {
        panic!("it waits")
    };
    log.group(1, vec![Command::new(1, ["RPUSH", "l", "x"])]);
    assert_eq!(log.answered(), answers([(there, "[l x]")]));
    log.run("RPUSH l y");
    assert_eq!(log.answered(), answers([(here, "[l y]")]));
}

/// What is told of keys while waiting commands are served, as Redis tells it.
#[test]
fn events_of_keys_are_told_of_what_served() {
    let mut log = Log::default();
    log.group(
        1,
        vec![internal::set(&[(
            "notify-keyspace-events".to_owned(),
            "EA".to_owned(),
        )])],
    );
    log.wait("BLMOVE a b LEFT RIGHT 0");
    log.wait("BLPOP b 0");
    log.run("RPUSH a x");
    let events = log.machine.store_mut().take_events().into_iter();
    let told: Vec<String> = events
        .filter_map(|event| match event {
            Event::Message { channel, message, .. } => Some(told(&channel, &message)),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["rpush a", "rpush b", "lpop a", "del a", "lpop b", "del b"]);
}

fn told(channel: &Bytes, message: &Bytes) -> String {
    let channel = String::from_utf8_lossy(channel).into_owned();
    let event = channel
        .strip_prefix("__keyevent@0__:")
        .expect("only events by name were asked for");
    format!("{event} {}", String::from_utf8_lossy(message))
}

#[test]
fn a_lease_goes_to_the_first_who_waits_when_it_is_given_back() {
    let mut log = Log::default();
    assert_eq!(log.run("CACHE.LEASE page 1000 WAIT 5000"), "[nil 0 1]");
    let waiting: Vec<u64> = (1..=3)
        .map(|node| log.wait_of(node, "CACHE.LEASE page 1000 WAIT 5000"))
        .collect();
    log.restart();
    assert_eq!(log.run("CACHE.RELEASE page 2"), "0", "of a stranger");
    assert_eq!(log.answered(), []);
    assert_eq!(log.run("CACHE.RELEASE page 1"), "1");
    let [(first, token)] = &log.answered()[..] else {
        panic!("one has it now")
    };
    assert_eq!((*first, log.waiting()), (waiting[0], 2));
    let token = token
        .trim_matches(['[', ']'])
        .rsplit(' ')
        .next()
        .expect("a token");
    // Who came later waits behind the others, and a node that starts anew waits no more.
    let last = log.wait_of(3, "CACHE.LEASE page 1000 WAIT 5000");
    log.nodes.insert(2, (2, 0));
    assert_eq!(log.run_of(2, "SET other 1"), "OK");
    assert_eq!(log.answered(), answers([(waiting[1], "no array")]));
    assert_eq!(
        log.run(&format!("CACHE.SET page value PX 500 LEASE {token}")),
        "OK"
    );
    let value = "[value 1 nil]".to_owned();
    assert_eq!(
        log.answered(),
        [(waiting[2], value.clone()), (last, value)],
        "a value is for all who wait, in order"
    );
    assert_eq!(log.waiting(), 0);
}

/// What ends is taken away bit by bit: until then the time of a holder is over, and those who wait for it are not served yet.
#[test]
fn nobody_overtakes_the_line_of_a_holder_whose_time_is_over() {
    for (hold, wait, late, nothing) in [
        (
            "SESSION.LOCK s EXCLUSIVE a 100",
            "SESSION.LOCK s EXCLUSIVE b 1000 WAIT 10000",
            "SESSION.LOCK s EXCLUSIVE c 1000",
            "nil",
        ),
        (
            "CACHE.LEASE page 100",
            "CACHE.LEASE page 1000 WAIT 10000",
            "CACHE.LEASE page 1000",
            "no array",
        ),
    ] {
        let mut log = Log::default();
        log.tick(1_000);
        log.run("SESSION.CREATE s 60000");
        log.run(hold);
        log.clock = 1_010;
        let first = log.wait(wait);
        let fields: String = (0..1_000).map(|field| format!(" f{field} v")).collect();
        log.run(&format!("HSET big{fields}"));
        let fields: String = (0..1_000).map(|field| format!(" f{field}")).collect();
        log.run(&format!("HPEXPIREAT big 1050 FIELDS 1000{fields}"));
        log.clock = 1_200;
        assert_eq!(log.run(late), nothing, "{late}");
        assert!(log.answered().is_empty(), "{wait}");
        (0..3).for_each(|_| log.tick(1_201));
        let answered = log.answered();
        assert_eq!(answered.len(), 1, "{wait}");
        assert_eq!(answered[0].0, first);
    }
}

#[test]
fn a_lease_that_is_over_goes_to_the_next() {
    let mut log = Log::default();
    assert_eq!(log.run("CACHE.LEASE page 1000 WAIT 5000"), "[nil 0 1]");
    let next = log.wait("CACHE.LEASE page 700 WAIT 5000");
    let late = log.wait("CACHE.LEASE page 700 WAIT 1200");
    assert_eq!(log.machine.next_deadline(), Some(1000));
    log.tick(1000);
    assert_eq!(log.answered(), []);
    log.restart();
    // A node whose clock is ahead of the log sees no lease any more, and nothing strange in its place.
    let ahead = log.machine.read(1001, 0, &words("CACHE.GET page").argv);
    assert_eq!(ahead, Reply::Nil);
    log.tick(1001);
    let answered = log.answered();
    assert_eq!((answered.len(), answered[0].0), (1, next));
    log.tick(1201);
    assert_eq!(log.answered(), answers([(late, "no array")]));
    assert_eq!(log.run("CACHE.SET page slow PX 500 LEASE 1"), "nil");
    // The second holder's time counts from when it got it.
    assert_eq!(log.machine.next_deadline(), Some(1701));
    log.tick(1702);
    assert_eq!(log.run("EXISTS page"), "0");
}

#[test]
fn whatever_takes_a_leased_key_away_lets_the_next_go_on() {
    for end in ["DEL page", "FLUSHDB", "RENAME page other", "PEXPIRE page 0"] {
        let mut log = Log::default();
        assert_eq!(log.run("CACHE.LEASE page 1000"), "[nil 0 1]");
        let next = log.wait("CACHE.LEASE page 1000 WAIT 5000");
        log.run(end);
        let answered = log.answered();
        assert_eq!((answered.len(), answered[0].0), (1, next), "{end}");
        assert_eq!(log.run("CACHE.SET page old PX 500 LEASE 1"), "nil", "{end}");
    }
    // A value from elsewhere is one.
    let mut log = Log::default();
    assert_eq!(log.run("CACHE.LEASE page 1000"), "[nil 0 1]");
    let next = log.wait("CACHE.LEASE page 1000 WAIT 5000");
    log.run("SET page plain");
    assert_eq!(log.answered(), answers([(next, "[plain 1 nil]")]));
}

#[test]
fn readers_behind_a_writer_that_leaves_the_line_are_served_at_once() {
    for leaves in ["late", "taken back", "restarted"] {
        let mut log = Log::default();
        log.tick(1_000);
        log.run("SESSION.CREATE s 0");
        log.run("SESSION.LOCK s SHARED first 100000");
        let writer = log.wait_of(2, "SESSION.LOCK s EXCLUSIVE writer 1000 WAIT 100");
        let reader = log.wait_of(3, "SESSION.LOCK s SHARED reader 1000 WAIT 30000");
        log.answered();
        match leaves {
            "late" => log.tick(1_101),
            "taken back" => drop(log.group(2, vec![internal::unwait(writer, Unwait::Timeout)])),
            _ => {
                log.nodes.insert(2, (2, 0));
                log.run_of(2, "PING");
            }
        }
        let answered = log.answered();
        let served: Vec<_> = answered.iter().map(|(number, _)| *number).collect();
        assert_eq!(served, [writer, reader], "{leaves}");
        assert_eq!(answered[0].1, "nil", "{leaves}");
        assert_ne!(answered[1].1, "nil", "{leaves}");
    }
}

#[test]
fn who_waits_for_many_keys_is_looked_at_once_however_often_they_are_emptied() {
    let mut log = Log::default();
    let keys: Vec<_> = (0..1_024).map(|key| format!("k{key}")).collect();
    let waiter = log.wait(&format!("BLPOP {} 0", keys.join(" ")));
    let flushes = vec![words("FLUSHDB"); 100_000];
    let replies = log.group(
        1,
        vec![internal::exec(&[], [flushes, vec![words("RPUSH k7 x")]].concat())],
    );
    assert_eq!(replies.len(), 1);
    assert_eq!(log.answered(), answers([(waiter, "[k7 x]")]));
}

#[test]
fn nobody_waits_for_more_than_every_node_can_keep_for_every_client() {
    let mut log = Log::default();
    let keys: Vec<_> = (0..1_025).map(|key| format!("k{key}")).collect();
    for line in [
        format!("BLPOP {} 0", keys.join(" ")),
        format!("BLPOP {} 0", "k".repeat(64 << 10)),
    ] {
        assert!(
            log.run(&line).starts_with("ERR a command that waits has at most"),
            "{line:.20}"
        );
    }
    assert_eq!(log.waiting(), 0);
    log.run("RPUSH k1024 x");
    assert_eq!(
        log.run(&format!("BLPOP {} 0", keys.join(" "))),
        "[k1024 x]",
        "it need not wait"
    );
}

#[test]
fn who_waits_for_a_stream_is_not_looked_at_because_another_has_given_up() {
    let mut log = Log::default();
    log.run("XGROUP CREATE s g $ MKSTREAM");
    let waits: Vec<Command> = (0..10_000)
        .map(|_| words("XREADGROUP GROUP g c BLOCK 0 STREAMS s >"))
        .collect();
    let taken_back = |reply: &Reply| match reply {
        Reply::Waiting(number) => internal::unwait(*number, Unwait::Timeout),
        other => panic!("it waits: {other:?}"),
    };
    let waiting = log.group(1, waits);
    let replies = log.group(1, waiting.iter().map(taken_back).collect());
    assert!(replies.iter().all(|reply| *reply == Reply::Integer(1)));
    assert_eq!((log.waiting(), log.answered().len()), (0, 10_000));
}
