//! Who calls whom, and the proof that they belong together. Travels as metadata of every call; processes that embed no node show a proof alone.
//!
//! The proof is an HMAC of the cluster's secret, so the secret itself is never sent. It keeps strangers out; it does not hide the traffic
//! from who can read the network (TLS between nodes is a later step, see ARCHITECTURE.md).

use crate::config::Secret;
use crate::machine::entry::Entry;
use crate::mutant::Mutant;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

const PROOF: &str = "plenary-proof";
const CLUSTER: &str = "plenary-cluster";
const FROM: &str = "plenary-from";
const TO: &str = "plenary-to";
const LEVEL: &str = "plenary-level";

/// Who shows a proof: each has its own, and neither opens what is for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A node of the cluster, or one that wants to be.
    Peer,
    /// A process that embeds no node.
    Remote,
}

/// What is shown with each call.
#[derive(Clone, Debug)]
pub(super) struct Proof(MetadataValue<Ascii>);

impl Proof {
    pub(super) fn new(secret: Option<&Secret>, role: Role) -> Self {
        let key = secret.map_or("", Secret::expose);
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(match role {
            Role::Peer => &b"plenary peer v1"[..],
            Role::Remote => &b"plenary remote v1"[..],
        });
        let hex: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut proof: MetadataValue<Ascii> = hex.parse().expect("hex is ASCII");
        // Not shown where a request is printed.
        proof.set_sensitive(true);
        Self(proof)
    }

    /// A request that shows it.
    pub(super) fn mark<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(PROOF, self.0.clone());
        request
    }

    /// Whether a call shows the same; takes the same time wherever it differs.
    pub(super) fn admits(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let shown = metadata
            .get(PROOF)
            .map(|shown| shown.as_encoded_bytes())
            .unwrap_or_default();
        if bool::from(shown.ct_eq(self.0.as_encoded_bytes())) || Mutant::AdmitStranger.is_planted() {
            Ok(())
        } else {
            Err(Status::unauthenticated(
                "wrong or missing cluster secret: give every node the same --secret-file",
            ))
        }
    }
}

/// Lets no call in without the proof: before a byte of its body is read, so that nobody else can have us hold what was sent.
#[derive(Clone, Debug)]
pub(super) struct Guard(pub(super) Proof);

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.admits(request.metadata())?;
        if let Some(standing) = request.extensions().get::<Arc<Standing>>() {
            standing.prove();
        }
        Ok(request)
    }
}

/// What is known of who is at the other end of a connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Whether a call has shown the proof.
    proven: AtomicBool,
    end: Notify,
}

impl Standing {
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Ends the connection, unless it has proved itself meanwhile.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    /// Resolves when the connection is to end because it proved nothing: when that is said, or so much time is over.
    pub(super) async fn ended(standing: Arc<Self>, after: Duration) {
        // Whether it is said or the time is over is the same.
        let _ = tokio::time::timeout(after, standing.end.notified()).await;
        if standing.is_proven() {
            std::future::pending::<()>().await;
        }
    }
}

/// The parties of one call. Zero: not known (yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) cluster: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Caller {
    /// Marks a request.
    pub(super) fn mark<T>(self, proof: &Proof, message: T) -> Request<T> {
        let mut request = proof.mark(message);
        let metadata = request.metadata_mut();
        for (name, value) in [(CLUSTER, self.cluster), (FROM, self.from), (TO, self.to)] {
            metadata.insert(name, MetadataValue::from(value));
        }
        metadata.insert(LEVEL, MetadataValue::from(u64::from(Entry::FORMAT)));
        request
    }

    /// Reads the mark of a request.
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let number = |name: &'static str| {
            metadata
                .get(name)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .ok_or_else(|| Status::invalid_argument(format!("a call without {name}")))
        };
        Ok(Self {
            cluster: number(CLUSTER)?,
            from: number(FROM)?,
            to: number(TO)?,
        })
    }

    /// Whoever calls must understand the state's level: one that does not is no use to the cluster, and could only stop at the next entry.
    pub(super) fn must_understand(metadata: &MetadataMap, level: u8) -> Result<(), Status> {
        let said = metadata
            .get(LEVEL)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        // Programs of the first level do not say.
        let understood = said.unwrap_or(u64::from(Entry::FIRST_FORMAT));
        if understood >= u64::from(level) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "the cluster is at level {level}, the caller's program understands level {understood}: run a newer one there"
        )))
    }

    /// A call of Raft must come from this cluster and mean this node: an id belongs to one data folder, so a node whose disk was lost or
    /// exchanged is refused here.
    pub(super) fn must_mean(self, cluster: u64, node: u64) -> Result<(), Status> {
        if cluster == 0 || self.cluster != cluster {
            return Err(Status::failed_precondition(format!(
                "this node belongs to cluster {cluster:016x}, the caller to {:016x}",
                self.cluster
            )));
        }
        if self.to != node {
            return Err(Status::failed_precondition(format!(
                "this is node {node}, the caller means {}",
                self.to
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_printed_nowhere() {
        let proof = Proof::new(Some(&Secret::new("of the cluster")), Role::Peer);
        let marked = format!("{:?}", proof.mark(()).metadata());
        assert!(marked.contains(PROOF), "{marked}");
        assert!(!marked.contains(proof.0.to_str().unwrap()), "{marked}");
        assert!(!format!("{proof:?}").contains(proof.0.to_str().unwrap()));
    }

    #[test]
    fn a_proof_opens_what_it_is_for_and_nothing_else() {
        let (secret, other) = (Secret::new("of the cluster"), Secret::new("of another"));
        for role in [Role::Peer, Role::Remote] {
            let proof = Proof::new(Some(&secret), role);
            let admits = |shown: &Proof| proof.admits(shown.mark(()).metadata()).is_ok();
            assert!(admits(&proof));
            let another = if role == Role::Peer {
                Role::Remote
            } else {
                Role::Peer
            };
            assert!(!admits(&Proof::new(Some(&secret), another)));
            assert!(!admits(&Proof::new(Some(&other), role)));
            assert!(!admits(&Proof::new(None, role)));
            assert!(proof.admits(&MetadataMap::new()).is_err());
        }
    }
}
