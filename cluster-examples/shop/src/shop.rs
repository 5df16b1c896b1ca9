//! The shop: what a basket, a login and a list of sessions are. Knows no web framework: `axum.rs` and `actix.rs` say which request is which call.
//!
//! It sells mugs with an inscription. Whoever says a name is believed, for this is about sessions.

use crate::pages::{self, SessionLine};
use futures::StreamExt;
use plenary::session::{
    LockedSession, Locking, Merge, NewSession, Position, SessionError, SessionEvent, SessionId, What,
};
use plenary::{Freshness, Plenary, Session, Sessions};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The cookie with the session's id.
const COOKIE: &str = "sid";

/// Mugs in a basket; whoever wants more orders first.
pub(crate) const MUGS_MAX: usize = 50;

/// The longest inscription and the longest name, in bytes.
const TEXT_BYTES_MAX: usize = 100;

/// A request has its session to itself for this long at most: a hundred times what it takes.
const LEASE: Duration = Duration::from_secs(5);

/// How long a request stands in the queue for its session: longer than one who is gone can keep it, shorter than the proxy waits.
const WAIT: Duration = Duration::from_secs(7);

/// How long the id that a visitor had before a login can still be read.
const GRACE: Duration = Duration::from_secs(30);

/// Before a request that still had the old id is told to come again: the answer to the login brings the new one meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// Ended sessions that a copy remembers, of all users.
const ENDED_MAX: usize = 1_000;

/// What is in a session besides: one item each, so that requests that change different ones do not touch each other.
const BASKET: &str = "basket";
const BROWSER: &str = "browser";
const THEME: &str = "theme";
const USER: &str = "user";

/// One copy's part of the shop.
pub(crate) struct Shop {
    /// Which copy this is, for pages and for whoever looks who holds a lock.
    name: String,
    plenary: Plenary,
    /// As of now, cluster-wide. A token in a cookie would save the round to a majority, but answers of parallel requests can come in another
    /// order than they were made, and the older token would be the one that stays.
    sessions: Sessions,
    ended: Ended,
    leaving: AtomicBool,
}

/// Sessions that ended, the latest last. Held for a moment only.
type Ended = Arc<Mutex<VecDeque<Arc<SessionEvent>>>>;

/// What is to be bought, and how much was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Basket {
    pub(crate) mugs: Vec<String>,
    pub(crate) ordered: usize,
}

/// Who asks: what the shop wants to know of a request.
pub(crate) struct Visitor {
    id: Option<SessionId>,
    browser: String,
}

