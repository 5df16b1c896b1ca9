//! Who a connection is, and what it may do: passwords, access keys and permissions, as of what this node has applied.
//!
//! A connection keeps its user's permissions and the revision they are of. As long as nothing changed, a user who may do everything
//! costs a comparison of two numbers.

use super::acl_log::{Context, Reason};
use super::clients::Client;
use super::connection::Caller;
use super::local::refusal;
use super::{Shared, trouble};
use crate::machine::access::{Access, DEFAULT_USER, Denied, Hash, Key, User, Which, hash, hexadecimal};
use crate::machine::entry::{Command, Millis};
use crate::machine::reply::{CommandError, Reply};
use crate::machine::table::Spec;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use subtle::{Choice, ConstantTimeEq};

/// The access keys of this endpoint.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The key this node was configured with: the primary one until another is set through the log.
    configured: Option<Hash>,
    /// When each key was last given here, by the log's clock; 0: never.
    used: [AtomicU64; 2],
}

impl Gate {
    pub(super) fn new(configured: Option<&str>) -> Self {
        Self {
            configured: configured.map(|key| hash(key.as_bytes())),
            used: Default::default(),
        }
    }

    /// The keys that are right.
    pub(super) fn keys(&self, access: &Access) -> [Option<Hash>; 2] {
        let of = |which, before| access.key(which).map_or(before, |key: Key| key.hash);
        [of(Which::Primary, self.configured), of(Which::Secondary, None)]
    }

    /// When a key was last given to this node.
    pub(super) fn used(&self, which: Which) -> Option<Millis> {
        Some(self.used[which as usize].load(Relaxed)).filter(|at| *at > 0)
    }

    /// Whether who gives no password is the user `default`.
    pub(super) fn open(&self, shared: &Shared) -> bool {
        self.opens(&shared.node.access())
    }

    fn opens(&self, access: &Access) -> bool {
        let free = access
            .user(DEFAULT_USER)
            .is_some_and(|user| user.is_on() && user.needs_no_password());
        free && self.keys(access) == [None, None]
    }

    /// `CONFIG GET requirepass`: whether there is one; the password itself is told to nobody, and known to nobody.
    pub(super) fn shown_password(&self, shared: &Shared) -> String {
        let access = shared.node.access();
        let there = self.keys(&access) != [None, None]
            || access
                .user(DEFAULT_USER)
                .is_some_and(|user| !user.passwords().is_empty());
        if there { "(hidden)" } else { "" }.to_owned()
    }

    /// Hashes that are right for a user beside its own passwords.
    pub(super) fn keys_of(&self, access: &Access, user: &[u8]) -> Vec<Hash> {
        let keys = if user == DEFAULT_USER {
            self.keys(access)
        } else {
            [None; 2]
        };
        keys.into_iter().flatten().collect()
    }
}

/// What a connection may do.
pub(super) struct Permit {
    /// The revision of [`Access`] that the rest is of.
    revision: u64,
    pub(super) user: Bytes,
    rights: Arc<User>,
    unlimited: bool,
}

impl Permit {
    /// That of a connection which gave no name, and whether it need not prove anything.
    pub(super) fn at_first(shared: &Shared) -> (Self, bool) {
        let access = shared.node.access();
        let user = access
            .user(DEFAULT_USER)
            .expect("the user `default` cannot be removed");
        (
            Self::of(&access, DEFAULT_USER, user),
            shared.access.opens(&access),
        )
    }

    fn of(access: &Access, name: &[u8], user: &Arc<User>) -> Self {
        Self {
            revision: access.revision(),
            user: Bytes::copy_from_slice(name),
            rights: user.clone(),
            unlimited: user.is_unlimited(),
        }
    }
}

