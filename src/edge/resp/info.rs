//! `INFO`: the sections and fields that clients and dashboards read, and a section `Plenary`.
//!
//! What has no meaning here stands with the value that says so (`rdb_bgsave_in_progress:0`); what nobody reads is left out.
//! Missing: `Commandstats` and `Latencystats` are empty.

use super::connection::Caller;
use super::hub::Kind;
use super::local::Answer;
use super::{REDIS_VERSION, Shared};
use crate::machine::args::Args;
use crate::machine::keyspace::DATABASES;
use crate::machine::reply::Reply;
use crate::node::status::Status;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

/// What a section writes: its fields, one a line.
type Section = fn(&mut Fields, &Shared, &Status);

/// The sections in Redis' order; whether `INFO` without arguments shows them.
#[rustfmt::skip]
const SECTIONS: &[(&str, bool, Section)] = &[
    ("Server",       true,  server),
    ("Clients",      true,  clients),
    ("Memory",       true,  memory),
    ("Persistence",  true,  persistence),
    ("Stats",        true,  stats),
    ("Replication",  true,  replication),
    ("CPU",          true,  cpu),
    ("Modules",      true,  |_, _, _| {}),
    ("Commandstats", false, |_, _, _| {}),
    ("Errorstats",   true,  errors),
    ("Latencystats", false, |_, _, _| {}),
    ("Cluster",      true,  |fields, _, _| fields.add("cluster_enabled", 0)),
    ("Keyspace",     true,  keyspace),
    ("Plenary",      true,  plenary),
];

/// `INFO [section ...]`: sections, `default`, `all`, `everything`. What is not known is passed over.
pub(super) fn info(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (shared, asked) = (&caller.shared, args.rest());
    let says = |word: &str| {
        asked
            .iter()
            .any(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    };
    let (all, default) = (
        says("all") || says("everything"),
        asked.is_empty() || says("default"),
    );
    let status = shared.node.status();
    let mut fields = Fields(String::new());
    for (name, shown, write) in SECTIONS {
        if all || (default && *shown) || says(name) {
            let separator = if fields.0.is_empty() { "" } else { "\r\n" };
            write!(fields.0, "{separator}# {name}\r\n").expect("a String takes everything");
            write(&mut fields, shared, &status);
        }
    }
    Ok(Reply::Verbatim(Bytes::from(fields.0)))
}

/// The text so far.
struct Fields(String);

impl Fields {
    fn add(&mut self, name: &str, value: impl Display) {
        write!(self.0, "{name}:{value}\r\n").expect("a String takes everything");
    }

    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.add(name, 0);
        }
    }
}

fn server(fields: &mut Fields, shared: &Shared, status: &Status) {
    let uptime = shared.started.elapsed().as_secs();
    fields.add("redis_version", REDIS_VERSION);
    fields.add("redis_git_sha1", "00000000");
    fields.add("redis_git_dirty", 0);
    fields.add("redis_build_id", format_args!("plenary-{}", status.version));
    fields.add("redis_mode", "standalone");
    fields.add(
        "os",
        format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    );
    fields.add("arch_bits", usize::BITS);
    fields.add("multiplexing_api", "tokio");
    fields.add("process_id", std::process::id());
    fields.add("process_supervised", "no");
    fields.add("run_id", run_id(status.node_id));
    fields.add("tcp_port", shared.address.port());
    fields.add("server_time_usec", u128::from(shared.node.now()) * 1000);
    fields.add("uptime_in_seconds", uptime);
    fields.add("uptime_in_days", uptime / 86_400);
    fields.add("hz", 10);
    fields.add("configured_hz", 10);
    fields.add(
        "executable",
        std::env::current_exe().unwrap_or_default().display(),
    );
    fields.add("config_file", "");
    fields.add("io_threads_active", 0);
}

/// 40 hexadecimal digits that stay the same for a node over its restarts: its state does too.
fn run_id(node_id: u64) -> String {
    let digest = Sha256::digest(format!("plenary run {node_id}"));
    digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

fn clients(fields: &mut Fields, shared: &Shared, _: &Status) {
    fields.add("connected_clients", shared.clients.count());
    fields.add("cluster_connections", 0);
    fields.add("maxclients", shared.max_clients.load(Relaxed));
    fields.zeros(&[
        "client_recent_max_input_buffer",
        "client_recent_max_output_buffer",
    ]);
    fields.add("blocked_clients", shared.blocked.load(Relaxed));
    fields.add("tracking_clients", shared.hub.tracking.counts().clients);
    fields.zeros(&["clients_in_timeout_table"]);
}

fn memory(fields: &mut Fields, _: &Shared, status: &Status) {
    let (used, resident) = (status.used_bytes, resident_bytes().unwrap_or(status.used_bytes));
    fields.add("used_memory", used);
    fields.add("used_memory_human", human(used));
    fields.add("used_memory_rss", resident);
    fields.add("used_memory_rss_human", human(resident));
    fields.add("used_memory_peak", used);
    fields.add("used_memory_peak_human", human(used));
    fields.add("used_memory_dataset", used);
    fields.zeros(&["used_memory_lua", "used_memory_scripts", "maxmemory"]);
    fields.add("maxmemory_human", "0B");
    fields.add("maxmemory_policy", "noeviction");
    fields.add(
        "mem_fragmentation_ratio",
        format_args!("{:.2}", resident as f64 / used.max(1) as f64),
    );
    fields.add("mem_allocator", "system");
    fields.zeros(&["active_defrag_running", "lazyfree_pending_objects"]);
}

/// Pages of this process in memory, where the system tells (Linux).
fn resident_bytes() -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    pages
        .split(' ')
        .nth(1)?
        .parse::<u64>()
        .ok()?
        .checked_mul(PAGE_BYTES)
}

