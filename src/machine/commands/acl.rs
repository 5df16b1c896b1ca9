//! `ACL`: users and what they may do, the same on every node. What only asks, or concerns one connection, the edge runs.

use crate::machine::args::Args;
use crate::machine::keyspace::Keyspace;
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::{Spec, local, write};

/// Flags of what only an administrator calls.
const ADMIN: &str = "admin noscript loading stale";
/// Flags of what anybody may ask.
const OWN: &str = "noscript loading stale";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Spec] = &[
    local("ACL", "subcommand [argument ...]").since("6.0.0").summary("A container for Access List Control commands"),
    local("ACL|CAT", "[categoryname]").since("6.0.0").flags(OWN)
        .summary("List the ACL categories or the commands inside a category"),
    write("ACL|DELUSER", "username [username ...]", deluser).keyless().since("6.0.0").flags(ADMIN)
        .summary("Remove the specified ACL users and the associated rules"),
    local("ACL|DRYRUN", "username command [arg ...]").since("7.0.0").flags(ADMIN)
        .summary("Returns whether the user can execute the given command without executing the command."),
    local("ACL|GENPASS", "[bits]").since("6.0.0").flags(OWN)
        .summary("Generate a pseudorandom secure password to use for ACL users"),
    local("ACL|GETUSER", "username").since("6.0.0").flags(ADMIN).summary("Get the rules for a specific ACL user"),
    local("ACL|HELP", "").since("6.0.0").flags("loading stale").summary("Show helpful text about the different subcommands"),
    local("ACL|LIST", "").since("6.0.0").flags(ADMIN).summary("List the current ACL rules in ACL config file format"),
    local("ACL|LOAD", "").since("6.0.0").flags(ADMIN).summary("Reload the ACLs from the configured ACL file"),
    local("ACL|LOG", "[operation]").since("6.0.0").flags(ADMIN)
        .summary("List latest events denied because of ACLs in place"),
    local("ACL|SAVE", "").since("6.0.0").flags(ADMIN).summary("Save the current ACL rules in the configured ACL file"),
    write("ACL|SETUSER", "username [rule ...]", setuser).keyless().since("6.0.0").flags(ADMIN)
        .summary("Modify or create the rules for a specific ACL user"),
    local("ACL|USERS", "").since("6.0.0").flags(ADMIN).summary("List the username of all the configured ACL rules"),
    local("ACL|WHOAMI", "").since("6.0.0").flags(OWN)
        .summary("Return the name of the user associated to the current connection"),
];

/// Every rule, or none of them.
fn setuser(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let (open_channels, level) = (keys.settings().acl_pubsub_default, keys.settings().level);
    let (name, rules) = (args.bytes()?, args.rest());
    let refused = |why: String| CommandError::Other(format!("ERR {why}").into());
    keys.access_mut()
        .set_user(name, rules, open_channels, level)
        .map_err(refused)?;
    Ok(Reply::OK)
}

fn deluser(keys: &mut Keyspace<'_>, args: &mut Args<'_>) -> Result<Reply, CommandError> {
    let names = args.rest();
    if names
        .iter()
        .any(|name| name.as_ref() == crate::machine::access::DEFAULT_USER)
    {
        return Err(CommandError::text("ERR The 'default' user cannot be removed"));
    }
    Ok(Reply::count(keys.access_mut().remove_users(names)))
}