impl Caller {
    /// Whether a command of a transaction may still run when it is its turn.
    ///
    /// # Errors
    /// As [`Caller::permits`], in the words of `EXEC`.
    pub(super) fn still_permits(&mut self, spec: &Spec, argv: &[Bytes]) -> Result<(), CommandError> {
        self.permits(Context::Multi, spec, argv).map_err(|refusal| {
            let why = match self.permit.rights.permits(spec, argv) {
                Err(Denied::Command) => "no permission to execute the command or subcommand",
                Err(Denied::Key(_)) => "no permission to touch the specified keys",
                Err(Denied::Channel(_)) => {
                    "no permission to access one of the channels used as arguments"
                }
                Ok(()) => return refusal,
            };
            CommandError::Other(
                format!(
                    "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is \
                     no longer allowed for the following reason: {why}"
                )
                .into(),
            )
        })
    }

    /// Whether its user may do everything, as of what is known now.
    pub(super) fn may_all(&self) -> bool {
        self.permit.unlimited && self.permit.revision == self.shared.node.access_revision()
    }

    /// Whether a command may run. What `AUTH` and `HELLO` allow anybody is for the caller of this to know.
    ///
    /// # Errors
    /// `NOPERM`, which is also noted for `ACL LOG`; `NOAUTH` where its user is gone: then it is closing, too.
    pub(super) fn permits(
        &mut self,
        context: Context,
        spec: &Spec,
        argv: &[Bytes],
    ) -> Result<(), CommandError> {
        if self.permit.revision != self.shared.node.access_revision() {
            self.renew()?;
        }
        if self.may_all() {
            return Ok(());
        }
        let rights = &self.permit.rights;
        if let Err(denied) = rights.permits(spec, argv) {
            let (reason, object, text) = match denied {
                Denied::Command => {
                    let name = spec.name.to_ascii_lowercase();
                    let text = format!("NOPERM this user has no permissions to run the '{name}' command");
                    (Reason::Command, Bytes::from(name), text)
                }
                Denied::Key(at) => {
                    let text =
                        "NOPERM this user has no permissions to access one of the keys used as arguments";
                    (Reason::Key, argv[at].clone(), text.to_owned())
                }
                Denied::Channel(at) => {
                    let text =
                        "NOPERM this user has no permissions to access one of the channels used as arguments";
                    (Reason::Channel, argv[at].clone(), text.to_owned())
                }
            };
            self.shared
                .acl_log
                .note(reason, context, &object, &self.permit.user, self.client.line());
            return Err(refusal(text));
        }
        rights.permits_unnamed_keys(spec, argv)
    }

    /// Takes up what changed.
    fn renew(&mut self) -> Result<(), CommandError> {
        let access = self.shared.node.access();
        match access
            .user(&self.permit.user)
            .filter(|user| user.born() == self.permit.rights.born())
        {
            Some(user) => {
                let user = user.clone();
                self.permit = Permit::of(&access, &self.permit.user.clone(), &user);
                self.known |= self.shared.access.opens(&access);
                Ok(())
            }
            None => {
                (self.known, self.closing) = (false, true);
                Err(CommandError::text("NOAUTH Authentication required."))
            }
        }
    }

    /// Becomes another user.
    fn become_user(&mut self, permit: Permit) {
        {
            let mut shown = self.client.shown.lock();
            shown.user = permit.user.clone();
            shown.user_born = permit.rights.born();
        }
        self.permit = permit;
        self.known = true;
    }
}

