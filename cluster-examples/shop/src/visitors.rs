//! Visitors who buy, log in and look, each with two browsers, and who notice everything that is wrong.

use crate::browser::Browser;
use crate::pages::escaped;
use crate::shop::MUGS_MAX;
use axum::http::StatusCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same request is sent again because it is told so: what browsers do at most.
const REDIRECTS_MAX: usize = 20;

/// Between two things that a visitor does.
const THINK: Duration = Duration::from_millis(10);

/// Latencies that are kept, in all about a quarter of an hour's.
const LATENCIES_MAX: usize = 1_000_000;

/// What is added to a basket before it is looked at whether it is time to order.
const ADDS_AT_ONCE: usize = 10;

/// What all visitors saw together.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests that were done.
    pub(crate) answered: AtomicU64,
    /// Mugs whose adding was acknowledged.
    pub(crate) adds: AtomicU64,
    pub(crate) logins: AtomicU64,
    /// Requests that were sent again with the id that a login had brought meanwhile.
    pub(crate) again: AtomicU64,
    /// Pages that did not know somebody who had logged in.
    pub(crate) logged_out: AtomicU64,
    /// Requests that were not done.
    pub(crate) failed: AtomicU64,
    /// Those among them that a killed copy had taken, and nobody else may have.
    pub(crate) cut_off: AtomicU64,
    /// Pages that showed another basket, another theme or other sessions than there must be.
    pub(crate) wrong: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Whether copies are killed meanwhile.
    kills: bool,
    /// Held for a moment only.
    latencies: Mutex<Vec<Duration>>,
}

impl Seen {
    /// For visitors that only buy and look, and know that a copy may die under them.
    pub(crate) fn while_killing() -> Self {
        Self {
            kills: true,
            ..Self::default()
        }
    }

    pub(crate) fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// What must be zero.
    pub(crate) fn faults(&self) -> u64 {
        Self::count(&self.logged_out) + Self::count(&self.failed) + Self::count(&self.wrong)
    }

    /// How long so many percent of the requests took at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.sort_unstable();
        let last = latencies.len().saturating_sub(1);
        latencies
            .get((latencies.len() * percent / 100).min(last))
            .copied()
            .unwrap_or_default()
    }

    fn took(&self, latency: Duration) {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        if latencies.len() < LATENCIES_MAX {
            latencies.push(latency);
        }
    }

    /// Notes a fault and says it.
    fn fault(&self, counter: &AtomicU64, what: &str) {
        counter.fetch_add(1, Ordering::Relaxed);
        eprintln!("  {what}");
    }
}

/// One browser, and what its visitor knows of its session.
#[derive(Debug)]
struct Tab {
    browser: Browser,
    agent: String,
    user: Option<String>,
    dark: bool,
    /// Mugs that must be in the basket.
    mugs: Vec<String>,
    /// Mugs that may be, once: nobody knows what came of the request.
    perhaps: Vec<String>,
    ordered: usize,
}

/// The request was not done; it is counted already.
struct NotDone;

/// Somebody who buys.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) name: String,
    tabs: [Tab; 2],
    number: usize,
}

impl Tab {
    fn new(address: &str, agent: &str) -> Self {
        Self {
            browser: Browser::new(address),
            agent: agent.to_owned(),
            user: None,
            dark: false,
            mugs: Vec::new(),
            perhaps: Vec::new(),
            ordered: 0,
        }
    }

    /// Its session has ended: the next one knows nothing.
    fn forget(&mut self) {
        (self.user, self.dark, self.ordered) = (None, false, 0);
        self.mugs.clear();
        self.perhaps.clear();
    }

    async fn get(&self, seen: &Seen, path: &str) -> Result<String, NotDone> {
        self.ask(seen, "GET", path, String::new()).await
    }

    async fn post(&self, seen: &Seen, path: &str, fields: &[(&str, &str)]) -> Result<(), NotDone> {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.ask(seen, "POST", path, form).await.map(drop)
    }

