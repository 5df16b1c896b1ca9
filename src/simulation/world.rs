//! The machines of a simulation, and what befalls them.

use super::oracle::Oracle;
use super::plan::{Fault, Plan};
use crate::config::{Config, Durability, Reads, RespConfig, Timing};
use crate::edge::resp::{Listeners, Resp};
use crate::node::Node;
use crate::node::status::Role;
use crate::raft::files::simulated::{Chance, Disk, Trouble};
use crate::raft::ground::{self, Ground, Net};
use crate::raft::net::simulated::{Host, Network, Place, address};
use crate::raft::simulation::Wall;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Bytes of a segment of a log: small, so that many come and go.
const SEGMENT_BYTES: u64 = 32 << 10;

/// Bytes of log after which a snapshot is taken.
const SNAPSHOT_BYTES: u64 = 24 << 10;

/// The first machine that has a client of Redis and no node.
const STORES: Host = 101;

/// How long a cluster that is whole may take until all of it serves.
const HEALED: Duration = Duration::from_secs(60);

/// How long what is left of a process that has crashed may take to end.
const LAST_TASKS: Duration = Duration::from_secs(120);

/// How long whoever watches over a machine waits until it looks again.
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct World {
    pub(super) network: Network,
    /// A clock that is right, where all but one are.
    pub(super) right: Option<Wall>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) began: Instant,
    pub(super) nodes: usize,
    stores: usize,
    durability: Durability,
    lease_reads: bool,
    pub(super) reads: Reads,
    timing: Timing,
    /// Milliseconds between two things that a client does, below.
    pub(super) pause_ms: u64,
    chance: Mutex<Chance>,
    machines: BTreeMap<Host, Mutex<Machine>>,
}

struct Machine {
    disk: Disk,
    wall: Wall,
    running: Option<Running>,
    /// Whether it is one that is to run when it can.
    wanted: bool,
    /// Whether its disk was told to fail: then its node may stop by itself.
    troubled: bool,
}

/// A process that runs.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) host: Host,
    pub(super) node: Node,
    resp: Arc<Resp>,
    crashed: watch::Sender<bool>,
}

impl Running {
    /// What a call on this process brings; none if it crashed first.
    pub(super) async fn call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut crashed = self.crashed.subscribe();
        tokio::select! {
            biased;
            _ = crashed.wait_for(|crashed| *crashed) => None,
            answer = call => Some(answer),
        }
    }

    /// Stops it as a program does that is asked to.
    async fn stop(&self) {
        self.resp.stop().await;
        // A cluster in trouble may not let it finish what is under way, and its disk may fail: both are told.
        let _ = self.node.stop().await;
    }
}

impl World {
    pub(super) fn new(plan: &Plan, oracle: Arc<Oracle>) -> Self {
        let mut chance = Chance(!plan.seed);
        let machines = (1..=plan.nodes + 1).map(|host| {
            let machine = Machine {
                disk: Disk::new(chance.draw(), SEGMENT_BYTES),
                wall: Wall::new(plan.clocks[host - 1]),
                running: None,
                wanted: host <= plan.nodes,
                troubled: false,
            };
            (host, Mutex::new(machine))
        });
        Self {
            machines: machines.collect(),
            right: plan.clocks_right.then(|| Wall::new(0)),
            network: Network::new(chance.draw(), plan.calls),
            oracle,
            began: Instant::now(),
            nodes: plan.nodes,
            stores: plan.stores,
            durability: plan.durability,
            lease_reads: plan.lease_reads,
            reads: plan.reads,
            timing: plan.timing,
            pause_ms: plan.pause_ms,
            chance: Mutex::new(chance),
        }
    }

