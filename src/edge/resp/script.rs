//! `EVAL`, `FCALL` and their kin: what a client says becomes a request for the node; errors that need no script are found here.

use super::connection::Caller;
use super::local::{Answer, Waiting, help_of, quoted, refusal, subcommand_syntax};
use super::trouble;
use crate::error::Error;
use crate::machine::args::Args;
use crate::machine::entry::Command;
use crate::machine::glob;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::scripts::{self, Function, Library, Policy, Scripts};
use crate::machine::table::{self, Spec};
use crate::node::{Call, Kind, Notes, Request, Running, script_flags};
use bytes::Bytes;

const NOSCRIPT: CommandError = CommandError::text("NOSCRIPT No matching script. Please use EVAL.");

/// What a script is run by.
#[derive(Clone, Copy)]
enum By {
    Text,
    Sha,
    Function,
}

pub(super) fn eval<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Text, false)
}

pub(super) fn eval_ro<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Text, true)
}

pub(super) fn evalsha<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Sha, false)
}

pub(super) fn evalsha_ro<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Sha, true)
}

pub(super) fn fcall<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Function, false)
}

pub(super) fn fcall_ro<'a>(caller: &'a mut Caller, args: Args<'a>) -> Waiting<'a> {
    run(caller, args, By::Function, true)
}

fn run<'a>(caller: &'a mut Caller, args: Args<'a>, by: By, read_only: bool) -> Waiting<'a> {
    Box::pin(async move {
        let noted = table::lookup(args.argv()).map(|spec| caller.note_reads(spec, args.argv()));
        let call = call(caller, args, by, read_only).await?;
        let request = Request {
            shows: caller.shared.monitors.any(),
            slow_after: caller.slow_after(),
            around: caller.brackets(),
            ..Request::one(caller.user(), caller.db, call)
        };
        caller.refresh().await?;
        let (written, notes) = caller.shared.node.script(request).await.map_err(trouble)?;
        caller.seen = caller.seen.max(written.token);
        caller.note_script(&notes);
        caller.forget_unread(&noted.unwrap_or_default(), &notes);
        let reply = written.replies.into_iter().next().ok_or(CommandError::Syntax)?;
        caller.show_script(&notes, 0);
        caller.note_slow(&notes, 0);
        caller.counted = is_counted(&notes, &reply);
        Ok(reply)
    })
}

/// Whether a script answered an error that was counted when a command answered it to the script.
pub(super) fn is_counted(notes: &Notes, reply: &Reply) -> bool {
    matches!(reply, Reply::Error(error) if notes.has_counted(&error.to_string()))
}

/// How a command runs a script, and whether the script may only read; none for a command that runs none.
fn how(spec: &Spec) -> Option<(By, bool)> {
    match spec.name {
        "EVAL" => Some((By::Text, false)),
        "EVAL_RO" => Some((By::Text, true)),
        "EVALSHA" => Some((By::Sha, false)),
        "EVALSHA_RO" => Some((By::Sha, true)),
        "FCALL" => Some((By::Function, false)),
        "FCALL_RO" => Some((By::Function, true)),
        _ => None,
    }
}

/// Whether a command runs a script.
pub(super) fn runs_one(spec: &Spec) -> bool {
    how(spec).is_some()
}

/// What a command of a transaction is to run; none for a command that runs no script.
pub(super) async fn queued(
    caller: &mut Caller,
    spec: &Spec,
    argv: &[Bytes],
) -> Option<Result<Call, CommandError>> {
    let (by, read_only) = how(spec)?;
    Some(call(caller, Args::new(argv, 1), by, read_only).await)
}

/// Whether a command runs a script that may write, as far as it says so itself.
pub(super) fn may_write(caller: &Caller, spec: &Spec, argv: &[Bytes]) -> bool {
    let (Some((by, false)), Some(what)) = (how(spec), argv.get(1)) else {
        return false;
    };
    let text_may = |text: &Bytes| script_flags(text).map_or(true, |(flags, _)| !flags.no_writes);
    let found = match by {
        By::Text => Ok(text_may(what)),
        By::Sha => known(caller, |scripts| {
            Ok(scripts.text(&what.to_ascii_lowercase()).is_none_or(text_may))
        }),
        By::Function => known(caller, |scripts| Ok(!function_of(scripts, what, false)?.2)),
    };
    found.unwrap_or(true)
}

