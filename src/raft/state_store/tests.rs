//! openraft's own suite on the real stores, and what it does not ask: answers, restarts, snapshots beside applies.

use super::*;
use crate::config::{Durability, LogKind};
use crate::machine::entry::{Command, Origin};
use crate::machine::event::Event;
use crate::machine::reply::Reply;
use crate::raft::log::{LogStopper, LogStore};
use crate::raft::meta::Meta;
use crate::raft::rests::AFTER_BYTES;
use crate::raft::{Entry, Types};
use openraft::StorageError;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{RaftLogStorage, StorageHelper};
use openraft::testing::log::{StoreBuilder, Suite};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

struct Opened {
    log: LogStore,
    stopper: LogStopper,
    states: StateStore,
    heard: Arc<Heard>,
    fault: Fault,
}

/// Hears what callers would.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Told>>);

#[derive(Debug, PartialEq)]
enum Told {
    Applied { number: u64, index: u64, replies: usize },
    Lost(u64),
    Early,
}

impl Answers for Heard {
    fn applied(&self, index: u64, own: Option<(u64, Vec<Reply>)>, _: Vec<Event>) {
        let (number, replies) = own.expect("nothing here has events");
        self.0.lock().push(Told::Applied {
            number,
            index,
            replies: replies.len(),
        });
    }

    fn replaced(&self, _: &Machine) {}

    fn lost(&self, number: u64) {
        self.0.lock().push(Told::Lost(number));
    }

    fn early(&self) {
        self.0.lock().push(Told::Early);
    }
}

impl Heard {
    /// What was told since the last time.
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock())
    }
}

fn open(data: &Path) -> Result<Opened, Error> {
    open_with(data, LogKind::default())
}

fn open_with(data: &Path, kind: LogKind) -> Result<Opened, Error> {
    let fault = Fault::default();
    let (meta, _) = Meta::open(data, Durability::Fsync, Some("boot"))?;
    let (log, stopper) = LogStore::open(meta.journal(kind)?, Durability::Fsync, fault.clone())?;
    // A fixed origin, so that tests can write groups of "this node".
    let (own, heard) = ((7, 1), Arc::<Heard>::default());
    let snapshots = SnapshotStore::open(meta)?;
    let states = StateStore::open(snapshots, &log.reader(), own, heard.clone(), fault.clone())?;
    Ok(Opened {
        log,
        stopper,
        states,
        heard,
        fault,
    })
}

/// Stores whose log is of this kind.
struct Builder(LogKind);

impl StoreBuilder<Types, LogStore, StateStore, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore), StorageError<Types>> {
        let data = TempDir::new().unwrap();
        let opened = open_with(data.path(), self.0).unwrap();
        Ok((data, opened.log, opened.states))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_stores_pass_the_suite() {
    for kind in [LogKind::Segments, LogKind::Sled] {
        Suite::test_all(Builder(kind)).await.unwrap();
    }
}

fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term: 1, node_id: 7 },
        index,
    }
}

/// A group of node 7, start 1, at this index of the log: `SET key value`, stamped with a time.
fn group(index: u64, number: u64, value: &str) -> Entry {
    let origin = Origin {
        node: 7,
        start: 1,
        number,
    };
    let bytes = entry::stamp(
        entry::encode(
            origin,
            &[Command::new(0, ["SET", "key", value].map(str::to_owned))],
        ),
        entry::Entry::FORMAT,
        1_000 * index,
        42,
    );
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Group(bytes)),
    }
}

async fn apply(states: &mut StateStore, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    states.apply(futures::stream::iter(entries)).await
}

fn digest(state: &State) -> u128 {
    state.machine().read().digest()
}

#[tokio::test]
async fn a_caller_is_answered_when_its_group_is_applied_here() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let state = opened.states.state();
    assert_eq!(state.now(), 0, "nothing applied, no clock");
    apply(&mut opened.states, [group(1, 1, "a")]).await.unwrap();
    assert_eq!(
        opened.heard.take(),
        [Told::Applied {
            number: 1,
            index: 1,
            replies: 1
        }]
    );
    assert_eq!((*state.applied().borrow(), state.applied_index()), (1, 1));
    assert!(state.now() >= 1_000);
    apply(&mut opened.states, [group(2, 3, "c"), group(3, 1, "a")])
        .await
        .unwrap();
    assert_eq!(
        opened.heard.take(),
        [Told::Early, Told::Lost(1)],
        "3 came before 2, and 1 came again"
    );
    apply(&mut opened.states, [group(4, 2, "b"), group(5, 3, "c")])
        .await
        .unwrap();
    let expected = [(2, 4), (3, 5)].map(|(number, index)| Told::Applied {
        number,
        index,
        replies: 1,
    });
    assert_eq!(opened.heard.take(), expected);
    opened.stopper.stop().await.unwrap();
}

