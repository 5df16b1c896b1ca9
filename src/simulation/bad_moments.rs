//! What once was wrong, or would be without a line that is there for it: each at the one moment that it takes.

use super::clients::Fate;
use super::plan::{Fault, Plan};
use super::redis::{Answer, Client, words};
use super::simulate;
use super::world::World;
use crate::config::Reads;
use crate::machine::entry::Command;
use crate::machine::reply::Reply;
use crate::node::status::Role;
use crate::node::{Freshness, Node, Written, script_sha};
use crate::raft::net::simulated::Host;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long anything that comes may take.
const SOON: Duration = Duration::from_secs(20);

/// How long what is sent is on its way at most, where nothing hinders it.
const THERE: Duration = Duration::from_millis(50);

/// How long a write waits for a leader (`Timing::default`).
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

async fn set(node: &Node, key: &str, value: &str) -> Result<(), String> {
    let argv = ["SET", key, value].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let command = Command {
        db: 0,
        argv: argv.to_vec(),
    };
    let written = node.write(vec![command]).await;
    written.map(drop).map_err(|error| error.to_string())
}

async fn get(node: &Node, key: &str) -> Result<Reply, String> {
    let argv = ["GET", key].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let reply = node.read(Freshness::Linearizable, 0, &argv).await;
    reply.map_err(|error| error.to_string())
}

fn node(world: &World, host: Host) -> Result<Node, String> {
    let running = world.node(host).ok_or(format!("machine {host} does not run"))?;
    Ok(running.node)
}