/// What is to be run, for `EXEC` too; a script that no node knows is made known first.
async fn call(
    caller: &mut Caller,
    mut args: Args<'_>,
    by: By,
    read_only: bool,
) -> Result<Call, CommandError> {
    let what = args.bytes()?.clone();
    let function = matches!(by, By::Function);
    // As in Redis, a function is looked for before its keys are counted.
    let found = function
        .then(|| known(caller, |scripts| function_of(scripts, &what, read_only)))
        .transpose()?;
    let (keys, args) = keys_and_args(&mut args, function)?;
    if let Some((code, name, only_reads)) = found {
        let read_only = read_only || only_reads;
        return Ok(Call::Function {
            code,
            name,
            keys,
            args,
            read_only,
        });
    }
    let text = match by {
        By::Sha => {
            let sha = what.to_ascii_lowercase();
            known(caller, |scripts| scripts.text(&sha).cloned().ok_or(NOSCRIPT))?
        }
        By::Text | By::Function => what,
    };
    let (flags, _) = script_flags(&text)?;
    if read_only && !flags.undeclared && !flags.no_writes {
        return Err(CommandError::text(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    if matches!(by, By::Text) {
        let sha = crate::node::script_sha(&text);
        if known(caller, |scripts| Ok(scripts.text(sha.as_bytes()).is_none()))? {
            let loaded = caller.shared.node.load_script(text.clone(), false).await;
            loaded.map_err(unloaded)?;
        }
    }
    let read_only = read_only || flags.no_writes;
    Ok(Call::Script {
        text,
        keys,
        args,
        read_only,
    })
}

/// Why a script was not run whose text had to be made known first. Whether the text is known makes no difference to who sends it again.
fn unloaded(error: Error) -> CommandError {
    match error {
        Error::Unknown { waited, why } => refusal(format!(
            "TRYAGAIN the script was not run: after {} ms nobody knows whether the others have its text: {why}",
            waited.as_millis()
        )),
        error => trouble(error),
    }
}

/// A function's library, its name as it was registered, and whether it only reads.
fn function_of(
    scripts: &Scripts,
    name: &[u8],
    read_only: bool,
) -> Result<(Bytes, Bytes, bool), CommandError> {
    let (library, function) = scripts
        .function(name)
        .ok_or(CommandError::text("ERR Function not found"))?;
    let only_reads = function.flags.iter().any(|flag| flag == "no-writes");
    if read_only && !only_reads {
        return Err(CommandError::text(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    Ok((library.code.clone(), function.name.clone(), only_reads))
}

/// Asks what this node knows of scripts.
fn known<T>(
    caller: &Caller,
    ask: impl FnOnce(&Scripts) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    caller.shared.node.view(0, |view| ask(view.store().scripts()))
}

fn keys_and_args(args: &mut Args<'_>, function: bool) -> Result<(Vec<Bytes>, Vec<Bytes>), CommandError> {
    const BAD: CommandError = CommandError::text("ERR Bad number of keys provided");
    let count = args
        .integer()
        .map_err(|error| if function { BAD } else { error })?;
    if count < 0 {
        return Err(CommandError::text("ERR Number of keys can't be negative"));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > args.remaining() {
        return Err(CommandError::text(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok((args.many(count)?.to_vec(), args.rest().to_vec()))
}

/// Writes what all nodes are to know; the first reply.
async fn tell(caller: &mut Caller, commands: Vec<Command>) -> Answer {
    let written = caller.shared.node.write(commands).await.map_err(trouble)?;
    caller.seen = caller.seen.max(written.token);
    match written
        .replies
        .into_iter()
        .find(|reply| matches!(reply, Reply::Error(_)))
    {
        Some(Reply::Error(error)) => Err(error),
        _ => Ok(Reply::OK),
    }
}

pub(super) fn script_load<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let text = args.bytes()?.clone();
        let sha = caller
            .shared
            .node
            .load_script(text, true)
            .await
            .map_err(trouble)?;
        caller.seen = caller.seen.max(caller.shared.node.token());
        Ok(Reply::Bulk(sha))
    })
}

pub(super) fn script_exists(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let shas = args.rest();
    known(caller, |scripts| {
        let exists = |sha: &Bytes| Reply::flag(scripts.text(&sha.to_ascii_lowercase()).is_some());
        Ok(Reply::Array(shas.iter().map(exists).collect()))
    })
}

pub(super) fn script_flush<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    const MODES: CommandError = CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
    Box::pin(async move {
        if !sync_or_async(&mut args) {
            return Err(MODES);
        }
        tell(caller, vec![scripts::flush_scripts()]).await
    })
}

fn sync_or_async(args: &mut Args<'_>) -> bool {
    let _ = args.keyword("SYNC") || args.keyword("ASYNC");
    args.is_empty()
}

/// Ends a script wherever it runs. One that has written something can be ended here as well: nothing of it is in the log yet.
pub(super) fn script_kill<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        caller
            .shared
            .node
            .kill_script(Kind::Script)
            .await
            .map(|()| Reply::OK)
    })
}

pub(super) fn function_kill<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        caller
            .shared
            .node
            .kill_script(Kind::Function)
            .await
            .map(|()| Reply::OK)
    })
}

