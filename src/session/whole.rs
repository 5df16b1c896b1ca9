//! Sessions that are handed over whole: for frameworks that give all items at once, and leave it to the store whether that creates a session or
//! changes one.
//!
//! What this node has loaded is remembered by its hashes, so that a save changes what its request changed and nothing else: two requests that changed
//! different items both win, of the same item the last one, and a page that was only looked at undoes nothing. What has ended stays ended: who
//! saves a session that this node has loaded changes it or is told that it is gone.
//!
//! A request is known by its task: a save goes by what its task loaded or saved last. Frameworks load and save in one, be it the connection's or the
//! request's own. Where a task does so for several requests of one session at once, the last of them counts; where it has loaded nothing, or so long
//! ago that it is forgotten, the last load or save of the session on this node. It is never guessed by what the items look like: who gives a
//! session back what it had before means that.
//!
//! axum_session loads no session that another request of the instance holds: there a task may know less than the text that it saves was made of, and a change
//! back to just what it knew is not seen.

use super::{Merge, NewSession, Session, SessionError, SessionId, Sessions, word};
use crate::error::Result;
use crate::machine::entry::Millis;
use crate::machine::value::{self, Text};
use crate::node::Freshness;
use crate::remote::Sight;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::task;

/// How many items are remembered of what was loaded, each state counting as one more: 16 bytes for each item, 40 for each state and about 100 for each
/// session.
const LOADED_MAX: usize = 1 << 18;

/// How many states of one session are remembered: as many of its requests may be under way at once. Each task has one, connections that rest as well.
const STATES_MAX: usize = 64;

/// How many ids are known of sessions that were loaded, apart from what they held, at least: what a table of 2^19 places takes. Two of these, of 9 bytes
/// for each place, are 9.4 MB at most.
const KNOWN_MAX: usize = 7 << 16;

/// How often a save is tried because others saved the same session meanwhile; each time one of them is through.
const ATTEMPTS: usize = 256;

/// Sessions ended by one command.
const END_BATCH: usize = 512;

/// What is left of a life in whole seconds, for frameworks that count in these and give it back at a save: the nearest, so that it gets neither longer nor
/// shorter by being given back often. At least one: until it has ended, it is there.
pub fn whole_seconds(left: Duration) -> Duration {
    Duration::from_secs((left + Duration::from_millis(500)).as_secs().max(1))
}

/// Items by name.
pub type Items = BTreeMap<Bytes, Bytes>;

impl Sessions {
    /// Lets a session live so long without use (zero: without end) from now on.
    ///
    /// # Errors
    /// [`SessionError::Gone`] if it has ended.
    pub async fn live_on(&self, id: &SessionId, life: Duration) -> Result<(), SessionError> {
        let Some(mut session) = self.peek(id).await? else {
            return Err(SessionError::Gone);
        };
        session.live(life);
        if session.is_changed() {
            self.save_merged(&mut session, Merge::Last).await
        } else {
            self.used(&session).await
        }
    }

    /// Nothing else is to be saved: that its life could not be renewed is no reason to fail its request, as at a load.
    async fn used(&self, session: &Session) -> Result<(), SessionError> {
        match self.renew(session.id(), session.renewal).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SessionError::Gone),
            Err(error) => {
                tracing::debug!(%error, "a session was not renewed");
                Ok(())
            }
        }
    }

    /// How many sessions of the database are such. Not on a remote handle.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn count(&self, such: impl Fn(&value::Session) -> bool) -> Result<usize, SessionError> {
        Ok(self.keys_of(such).await?.len())
    }

    /// Ends the sessions of the database that are such now; how many there were. Not on a remote handle.
    ///
    /// # Errors
    /// [`SessionError::Failed`]; some may have been ended then.
    pub async fn end_all(&self, such: impl Fn(&value::Session) -> bool) -> Result<usize, SessionError> {
        let keys = self.keys_of(such).await?;
        for batch in keys.chunks(END_BATCH) {
            let argv = [word("SESSION.END")].into_iter().chain(batch.iter().cloned());
            self.write(argv.collect()).await?;
        }
        Ok(keys.len())
    }

    async fn keys_of(&self, such: impl Fn(&value::Session) -> bool) -> Result<Vec<Bytes>, SessionError> {
        let keys = self.cache.view(Sight::All, |view| {
            let sessions = view.keys().filter(|(_, slot)| {
                // A copy under an id that it had before is no session of its own.
                let session = slot.value.as_session().ok();
                session.is_some_and(|session| !session.is_retired() && such(session))
            });
            Ok(sessions.map(|(key, _)| Bytes::copy_from_slice(key)).collect())
        });
        Ok(keys.await?)
    }
}