#[test]
fn the_clock_goes_on_by_itself_and_never_back() {
    let clock = Clock::new(0);
    assert_eq!(clock.estimate(), 0, "nothing applied, no clock");
    for at in [1, 5, 1_764_217_000_000] {
        clock.move_to(at);
        let seen = clock.estimate();
        assert!((at..at + 60_000).contains(&seen), "{seen}");
        clock.move_to(at - 1);
        assert!(clock.estimate() >= seen);
        let began = Instant::now();
        while clock.estimate() <= seen {
            assert!(began.elapsed().as_secs() < 60, "it goes on");
        }
    }
}

/// A leader whose clock is slower by a tenth: what this node shows is never further from the log than an entry takes, and what the clocks differ in a window.
#[tokio::test(start_paused = true)]
async fn a_node_with_a_fast_clock_does_not_gain_on_the_log() {
    const TAKES_MS: u64 = 40;
    let clock = Clock::new(0);
    let (mut at, mut seen) = (1_764_217_000_000, 0);
    for entry in 0..100_000 {
        clock.move_to(at);
        let shown = clock.estimate();
        assert!(
            shown >= seen && shown >= at,
            "entry {entry}: {shown} after {seen}"
        );
        let most = TAKES_MS + 2 * Clock::WINDOW_US / 1_000 / 10 + Clock::LEFT_ALONE_US / 1_000;
        assert!(shown - at <= most, "entry {entry}: {} ms ahead", shown - at);
        seen = shown;
        // Some take longer than others.
        tokio::time::advance(Duration::from_millis(100 + entry % TAKES_MS)).await;
        at += 90 + entry % TAKES_MS;
    }
}

#[tokio::test]
async fn groups_of_others_and_of_earlier_starts_answer_nobody_here() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let of = |index, node, start, number| {
        let bytes = entry::encode(Origin { node, start, number }, &[]);
        Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Group(entry::stamp(bytes, entry::Entry::FORMAT, 1, 1))),
        }
    };
    apply(
        &mut opened.states,
        [of(1, 8, 1, 1), of(2, 7, 0, 1), of(3, 7, 1, 0)],
    )
    .await
    .unwrap();
    assert_eq!(opened.heard.take(), []);
    assert_eq!(opened.states.applied_state().await.unwrap().0, Some(id(3)));
}

#[tokio::test]
async fn a_group_of_a_later_version_stops_the_node_and_says_so() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let payload = EntryPayload::Normal(Group(bytes::Bytes::from_static(&[9, 9, 9])));
    let error = apply(
        &mut opened.states,
        [Entry {
            log_id: id(1),
            payload,
        }],
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(error.contains("entry 1") && error.contains("format 9"), "{error}");
    assert_eq!(opened.fault.get().unwrap(), error);
    assert_eq!(
        opened.states.applied_state().await.unwrap().0,
        None,
        "it was not applied"
    );
}

#[tokio::test]
async fn a_snapshot_holds_what_was_applied_when_it_was_begun() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let membership = openraft::Membership::new_with_defaults(vec![BTreeSet::from([7])], []);
    let joined = Entry {
        log_id: id(1),
        payload: EntryPayload::Membership(membership),
    };
    apply(&mut opened.states, [joined, group(2, 1, "a")])
        .await
        .unwrap();
    let state = opened.states.state();
    let then = digest(&state);
    let mut builder = opened.states.try_create_snapshot_builder(true).await.unwrap();
    apply(&mut opened.states, [group(3, 2, "b")]).await.unwrap();
    assert_ne!(digest(&state), then);
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(id(2)));
    assert_eq!(built.meta.last_membership.log_id(), &Some(id(1)));
    assert_eq!(built.snapshot.read(read_machine).unwrap().digest(), then);
    opened.stopper.stop().await.unwrap();
}

