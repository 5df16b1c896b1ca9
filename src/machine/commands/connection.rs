//! Connection and server commands: rows only. The edge runs them, because they concern a connection or this node.
//!
//! Flags and categories are those of Redis 7.0.15, so that `COMMAND INFO` says the same.

use crate::machine::table::{Spec, local};

/// Flags of what a stranger may call before `AUTH`.
const OPEN: &str = "noscript loading stale fast no_auth allow_busy";
/// Flags of most subcommands of `CLIENT`.
const OWN: &str = "noscript loading stale";
/// Flags of what only an administrator calls.
const ADMIN: &str = "admin noscript loading stale";
const CALM: &str = "loading stale";
const QUICK: &str = "loading stale fast";

#[rustfmt::skip]
pub(super) const CONNECTION: &[Spec] = &[
    local("HELLO", "[protover [AUTH username password] [SETNAME clientname]]").since("6.0.0").flags(OPEN)
        .summary("Handshake with Redis"),
    local("AUTH", "[username] password").flags(OPEN).summary("Authenticate to the server"),
    local("PING", "[message]").flags("fast").summary("Ping the server"),
    local("ECHO", "message").flags(QUICK).summary("Echo the given string"),
    local("SELECT", "index").flags(QUICK).summary("Change the selected database for the current connection"),
    local("QUIT", "[argument ...]").flags(OPEN).summary("Close the connection"),
    local("RESET", "").since("6.2.0").flags(OPEN).summary("Reset the connection"),

    local("CLIENT", "subcommand [argument ...]").since("2.4.0").summary("A container for client connection commands"),
    local("CLIENT|CACHING", "mode").since("6.0.0").flags(OWN)
        .summary("Instruct the server about tracking or not keys in the next request"),
    local("CLIENT|GETREDIR", "").since("6.0.0").flags(OWN).summary("Get tracking notifications redirection client ID if any"),
    local("CLIENT|PAUSE", "timeout [mode]").since("2.9.50").flags(ADMIN).summary("Stop processing commands from clients for some time"),
    local("CLIENT|TRACKING", "status [REDIRECT client-id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]")
        .since("6.0.0").flags(OWN).summary("Enable or disable server assisted client side caching support"),
    local("CLIENT|TRACKINGINFO", "").since("6.2.0").flags(OWN)
        .summary("Return information about server assisted client side caching for the current connection"),
    local("CLIENT|UNBLOCK", "client-id [mode]").since("5.0.0").flags(ADMIN)
        .summary("Unblock a client blocked in a blocking command from a different connection"),
    local("CLIENT|UNPAUSE", "").since("6.2.0").flags(ADMIN).summary("Resume processing of clients that were paused"),
    local("CLIENT|GETNAME", "").since("2.6.9").flags(OWN).summary("Get the current connection name"),
    local("CLIENT|HELP", "").since("5.0.0").flags(CALM).summary("Show helpful text about the different subcommands"),
    local("CLIENT|ID", "").since("5.0.0").flags(OWN).summary("Returns the client ID for the current connection"),
    local("CLIENT|INFO", "").since("6.2.0").flags(OWN).summary("Returns information about the current client connection."),
    local("CLIENT|KILL", "filter [value ...]").since("2.4.0").flags(ADMIN).summary("Kill the connection of a client"),
    local("CLIENT|LIST", "[TYPE type] [ID id ...]").since("2.4.0").flags(ADMIN)
        .summary("Get the list of client connections"),
    local("CLIENT|NO-EVICT", "enabled").since("7.0.0").flags(ADMIN)
        .summary("Set client eviction mode for the current connection"),
    local("CLIENT|NO-TOUCH", "enabled").since("7.2.0").flags(OWN)
        .summary("Whether commands of this connection count as uses of keys"),
    local("CLIENT|REPLY", "mode").since("3.2.0").flags(OWN)
        .summary("Instruct the server whether to reply to commands"),
    local("CLIENT|SETINFO", "attribute value").since("7.2.0").flags(OWN)
        .summary("Name the client library and its version"),
    local("CLIENT|SETNAME", "connection-name").since("2.6.9").flags(OWN).summary("Set the current connection name"),

];