pub(super) fn script_debug(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    if args.keyword("NO") {
        Ok(Reply::OK)
    } else {
        Err(CommandError::text(
            "ERR scripts cannot be debugged here; SCRIPT DEBUG NO is what is",
        ))
    }
}

pub(super) fn function_load<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let mut replace = false;
        while args.remaining() > 1 {
            let option = args.bytes()?;
            if !option.eq_ignore_ascii_case(b"replace") {
                return Err(refusal(format!("ERR Unknown option given: {}", quoted(option))));
            }
            replace = true;
        }
        let Ok(code) = args.bytes() else {
            return Err(CommandError::text("ERR Function code is missing"));
        };
        let policy = if replace { Policy::Replace } else { Policy::New };
        let name = caller
            .shared
            .node
            .load_libraries(vec![code.clone()], policy)
            .await
            .map_err(trouble)?;
        caller.seen = caller.seen.max(caller.shared.node.token());
        Ok(name)
    })
}

pub(super) fn function_delete<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move { tell(caller, vec![scripts::delete_library(args.bytes()?.clone())]).await })
}

pub(super) fn function_flush<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    const MODES: CommandError = CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
    Box::pin(async move {
        if args.remaining() > 1 {
            return Err(subcommand_syntax(&args));
        }
        if !sync_or_async(&mut args) {
            return Err(MODES);
        }
        tell(caller, vec![scripts::flush_libraries()]).await
    })
}

pub(super) fn function_dump(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    known(caller, |scripts| Ok(Reply::Bulk(scripts.dump().into())))
}

pub(super) fn function_restore<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    const POLICIES: CommandError = CommandError::text(
        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
    );
    Box::pin(async move {
        if args.remaining() > 2 {
            return Err(subcommand_syntax(&args));
        }
        let payload = args.bytes()?;
        let policy = match args.rest() {
            [] => Policy::Append,
            [word] if word.eq_ignore_ascii_case(b"append") => Policy::Append,
            [word] if word.eq_ignore_ascii_case(b"replace") => Policy::Replace,
            [word] if word.eq_ignore_ascii_case(b"flush") => Policy::Flush,
            _ => return Err(POLICIES),
        };
        let codes = scripts::libraries_of(payload)?;
        let loaded = caller.shared.node.load_libraries(codes, policy).await;
        loaded.map_err(trouble)?;
        caller.seen = caller.seen.max(caller.shared.node.token());
        Ok(Reply::OK)
    })
}

pub(super) fn function_list(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (mut pattern, mut with_code) = (None, false);
    while let Some(option) = args.peek() {
        if !with_code && args.keyword("WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && args.keyword("LIBRARYNAME") {
            const MISSING: CommandError = CommandError::text("ERR library name argument was not given");
            pattern = Some(args.bytes().map_err(|_| MISSING)?);
        } else {
            return Err(refusal(format!("ERR Unknown argument {}", quoted(option))));
        }
    }
    known(caller, |scripts| {
        let wanted = |library: &&Library| pattern.is_none_or(|pattern| glob::matches(pattern, &library.name));
        let libraries = scripts
            .libraries()
            .filter(wanted)
            .map(|library| shown(library, with_code));
        Ok(Reply::Array(libraries.collect()))
    })
}