/// A count of bytes as Redis shortens it.
fn human(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", size / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", size / 1_048_576.0),
        _ => format!("{:.2}G", size / 1_073_741_824.0),
    }
}

/// Every acknowledged write is in the log: to whoever asks in Redis' words, an append-only file that is always in order.
fn persistence(fields: &mut Fields, _: &Shared, status: &Status) {
    fields.add("loading", u8::from(!status.ready));
    fields.add("async_loading", 0);
    fields.zeros(&[
        "rdb_changes_since_last_save",
        "rdb_bgsave_in_progress",
        "rdb_last_save_time",
    ]);
    fields.add("rdb_last_bgsave_status", "ok");
    fields.add("aof_enabled", 1);
    fields.zeros(&["aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    fields.add("aof_last_bgrewrite_status", "ok");
    fields.add(
        "aof_last_write_status",
        if status.fault.is_none() { "ok" } else { "err" },
    );
}

fn stats(fields: &mut Fields, shared: &Shared, status: &Status) {
    let stats = &shared.stats;
    fields.add("total_connections_received", stats.connections.get());
    fields.add("total_commands_processed", stats.commands.get());
    fields.add("instantaneous_ops_per_sec", stats.commands_per_second.get());
    fields.add("total_net_input_bytes", stats.input_bytes.get());
    fields.add("total_net_output_bytes", stats.output_bytes.get());
    fields.add("rejected_connections", stats.rejected.get());
    fields.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    fields.add("expired_keys", status.expired_keys);
    fields.zeros(&[
        "evicted_keys",
        "evicted_clients",
        "keyspace_hits",
        "keyspace_misses",
    ]);
    let (hub, tracked) = (&shared.hub, shared.hub.tracking.counts());
    fields.add("pubsub_channels", hub.count(Kind::Channel));
    fields.add("pubsub_patterns", hub.count(Kind::Pattern));
    fields.add("pubsubshard_channels", hub.count(Kind::Shard));
    fields.zeros(&["latest_fork_usec", "total_forks", "migrate_cached_sockets"]);
    fields.add("tracking_total_keys", tracked.keys);
    fields.add("tracking_total_items", tracked.items);
    fields.add("tracking_total_prefixes", tracked.prefixes);
    fields.add("total_error_replies", stats.errors.get());
    fields.add("total_reads_processed", stats.reads.get());
    fields.add("total_writes_processed", stats.writes.get());
    fields.add(
        "client_output_buffer_limit_disconnections",
        stats.output_limit.get(),
    );
    fields.add("client_idle_disconnections", stats.idle.get());
}

/// Each node takes writes and forwards them, so to a client it is a master; who leads stands in the section `Plenary`.
fn replication(fields: &mut Fields, _: &Shared, status: &Status) {
    fields.add("role", "master");
    fields.add("connected_slaves", 0);
    fields.add("master_failover_state", "no-failover");
    fields.add("master_replid", run_id(status.cluster_id.unwrap_or_default()));
    fields.add("master_replid2", "0".repeat(40));
    fields.add("master_repl_offset", status.applied_index);
    fields.add("second_repl_offset", -1);
    fields.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

fn cpu(fields: &mut Fields, _: &Shared, _: &Status) {
    let (user, system) = cpu_seconds().unwrap_or_default();
    fields.add("used_cpu_sys", format_args!("{system:.6}"));
    fields.add("used_cpu_user", format_args!("{user:.6}"));
    fields.add("used_cpu_sys_children", "0.000000");
    fields.add("used_cpu_user_children", "0.000000");
}

/// User and system time of this process in seconds, where the system tells (Linux: fields 14 and 15, in hundredths).
fn cpu_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold spaces; it ends at the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / 100.0);
    Some((seconds()?, seconds()?))
}

fn errors(fields: &mut Fields, shared: &Shared, _: &Status) {
    for (kind, count) in shared.stats.kinds() {
        fields.add(&format!("errorstat_{kind}"), format_args!("count={count}"));
    }
}

fn keyspace(fields: &mut Fields, shared: &Shared, _: &Status) {
    for db in 0..u8::try_from(DATABASES).expect("few databases") {
        let (keys, expires) = shared.node.view(db, |view| view.store().counts(db));
        if keys > 0 {
            fields.add(
                &format!("db{db}"),
                format_args!("keys={keys},expires={expires},avg_ttl=0"),
            );
        }
    }
}

fn plenary(fields: &mut Fields, _: &Shared, status: &Status) {
    let or_none = |id: Option<u64>| id.map_or_else(String::new, |id| id.to_string());
    fields.add("plenary_version", &status.version);
    fields.add("node_id", status.node_id);
    fields.add("cluster_id", or_none(status.cluster_id));
    fields.add("raft_role", format!("{:?}", status.role).to_lowercase());
    fields.add("leader_id", or_none(status.leader_id));
    fields.add("term", status.term);
    fields.add("last_log_index", status.last_log_index);
    fields.add("committed_index", status.committed_index);
    fields.add("applied_index", status.applied_index);
    fields.add("snapshot_index", status.snapshot_index);
    fields.add("members", status.members.len());
    fields.add("ready", u8::from(status.ready));
    fields.add("durability", &status.durability);
    fields.add("proposed_commands", status.proposed_commands);
    fields.add("proposed_groups", status.proposed_groups);
    fields.add(
        "fault",
        status
            .fault
            .as_deref()
            .unwrap_or_default()
            .replace(['\r', '\n'], " "),
    );
}
