//! `INFO`: the sections and fields that clients and dashboards read, and a section `Plenary`.
//!
//! What has no meaning here stands with the value that says so (`rdb_bgsave_in_progress:0`); what nobody reads is left out.

use super::acl_log::Reason;
use super::connection::Caller;
use super::hub::Kind;
use super::local::Answer;
use super::{REDIS_VERSION, Shared};
use crate::machine::args::Args;
use crate::machine::keyspace::{DATABASES, Store};
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
    ("Commandstats", false, command_stats),
    ("Errorstats",   true,  errors),
    ("Latencystats", false, latency_stats),
    ("Cluster",      true,  |fields, _, _| fields.add("cluster_enabled", 0)),
    ("Keyspace",     true,  keyspace),
    ("Plenary",      true,  plenary),
    ("Compat",       false, compat),
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
    fields.add("monotonic_clock", "POSIX clock_gettime");
    fields.add("multiplexing_api", "tokio");
    fields.add("atomicvar_api", "c11-builtin");
    fields.add("gcc_version", "0.0.0");
    fields.add("process_id", std::process::id());
    fields.add("process_supervised", "no");
    fields.add("run_id", run_id(status.node_id));
    fields.add("tcp_port", shared.address.port());
    fields.add("server_time_usec", u128::from(shared.node.now()) * 1000);
    fields.add("uptime_in_seconds", uptime);
    fields.add("uptime_in_days", uptime / 86_400);
    fields.add("hz", 10);
    fields.add("configured_hz", 10);
    fields.add("lru_clock", (shared.node.now() / 1000) & 0x00ff_ffff);
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
    let all = shared.clients.all();
    let (input, output) = all
        .iter()
        .map(|client| client.waiting_bytes())
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let most = |bytes: Vec<usize>| bytes.into_iter().max().unwrap_or(0);
    fields.add("client_recent_max_input_buffer", most(input));
    fields.add("client_recent_max_output_buffer", most(output));
    fields.add("blocked_clients", shared.blocked.load(Relaxed));
    fields.add("tracking_clients", shared.hub.tracking.counts().clients);
    let subscribers = all.iter().filter(|client| client.subscribes()).count();
    fields.add("pubsub_clients", subscribers);
    fields.zeros(&["clients_in_timeout_table"]);
}

fn memory(fields: &mut Fields, shared: &Shared, status: &Status) {
    let (used, resident) = (status.used_bytes, resident_bytes().unwrap_or(status.used_bytes));
    used_memory(fields, used, resident, shared.peak.of(used));
    let system = system_bytes().unwrap_or(0);
    fields.add("total_system_memory", system);
    fields.add("total_system_memory_human", human(system));
    memory_of_scripts(fields, shared);
    let settings = shared.node.settings();
    fields.add("maxmemory", settings.maxmemory);
    fields.add("maxmemory_human", human(settings.maxmemory));
    fields.add("maxmemory_policy", settings.maxmemory_policy.name());
    fragmentation(fields, used, resident);
    fields.zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
    ]);
    let of_clients: usize = shared.clients.all().iter().map(|client| client.memory()).sum();
    fields.add("mem_clients_normal", of_clients);
    fields.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    fields.add("mem_allocator", "libc");
    fields.zeros(&["active_defrag_running"]);
    let (pending, freed) = shared.node.freed_objects();
    fields.add("lazyfree_pending_objects", pending);
    fields.add(
        "lazyfreed_objects",
        freed.saturating_sub(shared.stats.freed_before.get()),
    );
}

/// What keys and values take as it is counted where they change, and what the process takes of the machine.
fn used_memory(fields: &mut Fields, used: u64, resident: u64, peak: u64) {
    for (name, bytes) in [
        ("used_memory", used),
        ("used_memory_rss", resident),
        ("used_memory_peak", peak),
    ] {
        fields.add(name, bytes);
        fields.add(&format!("{name}_human"), human(bytes));
    }
    let percent = |part, whole| format!("{:.2}%", 100.0 * ratio(part, whole));
    fields.add("used_memory_peak_perc", percent(used, peak));
    let empty = Store::bytes_when_empty() as u64;
    let dataset = used.saturating_sub(empty);
    fields.add("used_memory_overhead", empty);
    fields.add("used_memory_startup", empty);
    fields.add("used_memory_dataset", dataset);
    fields.add("used_memory_dataset_perc", percent(dataset, dataset));
    fields.add("allocator_allocated", used);
    fields.add("allocator_active", resident);
    fields.add("allocator_resident", resident);
}

