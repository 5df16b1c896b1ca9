//! Where `POST /slow` waits: `GET /waiting` tells how many do, `POST /go` lets one on.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static GO: Semaphore = Semaphore::const_new(0);

pub async fn wait() {
    WAITING.fetch_add(1, Ordering::SeqCst);
    GO.acquire().await.expect("nobody closes it").forget();
    WAITING.fetch_sub(1, Ordering::SeqCst);
}

pub fn waiting() -> String {
    WAITING.load(Ordering::SeqCst).to_string()
}

pub fn go() {
    GO.add_permits(1);
}