impl Session {
    /// Changes what differs from these items and this life, and nothing else: of the items, what differs from `loaded` where that is known.
    fn become_like(&mut self, items: &Items, loaded: Option<(&State, &RandomState)>, life: Duration) {
        let was_there = |name: &Text<'_>| {
            loaded.is_none_or(|(state, hasher)| state.value_of(hasher.hash_one(name)).is_some())
        };
        let removed: Vec<_> = self
            .items()
            .map(|(name, _)| name)
            .filter(|name| !items.contains_key(&**name) && was_there(name))
            .map(Text::to_bytes)
            .collect();
        for name in removed {
            self.remove(name);
        }
        for (name, value) in items {
            let is_changed = loaded.is_none_or(|(state, hasher)| {
                state.value_of(hasher.hash_one(name)) != Some(hasher.hash_one(value))
            });
            if is_changed {
                self.set(name, value);
            }
        }
        self.live(life);
    }

    /// It lives so long from its last use. A deadline that it has in place of a life, as what comes from a Redis does, goes; one beside a life
    /// is the application's, and stays.
    fn live(&mut self, life: Duration) {
        if self.idle_timeout().is_zero() && !life.is_zero() && self.absolute_deadline != 0 {
            self.set_absolute_deadline(0);
        }
        if self.idle_timeout() != life {
            self.set_idle_timeout(life);
        }
    }
}

/// A store for a framework that says neither whether a session is new nor which one it loaded. Clones share what was loaded.
#[derive(Clone, Debug)]
pub struct Whole {
    sessions: Sessions,
    /// Held for a look or a note, never across an await.
    loaded: Arc<Mutex<Loaded>>,
    /// What names and values are remembered by.
    hasher: RandomState,
    /// Whether the framework gives the id of a session that has ended to another one.
    reuses_ids: bool,
}

impl Whole {
    /// A store of these sessions.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            loaded: Arc::default(),
            hasher: RandomState::new(),
            reuses_ids: false,
        }
    }

    /// The same for a framework that gives the id of a session that has ended to another one: a save is then only for the session that was loaded.
    pub fn reusing_ids(self) -> Self {
        Self {
            reuses_ids: true,
            ..self
        }
    }

    /// The same with loads this fresh.
    pub fn with_freshness(&self, freshness: Freshness) -> Self {
        Self {
            sessions: self.sessions.with_freshness(freshness),
            ..self.clone()
        }
    }

    /// The sessions behind it.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A session, and what was loaded is remembered. Its life is not renewed: when that is to be, the framework says.
    ///
    /// # Errors
    /// As [`Sessions::peek`].
    pub async fn load(&self, id: &SessionId) -> Result<Option<Session>, SessionError> {
        let found = self.sessions.peek(id).await?;
        let state = found
            .as_ref()
            .map(|session| State::of(session.created_at, session.items(), &self.hasher));
        let mut loaded = self.loaded.lock();
        match state {
            Some(state) => loaded.note(id, task::try_id(), state),
            // Its id begins another one.
            None if self.reuses_ids => loaded.forget(id),
            // A request that had it may still save, and is to be told.
            None => {}
        }
        drop(loaded);
        Ok(found)
    }

    /// Gives a session these items and this life without use (zero: without end). One that was not loaded here is created.
    ///
    /// # Errors
    /// [`SessionError::Gone`] if it was loaded here, and fewer than 458,752 others since, and has ended.
    pub async fn put(&self, id: &SessionId, items: &Items, life: Duration) -> Result<(), SessionError> {
        if self.loaded.lock().knows(id) {
            return self.change(id, items, life).await;
        }
        let new = NewSession {
            items: items.clone(),
            ..NewSession::new().idle_timeout(life)
        };
        if self.sessions.create_as(id, &new).await? {
            self.load(id).await.map(drop)
        } else {
            // Two requests that begin the same session, or one that was loaded very long ago.
            self.change(id, items, life).await
        }
    }

    /// The same for a session that must be there.
    ///
    /// # Errors
    /// [`SessionError::Gone`] if it has ended.
    pub async fn change(&self, id: &SessionId, items: &Items, life: Duration) -> Result<(), SessionError> {
        let state = self.loaded.lock().get(id, task::try_id()).cloned();
        let created_at = state.as_ref().map(|state| state.created_at);
        let created_at = created_at.filter(|_| self.reuses_ids);
        let mut sessions = self.sessions.clone();
        let mut stale = SessionError::Gone;
        for _ in 0..ATTEMPTS {
            let found = sessions.peek(id).await?;
            let found = found.filter(|session| created_at.is_none_or(|at| session.created_at == at));
            let Some(mut session) = found else {
                return Err(SessionError::Gone);
            };
            session.become_like(items, state.as_ref().map(|state| (state, &self.hasher)), life);
            let saved = if !session.is_changed() {
                sessions.used(&session).await
            } else if created_at.is_none() {
                sessions.save_merged(&mut session, Merge::Last).await
            } else {
                sessions.save(&mut session).await
            };
            match saved {
                Err(other @ SessionError::Stale { .. }) if created_at.is_some() => stale = other,
                Err(other) => return Err(other),
                Ok(()) => {
                    // What its request knows of it from now on.
                    let state = State::of(session.created_at, items, &self.hasher);
                    self.loaded.lock().note(id, task::try_id(), state);
                    return Ok(());
                }
            }
            // What this node has applied may be behind what it lost against.
            sessions = self.sessions.with_freshness(Freshness::Linearizable);
        }
        Err(stale)
    }

    /// Ends a session; one that has ended already is no error.
    ///
    /// # Errors
    /// [`SessionError::Failed`].
    pub async fn end(&self, id: &SessionId) -> Result<(), SessionError> {
        self.sessions.end(id).await.map(drop)
    }
}

