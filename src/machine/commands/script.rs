//! Scripts and functions: rows only. The edge runs them, for Lua is not for the machine; what they come to is.

use crate::machine::table::{Spec, counted_keys, local};
use bytes::Bytes;

pub(super) const COMMANDS: &[Spec] = &[
    local("EVAL", "script numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("2.6.0")
        .flags("noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a Lua script, atomically and replicated by what it came to."),
    local("EVALSHA", "sha1 numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("2.6.0")
        .flags("noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a script that some node was told of, by its SHA-1."),
    local("EVALSHA_RO", "sha1 numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("7.0.0")
        .flags("readonly noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a script that may not write, on this node, by its SHA-1."),
    local("EVAL_RO", "script numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("7.0.0")
        .flags("readonly noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a Lua script that may not write, on this node."),
    local("FCALL", "function numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("7.0.0")
        .flags("noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a function of a loaded library."),
    local("FCALL_RO", "function numkeys [key ...] [arg ...]")
        .finder(keys)
        .since("7.0.0")
        .flags("readonly noscript stale skip_monitor no_mandatory_keys movablekeys")
        .summary("Runs a function that may not write, on this node."),
    local("FUNCTION", "subcommand [argument ...]")
        .since("7.0.0")
        .summary("Libraries of functions, the same on every node."),
    local("FUNCTION|DELETE", "library-name")
        .since("7.0.0")
        .flags("write noscript")
        .summary("Forgets a library."),
    local("FUNCTION|DUMP", "")
        .since("7.0.0")
        .flags("noscript")
        .summary("All libraries as bytes that FUNCTION RESTORE takes, here or at a Redis."),
    local("FUNCTION|FLUSH", "[ASYNC | SYNC]")
        .since("7.0.0")
        .flags("write noscript")
        .summary("Forgets every library."),
    local("FUNCTION|HELP", "")
        .since("7.0.0")
        .flags("loading stale")
        .summary("The subcommands of FUNCTION."),
    local("FUNCTION|KILL", "")
        .since("7.0.0")
        .flags("noscript allow_busy")
        .summary("Ends the function that runs on this node for too long."),
    local("FUNCTION|LIST", "[LIBRARYNAME pattern] [WITHCODE]")
        .since("7.0.0")
        .flags("noscript")
        .summary("The libraries and their functions."),
    local("FUNCTION|LOAD", "[REPLACE] function-code")
        .since("7.0.0")
        .flags("write denyoom noscript")
        .summary("Loads a library on every node."),
    local("FUNCTION|RESTORE", "serialized-value [FLUSH | APPEND | REPLACE]")
        .since("7.0.0")
        .flags("write denyoom noscript")
        .summary("Loads the libraries of FUNCTION DUMP on every node: all, or none."),
    local("FUNCTION|STATS", "")
        .since("7.0.0")
        .flags("noscript allow_busy")
        .summary("What runs, and how many libraries and functions there are."),
    local("SCRIPT", "subcommand [argument ...]")
        .since("2.6.0")
        .summary("Scripts that can be run by their SHA-1 on every node."),
    local("SCRIPT|DEBUG", "mode")
        .since("3.2.0")
        .flags("noscript")
        .summary("Refused: scripts cannot be debugged step by step here."),
    local("SCRIPT|EXISTS", "sha1 [sha1 ...]")
        .since("2.6.0")
        .flags("noscript")
        .summary("Which scripts are known."),
    local("SCRIPT|FLUSH", "[ASYNC | SYNC]")
        .since("2.6.0")
        .flags("noscript")
        .summary("Forgets every script, on every node."),
    local("SCRIPT|HELP", "")
        .since("5.0.0")
        .flags("loading stale")
        .summary("The subcommands of SCRIPT."),
    local("SCRIPT|KILL", "")
        .since("2.6.0")
        .flags("noscript allow_busy")
        .summary("Ends the script that runs on this node for too long."),
    local("SCRIPT|LOAD", "script")
        .since("2.6.0")
        .flags("noscript stale")
        .summary("Lets every node know a script; its SHA-1."),
];

fn keys(argv: &[Bytes]) -> Vec<usize> {
    counted_keys(argv, 2)
}