    async fn ask(&self, seen: &Seen, method: &str, path: &str, form: String) -> Result<String, NotDone> {
        let headers = [("user-agent", self.agent.as_str())];
        for _ in 0..REDIRECTS_MAX {
            let began = Instant::now();
            let answer = self.browser.ask(method, path, &headers, form.clone()).await;
            seen.took(began.elapsed());
            match answer {
                Ok((StatusCode::OK | StatusCode::SEE_OTHER, _, page)) => {
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                    return Ok(page);
                }
                Ok((StatusCode::TEMPORARY_REDIRECT, Some(_), _)) => {
                    seen.again.fetch_add(1, Ordering::Relaxed);
                }
                // The proxy's own word: a copy had the request, and is gone.
                Ok((StatusCode::BAD_GATEWAY, ..)) if seen.kills => {
                    seen.cut_off.fetch_add(1, Ordering::Relaxed);
                    return Err(NotDone);
                }
                Ok((StatusCode::FORBIDDEN, _, page)) => {
                    seen.fault(&seen.logged_out, &format!("{method} {path}: {page}"));
                    return Err(NotDone);
                }
                Ok((status, _, page)) => {
                    seen.fault(&seen.failed, &format!("{method} {path}: {status} {page}"));
                    return Err(NotDone);
                }
                Err(error) => {
                    seen.fault(&seen.failed, &format!("{method} {path}: {error}"));
                    return Err(NotDone);
                }
            }
        }
        seen.fault(&seen.failed, &format!("{method} {path}: redirected for ever"));
        Err(NotDone)
    }

    async fn add(&self, seen: &Seen, mug: &str) -> Result<(), NotDone> {
        self.post(seen, "/add", &[("mug", mug)]).await
    }

    /// Adds these at the same time. All must be done.
    async fn add_all(&mut self, seen: &Seen, mugs: [String; 4]) -> Result<(), NotDone> {
        let [first, second, third, fourth] = &mugs;
        let (first, second, third, fourth) = tokio::join!(
            self.add(seen, first),
            self.add(seen, second),
            self.add(seen, third),
            self.add(seen, fourth)
        );
        first.and(second).and(third).and(fourth)?;
        self.added(seen, mugs);
        Ok(())
    }