/// What a request knows of a session.
#[derive(Clone, Debug)]
struct State {
    created_at: Millis,
    /// Hashes of names and values, in the order of the names'.
    items: Arc<[(u64, u64)]>,
}

impl State {
    fn of<T: Hash>(
        created_at: Millis,
        items: impl IntoIterator<Item = (T, T)>,
        hasher: &RandomState,
    ) -> Self {
        let items = items.into_iter();
        let mut items: Vec<_> = items
            .map(|(name, value)| (hasher.hash_one(name), hasher.hash_one(value)))
            .collect();
        items.sort_unstable();
        Self {
            created_at,
            items: items.into(),
        }
    }

    fn value_of(&self, name: u64) -> Option<u64> {
        let at = self.items.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        Some(self.items[at].1)
    }
}

/// What was loaded here lately; at least half of [`LOADED_MAX`].
#[derive(Debug, Default)]
struct Loaded {
    young: HashMap<SessionId, Vec<Noted>>,
    old: HashMap<SessionId, Vec<Noted>>,
    /// What is counted in `young`.
    weight: usize,
    /// Hashes of the ids of what was loaded: a request may be so slow that all else is forgotten, and must not begin anew what has ended meanwhile.
    known: HashSet<u64>,
    known_before: HashSet<u64>,
    ids: RandomState,
}

/// A state, and the task that knows it; none: whoever asked was no task.
#[derive(Debug)]
struct Noted {
    task: Option<task::Id>,
    state: State,
}

impl Loaded {
    /// What this task knows, or else what anybody here learned last.
    fn get(&self, id: &SessionId, task: Option<task::Id>) -> Option<&State> {
        let states = self.young.get(id).or_else(|| self.old.get(id))?;
        let own = states.iter().find(|noted| task.is_some() && noted.task == task);
        own.or(states.last()).map(|noted| &noted.state)
    }

    /// Whether it was loaded here, as long as that is known.
    fn knows(&self, id: &SessionId) -> bool {
        let hash = self.ids.hash_one(id);
        self.known.contains(&hash) || self.known_before.contains(&hash)
    }

    fn know(&mut self, id: &SessionId) {
        if self.known.len() == KNOWN_MAX {
            self.known_before = std::mem::take(&mut self.known);
        }
        self.known.insert(self.ids.hash_one(id));
    }

    fn note(&mut self, id: &SessionId, task: Option<task::Id>, mut state: State) {
        self.know(id);
        let mut states = self
            .young
            .remove(id)
            .inspect(|states| self.weight -= weight(states))
            .or_else(|| self.old.remove(id))
            .unwrap_or_default();
        states.retain(|noted| noted.task != task);
        // Most requests change nothing: the next one has the same.
        if let Some(last) = states.last().filter(|last| last.state.items == state.items) {
            state.items = last.state.items.clone();
        }
        states.push(Noted { task, state });
        while states.len() > STATES_MAX || states.len() > 1 && weight(&states) > LOADED_MAX / 8 {
            states.remove(0);
        }
        if self.weight + weight(&states) > LOADED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight(&states);
        self.young.insert(id.clone(), states);
    }

    fn forget(&mut self, id: &SessionId) {
        let forgotten = self.young.remove(id);
        self.weight -= forgotten.map_or(0, |states| weight(&states));
        self.old.remove(id);
        let hash = self.ids.hash_one(id);
        self.known.remove(&hash);
        self.known_before.remove(&hash);
    }
}