/// The one of these that leads.
async fn leader_among(world: &World, hosts: &[Host]) -> Result<Host, String> {
    let found = async {
        loop {
            let leads = |host: &&Host| {
                let running = world.node(**host);
                running.is_some_and(|running| running.node.status().role == Role::Leader)
            };
            if let Some(host) = hosts.iter().find(leads) {
                return *host;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, found)
        .await
        .map_err(|_| format!("none of {hosts:?} leads"))
}

/// The leader and the two others.
async fn three(world: &World) -> Result<(Host, [Host; 2]), String> {
    let leader = leader_among(world, &[1, 2, 3]).await?;
    Ok((leader, [leader % 3 + 1, (leader + 1) % 3 + 1]))
}

/// Both others have an entry, and their words about it are on their way for longer than it takes to elect another leader, who writes. Then the words come, of the
/// one that follows first: what is committed by it is told to the other at once. The old leader, which was asked for a read after the election, must not take the other's word for one about
/// that.
async fn an_old_word_comes(world: Arc<World>, _: &Plan) -> Result<Reply, String> {
    let (old, others) = three(&world).await?;
    let (first, net) = (node(&world, old)?, &world.network);
    set(&first, "register", "old").await?;
    sleep(Duration::from_secs(1)).await;
    others.iter().for_each(|other| net.cut(*other, old));
    let entry = tokio::spawn({
        let first = first.clone();
        async move { set(&first, "entry", "1").await }
    });
    sleep(THERE).await;
    others.iter().for_each(|other| net.cut(old, *other));
    let new = leader_among(&world, &others).await?;
    set(&node(&world, new)?, "register", "new").await?;
    let read = tokio::spawn(async move { get(&first, "register").await });
    sleep(THERE).await;
    for other in others.iter().filter(|other| **other != new) {
        net.mend(*other, old);
    }
    sleep(THERE).await;
    net.mend(new, old);
    sleep(Duration::from_secs(1)).await;
    others.iter().for_each(|other| net.mend(old, *other));
    // Whatever comes of it is as it may be.
    let _ = timeout(SOON, entry).await;
    let read = timeout(SOON, read).await.map_err(|_| "the read has no end")?;
    read.map_err(|error| error.to_string())?
}

#[test]
fn a_word_from_before_an_election_confirms_no_read_after_it() {
    for seed in 1..=16 {
        let read = simulate(&Plan::quiet(seed, SOON), an_old_word_comes);
        match read {
            Ok(reply) => assert_eq!(
                reply,
                Reply::Bulk(Bytes::from_static(b"new")),
                "seed {seed}: a stale read"
            ),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
}

/// Nobody hears the leader, nor does it hear anybody; another is elected and writes. What the first one says to who asks it then, if anything.
async fn the_leader_is_alone(world: Arc<World>, _: &Plan) -> Result<Option<Reply>, String> {
    let (old, others) = three(&world).await?;
    let (first, net) = (node(&world, old)?, &world.network);
    set(&first, "register", "old").await?;
    for other in others {
        net.cut(old, other);
        net.cut(other, old);
    }
    let new = leader_among(&world, &others).await?;
    set(&node(&world, new)?, "register", "new").await?;
    let read = timeout(SOON, get(&first, "register")).await;
    // An error is as good as silence.
    Ok(read.ok().and_then(Result::ok))
}

#[test]
fn a_leader_that_nobody_hears_does_not_say_what_was() {
    for seed in 1..=3 {
        let read = simulate(&Plan::quiet(seed, SOON), the_leader_is_alone);
        assert_eq!(read, Ok(None), "seed {seed}: an answer of nobody's leader");
    }
}

/// The disks of both others are slow. Power is lost everywhere when the write is acknowledged, and the leader does not come back.
async fn the_leader_stays_away(world: Arc<World>, _: &Plan) -> Result<Reply, String> {
    let (leader, others) = three(&world).await?;
    others
        .iter()
        .for_each(|other| world.slow(*other, Duration::from_millis(400)));
    set(&node(&world, leader)?, "kept", "1").await?;
    world.stay_down(leader);
    (1..=3).for_each(|host| world.crash(host, true));
    others.iter().for_each(|other| world.slow(*other, Duration::ZERO));
    let next = leader_among(&world, &others).await?;
    timeout(SOON, get(&node(&world, next)?, "kept"))
        .await
        .map_err(|_| "no read")?
}

#[test]
fn an_acknowledged_write_is_on_a_majority_whoever_comes_back() {
    for seed in 1..=3 {
        let read = simulate(&Plan::quiet(seed, SOON), the_leader_stays_away);
        assert_eq!(
            read,
            Ok(Reply::Bulk(Bytes::from_static(b"1"))),
            "seed {seed}: a write is lost"
        );
    }
}

/// Takes down that it was evaluated under a lock: 1, or 0 where nobody has it any more.
const NOTE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
return 1";

/// The leader evaluates a script for another node under a lock, and dies when the others have stored what it wrote and nobody knows that a majority has. The lock ends
/// before they have another leader, which is asked for the script again. What was answered, and whether the script has written.
async fn a_lock_ends_in_an_election(world: Arc<World>, _: &Plan) -> Result<(Answer, bool), String> {
    let (leader, others) = three(&world).await?;
    let mut client = Client::new(world.store(0));
    if !client.connect(others[0]).await {
        return Err("no connection".to_owned());
    }
    let note = |by: &str, name: &str, done: &str| words(&[by, name, "2", "lock", done, "mine"]);
    // So that every node knows the script, and that it writes.
    client
        .ask(&[words(&["SET", "lock", "mine"]), note("EVAL", NOTE, "before")])
        .await;
    client.ask(&[words(&["SET", "lock", "mine", "PX", "300"])]).await;
    let stored = |host: &Host| Some(world.node(*host)?.node.status().last_log_index);
    // What they say of it is on its way for long.
    for other in others {
        world.network.hinder(other, leader, (150, 151), 0);
    }
    let before = others.map(|host| stored(&host));
    let dies = async {
        while others
            .map(|host| stored(&host))
            .iter()
            .zip(&before)
            .any(|(now, before)| now <= before)
        {
            sleep(Duration::from_millis(1)).await;
        }
        world.stay_down(leader);
        world.crash(leader, false);
        // It takes the next leader a while to know what is stored.
        for other in others {
            world.slow(other, Duration::from_millis(100));
        }
    };
    let again = [note("EVALSHA", &script_sha(NOTE.as_bytes()), "done")];
    let (mut answers, ()) = futures::join!(client.ask(&again), dies);
    let next = leader_among(&world, &others).await?;
    let done = timeout(SOON, get(&node(&world, next)?, "done")).await;
    let done = done.map_err(|_| "no read")??;
    let answer = answers.pop().ok_or("no answer")?;
    Ok((answer, done != Reply::Nil))
}

#[test]
fn a_script_is_answered_as_it_was_applied_whichever_leader_is_asked_again() {
    let mut written = 0;
    for seed in 1..=6 {
        let came = simulate(&Plan::quiet(seed, SOON), a_lock_ends_in_an_election);
        let (answer, done) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert_eq!(answer.integer(), Some(done.into()), "seed {seed}: {answer:?}");
        written += usize::from(done);
    }
    assert!(written > 0, "the leader never died late enough");
}

/// Whoever is left stops when another has died: first the leader, then its heir. How long each took, and whether the heir led at once.
async fn two_stop_after_one_died(world: Arc<World>, plan: &Plan) -> Result<([Duration; 2], bool), String> {
    let (leader, others) = three(&world).await?;
    set(&node(&world, leader)?, "kept", "1").await?;
    // All is stored by all.
    sleep(Duration::from_secs(1)).await;
    // Both have stored as much: either may be thought of first.
    let [dies, heir] = if plan.seed.is_multiple_of(2) {
        others
    } else {
        [others[1], others[0]]
    };
    world.stay_down(dies);
    world.crash(dies, false);
    let mut took = [Duration::ZERO; 2];
    let term = node(&world, heir)?.status().term;
    let mut next = None;
    for (host, took) in [leader, heir].into_iter().zip(&mut took) {
        let began = Instant::now();
        let stopped = timeout(SOON, node(&world, host)?.stop()).await;
        stopped
            .map_err(|_| "no end")?
            .map_err(|error| error.to_string())?;
        *took = began.elapsed();
        if host == leader {
            let status = node(&world, heir)?.status();
            next = Some((status.role, status.term));
        }
    }
    Ok((took, next == Some((Role::Leader, term + 1))))
}

#[test]
fn who_stops_hands_over_to_one_that_is_there_and_waits_for_nobody_else() {
    for seed in 1..=6 {
        let came = simulate(&Plan::quiet(seed, SOON), two_stop_after_one_died);
        let (took, led) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(led, "seed {seed}: nobody, or somebody after an election");
        let soon = took.iter().all(|took| *took < Duration::from_millis(250));
        assert!(soon, "seed {seed}: {took:?}");
    }
}

async fn run(node: &Node, line: &str) -> Result<Written, String> {
    let written = node.write([Command::new(0, line.split(' ').map(str::to_owned))]);
    written.await.map_err(|error| error.to_string())
}

/// Waits until this holds, where it can be asked.
async fn soon(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let held = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, held).await.map_err(|_| format!("{what}: not soon"))
}

/// One of three is dead when the other follower is to be taken out: what would be left is no majority, and could not be changed any more.
async fn one_too_many_is_to_go(world: Arc<World>, _: &Plan) -> Result<(), String> {
    let (leader, [dead, goes]) = three(&world).await?;
    let ids = [dead, goes].map(|host| node(&world, host).map(|node| node.id()));
    let [dead_id, goes_id] = [ids[0].clone()?, ids[1].clone()?];
    world.stay_down(dead);
    world.crash(dead, false);
    let first = node(&world, leader)?;
    let refused = timeout(SOON, first.remove_member(goes_id)).await;
    let refused = refused.map_err(|_| "the change has no end")?;
    let why = refused.err().ok_or("it was taken out")?.to_string();
    if !why.contains("1 of 2") {
        return Err(format!("refused as {why}"));
    }
    set(&first, "still", "1").await?;
    // The dead one first.
    for id in [dead_id, goes_id] {
        let removed = timeout(SOON, first.remove_member(id)).await;
        removed
            .map_err(|_| "no end")?
            .map_err(|error| error.to_string())?;
    }
    set(&first, "alone", "1").await
}

#[test]
fn nobody_is_taken_out_where_the_others_are_no_majority() {
    for seed in 1..=3 {
        let came = simulate(&Plan::quiet(seed, SOON), one_too_many_is_to_go);
        assert_eq!(came, Ok(()), "seed {seed}");
    }
}

/// The leader takes a follower out. Between the two entries of that it dies, or whoever asked it hangs up.
async fn a_change_is_left_half_done(world: Arc<World>, plan: &Plan) -> Result<(), String> {
    let (leader, others) = three(&world).await?;
    let (first, goes) = (node(&world, leader)?, node(&world, others[0])?.id());
    set(&first, "register", "1").await?;
    // All is stored by all.
    sleep(Duration::from_secs(1)).await;
    let stored = |host: Host| {
        world
            .node(host)
            .map(|running| running.node.status().last_log_index)
    };
    let before = others.map(stored);
    // What they say of it is on its way for long.
    others
        .iter()
        .for_each(|other| world.network.hinder(*other, leader, (150, 151), 0));
    let change = tokio::spawn({
        let first = first.clone();
        async move { first.remove_member(goes).await }
    });
    soon("the first entry is stored", || {
        others
            .map(stored)
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before)
    })
    .await?;
    if plan.seed.is_multiple_of(2) {
        change.abort();
    } else {
        world.crash(leader, false);
    }
    others.iter().for_each(|other| world.network.mend(*other, leader));
    soon("it is out", || {
        let leader = world.leader().and_then(|host| world.node(host));
        let members = leader.map(|running| running.node.status().members);
        members.is_some_and(|members| members.len() == 2 && members.iter().all(|member| member.id != goes))
    })
    .await
}

#[test]
fn a_change_of_members_is_ended_by_whoever_leads() {
    for seed in 1..=4 {
        let came = simulate(&Plan::quiet(seed, SOON), a_change_is_left_half_done);
        assert_eq!(came, Ok(()), "seed {seed}");
    }
}

/// A member waits for an element without end and holds a lock that is bound to it. It dies and is there again before anybody thinks it gone: with its disk, or
/// without, as another. How many elements are left when one is pushed, and whether the lock can be had.
async fn one_is_soon_back(world: Arc<World>, plan: &Plan) -> Result<(Reply, bool), String> {
    let (leader, [dies, _]) = three(&world).await?;
    let second = node(&world, dies)?;
    run(&second, "SESSION.CREATE locked 1800000 ITEMS 1 a 1").await?;
    run(&second, "SESSION.LOCK locked EXCLUSIVE me 600000 BOUND").await?;
    let waits = run(&second, "BLPOP jobs 0").await?;
    if plan.seed.is_multiple_of(2) {
        world.crash(dies, false);
    } else {
        let lost = [(Duration::ZERO, Fault::NewDisk { who: dies })];
        world.befall(&lost, Duration::from_secs(1)).await;
    }
    drop(waits);
    let first = node(&world, leader)?;
    soon("nobody waits", || {
        first.view(0, |view| view.store().waiting().is_empty())
    })
    .await?;
    run(&first, "RPUSH jobs 1").await?;
    let left = first.read_local(0, &["LLEN", "jobs"].map(Bytes::from));
    let lock = run(&first, "SESSION.LOCK locked EXCLUSIVE other 1000").await?;
    Ok((left, matches!(lock.replies[..], [Reply::Integer(_)])))
}

#[test]
fn what_a_member_waited_for_and_had_locked_ends_with_it_also_where_it_is_soon_back() {
    for seed in 1..=4 {
        let came = simulate(&Plan::quiet(seed, SOON), one_is_soon_back);
        assert_eq!(came, Ok((Reply::Integer(1), true)), "seed {seed}");
    }
}

/// A member that nobody hears cannot say how far the others are, so it watches nothing. Whoever does not look at that reply sends its transaction once all is well:
/// what it is answered, and whether another is begun afresh.
async fn a_watch_is_refused(world: Arc<World>, _: &Plan) -> Result<[Answer; 2], String> {
    let (leader, [alone, other]) = three(&world).await?;
    set(&node(&world, leader)?, "register", "1").await?;
    let cut = [leader, other].map(|host| [(alone, host), (host, alone)]);
    cut.iter()
        .flatten()
        .for_each(|(from, to)| world.network.cut(*from, *to));
    let mut client = Client::new(world.store(0));
    client.connect(alone).await;
    let watched = client.ask(&[words(&["WATCH", "register"])]).await;
    if !matches!(watched[..], [Answer::Reply(Reply::Error(_))]) {
        return Err(format!("watched: {watched:?}"));
    }
    set(&node(&world, leader)?, "register", "2").await?;
    cut.iter()
        .flatten()
        .for_each(|(from, to)| world.network.mend(*from, *to));
    let behind = node(&world, alone)?;
    timeout(SOON, get(&behind, "register"))
        .await
        .map_err(|_| "no end")??;
    let commands = [
        words(&["MULTI"]),
        words(&["SET", "register", "mine"]),
        words(&["EXEC"]),
    ];
    let first = client.ask(&commands).await.pop();
    let second = client.ask(&commands).await.pop();
    first
        .zip(second)
        .map(|(first, second)| [first, second])
        .ok_or("no answers".to_owned())
}

#[test]
fn a_transaction_whose_watch_was_refused_does_not_run() {
    for seed in 1..=3 {
        let plan = Plan {
            reads: Reads::Linearizable,
            ..Plan::quiet(seed, SOON)
        };
        let came = simulate(&plan, a_watch_is_refused);
        let ran = Reply::Array(vec![Reply::OK]);
        assert_eq!(came, Ok([Reply::NilArray, ran].map(Answer::Reply)), "seed {seed}");
    }
}

/// The others do not hear the first machine, nor it them; a newcomer, which asks it first, hears all.
async fn the_first_who_is_asked_is_cut_off(world: Arc<World>, _: &Plan) -> Result<(), String> {
    three(&world).await?;
    for other in [2, 3] {
        world.network.cut(1, other);
        world.network.cut(other, 1);
    }
    let leader = node(&world, leader_among(&world, &[2, 3]).await?)?;
    world
        .befall(&[(Duration::ZERO, Fault::Grow)], Duration::ZERO)
        .await;
    soon("the newcomer is a member", || leader.status().members.len() == 4).await
}

#[test]
fn who_joins_asks_more_than_one_member() {
    for seed in 1..=3 {
        let came = simulate(&Plan::quiet(seed, SOON), the_first_who_is_asked_is_cut_off);
        assert_eq!(came, Ok(()), "seed {seed}");
    }
}

/// A follower is taken out and goes on, for it does not hear of that. What its clients are told at last, and what is in the cluster of all that they wrote.
async fn one_that_was_taken_out_goes_on(world: Arc<World>, _: &Plan) -> Result<(String, [Reply; 2]), String> {
    let (leader, [goes, _]) = three(&world).await?;
    let (first, gone) = (node(&world, leader)?, node(&world, goes)?);
    set(&gone, "register", "1").await?;
    let write = "redis.call('SET', KEYS[1], '1')";
    let script = |key: &str| words(&["EVAL", write, "1", key]);
    let mut client = Client::new(world.store(0));
    if !client.connect(goes).await {
        return Err("no connection".to_owned());
    }
    // So that all nodes know it, and that it writes.
    client.ask(&[script("known")]).await;
    let removed = timeout(SOON, first.remove_member(gone.id())).await;
    removed
        .map_err(|_| "no end")?
        .map_err(|error| error.to_string())?;
    let asked = timeout(SOON * 3, client.ask(&[script("scripted")])).await;
    asked.map_err(|_| "the script has no end")?;
    // As many as may be in flight, whose outcome nobody knows; then one that is not sent.
    let mut told = String::new();
    for _ in 0..3 {
        let written = timeout(SOON, set(&gone, "late", "1")).await;
        told = written
            .map_err(|_| "a write has no end")?
            .err()
            .ok_or("written")?;
    }
    if let Ok(read) = get(&gone, "register").await {
        return Err(format!("{read:?} read by no member"));
    }
    let left = |key: &'static str| first.read_local(0, &["GET", key].map(Bytes::from));
    Ok((told, ["scripted", "late"].map(left)))
}

#[test]
fn what_a_member_writes_that_was_taken_out_is_not_in_the_cluster() {
    for seed in 1..=3 {
        let came = simulate(&Plan::quiet(seed, SOON), one_that_was_taken_out_goes_on);
        let (told, left) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert_eq!(left, [Reply::Nil, Reply::Nil], "seed {seed}");
        assert!(told.contains("an empty folder"), "seed {seed}: {told}");
    }
}

/// The log has grown by so many entries at most, and each count is in it once.
fn assert_written_once(seed: u64, came: Result<(u64, Reply), String>, counted: &'static str, most: u64) {
    let (grown, reply) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    assert_eq!(reply, Reply::bulk(counted), "seed {seed}: once");
    assert!(grown <= most, "seed {seed}: {grown} entries");
}

/// A follower hears nothing from the leader, which hears it: what it forwards is in the log, and does not come back. By how many entries the log grows meanwhile, and
/// what they came to.
async fn one_is_not_answered(world: Arc<World>, _: &Plan) -> Result<(u64, Reply), String> {
    let (leader, [deaf, _]) = three(&world).await?;
    let (first, other) = (node(&world, leader)?, node(&world, deaf)?);
    set(&other, "register", "1").await?;
    sleep(Duration::from_secs(1)).await;
    let before = first.status().last_log_index;
    world.network.cut(leader, deaf);
    let counted = tokio::spawn(async move { run(&other, "INCR register").await.map(drop) });
    sleep(Duration::from_millis(6_500)).await;
    let grown = first.status().last_log_index - before;
    world.network.mend(leader, deaf);
    // Whether its caller was answered in time is its own affair.
    let _ = timeout(SOON, counted).await.map_err(|_| "no end")?;
    let counted = timeout(SOON, get(&first, "register")).await;
    Ok((grown, counted.map_err(|_| "no read")??))
}

#[test]
fn who_is_not_answered_does_not_multiply_what_it_writes() {
    for seed in 1..=3 {
        let came = simulate(&Plan::quiet(seed, SOON), one_is_not_answered);
        assert_written_once(seed, came, "2", 2);
    }
}

/// What the leader says to a follower takes nearly as long as a connection may be silent. By how many entries the log grows for each twenty that the follower writes, and what
/// they came to.
async fn a_link_is_slow(world: Arc<World>, _: &Plan) -> Result<(u64, Reply), String> {
    let (leader, [far, _]) = three(&world).await?;
    let (first, other) = (node(&world, leader)?, node(&world, far)?);
    set(&other, "register", "0").await?;
    sleep(Duration::from_secs(1)).await;
    let before = first.status().last_log_index;
    world.network.hinder(leader, far, (1_850, 1_900), 0);
    for _ in 0..20 {
        run(&other, "INCR register").await?;
    }
    let grown = first.status().last_log_index - before;
    Ok((grown, get(&first, "register").await?))
}

#[test]
fn who_writes_over_a_slow_link_writes_once() {
    for seed in 1..=3 {
        let came = simulate(&Plan::quiet(seed, SOON), a_link_is_slow);
        assert_written_once(seed, came, "20", 22);
    }
}

/// A leader that nobody hears is asked for a script in a transaction, after the others have elected another who wrote.
async fn a_script_in_a_transaction_reads(world: Arc<World>, _: &Plan) -> Result<Answer, String> {
    let (old, others) = three(&world).await?;
    let (first, net) = (node(&world, old)?, &world.network);
    set(&first, "register", "old").await?;
    let mut client = Client::new(world.store(0));
    client.connect(old).await;
    let script = "return redis.call('GET', KEYS[1])";
    let commands = [
        words(&["MULTI"]),
        words(&["EVAL", script, "1", "register"]),
        words(&["EXEC"]),
    ];
    // So that the script is known.
    let before = client.ask(&commands).await.pop();
    let old_value = Reply::Array(vec![Reply::bulk("old")]);
    if before != Some(Answer::Reply(old_value)) {
        return Err(format!("before: {before:?}"));
    }
    for other in others {
        net.cut(old, other);
        net.cut(other, old);
    }
    let new = leader_among(&world, &others).await?;
    set(&node(&world, new)?, "register", "new").await?;
    client.ask(&commands).await.pop().ok_or("no answer".to_owned())
}

#[test]
fn a_script_in_a_transaction_does_not_read_what_was() {
    for seed in 1..=3 {
        let plan = Plan {
            reads: Reads::Linearizable,
            ..Plan::quiet(seed, SOON)
        };
        let came = simulate(&plan, a_script_in_a_transaction_reads);
        let refused = matches!(came, Ok(Answer::Reply(Reply::Error(_))));
        assert!(refused, "seed {seed}: {came:?}");
    }
}

/// A member that nobody hears is asked for a transaction with a script in it that nobody knows: at once, or when it knows that nobody leads. When it has given up, all is
/// well. What the transaction is answered, and how far its counter is in the end.
async fn nobody_leads_for_a_while(world: Arc<World>, plan: &Plan) -> Result<(Answer, Reply), String> {
    let (leader, [alone, other]) = three(&world).await?;
    let cut = [leader, other].map(|host| [(alone, host), (host, alone)]);
    let mut client = Client::new(world.store(0));
    client.connect(alone).await;
    cut.iter()
        .flatten()
        .for_each(|(from, to)| world.network.cut(*from, *to));
    if plan.seed.is_multiple_of(2) {
        sleep(Duration::from_secs(4)).await;
    }
    let commands = [
        words(&["MULTI"]),
        words(&["INCR", "counter"]),
        words(&["EVAL", "return 1", "0"]),
        words(&["EXEC"]),
    ];
    let mends = async {
        sleep(WRITE_DEADLINE + THERE / 2).await;
        cut.iter()
            .flatten()
            .for_each(|(from, to)| world.network.mend(*from, *to));
    };
    let (mut answers, ()) = futures::join!(client.ask(&commands), mends);
    sleep(Duration::from_secs(5)).await;
    let counter = timeout(SOON, get(&node(&world, leader)?, "counter")).await;
    let counter = counter.map_err(|_| "no read")??;
    Ok((answers.pop().ok_or("no answer")?, counter))
}

#[test]
fn a_transaction_whose_script_cannot_be_made_known_is_refused_whole() {
    for seed in 1..=4 {
        let came = simulate(&Plan::quiet(seed, SOON), nobody_leads_for_a_while);
        let (answer, counter) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert_eq!(counter, Reply::Nil, "seed {seed}: {answer:?}");
        let refused = matches!(answer, Answer::Reply(Reply::Error(_)));
        assert!(
            refused && answer.fate() == Fate::Refused,
            "seed {seed}: {answer:?}"
        );
    }
}

/// A member that nobody hears is sent a pipeline of counts with reads between them. What it answers the counts, and how far they are when all is well.
async fn a_pipeline_meets_trouble(world: Arc<World>, _: &Plan) -> Result<(Vec<Answer>, Reply), String> {
    let (leader, [alone, other]) = three(&world).await?;
    let cut = [leader, other].map(|host| [(alone, host), (host, alone)]);
    let mut client = Client::new(world.store(0));
    client.connect(alone).await;
    cut.iter()
        .flatten()
        .for_each(|(from, to)| world.network.cut(*from, *to));
    let mut commands = vec![words(&["INCR", "counter"])];
    for _ in 1..4 {
        commands.extend([words(&["GET", "other"]), words(&["INCR", "counter"])]);
    }
    let answers = client.ask(&commands).await;
    cut.iter()
        .flatten()
        .for_each(|(from, to)| world.network.mend(*from, *to));
    sleep(Duration::from_secs(5)).await;
    let counter = timeout(SOON, get(&node(&world, leader)?, "counter")).await;
    let counter = counter.map_err(|_| "no read")??;
    Ok((answers.into_iter().step_by(2).collect(), counter))
}

#[test]
fn a_pipeline_of_which_something_may_be_written_does_not_ask_to_be_sent_again() {
    for seed in 1..=3 {
        let mut plan = Plan::quiet(seed, SOON);
        plan.timing.write_deadline = Duration::from_secs(1);
        let came = simulate(&plan, a_pipeline_meets_trouble);
        let (answers, counter) = came.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let told = format!("seed {seed}: {answers:?}, {counter:?}");
        assert_eq!(answers[0].fate(), Fate::Unknown, "{told}");
        assert_eq!(answers[3].fate(), Fate::Refused, "{told}");
        assert!(!answers.iter().any(Answer::is_sent_again), "{told}");
    }
}