/// The texts that the cluster knows. What an engine takes beside them is bounded and not counted.
fn memory_of_scripts(fields: &mut Fields, shared: &Shared) {
    fields.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    fields.add("used_memory_lua_human", "0B");
    let (scripts, script_bytes, libraries, functions, library_bytes) = shared.node.view(0, |view| {
        let scripts = view.store().scripts();
        let (count, bytes) = scripts.size();
        let (mut functions, mut code) = (0, 0);
        for library in scripts.libraries() {
            functions += library.functions.len();
            code += library.code.len();
        }
        (count, bytes, scripts.libraries().len(), functions, code)
    });
    fields.add("used_memory_scripts_eval", script_bytes);
    fields.add("number_of_cached_scripts", scripts);
    fields.add("number_of_functions", functions);
    fields.add("number_of_libraries", libraries);
    fields.zeros(&["used_memory_vm_functions", "used_memory_vm_total"]);
    fields.add("used_memory_vm_total_human", "0B");
    fields.add("used_memory_functions", library_bytes);
    let all_scripts = script_bytes + library_bytes;
    fields.add("used_memory_scripts", all_scripts);
    fields.add("used_memory_scripts_human", human(all_scripts as u64));
}

/// How much more the process takes than is counted; nobody asks the allocator.
fn fragmentation(fields: &mut Fields, used: u64, resident: u64) {
    let (more, ratio) = (
        i128::from(resident) - i128::from(used),
        format!("{:.2}", ratio(resident, used)),
    );
    fields.add("allocator_frag_ratio", &ratio);
    fields.add("allocator_frag_bytes", more);
    fields.add("allocator_rss_ratio", "1.00");
    fields.add("allocator_rss_bytes", 0);
    fields.add("rss_overhead_ratio", "1.00");
    fields.add("rss_overhead_bytes", 0);
    fields.add("mem_fragmentation_ratio", ratio);
    fields.add("mem_fragmentation_bytes", more);
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The memory of the machine, where the system tells (Linux).
fn system_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = text
        .lines()
        .next()?
        .split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()?;
    kilobytes.checked_mul(1024)
}

/// Pages of this process in memory, where the system tells (Linux).
pub(super) fn resident_bytes() -> Option<u64> {
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
pub(super) fn human(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", size / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", size / 1_048_576.0),
        _ => format!("{:.2}G", size / 1_073_741_824.0),
    }
}