#[tokio::test]
async fn an_audit_is_taken_where_a_minute_of_the_log_ends_and_rests() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let large = "x".repeat(4 * AFTER_BYTES);
    let minute = AUDIT_EVERY_MS / 1_000;
    apply(&mut opened.states, [group(minute - 1, 1, &large)])
        .await
        .unwrap();
    let state = opened.states.state();
    assert_eq!(state.audit(), None, "the first minute goes on");
    apply(&mut opened.states, [group(minute, 2, &large)])
        .await
        .unwrap();
    let (index, digest) = (minute, digest(&state));
    let began = Instant::now();
    while state.audit().is_none() {
        assert!(began.elapsed().as_secs() < 60, "it is taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(state.audit(), Some(Audit { index, digest }));
    let frozen = state.machine().read().freeze();
    let rests = opened.states.audit(minute + 1, frozen).await.unwrap();
    assert!(rests.rested() > Duration::ZERO, "others need the processors now");
    assert!(rests.are_of_audit(), "all members do it at the same time");
    opened.stopper.stop().await.unwrap();
}

#[test]
fn minutes_that_end_while_a_few_audits_are_under_way_are_passed_over() {
    // One thread: what is begun beside the tasks is done in that order.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let data = TempDir::new().unwrap();
        let mut opened = open(data.path()).unwrap();
        let state = opened.states.state();
        let at = |nth| group(nth * AUDIT_EVERY_MS / 1_000, nth, "x");
        let audited = || state.audit().map(|audit| audit.index);
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let busy = beside(move || waits.recv());
        apply(&mut opened.states, (1..=50).map(at)).await.unwrap();
        assert_eq!(audited(), None);
        drop(go);
        assert!(busy.await.unwrap().is_err());
        beside(|| ()).await.unwrap();
        assert_eq!(audited(), Some(at(AUDITS as u64).log_id.index));
        apply(&mut opened.states, [at(51)]).await.unwrap();
        beside(|| ()).await.unwrap();
        assert_eq!(audited(), Some(at(51).log_id.index), "the next is taken again");
        opened.stopper.stop().await.unwrap();
    });
}

#[tokio::test]
async fn installing_a_snapshot_replaces_the_state_and_tells_those_whose_replies_it_skipped() {
    let (ahead, behind) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut ahead, mut behind) = (open(ahead.path()).unwrap(), open(behind.path()).unwrap());
    apply(&mut ahead.states, (1..=5).map(|index| group(index, index, "x")))
        .await
        .unwrap();
    let built = ahead
        .states
        .try_create_snapshot_builder(true)
        .await
        .unwrap()
        .build_snapshot()
        .await
        .unwrap();
    apply(&mut behind.states, [group(1, 1, "x")]).await.unwrap();
    behind.heard.take();
    let snapshots = behind.states.snapshots.clone();
    let mut receiving = snapshots.receive().unwrap();
    receiving
        .write(&std::fs::read(&built.snapshot.path).unwrap())
        .unwrap();
    let received = receiving.finish().unwrap();
    let state = behind.states.state();
    behind
        .states
        .install_snapshot(&received.meta.clone(), received)
        .await
        .unwrap();
    assert_eq!(behind.heard.take(), [Told::Lost(5)]);
    assert_eq!(*state.applied().borrow(), 5);
    assert_eq!(digest(&state), digest(&ahead.states.state()));
    apply(&mut behind.states, [group(6, 6, "y")]).await.unwrap();
    assert_eq!(
        behind.heard.take(),
        [Told::Applied {
            number: 6,
            index: 6,
            replies: 1
        }]
    );
    for opened in [ahead, behind] {
        opened.stopper.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_restarted_node_has_the_state_it_had() {
    let data = TempDir::new().unwrap();
    let mut opened = open(data.path()).unwrap();
    let entries: Vec<_> = (0..=20)
        .map(|index| group(index, index + 1, &format!("value {index}")))
        .collect();
    let (done, durable) = <Types as openraft::type_config::TypeConfigExt>::oneshot();
    opened
        .log
        .append(entries.clone(), openraft::storage::IOFlushed::signal(done))
        .await
        .unwrap();
    durable.await.unwrap().unwrap();
    opened.log.save_committed(Some(id(20))).await.unwrap();
    apply(&mut opened.states, entries[..=10].to_vec()).await.unwrap();
    opened
        .states
        .try_create_snapshot_builder(true)
        .await
        .unwrap()
        .build_snapshot()
        .await
        .unwrap();
    opened.log.purge(id(8)).await.unwrap();
    apply(&mut opened.states, entries[11..].to_vec()).await.unwrap();
    let then = digest(&opened.states.state());
    opened.stopper.stop().await.unwrap();
    drop(opened);
    let mut opened = open(data.path()).unwrap();
    assert_eq!(
        *opened.states.state().applied().borrow(),
        10,
        "the snapshot is there before openraft asks"
    );
    let mut helper = StorageHelper::new(&mut opened.log, &mut opened.states).with_id(7);
    helper.get_initial_state().await.unwrap();
    assert_eq!(opened.states.applied_state().await.unwrap().0, Some(id(20)));
    assert_eq!(digest(&opened.states.state()), then);
    opened.stopper.stop().await.unwrap();
}
