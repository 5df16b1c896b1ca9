//! Users who log in once, count, look at the page after each count, and notice everything that is wrong.

use super::browser::Browser;
use axum::http::StatusCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Answers a user may get in vain for one request before giving up: each took the proxy its whole patience.
const ATTEMPTS: usize = 3;

/// What all users saw together.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Counts that were acknowledged, each exactly as it had to be.
    pub(crate) counts: AtomicU64,
    /// Answers "who are you?" to somebody who had logged in.
    pub(crate) lost_logins: AtomicU64,
    /// Counts that were acknowledged and gone later.
    pub(crate) lost_counts: AtomicU64,
    /// Requests that were counted more than once.
    pub(crate) double_counts: AtomicU64,
    /// Pages that showed less than this user's last acknowledged count.
    pub(crate) stale_pages: AtomicU64,
    /// Requests that no copy answered in time, all retries included.
    pub(crate) unanswered: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Seen {
    /// What must all be zero.
    pub(crate) fn wrong(&self) -> u64 {
        let wrong = [
            &self.lost_logins,
            &self.lost_counts,
            &self.double_counts,
            &self.stale_pages,
            &self.unanswered,
        ];
        wrong.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    browser: Browser,
    /// The last count that was acknowledged; the number of the request, too.
    pub(crate) counted: u64,
}

impl User {
    pub(crate) fn new(name: String, address: &str) -> Self {
        Self {
            name,
            browser: Browser::new(address),
            counted: 0,
        }
    }

    /// The key under which the session stands.
    pub(crate) async fn key(&self) -> Result<String, String> {
        match self.ask("GET", "/key", "0", String::new()).await? {
            (StatusCode::OK, key) => Ok(key),
            (status, _) => Err(format!("the session's key: {status}")),
        }
    }

    pub(crate) async fn login(&mut self) -> Result<(), String> {
        let form = format!("user={}", self.name);
        let (status, _) = self.ask("POST", "/login", "1", form).await?;
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(format!("login: {status}"))
        }
    }

    /// Counts until told to stop, or until something is wrong: the rest would only repeat it.
    pub(crate) async fn work(&mut self, seen: &Seen) {
        let mut well = true;
        while well && !seen.stop.load(Ordering::Relaxed) {
            well = self.count(seen).await && self.look(seen).await;
        }
    }

    async fn count(&mut self, seen: &Seen) -> bool {
        let number = self.counted + 1;
        for _ in 0..ATTEMPTS {
            let counter = match self
                .ask("POST", "/count", &number.to_string(), String::new())
                .await
            {
                Ok((StatusCode::OK, count)) => match count.parse::<u64>() {
                    Ok(count) if count == number => {
                        self.counted = number;
                        &seen.counts
                    }
                    Ok(count) if count > number => &seen.double_counts,
                    _ => &seen.lost_counts,
                },
                Ok((StatusCode::UNAUTHORIZED, _)) => &seen.lost_logins,
                Ok(_) | Err(_) => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            return self.counted == number;
        }
        seen.unanswered.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Looks at the page: it must show exactly the last count.
    pub(crate) async fn look(&mut self, seen: &Seen) -> bool {
        let wanted = format!("{} {}", self.name, self.counted);
        for _ in 0..ATTEMPTS {
            let counter = match self.ask("GET", "/", "0", String::new()).await {
                Ok((StatusCode::OK, page)) if page == wanted => return true,
                Ok((StatusCode::OK, _)) => &seen.stale_pages,
                Ok((StatusCode::UNAUTHORIZED, _)) => &seen.lost_logins,
                Ok(_) | Err(_) => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        seen.unanswered.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// The same user at another address.
    pub(crate) fn at(&mut self, address: &str) -> &mut Self {
        self.browser = self.browser.at(address);
        self
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        key: &str,
        form: String,
    ) -> Result<(StatusCode, String), String> {
        let headers = [("idempotency-key", key)];
        let (status, _, body) = self.browser.ask(method, path, &headers, form).await?;
        Ok((status, body))
    }
}