/// Checks user and password, and lets the caller in as that user if they are right. `by`: the command that brought them.
///
/// # Errors
/// `WRONGPASS`; the caller stays what it was.
pub(super) fn authenticate(
    caller: &mut Caller,
    name: &[u8],
    password: &[u8],
    by: &[u8],
) -> Result<(), CommandError> {
    let shared = caller.shared.clone();
    let access = shared.node.access();
    let user = access.user(name);
    // Every hash is compared, and all of it: the time tells neither which was wrong nor whether there is such a user.
    let given = hash(password);
    let is_right = |known: &Hash| known.ct_eq(&given);
    let mut right = user.map_or(Choice::from(0), |user| {
        user.passwords()
            .iter()
            .fold(Choice::from(0), |right, known| right | is_right(known))
    });
    let keys = if name == DEFAULT_USER {
        shared.access.keys(&access)
    } else {
        [None; 2]
    };
    for (which, key) in Which::BOTH.into_iter().zip(keys) {
        let fits = key.map_or(Choice::from(0), |key| is_right(&key));
        if fits.into() {
            shared.access.used[which as usize].store(shared.node.now(), Relaxed);
        }
        right |= fits;
    }
    let admitted = user.filter(|user| {
        let free = user.needs_no_password() && keys == [None, None];
        user.is_on() && (free || bool::from(right))
    });
    let Some(user) = admitted else {
        // Not louder: whoever can connect can repeat it. `ACL LOG` and `errorstat_WRONGPASS` in INFO count it.
        tracing::debug!(client = caller.client.id, peer = %caller.client.peer, "a client gave a wrong user or password");
        shared
            .acl_log
            .note(Reason::Auth, Context::TopLevel, by, name, caller.client.line());
        return Err(CommandError::text(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ));
    };
    caller.become_user(Permit::of(&access, name, user));
    Ok(())
}

/// The command as it may be written into the log: with hashes in the place of passwords.
pub(super) fn sealed(spec: &Spec, argv: Vec<Bytes>) -> Vec<Bytes> {
    if spec.name != "ACL|SETUSER" {
        return argv;
    }
    let seal = |(at, argument): (usize, Bytes)| match argument.first() {
        Some(b'>') if at > 2 => Bytes::from(format!("#{}", hexadecimal(&hash(&argument[1..])))),
        Some(b'<') if at > 2 => Bytes::from(format!("!{}", hexadecimal(&hash(&argument[1..])))),
        _ => argument,
    };
    argv.into_iter().enumerate().map(seal).collect()
}

/// `CONFIG SET requirepass`: the primary access key where there is one, else the password of the user `default`.
///
/// # Errors
/// Where it would take away the access key; where this node could not.
pub(super) async fn set_password(caller: &mut Caller, password: &[u8]) -> Result<(), CommandError> {
    let shared = caller.shared.clone();
    let keyed = shared.access.keys(&shared.node.access()) != [None, None];
    let token = match (keyed, password) {
        (true, b"") => {
            return Err(CommandError::text(
                "ERR CONFIG SET failed (possibly related to argument 'requirepass') - this cluster has an access key: \
                 PLENARY KEYS changes it, nothing takes it away",
            ));
        }
        (true, password) => shared
            .node
            .set_access_key(Which::Primary, Some(hash(password)))
            .await
            .map_err(trouble)?,
        (false, password) => {
            let rules = match password {
                b"" => vec!["resetpass".to_owned(), "nopass".to_owned()],
                password => vec![
                    "resetpass".to_owned(),
                    format!("#{}", hexadecimal(&hash(password))),
                ],
            };
            let words = ["ACL", "SETUSER", "default"]
                .map(str::to_owned)
                .into_iter()
                .chain(rules);
            let written = shared
                .node
                .write(vec![Command::new(0, words)])
                .await
                .map_err(trouble)?;
            if let Some(Reply::Error(error)) = written.replies.into_iter().next() {
                return Err(error);
            }
            written.token
        }
    };
    caller.seen = caller.seen.max(token);
    Ok(())
}

/// Ends the connections of users who are gone, and of those who are subscribed to what they may not hear any more.
pub(super) fn end_removed(shared: &Shared) {
    let access = shared.node.access();
    for client in shared.clients.all() {
        let user = {
            let shown = client.shown.lock();
            let user = access.user(&shown.user);
            user.filter(|user| user.born() == shown.user_born)
        };
        if !user.is_some_and(|user| hears(user, &client)) {
            client.end();
        }
    }
}

/// Whether a user may hear all that a client is subscribed to.
fn hears(user: &User, client: &Client) -> bool {
    let subscriptions = client.subscriptions.lock();
    let mut channels = subscriptions.channels.iter().chain(&subscriptions.shards);
    channels.all(|channel| user.permits_channel(channel, false))
        && subscriptions
            .patterns
            .iter()
            .all(|pattern| user.permits_channel(pattern, true))
}