    fn added(&mut self, seen: &Seen, mugs: impl IntoIterator<Item = String>) {
        let before = self.mugs.len();
        self.mugs.extend(mugs);
        let more = (self.mugs.len() - before) as u64;
        seen.adds.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds one, which may be in vain where copies are killed.
    async fn try_to_add(&mut self, seen: &Seen, mug: String) {
        match self.add(seen, &mug).await {
            Ok(()) => self.added(seen, [mug]),
            Err(NotDone) => self.perhaps.push(mug),
        }
    }

    /// Logs in while six other requests of this browser are under way.
    async fn log_in(&mut self, seen: &Seen, user: &str, mugs: [String; 4]) -> Result<(), NotDone> {
        let [first, second, third, fourth] = &mugs;
        let login = [("user", user)];
        let done = tokio::join!(
            self.add(seen, first),
            self.add(seen, second),
            self.get(seen, "/"),
            self.post(seen, "/login", &login),
            self.add(seen, third),
            self.add(seen, fourth),
            self.get(seen, "/"),
        );
        done.0.and(done.1).and(done.3).and(done.4).and(done.5)?;
        done.2.and(done.6)?;
        self.added(seen, mugs);
        self.user = Some(user.to_owned());
        seen.logins.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Changes the theme while a mug is added.
    async fn change_theme(&mut self, seen: &Seen, mug: String) -> Result<(), NotDone> {
        let theme = if self.dark { "light" } else { "dark" };
        let theme = [("theme", theme)];
        let (theme, added) = tokio::join!(self.post(seen, "/theme", &theme), self.add(seen, &mug));
        theme.and(added)?;
        self.added(seen, [mug]);
        self.dark = !self.dark;
        Ok(())
    }

    async fn order(&mut self, seen: &Seen) -> Result<(), NotDone> {
        self.post(seen, "/order", &[]).await?;
        // What perhaps was there is known to be ordered or not only by the number.
        self.ordered += self.mugs.len();
        self.mugs.clear();
        self.look(seen).await
    }

    /// Looks at the page: it must show who is logged in, the theme, and exactly what was added.
    async fn look(&self, seen: &Seen) -> Result<(), NotDone> {
        let page = self.get(seen, "/").await?;
        let user = between(&page, "<b class=\"user\">", "</b>").next();
        let known = self.user.as_deref().map(escaped);
        if user.map(str::to_owned) != known {
            let what = format!("{} is {known:?}, and the page says {user:?}", self.agent);
            seen.fault(&seen.logged_out, &what);
            return Err(NotDone);
        }
        let theme = if self.dark { "dark" } else { "light" };
        let mut shown: Vec<&str> = between(&page, "<li class=\"mug\">", "</li>").collect();
        // Each takes one of those away that are shown.
        let mut is_missing = |mug: &&String| {
            let mug = escaped(mug);
            let at = shown.iter().position(|shown| *shown == mug);
            at.map(|at| shown.swap_remove(at)).is_none()
        };
        let missing: Vec<_> = self.mugs.iter().filter(&mut is_missing).collect();
        let _in_vain = self.perhaps.iter().filter(&mut is_missing).count();
        let ordered = between(&page, "<p class=\"ordered\">", " mugs").next();
        let ordered_well = ordered == Some(self.ordered.to_string().as_str());
        let theme_well = page.contains(&format!("color-scheme: {theme}\""));
        if missing.is_empty() && shown.is_empty() && ordered_well && theme_well {
            return Ok(());
        }
        let what = format!(
            "{}: missing {missing:?}, too many {shown:?}, ordered {ordered:?} of {}, theme {theme_well}",
            self.agent, self.ordered
        );
        seen.fault(&seen.wrong, &what);
        Err(NotDone)
    }
}

impl Visitor {
    pub(crate) fn new(name: String, address: &str) -> Self {
        Self {
            tabs: ["desk", "phone"].map(|what| Tab::new(address, &format!("{name} <{what}>"))),
            name,
            number: 0,
        }
    }

    /// Does what a visitor does until told to stop, or until something is wrong: the rest would only repeat it.
    pub(crate) async fn work(&mut self, seen: &Seen) {
        if seen.kills {
            self.go_on(seen).await;
        } else {
            self.buy(seen).await;
        }
    }

    async fn buy(&mut self, seen: &Seen) {
        while !seen.stop.load(Ordering::Relaxed) {
            for tab in 0..self.tabs.len() {
                if self.buy_in(tab, seen).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn buy_in(&mut self, tab: usize, seen: &Seen) -> Result<(), NotDone> {
        let mugs: [String; ADDS_AT_ONCE] = std::array::from_fn(|_| self.mug());
        let [first, second, mugs @ ..] = mugs;
        let [a, b, c, d, e, f, g, h] = mugs;
        let name = self.name.clone();
        let tab = &mut self.tabs[tab];
        if tab.mugs.len() + ADDS_AT_ONCE > MUGS_MAX {
            tab.order(seen).await?;
        }
        tab.add(seen, &first).await?;
        tab.added(seen, [first]);
        tab.look(seen).await?;
        tokio::time::sleep(THINK).await;
        tab.add_all(seen, [a, b, c, d]).await?;
        tab.look(seen).await?;
        tokio::time::sleep(THINK).await;
        tab.change_theme(seen, second).await?;
        tab.look(seen).await?;
        tokio::time::sleep(THINK).await;
        tab.log_in(seen, &name, [e, f, g, h]).await?;
        tab.look(seen).await?;
        self.list(seen).await.map(drop)
    }

    /// What nobody else writes, and no page may take for its own.
    fn mug(&mut self) -> String {
        self.number += 1;
        format!("{} & <b>\"{}\"", self.name, self.number)
    }

    /// Orders what is in both baskets, so that there is room.
    pub(crate) async fn order_all(&mut self, seen: &Seen) {
        for tab in &mut self.tabs {
            // What was wrong is counted.
            let _ = tab.order(seen).await;
        }
    }

    /// Adds and looks while copies are killed, and does not mind what was cut off.
    async fn go_on(&mut self, seen: &Seen) {
        while !seen.stop.load(Ordering::Relaxed) && seen.faults() == 0 {
            for tab in 0..self.tabs.len() {
                let mug = self.mug();
                let tab = &mut self.tabs[tab];
                if tab.mugs.len() + tab.perhaps.len() < MUGS_MAX {
                    tab.try_to_add(seen, mug).await;
                }
                // What was wrong is counted.
                let _ = tab.look(seen).await;
                tokio::time::sleep(THINK).await;
            }
        }
    }

    /// Whether both browsers show what they must.
    pub(crate) async fn look(&self, seen: &Seen) -> bool {
        let [desk, phone] = &self.tabs;
        desk.look(seen).await.is_ok() && phone.look(seen).await.is_ok()
    }

    /// The list of the visitor's sessions, as a browser that is logged in sees it: one for each such browser.
    async fn list(&self, seen: &Seen) -> Result<String, NotDone> {
        let logged_in: Vec<&Tab> = self.tabs.iter().filter(|tab| tab.user.is_some()).collect();
        let Some(tab) = logged_in.last() else {
            return Err(NotDone);
        };
        let page = tab.get(seen, "/sessions").await?;
        let sessions: Vec<&str> = between(&page, "<li class=\"session\">", "</li>").collect();
        let named = |tab: &&Tab| sessions.iter().any(|line| line.starts_with(&escaped(&tab.agent)));
        let here = sessions.iter().filter(|line| line.ends_with("this one")).count();
        if sessions.len() == logged_in.len() && here == 1 && logged_in.iter().all(named) {
            return Ok(page);
        }
        let what = format!("{}: the list of sessions is {sessions:?}", self.name);
        seen.fault(&seen.wrong, &what);
        Err(NotDone)
    }

    /// From the phone ends the session at the desk, by its line in the list; logs in there again. Whether all was as it must be.
    pub(crate) async fn end_one(&mut self, seen: &Seen) -> bool {
        let Ok(page) = self.list(seen).await else {
            return false;
        };
        let key = between(&page, "name=\"session\" value=\"", "\"").next();
        let end = [("session", key.unwrap_or_default())];
        let mugs: [String; 4] = std::array::from_fn(|_| self.mug());
        let first = self.mug();
        let name = self.name.clone();
        let [desk, phone] = &mut self.tabs;
        let ended = async {
            phone.post(seen, "/end", &end).await?;
            desk.forget();
            desk.look(seen).await?;
            phone.look(seen).await?;
            desk.add(seen, &first).await?;
            desk.added(seen, [first]);
            desk.log_in(seen, &name, mugs).await?;
            desk.look(seen).await
        };
        ended.await.is_ok() && self.list(seen).await.is_ok()
    }

    /// Signs out everywhere: both browsers must be nobody's after that. Whether they are.
    pub(crate) async fn sign_out_everywhere(&mut self, seen: &Seen) -> bool {
        let [desk, phone] = &mut self.tabs;
        let signed_out = async {
            phone.post(seen, "/logout-everywhere", &[]).await?;
            desk.forget();
            phone.forget();
            desk.look(seen).await?;
            phone.look(seen).await
        };
        signed_out.await.is_ok()
    }

    /// Logs in anew at the desk, to see what has ended.
    pub(crate) async fn come_back(&mut self, seen: &Seen) -> bool {
        let desk = &mut self.tabs[0];
        let login = [("user", self.name.as_str())];
        let back = desk.post(seen, "/login", &login).await.is_ok();
        desk.user = back.then(|| self.name.clone());
        back && self.list(seen).await.is_ok()
    }

    /// How the sessions ended that ended, as one copy tells it.
    pub(crate) async fn ended(&self, seen: &Seen, copy: &str) -> Option<Vec<String>> {
        let desk = &self.tabs[0];
        let there = Tab {
            browser: desk.browser.at(copy),
            ..Tab::new(copy, &desk.agent)
        };
        let page = there.get(seen, "/sessions").await.ok()?;
        let lines = between(&page, "<li class=\"ended\">", "</li>");
        let reasons = lines.filter_map(|line| Some(line.split_once(": ")?.1.to_owned()));
        Some(reasons.collect())
    }
}

/// The texts between these two.
fn between<'a>(page: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(start)
        .skip(1)
        .filter_map(move |rest| rest.split(end).next())
}