/// Items that two states share are counted once.
fn weight(states: &[Noted]) -> usize {
    let all: usize = states.iter().map(|noted| 1 + noted.state.items.len()).sum();
    let both = states.windows(2).filter_map(|pair| {
        let [one, other] = [&pair[0], &pair[1]].map(|noted| &noted.state.items);
        Arc::ptr_eq(one, other).then_some(one.len())
    });
    all - both.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::config::Config;
    use crate::node::Node;

    fn id(number: usize) -> SessionId {
        number.to_string().parse().unwrap()
    }

    fn state(created_at: Millis, items: usize) -> State {
        let items = (0..items as u64).map(|number| (number, created_at));
        State {
            created_at,
            items: items.collect(),
        }
    }

    fn tasks(count: usize) -> Vec<Option<task::Id>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        (0..count).map(|_| Some(runtime.spawn(async {}).id())).collect()
    }

    #[test]
    fn what_was_loaded_lately_is_remembered_and_no_more_than_the_bound() {
        let mut loaded = Loaded::default();
        let all = |loaded: &Loaded| {
            let maps = [&loaded.young, &loaded.old];
            let weights = maps.map(|map| map.values().map(|states| weight(states)).sum::<usize>());
            assert_eq!(weights[0], loaded.weight);
            weights[0] + weights[1]
        };
        let last = LOADED_MAX / 2;
        for number in 0..=last {
            loaded.note(&id(number), None, state(number as Millis, 3));
        }
        assert!(all(&loaded) <= LOADED_MAX);
        for number in last - LOADED_MAX / 8 + 1..=last {
            assert!(loaded.get(&id(number), None).is_some(), "{number}");
        }
        assert!(loaded.get(&id(0), None).is_none());
        loaded.forget(&id(last));
        assert!(loaded.get(&id(last), None).is_none() && !loaded.knows(&id(last)));
        for (number, task) in tasks(2 * STATES_MAX).into_iter().enumerate() {
            loaded.note(&id(0), task, state(number as Millis, 3));
        }
        assert_eq!(loaded.young[&id(0)].len(), STATES_MAX);
        assert!(all(&loaded) <= LOADED_MAX);
        for (number, task) in tasks(STATES_MAX).into_iter().enumerate() {
            loaded.note(&id(1), task, state(number as Millis, LOADED_MAX / 16));
        }
        assert_eq!(
            loaded.young[&id(1)].len(),
            1,
            "each is large, and none is like another"
        );
        assert!(all(&loaded) <= LOADED_MAX);
    }

    #[test]
    fn that_an_id_was_loaded_is_known_for_long_and_of_no_more_than_the_bound() {
        let mut loaded = Loaded::default();
        for number in 0..=2 * KNOWN_MAX {
            loaded.know(&id(number));
        }
        assert!(loaded.known.len() + loaded.known_before.len() <= 2 * KNOWN_MAX);
        assert!(loaded.known.capacity().max(loaded.known_before.capacity()) <= KNOWN_MAX);
        assert!(loaded.knows(&id(KNOWN_MAX)) && !loaded.knows(&id(0)));
    }

    /// Its request was so slow that this node has forgotten what it loaded.
    #[tokio::test]
    async fn a_session_that_has_ended_is_not_begun_anew_however_late_its_request_is() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(Config::new(folder.path())).await.unwrap();
        node.ready(Duration::from_secs(30)).await.unwrap();
        let sessions = Sessions::new(Cache::new(node.clone()));
        let (store, late) = (Whole::new(sessions), id(0));
        let items = Items::from([("user".into(), "ada".into())]);
        let put = async || store.put(&late, &items, Duration::from_secs(60)).await;
        let others = || {
            let mut loaded = store.loaded.lock();
            (1..=32).for_each(|number| loaded.note(&id(number), None, state(1, LOADED_MAX / 16)));
            assert!(loaded.get(&late, None).is_none());
        };
        put().await.unwrap();
        assert!(store.load(&late).await.unwrap().is_some());
        others();
        put().await.unwrap();
        others();
        store.end(&late).await.unwrap();
        assert!(matches!(put().await, Err(SessionError::Gone)));
        assert!(store.load(&late).await.unwrap().is_none());
        node.stop().await.unwrap();
    }

    #[test]
    fn each_task_has_what_it_learned_last_and_others_what_anybody_did() {
        let (mut loaded, tasks) = (Loaded::default(), tasks(3));
        for (task, at) in [
            (tasks[0], 1),
            (tasks[1], 2),
            (tasks[0], 3),
            (None, 4),
            (tasks[1], 1),
        ] {
            loaded.note(&id(0), task, state(at, 3));
        }
        let known = |task| loaded.get(&id(0), task).map(|state| state.created_at);
        assert_eq!(known(tasks[0]), Some(3));
        assert_eq!(known(tasks[1]), Some(1));
        for other in [tasks[2], None] {
            assert_eq!(known(other), Some(1), "never an older one that is more like it");
        }
    }

    #[test]
    fn what_many_requests_have_loaded_alike_is_kept_once() {
        let mut loaded = Loaded::default();
        for task in tasks(STATES_MAX) {
            loaded.note(&id(0), task, state(1, 100));
        }
        assert_eq!(loaded.weight, STATES_MAX + 100);
    }
}