impl Visitor {
    /// From the headers `cookie` and `user-agent`. A cookie that is none of ours is as good as none.
    pub(crate) fn new<'a>(cookies: impl Iterator<Item = &'a str>, browser: Option<&str>) -> Self {
        let mut pairs = cookies.flat_map(|cookies| cookies.split("; "));
        let id = pairs.find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='));
        let browser = browser.unwrap_or("a browser that does not say which");
        Self {
            id: id.and_then(|id| id.parse().ok()),
            browser: browser.chars().take(TEXT_BYTES_MAX).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Add {
    mug: String,
}

#[derive(Deserialize)]
pub(crate) struct Theme {
    theme: String,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    user: String,
}

#[derive(Deserialize)]
pub(crate) struct End {
    session: String,
}

/// What a front answers with.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<&'static str>,
    pub(crate) cookie: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    fn page(status: u16, body: String) -> Self {
        Self {
            status,
            location: None,
            cookie: None,
            body,
        }
    }

    /// The change is made: the browser goes on to a page, which it can load anew without changing anything again.
    fn see(page: &'static str) -> Self {
        Self {
            location: Some(page),
            ..Self::page(303, String::new())
        }
    }

    /// Brings the session's id, if it is another than the visitor has. Only then: an answer that comes late would take the id away that a login has
    /// brought meanwhile.
    fn with_session(self, visitor: &Visitor, session: &Session) -> Self {
        if visitor.id.as_ref() == Some(session.id()) {
            self
        } else {
            self.with_id(session.id().as_str())
        }
    }

    /// A cookie that scripts cannot read, and that other sites' forms do not send along. `Secure` is missing because the example speaks plain HTTP.
    fn with_id(self, id: &str) -> Self {
        let age = if id.is_empty() { "; Max-Age=0" } else { "" };
        Self {
            cookie: Some(format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax{age}")),
            ..self
        }
    }
}

/// Why a request was not done.
enum Refusal {
    /// What was asked for cannot be.
    Wrong(u16, &'static str),
    Session(SessionError),
}

impl<E: Into<SessionError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Session(error.into())
    }
}

type Outcome = Result<Answer, Refusal>;

impl Shop {
    pub(crate) fn new(name: String, plenary: Plenary) -> Arc<Self> {
        let (sessions, ended) = (plenary.sessions(), Ended::default());
        tokio::spawn(remember_ended(sessions.clone(), ended.clone()));
        Arc::new(Self {
            name,
            plenary,
            sessions: sessions.with_freshness(Freshness::Linearizable),
            ended,
            leaving: AtomicBool::new(false),
        })
    }

    /// `GET /ready`: whether requests may be sent here.
    pub(crate) fn ready(&self) -> Answer {
        let status = self.plenary.node().status();
        let role = if status.leader_id == Some(status.node_id) {
            "leader"
        } else {
            "follower"
        };
        if status.ready && !self.leaving.load(Ordering::Relaxed) {
            Answer::page(200, role.to_owned())
        } else {
            Answer::page(503, "not ready".to_owned())
        }
    }

    /// From now on this copy says that it is not ready. It serves all the same whoever has not heard of that yet.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// `GET /`: the basket. A visitor who only looks gets no session.
    pub(crate) async fn basket(&self, visitor: Visitor) -> Answer {
        self.answered("/", async {
            let session = self.session_of(&visitor).await?;
            let basket: Basket = read(session.as_ref())?;
            let body = pages::basket(user(session.as_ref()).as_deref(), &basket);
            Ok(Answer::page(200, self.page(session.as_ref(), &body)))
        })
        .await
    }

    /// `POST /add`: one more mug. The session is locked, so that of several such requests none undoes another.
    pub(crate) async fn add(&self, visitor: Visitor, add: Add) -> Answer {
        self.answered("/add", async {
            let mug = text(&add.mug, "an inscription has 1 to 100 bytes")?;
            self.change_basket(&visitor, |basket| {
                if basket.mugs.len() == MUGS_MAX {
                    return Err(Refusal::Wrong(409, "the basket is full"));
                }
                basket.mugs.push(mug);
                Ok(())
            })
            .await
        })
        .await
    }

    /// `POST /order`: all that is in the basket.
    pub(crate) async fn order(&self, visitor: Visitor) -> Answer {
        self.answered("/order", async {
            self.change_basket(&visitor, |basket| {
                basket.ordered += basket.mugs.len();
                basket.mugs.clear();
                Ok(())
            })
            .await
        })
        .await
    }

    async fn change_basket(
        &self,
        visitor: &Visitor,
        change: impl FnOnce(&mut Basket) -> Result<(), Refusal>,
    ) -> Outcome {
        let mut session = self.locked(visitor).await?;
        let mut basket = read(Some(&session))?;
        change(&mut basket)?;
        session.set_as(BASKET, &basket)?;
        let session = session.save_and_unlock().await?;
        Ok(Answer::see("/").with_session(visitor, &session))
    }

    /// `POST /theme`: an item of its own, so it needs no lock: it is merged with whatever else is saved at the time.
    pub(crate) async fn theme(&self, visitor: Visitor, theme: Theme) -> Answer {
        self.answered("/theme", async {
            let dark = theme.theme == "dark";
            let theme = if dark { "dark" } else { "light" };
            let mut session = match self.session_of(&visitor).await? {
                Some(session) => session,
                None => self.new_session(&visitor).await?,
            };
            session.set(THEME, theme);
            match self.sessions.save_merged(&mut session, Merge::Last).await {
                // Nobody saves past a lock: it is this request's turn when the other is done.
                Err(SessionError::Locked) => {
                    let mut locked = self.locked(&visitor).await?;
                    locked.set(THEME, theme);
                    session = locked.save_and_unlock().await?;
                }
                saved => saved?,
            }
            Ok(Answer::see("/").with_session(&visitor, &session))
        })
        .await
    }

    /// `POST /login`: a fresh id first, then whose the session is. So who planted the old id gets nothing of it, and requests under way with the old
    /// one still find the session as it was.
    pub(crate) async fn login(&self, visitor: Visitor, login: Login) -> Answer {
        self.answered("/login", async {
            let user = text(&login.user, "a name has 1 to 100 bytes")?;
            let mut session = self.locked(&visitor).await?;
            session.rename(GRACE).await?;
            session.set_owner(&user);
            session.set(USER, user);
            session.set(BROWSER, &visitor.browser);
            let session = session.save_and_unlock().await?;
            Ok(Answer::see("/").with_session(&visitor, &session))
        })
        .await
    }

    /// `GET /sessions`: where the user is logged in, and what ended of late.
    pub(crate) async fn sessions(&self, visitor: Visitor) -> Answer {
        self.answered("/sessions", async {
            let (session, user) = self.logged_in(&visitor).await?;
            let (here, now) = (self.sessions.key_of(session.id()), self.plenary.node().now());
            let owned = self.sessions.owned(&user).await?;
            let lines = owned.iter().map(|owned| SessionLine {
                key: String::from_utf8_lossy(owned.key()).into_owned(),
                browser: owned.get(BROWSER).map(|browser| lossy(browser)),
                age: Duration::from_millis(now.saturating_sub(owned.created_at())),
                here: *owned.key() == here,
            });
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let ended = ended.iter().rev().filter(|event| event.owner == user.as_bytes());
            let ended: Vec<_> = ended
                .filter_map(|event| match &event.what {
                    What::Ended(reason, _) => {
                        Some((Duration::from_millis(now.saturating_sub(event.at)), reason.name()))
                    }
                    _ => None,
                })
                .collect();
            let body = pages::sessions(&user, &lines.collect::<Vec<_>>(), &ended);
            Ok(Answer::page(200, self.page(Some(&session), &body)))
        })
        .await
    }

    /// `POST /end`: one of the user's sessions, as the list names it.
    pub(crate) async fn end(&self, visitor: Visitor, end: End) -> Answer {
        self.answered("/end", async {
            let (_, user) = self.logged_in(&visitor).await?;
            let owned = self.sessions.owned(&user).await?;
            let named = owned.iter().find(|owned| owned.key() == end.session.as_bytes());
            // One that is not there any more is what was wanted; one of another user is not in the list.
            if let Some(named) = named {
                self.sessions.end_one(named).await?;
            }
            Ok(Answer::see("/sessions"))
        })
        .await
    }

    /// `POST /logout`: this session.
    pub(crate) async fn logout(&self, visitor: Visitor) -> Answer {
        self.answered("/logout", async {
            if let Some(id) = &visitor.id {
                self.sessions.end(id).await?;
            }
            Ok(Answer::see("/").with_id(""))
        })
        .await
    }

    /// `POST /logout-everywhere`: all sessions of the user, with one command.
    pub(crate) async fn logout_everywhere(&self, visitor: Visitor) -> Answer {
        self.answered("/logout-everywhere", async {
            let (_, user) = self.logged_in(&visitor).await?;
            self.sessions.end_owned(&user, None).await?;
            Ok(Answer::see("/").with_id(""))
        })
        .await
    }

    async fn session_of(&self, visitor: &Visitor) -> Result<Option<Session>, SessionError> {
        match &visitor.id {
            Some(id) => self.sessions.load(id).await,
            None => Ok(None),
        }
    }

    async fn new_session(&self, visitor: &Visitor) -> Result<Session, SessionError> {
        let new = NewSession::new().item(BROWSER, &visitor.browser);
        self.sessions.create(new).await
    }

    /// The visitor's session, a new one if there is none, for this request alone: others that want to write it wait for their turn.
    async fn locked(&self, visitor: &Visitor) -> Result<LockedSession, SessionError> {
        let alone = Locking::exclusive().holder(&self.name).lease(LEASE).wait(WAIT);
        if let Some(id) = &visitor.id {
            match self.sessions.lock(id, alone.clone()).await {
                Err(SessionError::Gone) => {}
                locked => return locked,
            }
        }
        let session = self.new_session(visitor).await?;
        self.sessions.lock(session.id(), alone).await
    }

    async fn logged_in(&self, visitor: &Visitor) -> Result<(Session, String), Refusal> {
        let session = self.session_of(visitor).await?;
        let user = user(session.as_ref());
        let known = session.zip(user);
        known.ok_or(Refusal::Wrong(403, "nobody is logged in here"))
    }

    fn page(&self, session: Option<&Session>, body: &str) -> String {
        let theme = session.and_then(|session| session.get(THEME));
        pages::page(&self.name, theme.is_some_and(|theme| theme == "dark"), body)
    }

    /// What a visitor is told where something is not done.
    async fn answered(&self, path: &'static str, done: impl Future<Output = Outcome>) -> Answer {
        let refusal = match done.await {
            Ok(answer) => return answer,
            Err(refusal) => refusal,
        };
        let (status, why) = match refusal {
            Refusal::Wrong(status, why) => (status, why.to_owned()),
            // Sent before the answer to a login was there: the browser has the new id by now, and sends the same again.
            Refusal::Session(SessionError::Retired) => {
                tokio::time::sleep(AGAIN).await;
                return Answer {
                    status: 307,
                    ..Answer::see(path)
                };
            }
            Refusal::Session(SessionError::Gone) => (403, "the session has ended meanwhile".to_owned()),
            Refusal::Session(error) => {
                eprintln!("{}: {path}: {error}", self.name);
                (503, format!("not now: {error}"))
            }
        };
        Answer::page(status, self.page(None, &pages::refusal(&why)))
    }
}

/// Follows what happens to sessions, from the first event that is kept, and notes those that ended.
async fn remember_ended(sessions: Sessions, ended: Ended) {
    let mut after = Position::default();
    loop {
        let mut events = pin!(sessions.events(after));
        let lost = loop {
            match events.next().await {
                Some(Ok(event)) if matches!(event.what, What::Ended(..)) && !event.owner.is_empty() => {
                    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                    if ended.len() == ENDED_MAX {
                        ended.pop_front();
                    }
                    ended.push_back(event);
                }
                Some(Ok(_)) => {}
                Some(Err(SessionError::EventsLost { position })) => break position,
                // The node has stopped.
                Some(Err(_)) | None => return,
            }
        };
        after = lost;
    }
}

fn read(session: Option<&Session>) -> Result<Basket, plenary::Error> {
    let basket = session.map(|session| session.get_as(BASKET)).transpose()?;
    Ok(basket.flatten().unwrap_or_default())
}

fn user(session: Option<&Session>) -> Option<String> {
    Some(lossy(&session?.get(USER)?))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a visitor wrote, without the space around it.
fn text(written: &str, bounds: &'static str) -> Result<String, Refusal> {
    let written = written.trim();
    if (1..=TEXT_BYTES_MAX).contains(&written.len()) {
        Ok(written.to_owned())
    } else {
        Err(Refusal::Wrong(422, bounds))
    }
}