    /// Starts the founders, and waits until they serve.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<(), String> {
        for host in 1..=self.nodes {
            tokio::spawn(watch_over(self.clone(), host));
        }
        tokio::spawn(watch_over(self.clone(), self.spare()));
        self.all_serve().await
    }

    fn spare(&self) -> Host {
        self.nodes + 1
    }

    fn config(&self, host: Host) -> Config {
        let mut config = Config::new("/node");
        config.listen = address(host);
        config.join = (1..=self.nodes).map(address).collect();
        if host <= self.nodes {
            config.expect = Some(self.nodes);
        }
        config.limits.snapshot_log_bytes = SNAPSHOT_BYTES;
        config.durability = self.durability;
        config.lease_reads = self.lease_reads;
        config.timing = self.timing;
        config
    }

    /// Where a client of Redis stands.
    pub(super) fn store(&self, which: usize) -> Place {
        self.network.start(STORES + which)
    }

    /// Starts the process of a machine, unless it runs. A disk in trouble may not let it.
    async fn start(&self, host: Host) {
        let (ground, config, place) = {
            let machine = self.machines[&host].lock();
            if machine.running.is_some() {
                return;
            }
            let place = self.network.start(host);
            let ground = Ground {
                disk: ground::Disk::Simulated(machine.disk.clone()),
                net: Net::Simulated(place.clone()),
                wall: ground::Wall::Simulated(machine.wall.clone()),
            };
            (ground, self.config(host), place)
        };
        match Node::start_on(ground, config).await {
            Ok(node) => {
                let resp = self.serve(node.clone(), host, &place);
                self.machines[&host].lock().running = Some(Running {
                    host,
                    node,
                    resp: Arc::new(resp),
                    crashed: watch::Sender::new(false),
                });
            }
            Err(error) => {
                if !self.machines[&host].lock().troubled {
                    self.oracle
                        .wrong(format!("machine {host} does not start: {error}"));
                }
                self.crash(host, true);
            }
        }
    }

    /// Serves clients of Redis.
    fn serve(&self, node: Node, host: Host, place: &Place) -> Resp {
        let mut config = RespConfig::new(endpoint(host));
        config.reads = self.reads;
        let listeners = Listeners::from(place.listen(&config.listen));
        Resp::start(listeners, node, config).expect("a port, and no certificate")
    }

    /// Ends the process of a machine at once, with its power or alone: that much [`Durability::Os`] survives, and only that happens under it.
    pub(super) fn crash(&self, host: Host, power: bool) {
        let power = power && self.durability == Durability::Fsync;
        self.network.crash(host, power);
        let mut machine = self.machines[&host].lock();
        machine.disk = machine.disk.after_crash(power, &mut self.chance.lock());
        machine.troubled = false;
        if let Some(running) = machine.running.take() {
            running.crashed.send_replace(true);
            // What is left of it reaches neither its disk nor anybody: it only has to end.
            tokio::spawn(async move { tokio::time::timeout(LAST_TASKS, running.stop()).await });
        }
    }

    /// Lets the disk of a machine take so long for each batch of the log.
    pub(super) fn slow(&self, host: Host, pause: Duration) {
        self.machines[&host].lock().disk.slow(pause);
    }

    /// Lets nobody start the process of a machine any more.
    pub(super) fn stay_down(&self, host: Host) {
        self.machines[&host].lock().wanted = false;
    }

    /// The processes that run.
    pub(super) fn running(&self) -> Vec<Running> {
        let machines = self.machines.values();
        machines
            .filter_map(|machine| machine.lock().running.clone())
            .collect()
    }

    pub(super) fn node(&self, host: Host) -> Option<Running> {
        self.machines[&host].lock().running.clone()
    }

    pub(super) fn leader(&self) -> Option<Host> {
        let running = self.running();
        let leads = running
            .iter()
            .map(|running| (running.node.status(), running.host))
            .filter(|(status, _)| status.role == Role::Leader);
        // Of two the one of the later term.
        leads.max_by_key(|(status, _)| status.term).map(|(_, host)| host)
    }

    /// Lets all of it happen, until the time is over.
    pub(super) async fn befall(self: &Arc<Self>, faults: &[(Duration, Fault)], length: Duration) {
        let began = Instant::now();
        for (at, fault) in faults {
            tokio::time::sleep_until(began + *at).await;
            tokio::spawn(befall(self.clone(), *fault));
        }
        tokio::time::sleep_until(began + length).await;
    }

    /// Machines with a node, and those with a client.
    fn hosts(&self) -> Vec<Host> {
        let stores = STORES..STORES + self.stores;
        self.machines.keys().copied().chain(stores).collect()
    }

    fn links(&self, who: Host) -> Vec<(Host, Host)> {
        let others = self.hosts().into_iter().filter(|other| *other != who);
        others.flat_map(|other| [(who, other), (other, who)]).collect()
    }

    /// Makes everything whole, and waits until all of it serves.
    ///
    /// # Errors
    /// Who does not.
    pub(super) async fn heal(self: &Arc<Self>) -> Result<(), String> {
        let hosts = self.hosts();
        for host in self.machines.keys() {
            self.machines[host].lock().disk.trouble(Trouble::None);
            self.slow(*host, Duration::ZERO);
        }
        for from in &hosts {
            for to in &hosts {
                self.network.mend(*from, *to);
            }
        }
        // What was under way when the time was over ends first.
        tokio::time::sleep(Duration::from_secs(10)).await;
        for (from, to) in hosts
            .iter()
            .flat_map(|from| hosts.iter().map(move |to| (*from, *to)))
        {
            self.network.mend(from, to);
        }
        if self.is_spare_out() {
            self.put_away(self.spare());
        }
        self.all_serve().await
    }

    async fn all_serve(&self) -> Result<(), String> {
        let until = Instant::now() + HEALED;
        loop {
            let missing: Vec<Host> = self
                .machines
                .iter()
                .filter(|(_, machine)| {
                    let machine = machine.lock();
                    machine.wanted
                        && machine
                            .running
                            .as_ref()
                            .is_none_or(|running| !running.node.status().ready)
                })
                .map(|(host, _)| *host)
                .collect();
            if missing.is_empty() {
                return self.oracle.verdict();
            }
            if Instant::now() > until {
                let states = self.running();
                let states: Vec<_> = states.iter().map(|running| running.node.status()).collect();
                return Err(format!("machines {missing:?} do not serve: {states:#?}"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether every machine that is to run does, and is a member with a vote, and nobody else is.
    fn is_well(&self) -> bool {
        let Some(leader) = self.leader().and_then(|host| self.node(host)) else {
            return false;
        };
        let members = leader.node.status().members;
        let wanted = self.machines.values().filter(|machine| machine.lock().wanted);
        let all_vote = members.len() == wanted.count() && members.iter().all(|member| member.voter);
        all_vote
            && self.machines.values().all(|machine| {
                let machine = machine.lock();
                let serves = |running: &Running| running.node.status().ready;
                machine.running.as_ref().map_or(!machine.wanted, serves)
            })
    }
}

/// Where a machine's node serves clients of Redis.
pub(super) fn endpoint(host: Host) -> String {
    format!("127.0.0.{host}:6379")
}

/// Starts a machine's process whenever it is to run and does not, and notices one that stops by itself.
async fn watch_over(world: Arc<World>, host: Host) {
    loop {
        let (running, wanted) = {
            let machine = world.machines[&host].lock();
            (machine.running.clone(), machine.wanted)
        };
        match running {
            Some(running) => {
                if let Some(fault) = running.node.status().fault {
                    let troubled = world.machines[&host].lock().troubled;
                    let removed = !wanted;
                    if !troubled && !removed {
                        world.oracle.wrong(format!("machine {host} has stopped: {fault}"));
                    }
                    world.crash(host, true);
                }
            }
            None if wanted => world.start(host).await,
            None => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn befall(world: Arc<World>, fault: Fault) {
    let whom = |who: usize| match who {
        0 => world.leader().unwrap_or(1),
        who => who,
    };
    match fault {
        Fault::Crash { who, power, down } => {
            world
                .down(&[whom(who)], down, |host| world.crash(host, power))
                .await
        }
        Fault::Blackout { down } => {
            let all: Vec<Host> = world.machines.keys().copied().collect();
            world.down(&all, down, |host| world.crash(host, true)).await;
        }
        Fault::CutOff { who, length } => world.cut(&world.links(whom(who)), length).await,
        Fault::Mute { who, length } => {
            let who = whom(who);
            let links = world.links(who).into_iter().filter(|(from, _)| *from == who);
            world.cut(&links.collect::<Vec<_>>(), length).await;
        }
        Fault::Deaf { who, length } => {
            let who = whom(who);
            let links = world.links(who).into_iter().filter(|(_, to)| *to == who);
            world.cut(&links.collect::<Vec<_>>(), length).await;
        }
        Fault::OneWay { from, to, length } => world.cut(&[(from, to)], length).await,
        Fault::Slow {
            who,
            delay_ms,
            loss,
            length,
        } => {
            let links = world.links(whom(who));
            for (from, to) in &links {
                world
                    .network
                    .hinder(*from, *to, (delay_ms / 2, delay_ms + 1), loss);
            }
            world.mended(&links, length).await;
        }
        Fault::Reset { who } => world.network.reset(whom(who)),
        Fault::Jump { who, by_ms } => world.machines[&whom(who)].lock().wall.jump(by_ms),
        Fault::FailSync { who, after } => {
            let mut machine = world.machines[&whom(who)].lock();
            machine.troubled = true;
            machine.disk.trouble(Trouble::Sync(after));
        }
        Fault::SlowDisk { who, pause, length } => {
            let host = whom(who);
            world.slow(host, pause);
            tokio::time::sleep(length).await;
            world.slow(host, Duration::ZERO);
        }
        Fault::Stop { who, down } => {
            let host = whom(who);
            let Some(running) = world.node(host) else { return };
            let _ = running.call(running.stop()).await;
            if running.crashed.send_replace(true) {
                return;
            }
            world
                .down(&[host], down, |host| {
                    world.network.crash(host, false);
                    world.machines[&host].lock().running = None;
                })
                .await;
        }
        Fault::Snapshot { who } => {
            if let Some(running) = world.node(whom(who)) {
                // One that stops takes none.
                let _ = running.call(running.node.snapshot()).await;
            }
        }
        Fault::Lead { who } => {
            if let (Some(leader), Some(heir)) =
                (world.leader().and_then(|host| world.node(host)), world.node(who))
            {
                // Whoever does not lead any more refuses.
                let _ = leader.call(leader.node.hand_over_to(heir.node.id())).await;
            }
        }
        Fault::Grow => world.machines[&world.spare()].lock().wanted = true,
        Fault::Shrink => world.shrink().await,
        Fault::NewDisk { who } => {
            let host = whom(who);
            // As whoever looks after a cluster does it: one after the other, while the others are well.
            if world.is_well() {
                world.crash(host, true);
                let seed = world.chance.lock().draw();
                world.machines[&host].lock().disk = Disk::new(seed, SEGMENT_BYTES);
            }
        }
    }
}

impl World {
    /// Ends processes, and lets them be started again after this time.
    async fn down(&self, hosts: &[Host], down: Duration, end: impl Fn(Host)) {
        let wanted: Vec<Host> = hosts
            .iter()
            .copied()
            .filter(|host| self.machines[host].lock().wanted)
            .collect();
        for host in &wanted {
            self.machines[host].lock().wanted = false;
        }
        hosts.iter().for_each(|host| end(*host));
        tokio::time::sleep(down).await;
        for host in wanted {
            self.machines[&host].lock().wanted = true;
        }
    }

    async fn cut(&self, links: &[(Host, Host)], length: Duration) {
        for (from, to) in links {
            self.network.cut(*from, *to);
        }
        self.mended(links, length).await;
    }

    async fn mended(&self, links: &[(Host, Host)], after: Duration) {
        tokio::time::sleep(after).await;
        for (from, to) in links {
            self.network.mend(*from, *to);
        }
    }

    /// Takes the spare machine out, if it is a member, and gives it an empty disk: its identity never comes back.
    async fn shrink(&self) {
        let spare = self.spare();
        let Some(running) = self.node(spare) else { return };
        let Some(other) = self.node(1) else { return };
        let removed = other.call(other.node.remove_member(running.node.id())).await;
        if matches!(removed, Some(Ok(()))) {
            self.put_away(spare);
        }
    }

    /// Whether the spare machine was taken out by a request that was not answered: it has been a member, as it knows of members at all, and to whoever leads it is none.
    fn is_spare_out(&self) -> bool {
        let leader = self.leader().and_then(|host| self.node(host));
        let (Some(spare), Some(leader)) = (self.node(self.spare()), leader) else {
            return false;
        };
        let (id, members) = (spare.node.id(), leader.node.status().members);
        !spare.node.status().members.is_empty() && members.iter().all(|member| member.id != id)
    }

    /// Ends a machine that was taken out, for good or until it comes back as another.
    fn put_away(&self, host: Host) {
        self.machines[&host].lock().wanted = false;
        self.crash(host, true);
        let seed = self.chance.lock().draw();
        self.machines[&host].lock().disk = Disk::new(seed, SEGMENT_BYTES);
    }
}
