//! What a browser is to a site: an address, and cookies that go with every request. Clones share the cookies, as tabs do.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The largest page that is read, in bytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Browser {
    address: String,
    client: Client<HttpConnector, Body>,
    /// Held for a moment only, never while a request is under way.
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Browser {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            cookies: Arc::default(),
        }
    }

    /// The same browser at another address: it shows its cookies there too, as browsers do whatever the port.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// One request, with a form if there is one. Redirects are the caller's. Status, the `location` of a redirect, and the body.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        form: String,
    ) -> Result<(StatusCode, Option<String>, String), String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(header::COOKIE, self.cookie_header());
        if !form.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(form));
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.request(request).await;
        let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
        for set in head.headers.get_all(header::SET_COOKIE) {
            self.set(set.to_str().unwrap_or_default());
        }
        let location = head.headers.get(header::LOCATION);
        let location = location.and_then(|location| Some(location.to_str().ok()?.to_owned()));
        let body = axum::body::to_bytes(Body::new(body), PAGE_BYTES_MAX).await;
        let body = body.map_err(|error| error.to_string())?;
        Ok((head.status, location, String::from_utf8_lossy(&body).into_owned()))
    }

    fn cookie_header(&self) -> String {
        let cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = cookies.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// Takes a `set-cookie`: an empty value takes the cookie away.
    fn set(&self, cookie: &str) {
        let pair = cookie.split(';').next().unwrap_or_default();
        let Some((name, value)) = pair.split_once('=') else {
            return;
        };
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_empty() {
            cookies.remove(name);
        } else {
            cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}
