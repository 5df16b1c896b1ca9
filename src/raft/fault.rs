//! What stops a node by itself: the first fault, told to whoever runs the node. Not for errors of one request.

use std::sync::Arc;
use tokio::sync::watch;

/// Where a fault is raised and seen. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Arc<watch::Sender<Option<String>>>);

impl Default for Fault {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Fault {
    /// Says why this node cannot go on. The first reason stays; later ones follow from it and are only logged.
    pub(crate) fn raise(&self, why: impl Into<String>) {
        let why = why.into();
        tracing::error!(why, "this node cannot go on");
        self.0.send_if_modified(|first| {
            let unset = first.is_none();
            if unset {
                *first = Some(why);
            }
            unset
        });
    }

    /// The first fault, once there is one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    /// The first fault, if there is one.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}
