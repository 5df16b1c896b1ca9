//! Bytes to `RESTORE`, with the version and the checksum that let them in: none panics the machine, what is taken is dumped as it is restored,
//! and a machine that holds it goes on as every other does, one from a snapshot too.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plenary::machine::entry::{Command, Entry, Origin};
use plenary::machine::reply::Reply;
use plenary::machine::{Machine, Outcome, snapshot};
use std::sync::LazyLock;

const AT: u64 = 1_700_000_000_000;

/// Commands on what was restored, whatever it is: those of other types are refused.
const COMMANDS: &str = "TYPE k|OBJECT ENCODING k|MEMORY USAGE k|GET k|STRLEN k|GETRANGE k -3 -1|APPEND k x|PFCOUNT k|BITCOUNT k|LRANGE k 0 -1|LPUSH k x|\
    LPOP k|RPOP k|LINSERT k BEFORE b x|LREM k 0 a|SMEMBERS k|SADD k 7 y|SISMEMBER k a|SPOP k 2|HGETALL k|HSET k f w|HINCRBY k n 1|HTTL k FIELDS 1 f|HDEL k f|\
    HSCAN k 0|ZRANGE k 0 -1 WITHSCORES|ZRANGEBYSCORE k -inf +inf|ZRANGEBYLEX k - +|ZADD k 3 y|ZINCRBY k 1 a|ZREM k a|ZPOPMIN k|ZPOPMAX k|SORT k ALPHA|\
    XRANGE k - +|XREVRANGE k + -|XINFO STREAM k FULL|XADD k * f v|XADD k 5-* f v|XGROUP CREATE k new 0|XREADGROUP GROUP new c COUNT 2 STREAMS k >|\
    XREADGROUP GROUP g c COUNT 2 STREAMS k >|XREADGROUP GROUP g c STREAMS k 0|XPENDING k g - + 10|XAUTOCLAIM k g d 0 0|XACK k g 1-1|XDEL k 1-1|\
    XTRIM k MAXLEN 1|XGROUP DELCONSUMER k g c|XGROUP DESTROY k g|COPY k l|DUMP k|RENAME k m|DEL m";

/// To begin with: a copy costs less than a new one.
static EMPTY: LazyLock<Machine> = LazyLock::new(|| {
    let mut machine = Machine::default();
    apply(&mut machine, words("PING"));
    machine
});

fn words(line: &str) -> Vec<Bytes> {
    line.split_whitespace()
        .map(|word| Bytes::copy_from_slice(word.as_bytes()))
        .collect()
}

fn apply(machine: &mut Machine, argv: Vec<Bytes>) -> Reply {
    let entry = Entry {
        format: Entry::FORMAT,
        at: AT,
        seed: 1,
        origin: Origin::default(),
        commands: vec![Command { db: 0, argv }],
    };
    let Outcome::Applied(replies) = machine.apply(&entry) else {
        panic!("a group without a number is applied");
    };
    replies.into_iter().next().expect("one for each command")
}

fn restore(machine: &mut Machine, key: &str, payload: impl Into<Bytes>) -> Reply {
    let mut argv = words(&format!("RESTORE {key} 0"));
    argv.push(payload.into());
    apply(machine, argv)
}

/// With a version that every type is read in, and the checksum: bit by bit, as it is defined.
fn sealed(content: &[u8]) -> Vec<u8> {
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    let mut payload = content.to_vec();
    payload.extend(10u16.to_le_bytes());
    let sum = payload.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                sum >> 1 ^ POLYNOMIAL
            } else {
                sum >> 1
            }
        })
    });
    payload.extend(sum.to_le_bytes());
    payload
}

fuzz_target!(|content: &[u8]| {
    let mut machine = EMPTY.freeze();
    match restore(&mut machine, "k", sealed(content)) {
        Reply::Error(error) => {
            assert!(
                !error.to_string().contains("version or checksum"),
                "the footer is right"
            );
            return;
        }
        reply => assert_eq!(reply, Reply::OK),
    }
    if let Reply::Bulk(dumped) = apply(&mut machine, words("DUMP k")) {
        assert_eq!(restore(&mut machine, "again", dumped.clone()), Reply::OK);
        assert_eq!(apply(&mut machine, words("DUMP again")), Reply::Bulk(dumped));
    }
    let mut bytes = Vec::new();
    snapshot::write(&machine, &mut bytes).expect("memory takes it");
    let mut other = snapshot::read(&mut bytes.as_slice()).expect("what was written is read");
    for line in COMMANDS.split('|') {
        let (one, two) = (apply(&mut machine, words(line)), apply(&mut other, words(line)));
        // As text, for scores that are no numbers are not equal.
        assert_eq!(format!("{one:?}"), format!("{two:?}"), "{line}");
    }
    assert_eq!(machine.digest(), other.digest());
});
