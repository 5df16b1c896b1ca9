//! `/health`, `/ready` and `/metrics` over HTTP/1, for orchestrators and Prometheus. Reads this node's own status and
//! asks nobody; knows no sessions and changes nothing, so it has no access key.

use crate::error::{Error, Result};
use crate::node::Node;
use crate::node::status::{Role, Status};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// How many connections there may be and how long they may last.
#[derive(Clone, Copy)]
struct Bounds {
    /// Connections served at once; a further one waits to be accepted. A scraper and a few probes need one each.
    connections: usize,
    /// How long the request's head may take.
    head: Duration,
    /// How long a connection may take from accept to the end of its one answer.
    whole: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 64,
    head: Duration::from_secs(5),
    whole: Duration::from_secs(10),
};

/// Bytes of a request's head; the smallest that hyper takes.
const HEAD_BYTES_MAX: usize = 8192;

/// Pause after a failed accept (the process is out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener. Dropping it ends it at once; [`Http::stop`] waits for the end.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    accept: JoinHandle<()>,
}

impl Http {
    /// Listens at `host:port` (port 0 takes a free one) and serves until stopped.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address cannot be had.
    pub async fn start(node: Node, listen: &str) -> Result<Self> {
        Self::start_within(node, listen, BOUNDS).await
    }

    async fn start_within(node: Node, listen: &str, bounds: Bounds) -> Result<Self> {
        let refused = |source| Error::Listen {
            address: listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            address,
            accept: tokio::spawn(accept(node, listener, bounds)),
        })
    }

    /// Where it listens, after port 0 was resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and ends the connections that are open.
    pub async fn stop(mut self) {
        self.accept.abort();
        // The task's only ways to end are this abort and a panic, which its runtime has reported.
        let _ = (&mut self.accept).await;
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Started by [`Http::start`], fed by the listener, ended by abort; its connections end with it.
async fn accept(node: Node, listener: TcpListener, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .expect("nobody closes this semaphore");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                connections.spawn(async move {
                    let _place = place;
                    serve(node, stream, bounds).await;
                });
            }
            Err(error) => {
                tracing::warn!("http: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer: scrapes are seconds apart, so a kept connection would only hold a place.
async fn serve(node: Node, stream: TcpStream, bounds: Bounds) {
    let answer = hyper::service::service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(&node, &request)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(bounds.whole, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("http: a connection ended: {error}"),
        Err(_) => tracing::debug!(
            "http: a connection was cut off after {} ms",
            bounds.whole.as_millis()
        ),
    }
}

fn answer(node: &Node, request: &Request<Incoming>) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/health" => health(&node.status()),
        "/ready" => ready(&node.status()),
        "/metrics" => text(StatusCode::OK, metrics(&node.status())),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /health, /ready and /metrics\n".to_owned(),
        ),
    }
}

/// Whether the process should live: a node without a leader is healthy, restarting it would not help.
fn health(status: &Status) -> Response<String> {
    match &status.fault {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(fault) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")),
    }
}

