//! `CONFIG`: reading and setting the parameters of [`super::parameters`].
//!
//! Setting a fixed parameter to what it already is succeeds, so that a client which only makes sure of it starts.

use super::connection::Caller;
use super::local::{Answer, Waiting, help_of, quoted, refusal};
use super::parameters::{self, Kind, Parameter};
use super::{Shared, trouble};
use crate::config::TlsConfig;
use crate::machine::args::Args;
use crate::machine::glob;
use crate::machine::reply::{CommandError, Reply};
use bytes::Bytes;
use std::collections::BTreeSet;

/// `CONFIG GET pattern ...`: what fits any of the patterns, each once. As in Redis, a plain name comes back as it was asked for.
pub(super) fn get(caller: &mut Caller, args: &mut Args<'_>) -> Answer {
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::new();
    for pattern in args.rest() {
        let plain = !pattern.iter().any(|byte| b"[*?".contains(byte));
        if plain {
            let fresh = seen.insert(pattern.to_ascii_lowercase());
            if let Some(parameter) = parameters::by_name(pattern).filter(|_| fresh) {
                pairs.push((pattern.clone(), parameter));
            }
            continue;
        }
        for parameter in parameters::all().filter(|parameter| !parameter.hidden) {
            for name in parameter.names {
                let fits = glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
                if fits && seen.insert(name.as_bytes().to_vec()) {
                    pairs.push((Bytes::from_static(name.as_bytes()), parameter));
                }
            }
        }
    }
    let shared = &caller.shared;
    let shown =
        |(name, parameter): (Bytes, &Parameter)| (Reply::Bulk(name), Reply::bulk(parameter.get(shared)));
    Ok(Reply::Map(pairs.into_iter().map(shown).collect()))
}

/// `CONFIG SET parameter value ...`: all of them or none.
pub(super) fn set<'a>(caller: &'a mut Caller, mut args: Args<'a>) -> Waiting<'a> {
    Box::pin(async move {
        let changes = Changes::read(&caller.shared, args.rest())?;
        changes.make(caller).await?;
        Ok(Reply::OK)
    })
}

/// What Redis says when a certificate cannot be read.
const NO_TLS: &str = "Unable to update TLS configuration. Check server logs.";

/// Sets a parameter of this node to a value that was checked.
type Set = fn(&Shared, &str);

