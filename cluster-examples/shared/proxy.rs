//! A round-robin proxy without sticky sessions. What was never sent it sends to the next copy; what was sent, only if it was told that this cannot do harm.

use super::children;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, request::Parts};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The largest request and the largest answer, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// One attempt: longer than a node waits for a leader (5 s), so that it says itself what came of it.
const ATTEMPT: Duration = Duration::from_secs(8);

/// All attempts for one request.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two rounds over all copies, when none could answer.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two questions to a copy whether it is ready. A copy that stops goes on serving for longer than this after it has said that it is not.
pub(crate) const READY_LOOK: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Proxy {
    copies: Vec<Upstream>,
    next: AtomicUsize,
    client: Client<HttpConnector, Body>,
    repeatable: fn(&Parts) -> bool,
    pub(crate) requests: AtomicU64,
    /// Requests that needed more than one attempt.
    pub(crate) retried: AtomicU64,
}

#[derive(Debug)]
struct Upstream {
    address: String,
    /// Whether it said so when it was asked last; true while nobody asks.
    ready: AtomicBool,
}

/// Why an attempt brought no answer to pass on.
enum Failed {
    /// It was never sent.
    NotSent,
    /// It was sent; nobody knows what came of it.
    Unknown(StatusCode),
    /// The copy says it could not: it may have been half done.
    Refused(Response),
}

/// What may be sent again though it may have been done: pages, and requests whose key the application knows again.
#[allow(dead_code, reason = "the shop has nothing repeated")]
pub(crate) fn harmless(head: &Parts) -> bool {
    head.method == Method::GET || head.headers.contains_key("idempotency-key")
}

impl Proxy {
    /// `repeatable` says what may be sent again after it was sent once.
    pub(crate) fn new(copies: Vec<String>, repeatable: fn(&Parts) -> bool) -> Arc<Self> {
        let upstream = |address| Upstream {
            address,
            ready: true.into(),
        };
        Arc::new(Self {
            copies: copies.into_iter().map(upstream).collect(),
            next: AtomicUsize::new(0),
            client: Client::builder(TokioExecutor::new()).build_http(),
            repeatable,
            requests: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        })
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) -> std::io::Result<()> {
        axum::serve(listener, Router::new().fallback(forward).with_state(self)).await
    }

    /// Asks the copies `GET /ready` for ever, and passes over one that does not say 200.
    #[allow(dead_code, reason = "web-sessions finds out by itself who is gone")]
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            for copy in &self.copies {
                let answer = children::get(&copy.address, "/ready").await;
                let ready = answer.is_some_and(|(status, _)| status == 200);
                copy.ready.store(ready, Ordering::Relaxed);
            }
            tokio::time::sleep(READY_LOOK).await;
        }
    }

    /// The next copy that is ready; the next one, if none is.
    fn next(&self) -> &str {
        let number = self.copies.len();
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let mut turns = (next..next + number).map(|turn| &self.copies[turn % number]);
        let ready = turns.find(|copy| copy.ready.load(Ordering::Relaxed));
        &ready.unwrap_or(&self.copies[next % number]).address
    }

    async fn answer(&self, head: &Parts, body: Bytes) -> Response {
        let repeatable = (self.repeatable)(head);
        let (started, mut last) = (Instant::now(), StatusCode::BAD_GATEWAY.into_response());
        for attempt in 0.. {
            if attempt == 1 {
                self.retried.fetch_add(1, Ordering::Relaxed);
            }
            if attempt > 0 && attempt % self.copies.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.attempt(self.next(), head, body.clone()).await {
                Ok(response) => return response,
                Err(Failed::NotSent) => {}
                Err(Failed::Unknown(_)) if repeatable => {}
                Err(Failed::Refused(response)) if repeatable => last = response,
                Err(Failed::Unknown(why)) => return why.into_response(),
                Err(Failed::Refused(response)) => return response,
            }
            if started.elapsed() > PATIENCE {
                break;
            }
        }
        last
    }

    async fn attempt(&self, copy: &str, head: &Parts, body: Bytes) -> Result<Response, Failed> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = format!("http://{copy}{path}")
            .parse::<Uri>()
            .map_err(|_| Failed::NotSent)?;
        *request.headers_mut() = head.headers.clone();
        let sent = tokio::time::timeout(ATTEMPT, self.client.request(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response.map(Body::new),
            Ok(Err(error)) if error.is_connect() => return Err(Failed::NotSent),
            Ok(Err(_)) => return Err(Failed::Unknown(StatusCode::BAD_GATEWAY)),
            Err(_) => return Err(Failed::Unknown(StatusCode::GATEWAY_TIMEOUT)),
        };
        let (head, body) = response.into_parts();
        // Read whole before it is passed on: a copy may die between its head and its body.
        let body = tokio::time::timeout(ATTEMPT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
        let Ok(Ok(body)) = body else {
            return Err(Failed::Unknown(StatusCode::BAD_GATEWAY));
        };
        let failed = head.status.is_server_error();
        let response = Response::from_parts(head, Body::from(body));
        if failed {
            Err(Failed::Refused(response))
        } else {
            Ok(response)
        }
    }
}

async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    proxy.requests.fetch_add(1, Ordering::Relaxed);
    let (mut head, body) = request.into_parts();
    for hop in ["connection", "transfer-encoding", "content-length", "host"] {
        head.headers.remove(hop);
    }
    match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => proxy.answer(&head, body).await,
        Err(_) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    }
}
