//! A round-robin proxy. It sends a request to the next copy when one dies under it, but only if that cannot do harm.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, request::Parts};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The largest request that is kept to be sent again, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// One attempt: longer than a node waits for a leader (5 s), so that it says itself what came of it.
const ATTEMPT: Duration = Duration::from_secs(8);

/// All attempts for one request.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two rounds over all copies, when none could answer.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Proxy {
    copies: Vec<String>,
    next: AtomicUsize,
    client: Client<HttpConnector, Body>,
    pub(crate) requests: AtomicU64,
    /// Requests that needed more than one attempt.
    pub(crate) retried: AtomicU64,
}

/// Why an attempt brought no answer to pass on.
enum Failed {
    /// It was never sent.
    NotSent,
    /// It was sent; nobody knows what came of it.
    Unknown,
    /// The copy says it could not: it may have been half done.
    Refused(Response),
}

impl Proxy {
    pub(crate) fn new(copies: Vec<String>) -> Arc<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (requests, retried) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self {
            copies,
            next: AtomicUsize::new(0),
            client,
            requests,
            retried,
        })
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) -> std::io::Result<()> {
        axum::serve(listener, Router::new().fallback(forward).with_state(self)).await
    }

    async fn answer(&self, head: &Parts, body: Bytes) -> Response {
        let repeatable = head.method == Method::GET || head.headers.contains_key("idempotency-key");
        let (started, mut last) = (Instant::now(), StatusCode::BAD_GATEWAY.into_response());
        for attempt in 0.. {
            if attempt == 1 {
                self.retried.fetch_add(1, Ordering::Relaxed);
            }
            if attempt > 0 && attempt % self.copies.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let copy = &self.copies[self.next.fetch_add(1, Ordering::Relaxed) % self.copies.len()];
            match self.attempt(copy, head, body.clone()).await {
                Ok(response) => return response,
                Err(Failed::NotSent) => {}
                Err(Failed::Unknown) if repeatable => {}
                Err(Failed::Refused(response)) if repeatable => last = response,
                Err(Failed::Unknown) => return StatusCode::BAD_GATEWAY.into_response(),
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
            Ok(Err(_)) | Err(_) => return Err(Failed::Unknown),
        };
        let (head, body) = response.into_parts();
        // Read whole before it is passed on: a copy may die between its head and its body.
        let body = tokio::time::timeout(ATTEMPT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
        let Ok(Ok(body)) = body else {
            return Err(Failed::Unknown);
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
