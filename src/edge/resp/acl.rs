//! `ACL`: what it tells of users. Users are changed through the log: `machine/commands/acl.rs`.

use super::connection::Caller;
use super::local::{Answer, help_of, quoted, refusal, subcommand_syntax};
use crate::machine::access::{CATEGORIES, Denied, Selector, categories, hexadecimal};
use crate::machine::args::{Args, integer};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table;

/// `ACL CAT [category]`.
pub(super) fn cat(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    let [name] = args.rest() else {
        return if args.argv().len() == 2 {
            Ok(Reply::bulks(CATEGORIES))
        } else {
            Err(subcommand_syntax(args))
        };
    };
    let wanted = quoted(name).to_ascii_lowercase();
    if !CATEGORIES.contains(&wanted.as_str()) {
        let shown: String = quoted(name).chars().take(128).collect();
        return Err(refusal(format!("ERR Unknown category '{shown}'")));
    }
    let members = table::all().filter(|spec| categories(spec).any(|category| category == wanted));
    Ok(Reply::bulks(members.map(|spec| spec.name.to_ascii_lowercase())))
}

/// `ACL DRYRUN user command [argument ...]`.
pub(super) fn dryrun(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let (name, argv) = (args.bytes()?, args.rest());
    let access = caller.shared.node.access();
    let user = access
        .user(name)
        .ok_or_else(|| refusal(format!("ERR User '{}' not found", quoted(name))))?;
    let spec = table::lookup(argv).map_err(|error| match error {
        CommandError::Arity(_) => error,
        _ => refusal(format!("ERR Command '{}' not found", quoted(&argv[0]))),
    })?;
    let text = match user.permits(spec, argv) {
        Ok(()) => return Ok(Reply::OK),
        Err(Denied::Command) => format!("run the '{}' command", spec.name.to_ascii_lowercase()),
        Err(Denied::Key(at)) => format!("access the '{}' key", quoted(&argv[at])),
        Err(Denied::Channel(at)) => format!("access the '{}' channel", quoted(&argv[at])),
    };
    Ok(Reply::bulk(format!("This user has no permissions to {text}")))
}

/// `ACL GENPASS [bits]`.
pub(super) fn genpass(_: &mut Caller, args: &mut Args<'_>) -> Answer {
    const BITS_MAX: usize = 4096;
    let bits = match args.rest() {
        [] => 256,
        [bits] => integer(bits).ok_or(CommandError::NotAnInteger)?,
        _ => return Err(subcommand_syntax(args)),
    };
    let range = || {
        refusal(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to {BITS_MAX}"
        ))
    };
    let bits = usize::try_from(bits)
        .ok()
        .filter(|bits| (1..=BITS_MAX).contains(bits))
        .ok_or_else(range)?;
    let mut random = [0; BITS_MAX / 8];
    getrandom::fill(&mut random).map_err(|error| refusal(format!("ERR no random numbers: {error}")))?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Reply::bulk(&text[..bits.div_ceil(4)]))
}

/// `ACL GETUSER user`.
pub(super) fn getuser(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let name = args.bytes()?;
    let access = caller.shared.node.access();
    let Some(user) = access.user(name) else {
        return Ok(Reply::Nil);
    };
    let keys = caller.shared.access.keys_of(&access, name);
    let flags = user.flags().filter(|flag| keys.is_empty() || *flag != "nopass");
    let passwords = keys.iter().chain(user.passwords()).map(hexadecimal);
    let mut pairs = vec![
        (Reply::bulk("flags"), Reply::Set(flags.map(Reply::bulk).collect())),
        (Reply::bulk("passwords"), Reply::bulks(passwords)),
    ];
    pairs.extend(description(user.root()));
    let selectors = user
        .selectors()
        .iter()
        .map(|selector| Reply::Map(description(selector).to_vec()));
    pairs.push((Reply::bulk("selectors"), Reply::Array(selectors.collect())));
    Ok(Reply::Map(pairs))
}

fn description(selector: &Selector) -> [(Reply, Reply); 3] {
    [
        (Reply::bulk("commands"), Reply::bulk(selector.commands_text())),
        (Reply::bulk("keys"), Reply::bulk(selector.keys_text())),
        (Reply::bulk("channels"), Reply::bulk(selector.channels_text())),
    ]
}

/// `ACL LIST`.
pub(super) fn list(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let access = caller.shared.node.access();
    let lines = access.users().map(|(name, user)| {
        let keys = caller.shared.access.keys_of(&access, name);
        [&b"user "[..], name, b" ", &user.text(&keys)].concat()
    });
    Ok(Reply::bulks(lines))
}

/// `ACL USERS`.
pub(super) fn users(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let access = caller.shared.node.access();
    Ok(Reply::bulks(access.users().map(|(name, _)| name)))
}

pub(super) fn whoami(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(Reply::Bulk(caller.permit.user.clone()))
}

/// `ACL LOG [count | RESET]`.
pub(super) fn log(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let log = &caller.shared.acl_log;
    let count = match args.rest() {
        [] => 10,
        [word] if word.eq_ignore_ascii_case(b"reset") => {
            log.clear();
            return Ok(Reply::OK);
        }
        [count] => integer(count).ok_or(CommandError::NotAnInteger)?,
        _ => return Err(subcommand_syntax(args)),
    };
    let entries = log.newest(usize::try_from(count).unwrap_or(0));
    let shown = entries.into_iter().map(|entry| {
        let pairs = [
            (
                "count",
                Reply::Integer(i64::try_from(entry.count).unwrap_or(i64::MAX)),
            ),
            ("reason", Reply::bulk(entry.reason.name())),
            ("context", Reply::bulk(entry.context.name())),
            ("object", Reply::Bulk(entry.object)),
            ("username", Reply::Bulk(entry.user)),
            (
                "age-seconds",
                Reply::Double(entry.at.elapsed().as_millis() as f64 / 1000.0),
            ),
            ("client-info", Reply::bulk(entry.client)),
        ];
        Reply::Map(
            pairs
                .into_iter()
                .map(|(name, value)| (Reply::bulk(name), value))
                .collect(),
        )
    });
    Ok(Reply::Array(shown.collect()))
}

/// `ACL LOAD` and `ACL SAVE`: users are in the log, not in a file.
pub(super) fn no_file(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Err(CommandError::text(
        "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
         command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in \
         the Redis configuration.",
    ))
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "ACL",
        &[
            "CAT [<category>]",
            "    List all commands that belong to <category>, or all command categories",
            "    when no category is specified.",
            "DELUSER <username> [<username> ...]",
            "    Delete a list of users.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Returns whether the user can execute the given command without executing the command.",
            "GETUSER <username>",
            "    Get the user's details.",
            "GENPASS [<bits>]",
            "    Generate a secure 256-bit user password. The optional `bits` argument can",
            "    be used to specify a different size.",
            "LIST",
            "    Show users details in config file format.",
            "LOAD",
            "    Reload users from the ACL file.",
            "LOG [<count> | RESET]",
            "    Show the ACL log entries.",
            "SAVE",
            "    Save the current config to the ACL file.",
            "SETUSER <username> <attribute> [<attribute> ...]",
            "    Create or modify a user with the specified attributes.",
            "USERS",
            "    List all the registered usernames.",
            "WHOAMI",
            "    Return the current connection username.",
        ],
    ))
}