/// Whether traffic should come here.
fn ready(status: &Status) -> Response<String> {
    if status.ready {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let why = match (&status.fault, status.cluster_id, status.leader_id) {
        (Some(fault), _, _) => fault.as_str(),
        (None, None, _) => "no cluster yet: waiting for the peers in `join`",
        (None, Some(_), None) => "no leader: fewer than a majority of the members are connected",
        (None, Some(_), Some(_)) => {
            "catching up with what was committed when this node started, or cut off from a majority of the members"
        }
    };
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn text(code: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// The status as Prometheus' text format 0.0.4.
fn metrics(status: &Status) -> String {
    let mut out = Metrics(String::with_capacity(4096));
    let (node, cluster) = (
        status.node_id.to_string(),
        status.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
    );
    out.gauge("plenary_info", "What runs here; always 1.");
    let labels = [
        ("node_id", node.as_str()),
        ("cluster_id", &cluster),
        ("version", &status.version),
        ("durability", &status.durability),
    ];
    out.sample("plenary_info", &labels, 1);
    out.one_gauge("plenary_ready", "1 if this node serves.", u64::from(status.ready));
    out.one_gauge(
        "plenary_fault",
        "1 if this node stopped by itself.",
        u64::from(status.fault.is_some()),
    );
    out.one_gauge(
        "plenary_leader",
        "1 if this node leads.",
        u64::from(status.role == Role::Leader),
    );
    out.one_gauge(
        "plenary_leader_known",
        "1 if this node knows a leader.",
        u64::from(status.leader_id.is_some()),
    );
    out.one_gauge("plenary_term", "Raft's term.", status.term);
    out.one_gauge(
        "plenary_last_log_index",
        "The last log entry this node has.",
        status.last_log_index,
    );
    out.one_gauge(
        "plenary_committed_index",
        "The last entry known to be committed.",
        status.committed_index,
    );
    out.one_gauge(
        "plenary_applied_index",
        "The last entry this node applied.",
        status.applied_index,
    );
    out.one_gauge(
        "plenary_snapshot_index",
        "The last entry its newest snapshot covers.",
        status.snapshot_index,
    );
    let voters = status.members.iter().filter(|member| member.voter).count() as u64;
    out.one_gauge(
        "plenary_members",
        "Members of the cluster.",
        status.members.len() as u64,
    );
    out.one_gauge("plenary_voters", "Members that vote.", voters);
    out.one_gauge("plenary_keys", "Keys in all databases.", status.keys);
    out.one_gauge(
        "plenary_used_bytes",
        "Bytes in use, counted where keys change: what maxmemory bounds.",
        status.used_bytes,
    );
    out.one_counter(
        "plenary_expired_keys_total",
        "Keys that ended by their deadline.",
        status.expired_keys,
    );
    out.one_counter(
        "plenary_evicted_keys_total",
        "Keys that were evicted for maxmemory.",
        status.evicted_keys,
    );
    out.one_counter(
        "plenary_proposed_commands_total",
        "Commands this node proposed.",
        status.proposed_commands,
    );
    out.one_counter(
        "plenary_proposed_groups_total",
        "Groups they went in.",
        status.proposed_groups,
    );
    out.gauge("plenary_uptime_seconds", "Time since this node started.");
    let uptime = format!("{}.{:03}", status.uptime_ms / 1000, status.uptime_ms % 1000);
    out.sample("plenary_uptime_seconds", &[], uptime);
    let known: Vec<_> = status
        .members
        .iter()
        .filter_map(|member| Some((member, member.lag?)))
        .collect();
    if !known.is_empty() {
        out.gauge(
            "plenary_member_lag_entries",
            "Entries a member is behind, where known.",
        );
        for (member, lag) in known {
            let labels = [
                ("member_id", member.id.to_string()),
                ("address", member.raft_addr.clone()),
            ];
            out.sample(
                "plenary_member_lag_entries",
                &labels.each_ref().map(|(name, value)| (*name, value.as_str())),
                lag,
            );
        }
    }
    out.0
}

struct Metrics(String);

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str) {
        self.kind(name, help, "gauge");
    }

    fn kind(&mut self, name: &str, help: &str, kind: &str) {
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a String takes every write");
    }

    fn one_gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauge(name, help);
        self.sample(name, &[], value);
    }

    fn one_counter(&mut self, name: &str, help: &str, value: u64) {
        self.kind(name, help, "counter");
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            write!(self.0, "{label}=\"{text}\"").expect("a String takes every write");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a String takes every write");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::MemberStatus;

    fn status() -> Status {
        let member = |id, voter, lag| MemberStatus {
            id,
            raft_addr: format!("127.0.0.1:700{id}"),
            resp_addr: String::new(),
            voter,
            role: None,
            applied_index: None,
            lag,
        };
        Status {
            node_id: 1,
            cluster_id: Some(7),
            role: Role::Leader,
            leader_id: Some(1),
            term: 3,
            last_log_index: 12,
            committed_index: 11,
            applied_index: 10,
            snapshot_index: 9,
            members: vec![member(1, true, Some(0)), member(2, false, None)],
            ready: true,
            fault: None,
            differing_members: Vec::new(),
            level: 1,
            durability: "fsync".into(),
            version: "0.1.0".into(),
            uptime_ms: 61_005,
            keys: 5,
            used_bytes: 400,
            expired_keys: 2,
            evicted_keys: 3,
            proposed_commands: 30,
            proposed_groups: 4,
        }
    }

    #[test]
    fn health_is_about_faults_alone() {
        let mut status = Status {
            leader_id: None,
            ready: false,
            ..status()
        };
        assert_eq!(health(&status).status(), StatusCode::OK);
        status.fault = Some("disk full".into());
        let answer = health(&status);
        assert_eq!(
            (answer.status(), answer.body().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "disk full\n")
        );
    }

    #[test]
    fn not_ready_says_why() {
        assert_eq!(ready(&status()).status(), StatusCode::OK);
        let waiting = [
            (
                Status {
                    ready: false,
                    cluster_id: None,
                    leader_id: None,
                    ..status()
                },
                "no cluster yet",
            ),
            (
                Status {
                    ready: false,
                    leader_id: None,
                    ..status()
                },
                "no leader",
            ),
            (
                Status {
                    ready: false,
                    ..status()
                },
                "catching up",
            ),
            (
                Status {
                    ready: false,
                    fault: Some("disk full".into()),
                    ..status()
                },
                "disk full",
            ),
        ];
        for (status, why) in waiting {
            let answer = ready(&status);
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.body().starts_with(why), "{why:?}: {:?}", answer.body());
        }
    }

    #[test]
    fn every_metric_has_help_type_and_value() {
        let text = metrics(&status());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("split yields at least one");
            for comment in ["HELP", "TYPE"] {
                assert_eq!(
                    text.matches(&format!("# {comment} {name} ")).count(),
                    1,
                    "{comment} {name}"
                );
            }
        }
        for line in [
            "plenary_info{node_id=\"1\",cluster_id=\"7\",version=\"0.1.0\",durability=\"fsync\"} 1",
            "plenary_ready 1",
            "plenary_members 2",
            "plenary_voters 1",
            "plenary_applied_index 10",
            "plenary_uptime_seconds 61.005",
            "plenary_expired_keys_total 2",
            "plenary_evicted_keys_total 3",
            "plenary_member_lag_entries{member_id=\"1\",address=\"127.0.0.1:7001\"} 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            !text.contains("member_id=\"2\""),
            "what is not known is not shown as a number"
        );
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = Metrics(String::new());
        out.sample("m", &[("l", "a\"b\\c\nd")], 1);
        assert_eq!(out.0, "m{l=\"a\\\"b\\\\c\\nd\"} 1\n");
    }

    /// Says this and nothing more, and reads until the other side closes.
    async fn say(address: SocketAddr, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // A refused head may be cut off while it is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_and_others_go_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(crate::config::Config::new(folder.path()))
            .await
            .expect("a cluster of one");
        let http = Http::start(node.clone(), "127.0.0.1:0")
            .await
            .expect("a free port");
        let long = format!(
            "GET /health HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(2 * HEAD_BYTES_MAX)
        );
        let gone = TcpStream::connect(http.address()).await.expect("it listens");
        for bad in [
            b"PING\r\n\r\n".as_slice(),
            b"*1\r\n$4\r\nPING\r\n",
            b"\0\0\0\0\r\n\r\n",
            long.as_bytes(),
        ] {
            let answer = say(http.address(), bad).await;
            assert!(
                !answer.starts_with("HTTP/1.1 200"),
                "{:?}: {answer}",
                String::from_utf8_lossy(bad)
            );
        }
        drop(gone);
        let answer = say(http.address(), b"GET /health HTTP/1.1\r\nHost: plenary\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"),
            "{answer}"
        );
        let address = http.address();
        http.stop().await;
        assert!(
            TcpStream::connect(address).await.is_err(),
            "nobody listens there any more"
        );
        node.stop().await.expect("stopped");
    }

    /// Silent connections take all places; each is cut off after its time, so that the next one gets its answer.
    #[tokio::test]
    async fn silent_connections_do_not_keep_others_out_for_long() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let node = Node::start(crate::config::Config::new(folder.path()))
            .await
            .expect("a cluster of one");
        let bounds = Bounds {
            connections: 2,
            head: Duration::from_millis(500),
            whole: BOUNDS.whole,
        };
        let http = Http::start_within(node.clone(), "127.0.0.1:0", bounds)
            .await
            .expect("a free port");
        let one = TcpStream::connect(http.address()).await.expect("it listens");
        let two = TcpStream::connect(http.address()).await.expect("it listens");
        let answer = say(http.address(), b"GET /health HTTP/1.1\r\nHost: plenary\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop((one, two));
        http.stop().await;
        node.stop().await.expect("stopped");
    }
}