/// What a `CONFIG SET` comes to.
#[derive(Default)]
struct Changes {
    own: Vec<(Set, String)>,
    kept: Vec<(&'static str, String)>,
    common: Vec<(String, String)>,
    password: Option<Bytes>,
    tls: Option<(&'static str, TlsConfig)>,
}

impl Changes {
    /// Checks everything before anything is changed.
    fn read(shared: &Shared, arguments: &[Bytes]) -> Result<Self, CommandError> {
        let (pairs, []) = arguments.as_chunks::<2>() else {
            return Err(CommandError::Syntax);
        };
        let known: Vec<(&Parameter, &[Bytes; 2])> = pairs
            .iter()
            .map(|pair| {
                parameters::by_name(&pair[0])
                    .map(|parameter| (parameter, pair))
                    .ok_or_else(|| unknown(&pair[0]))
            })
            .collect::<Result<_, _>>()?;
        for (nth, (parameter, [name, value])) in known.iter().enumerate() {
            if matches!(parameter.kind, Kind::Fixed(_)) && parameter.get(shared).as_bytes() != value {
                return Err(failed(&quoted(name), "can't set immutable config"));
            }
            // Another name of the same parameter is a parameter of its own here, as in Redis: the last one counts.
            if known[..nth]
                .iter()
                .any(|(_, [other, _])| other.eq_ignore_ascii_case(name))
            {
                return Err(failed(&quoted(name), "duplicate parameter"));
            }
        }
        let mut changes = Self::default();
        for (parameter, [_, value]) in known {
            changes.add(shared, parameter, value)?;
        }
        Ok(changes)
    }

    fn add(
        &mut self,
        shared: &Shared,
        parameter: &'static Parameter,
        value: &Bytes,
    ) -> Result<(), CommandError> {
        let name = parameter.names[0];
        let text = String::from_utf8_lossy(value);
        let checked = |check: &parameters::Check| {
            check
                .value(&parameter.get(shared), &text)
                .map_err(|why| failed(name, &why))
        };
        match &parameter.kind {
            Kind::Fixed(_) => {}
            Kind::Own(check, _, set) => self.own.push((*set, checked(check)?)),
            Kind::Kept(check, _) => self.kept.push((name, checked(check)?)),
            Kind::Common(check) => self.common.push((name.to_owned(), checked(check)?)),
            Kind::Password => self.password = Some(value.clone()),
            Kind::Tls(_) if parameter.get(shared) == text && !name.ends_with("-file") => {}
            Kind::Tls(_) => self.add_tls(shared, name, &text)?,
        }
        Ok(())
    }

    /// A certificate that is set to the file it is in already is read again.
    fn add_tls(&mut self, shared: &Shared, name: &'static str, text: &str) -> Result<(), CommandError> {
        let current = self
            .tls
            .take()
            .map(|(_, tls)| tls)
            .or_else(|| shared.tls_config());
        let Some(mut tls) = current else {
            return if text.is_empty() {
                Ok(())
            } else {
                Err(failed(name, NO_TLS))
            };
        };
        match name {
            "tls-cert-file" => tls.cert_file = text.into(),
            "tls-key-file" => tls.key_file = text.into(),
            "tls-ca-cert-file" => tls.ca_cert_file = Some(text.into()).filter(|_| !text.is_empty()),
            _ => {
                tls.clients = text.parse().map_err(|_| {
                    failed(
                        name,
                        "argument(s) must be one of the following: no, yes, optional",
                    )
                })?
            }
        }
        self.tls = Some((name, tls));
        Ok(())
    }

    /// What can fail comes first.
    async fn make(self, caller: &mut Caller) -> Result<(), CommandError> {
        if let Some((name, tls)) = self.tls {
            caller.shared.set_tls(tls).map_err(|why| {
                tracing::warn!(why, "the settings of TLS stay what they were");
                failed(name, NO_TLS)
            })?;
        }
        if !self.common.is_empty() {
            let token = caller
                .shared
                .node
                .set_settings(&self.common)
                .await
                .map_err(trouble)?;
            caller.seen = caller.seen.max(token);
        }
        if let Some(password) = self.password {
            super::permit::set_password(caller, &password).await?;
        }
        let shared = &caller.shared;
        self.own.into_iter().for_each(|(set, value)| set(shared, &value));
        self.kept
            .into_iter()
            .for_each(|(name, value)| shared.kept.set(name, value));
        if shared.node.lacks_fellows() {
            // They are asked less often as long as nobody wants to know.
            shared.node.ask_fellows().await;
        }
        Ok(())
    }
}

fn unknown(name: &[u8]) -> CommandError {
    refusal(format!(
        "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
        quoted(name)
    ))
}

fn failed(name: &str, why: &str) -> CommandError {
    refusal(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
    ))
}

pub(super) fn resetstat(caller: &mut Caller, _: &mut Args<'_>) -> Answer {
    let shared = &caller.shared;
    let (lookups, evicted) = shared
        .node
        .view(0, |view| (view.store().lookups(), view.store().evicted()));
    let (_, freed) = shared.node.freed_objects();
    shared.stats.reset(lookups, evicted, freed);
    shared.calls.reset();
    Ok(Reply::OK)
}

/// What is set at a start is the starter's: this node writes no file of settings.
pub(super) fn rewrite(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Err(CommandError::text(
        "ERR The server is running without a config file",
    ))
}

pub(super) fn help(_: &mut Caller, _: &mut Args<'_>) -> Answer {
    Ok(help_of(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    ))
}