#[rustfmt::skip]
pub(super) const SERVER: &[Spec] = &[
    local("COMMAND", "[subcommand ...]").categories("connection").since("2.8.13").flags(CALM).summary("Get array of Redis command details"),
    local("COMMAND|COUNT", "").categories("connection").since("2.8.13").flags(CALM).summary("Get total number of Redis commands"),
    local("COMMAND|DOCS", "[command-name ...]").categories("connection").since("7.0.0").flags(CALM)
        .summary("Get array of specific Redis command documentation"),
    local("COMMAND|GETKEYS", "command argument [argument ...]").categories("connection").since("2.8.13").flags(CALM)
        .summary("Extract keys given a full Redis command"),
    local("COMMAND|HELP", "").categories("connection").since("5.0.0").flags(CALM).summary("Show helpful text about the different subcommands"),
    local("COMMAND|INFO", "[command-name ...]").categories("connection").since("2.8.13").flags(CALM)
        .summary("Get array of specific Redis command details, or all when no argument is given."),
    local("COMMAND|LIST", "[FILTERBY filter value]").categories("connection").since("7.0.0").flags(CALM)
        .summary("Get an array of Redis command names"),
    local("INFO", "[section ...]").flags(CALM).categories("dangerous")
        .summary("Get information and statistics about the server"),
    local("MONITOR", "").flags(ADMIN).summary("Listen for all requests received by the server in real time"),
    local("ROLE", "").since("2.8.12").flags("noscript loading stale fast").categories("admin dangerous")
        .summary("Return the role of the instance in the context of replication"),
    local("TIME", "").since("2.6.0").flags(QUICK).summary("Return the current server time"),

    local("CONFIG", "subcommand [argument ...]").since("2.0.0").summary("A container for server configuration commands"),
    local("CONFIG|GET", "parameter [parameter ...]").since("2.0.0").flags(ADMIN)
        .summary("Get the values of configuration parameters"),
    local("CONFIG|HELP", "").since("5.0.0").flags(CALM).summary("Show helpful text about the different subcommands"),
    local("CONFIG|RESETSTAT", "").since("2.0.0").flags(ADMIN).summary("Reset the stats returned by INFO"),
    local("CONFIG|SET", "parameter value [parameter value ...]").since("2.0.0").flags(ADMIN)
        .summary("Set configuration parameters to the given values"),

    local("PLENARY", "subcommand [argument ...]").since(PLENARY).summary("A container for commands of the cluster"),
    local("PLENARY|DIGEST", "").since(PLENARY).flags(CALM)
        .summary("The digest of this node's state in hexadecimal, after the log index it holds for"),
    local("PLENARY|FRESH", "freshness").since(PLENARY).flags(OWN)
        .summary("How fresh reads of this connection are from now on: local or linearizable"),
    local("PLENARY|HELP", "").since(PLENARY).flags(CALM).summary("Show helpful text about the different subcommands"),
    local("PLENARY|MEMBERS", "action [argument]").since(PLENARY).flags(ADMIN)
        .summary("LIST the members, ADD host:port, PROMOTE id or REMOVE id"),
    local("PLENARY|STATUS", "").since(PLENARY).flags(CALM)
        .summary("What this node knows of itself and of every member, as JSON"),
    local("PLENARY|TOKEN", "").since(PLENARY).flags(OWN)
        .summary("How far this connection has seen; WAITFOR takes it on any node"),
    local("PLENARY|WAITFOR", "token [milliseconds]").since(PLENARY).flags(OWN)
        .summary("Wait until this node has applied what the token has seen"),
];

const PLENARY: &str = "plenary 0.1.0";

/// What all of these have in common.
const NO_CLUSTER: &str = "Refused: this endpoint is not a node of a Redis Cluster";
/// Flags of what changes a Redis Cluster.
const CHANGES: &str = "admin stale no_async_loading";

/// Of a Redis Cluster, which this endpoint is not: refused as a standalone Redis refuses them.
#[rustfmt::skip]
pub(super) const CLUSTER: &[Spec] = &[
    local("READONLY", "").categories("connection").since("3.0.0").flags(QUICK).summary(NO_CLUSTER),
    local("READWRITE", "").categories("connection").since("3.0.0").flags(QUICK).summary(NO_CLUSTER),
    local("ASKING", "").categories("connection").since("3.0.0").flags("fast").summary(NO_CLUSTER),
    local("CLUSTER", "subcommand [argument ...]").since("3.0.0").summary(NO_CLUSTER),
    local("CLUSTER|ADDSLOTS", "slot [slot ...]").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|ADDSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]").since("7.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|BUMPEPOCH", "").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|COUNT-FAILURE-REPORTS", "node-id").since("3.0.0").flags("admin stale").summary(NO_CLUSTER),
    local("CLUSTER|COUNTKEYSINSLOT", "slot").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|DELSLOTS", "slot [slot ...]").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|DELSLOTSRANGE", "start-slot end-slot [start-slot end-slot ...]").since("7.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|FAILOVER", "[options]").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|FLUSHSLOTS", "").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|FORGET", "node-id").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|GETKEYSINSLOT", "slot count").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|HELP", "").since("5.0.0").flags(CALM).summary(NO_CLUSTER),
    local("CLUSTER|INFO", "").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|KEYSLOT", "name").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|LINKS", "").since("7.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|MEET", "ip port [cluster-bus-port]").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|MYID", "").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|NODES", "").since("3.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|REPLICAS", "node-id").since("5.0.0").flags("admin stale").summary(NO_CLUSTER),
    local("CLUSTER|REPLICATE", "node-id").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|RESET", "[hard-soft]").since("3.0.0").flags("admin noscript stale").summary(NO_CLUSTER),
    local("CLUSTER|SAVECONFIG", "").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|SET-CONFIG-EPOCH", "config-epoch").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|SETSLOT", "slot subcommand [node-id]").since("3.0.0").flags(CHANGES).summary(NO_CLUSTER),
    local("CLUSTER|SHARDS", "").since("7.0.0").flags("stale").summary(NO_CLUSTER),
    local("CLUSTER|SLAVES", "node-id").since("3.0.0").flags("admin stale").summary(NO_CLUSTER),
    local("CLUSTER|SLOTS", "").since("3.0.0").flags("stale").summary(NO_CLUSTER),
];