/// Every acknowledged write is in the log: to whoever asks in Redis' words, an append-only file that is always in order.
fn persistence(fields: &mut Fields, shared: &Shared, status: &Status) {
    fields.add("loading", u8::from(!status.ready));
    fields.add("async_loading", 0);
    fields.zeros(&["current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    fields.add("current_fork_perc", "0.00");
    fields.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    let changes = shared.node.view(0, |view| view.store().writes());
    fields.add(
        "rdb_changes_since_last_save",
        changes.saturating_sub(shared.stats.saved_changes.get()),
    );
    fields.zeros(&["rdb_bgsave_in_progress"]);
    fields.add("rdb_last_save_time", shared.node.now() / 1000);
    fields.add("rdb_last_bgsave_status", "ok");
    fields.add("rdb_last_bgsave_time_sec", -1);
    fields.add("rdb_current_bgsave_time_sec", -1);
    fields.zeros(&[
        "rdb_saves",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
    ]);
    fields.add("aof_enabled", 1);
    fields.zeros(&["aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    fields.add("aof_last_rewrite_time_sec", -1);
    fields.add("aof_current_rewrite_time_sec", -1);
    fields.add("aof_last_bgrewrite_status", "ok");
    fields.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    fields.add(
        "aof_last_write_status",
        if status.fault.is_none() { "ok" } else { "err" },
    );
    fields.zeros(&[
        "aof_last_cow_size",
        "module_fork_in_progress",
        "module_fork_last_cow_size",
    ]);
}

fn stats(fields: &mut Fields, shared: &Shared, status: &Status) {
    let stats = &shared.stats;
    let (hits, misses) = shared.node.view(0, |view| view.store().lookups());
    fields.add("total_connections_received", stats.connections.get());
    fields.add("total_commands_processed", stats.commands.get());
    fields.add("instantaneous_ops_per_sec", stats.commands_per_second.get());
    fields.add("total_net_input_bytes", stats.input_bytes.get());
    fields.add("total_net_output_bytes", stats.output_bytes.get());
    fields.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    for (name, bytes) in [
        ("instantaneous_input_kbps", &stats.input_per_second),
        ("instantaneous_output_kbps", &stats.output_per_second),
    ] {
        fields.add(name, format_args!("{:.2}", bytes.get() as f64 / 1024.0));
    }
    for name in ["instantaneous_input_repl_kbps", "instantaneous_output_repl_kbps"] {
        fields.add(name, "0.00");
    }
    fields.add("rejected_connections", stats.rejected.get());
    fields.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    fields.add("expired_keys", status.expired_keys);
    fields.add("expired_stale_perc", "0.00");
    fields.zeros(&["expired_time_cap_reached_count", "expire_cycle_cpu_milliseconds"]);
    fields.add(
        "evicted_keys",
        status.evicted_keys.saturating_sub(stats.evicted_before.get()),
    );
    fields.zeros(&[
        "evicted_clients",
        "total_eviction_exceeded_time",
        "current_eviction_exceeded_time",
    ]);
    fields.add("keyspace_hits", hits.saturating_sub(stats.lookups_before.0.get()));
    fields.add(
        "keyspace_misses",
        misses.saturating_sub(stats.lookups_before.1.get()),
    );
    let (hub, tracked) = (&shared.hub, shared.hub.tracking.counts());
    fields.add("pubsub_channels", hub.count(Kind::Channel));
    fields.add("pubsub_patterns", hub.count(Kind::Pattern));
    fields.add("pubsubshard_channels", hub.count(Kind::Shard));
    fields.zeros(&["latest_fork_usec", "total_forks", "migrate_cached_sockets"]);
    fields.add("tracking_total_keys", tracked.keys);
    fields.add("tracking_total_items", tracked.items);
    fields.add("tracking_total_prefixes", tracked.prefixes);
    fields.zeros(&[
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "unexpected_error_replies",
    ]);
    fields.add("total_error_replies", stats.errors.get());
    fields.add("dump_payload_sanitizations", 0);
    fields.add("total_reads_processed", stats.reads.get());
    fields.add("total_writes_processed", stats.writes.get());
    fields.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "reply_buffer_shrinks",
        "reply_buffer_expands",
    ]);
    fields.add(
        "client_output_buffer_limit_disconnections",
        stats.output_limit.get(),
    );
    fields.add("client_idle_disconnections", stats.idle.get());
    for (name, reason) in [
        ("auth", Reason::Auth),
        ("cmd", Reason::Command),
        ("key", Reason::Key),
        ("channel", Reason::Channel),
    ] {
        fields.add(
            &format!("acl_access_denied_{name}"),
            shared.acl_log.denied(reason),
        );
    }
}

/// Each node takes writes and forwards them, so to a client it is a master; who leads stands in the section `Plenary`.
fn replication(fields: &mut Fields, shared: &Shared, status: &Status) {
    fields.add("role", "master");
    fields.add("connected_slaves", 0);
    let (wanted, max_lag_s, near) = shared.node.fellows();
    if wanted > 0 && max_lag_s > 0 {
        fields.add("min_slaves_good_slaves", near);
    }
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

fn command_stats(fields: &mut Fields, shared: &Shared, _: &Status) {
    for (spec, call) in shared.calls.used() {
        let (calls, micros) = (call.calls.get(), call.micros());
        fields.add(
            &format!("cmdstat_{}", spec.name.to_ascii_lowercase()),
            format_args!(
                "calls={calls},usec={micros:.0},usec_per_call={:.2},rejected_calls={},failed_calls={}",
                micros / calls.max(1) as f64,
                call.rejected.get(),
                call.failed.get()
            ),
        );
    }
}

fn latency_stats(fields: &mut Fields, shared: &Shared, _: &Status) {
    if !shared.calls.tracking() {
        return;
    }
    let percentiles = shared.calls.percentiles();
    for (spec, call) in shared.calls.used() {
        let Some(histogram) = call.histogram() else {
            continue;
        };
        let parts = percentiles.iter().map(|part| {
            let micros = histogram.percentile(*part) as f64 / 1000.0;
            format!("p{part}={micros:.3}")
        });
        fields.add(
            &format!("latency_percentiles_usec_{}", spec.name.to_ascii_lowercase()),
            parts.collect::<Vec<_>>().join(","),
        );
    }
}

/// What clients asked for and this endpoint does not know.
fn compat(fields: &mut Fields, shared: &Shared, _: &Status) {
    let (refused, others) = shared.compat.all();
    for (nth, (what, client, count)) in refused.iter().enumerate() {
        fields.add(
            &format!("refused_{nth}"),
            format_args!("what={what},client={client},count={count}"),
        );
    }
    fields.add("refused_others", others);
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