fn map(pairs: Vec<(&str, Reply)>) -> Reply {
    Reply::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

fn shown(library: &Library, with_code: bool) -> Reply {
    let function = |function: &Function| {
        let simple = |flag: &Bytes| Reply::Simple(String::from_utf8_lossy(flag).into_owned().into());
        map(vec![
            ("name", Reply::Bulk(function.name.clone())),
            ("description", Reply::bulk_or_nil(function.description.clone())),
            ("flags", Reply::Set(function.flags.iter().map(simple).collect())),
        ])
    };
    let mut pairs = vec![
        ("library_name", Reply::Bulk(library.name.clone())),
        ("engine", Reply::bulk("LUA")),
        (
            "functions",
            Reply::Array(library.functions.iter().map(function).collect()),
        ),
    ];
    if with_code {
        pairs.push(("library_code", Reply::Bulk(library.code.clone())));
    }
    map(pairs)
}

pub(super) fn function_stats<'a>(caller: &'a mut Caller, _: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let running = caller.shared.node.running_function().await?;
        statistics(caller, running)
    })
}

fn statistics(caller: &Caller, running: Option<Running>) -> Answer {
    let running = running.map_or(Reply::Nil, |running| {
        map(vec![
            ("name", Reply::Bulk(running.name)),
            ("command", Reply::bulks(running.command)),
            (
                "duration_ms",
                Reply::count(usize::try_from(running.duration_ms).unwrap_or(usize::MAX)),
            ),
        ])
    });
    known(caller, |scripts| {
        let functions = scripts.libraries().map(|library| library.functions.len()).sum();
        let counts = map(vec![
            ("libraries_count", Reply::count(scripts.libraries().len())),
            ("functions_count", Reply::count(functions)),
        ]);
        Ok(map(vec![
            ("running_script", running),
            ("engines", map(vec![("LUA", counts)])),
        ]))
    })
}

pub(super) fn script_help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "SCRIPT",
        &[
            "EXISTS <sha1> [<sha1> ...]",
            "    Return information about the existence of the scripts in the script cache.",
            "FLUSH [ASYNC|SYNC]",
            "    Flush the Lua scripts cache. Very dangerous on replicas.",
            "    When called without the optional mode argument, the behavior is determined",
            "    by the lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the scripts cache.",
            "    * SYNC: Synchronously flush the scripts cache.",
            "KILL",
            "    Kill the currently executing Lua script.",
            "LOAD <script>",
            "    Load a script into the scripts cache without executing it.",
        ],
    ))
}

pub(super) fn function_help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "FUNCTION",
        &[
            "LOAD [REPLACE] <FUNCTION CODE>",
            "    Create a new library with the given library name and code.",
            "DELETE <LIBRARY NAME>",
            "    Delete the given library.",
            "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
            "    Return general information on all the libraries:",
            "    * Library name",
            "    * The engine used to run the Library",
            "    * Library description",
            "    * Functions list",
            "    * Library code (if WITHCODE is given)",
            "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
            "STATS",
            "    Return information about the current function running:",
            "    * Function name",
            "    * Command used to run the function",
            "    * Duration in MS that the function is running",
            "    If no function is running, return nil",
            "    In addition, returns a list of available engines.",
            "KILL",
            "    Kill the current running function.",
            "FLUSH [ASYNC|SYNC]",
            "    Delete all the libraries.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the libraries.",
            "    * SYNC: Synchronously flush the libraries.",
            "DUMP",
            "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
            "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
            "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
            "    control how to handle existing libraries (default APPEND):",
            "    * FLUSH: delete all existing libraries.",
            "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
            "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
            "      libraries with the new libraries (notice that even on this option there is a chance of failure",
            "      in case of functions name conflict with another library).",
        ],
    ))
}
